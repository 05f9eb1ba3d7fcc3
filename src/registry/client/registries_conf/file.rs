//! Parses a file of `registries.conf`.
//! Stage: registry (pure). Input: the file's text. Output: [`RegistryTable`] tables and aliases.

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::path::Path;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::table::{Mirror, Prefix, RegistryTable};

/// The name of the directory of further files.
pub const DROP_INS: &str = "registries.conf.d";

/// The contents of a file: those of version 2, or those of version 1.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct File {
    registry: Vec<Table>,
    /// The full names that names without a registry stand for.
    pub aliases: BTreeMap<String, String>,
    unqualified_search_registries: Vec<IgnoredAny>,
    short_name_mode: Option<IgnoredAny>,
    credential_helpers: Vec<IgnoredAny>,
    registries: Version1,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    search: Hosts,
    insecure: Hosts,
    block: Hosts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Hosts {
    registries: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
    /// The key has no meaning here: it belongs to a mirror.
    pull_from_mirror: Option<IgnoredAny>,
}

impl File {
    /// Takes the registries out of the file's contents.
    ///
    /// # Errors
    /// Fails with a reason for people if the settings contradict each other.
    pub fn registries(&mut self, file: &Path) -> Result<Vec<RegistryTable>, String> {
        let Version1 { search, insecure, block } = mem::take(&mut self.registries);
        let lists = [&search, &insecure, &block];
        if lists.into_iter().all(|hosts| hosts.registries.is_empty()) {
            let tables = mem::take(&mut self.registry);
            let new = tables.into_iter().map(|table| RegistryTable::new(file, table));
            let registries = new.collect::<Result<Vec<_>, _>>()?;
            return no_conflict(&registries).map(|()| registries);
        }
        if self.is_version_2() {
            return Err(
                "it mixes `[registries.…]` of version 1 with settings of version 2".to_owned()
            );
        }
        if file.parent().is_some_and(|directory| directory.ends_with(DROP_INS)) {
            return Err(format!("files in `{DROP_INS}` must be of version 2: use `[[registry]]`"));
        }
        let hosts: BTreeSet<_> = insecure.registries.iter().chain(&block.registries).collect();
        let tables = hosts.into_iter().map(|host| Table {
            location: host.clone(),
            insecure: insecure.registries.contains(host),
            blocked: block.registries.contains(host),
            ..Table::default()
        });
        tables.map(|table| RegistryTable::new(file, table)).collect()
    }

    fn is_version_2(&self) -> bool {
        !self.registry.is_empty()
            || !self.aliases.is_empty()
            || !self.unqualified_search_registries.is_empty()
            || !self.credential_helpers.is_empty()
            || self.short_name_mode.is_some()
    }
}

/// Fails if a file has two tables for the same images or the same place, and one of them forbids
/// what the other allows.
fn no_conflict(registries: &[RegistryTable]) -> Result<(), String> {
    let mut first: BTreeMap<String, &RegistryTable> = BTreeMap::new();
    for registry in registries {
        for key in BTreeSet::from([registry.prefix.to_string(), registry.place()]) {
            let other = *first.entry(key.clone()).or_insert(registry);
            let setting = match () {
                () if other.blocked != registry.blocked => "blocked",
                () if other.insecure != registry.insecure => "insecure",
                () => continue,
            };
            return Err(format!("two `[[registry]]` tables for `{key}` differ in `{setting}`"));
        }
    }
    Ok(())
}

impl RegistryTable {
    fn new(file: &Path, table: Table) -> Result<Self, String> {
        let Table { prefix, location, insecure, blocked, mirror_by_digest_only, .. } = table;
        let checked = |text: String| {
            if text.contains("://") {
                return Err(format!("`{text}` must have no scheme"));
            }
            Ok(text.trim_end_matches('/').to_owned())
        };
        let (prefix, location) = (checked(prefix)?, checked(location)?);
        let prefix = if prefix.is_empty() { location.clone() } else { prefix };
        if prefix.is_empty() {
            return Err("a `[[registry]]` has neither `prefix` nor `location`".to_owned());
        }
        if table.pull_from_mirror.is_some() {
            return Err(format!(
                "`pull-from-mirror` of `{prefix}` must be in one of its `[[registry.mirror]]`"
            ));
        }
        let mirrors = table.mirror.into_iter().map(|mirror| {
            let location = checked(mirror.location)?;
            if location.is_empty() {
                return Err(format!("a `[[registry.mirror]]` of `{prefix}` has no `location`"));
            }
            if mirror_by_digest_only && mirror.pull_from_mirror.is_some() {
                return Err(format!(
                    "`{prefix}` has `mirror-by-digest-only`, so that its mirror `{location}` can't \
                     have `pull-from-mirror`"
                ));
            }
            Ok(Mirror { location, ..mirror })
        });
        let mirrors = mirrors.collect::<Result<_, String>>()?;
        let (file, prefix) = (file.to_owned(), Prefix::parse(prefix)?);
        Ok(Self { file, prefix, location, insecure, blocked, mirror_by_digest_only, mirrors })
    }
}
