//! Reads from `registries.conf` how registries are reached (containers-registries.conf(5)).
//! Stage: registry (pure). Input: the files' texts. Output: [`RegistriesConf`].
//!
//! Uses locations, mirrors and aliases for reading only, as containers/image does; `insecure` and
//! `blocked` count for pushing as well.

mod file;
mod table;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use thiserror::Error;

pub use self::file::DROP_INS;
use self::file::File;
use self::table::{Mirror, Prefix, PullFromMirror, RegistryTable};
use crate::error::Hint;
use crate::outgoing::Reference;

/// The settings of all files.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    registries: Vec<RegistryTable>,
    /// The full names that names without a registry stand for.
    aliases: BTreeMap<String, String>,
}

/// A place that has an image, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The image's name there.
    pub reference: Reference,
    /// True if any certificate, and plain HTTP, is accepted.
    pub insecure: bool,
}

/// Says why settings can't be used, or that they forbid a name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RegistriesError {
    /// A file can't be read as settings.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The registry is blocked.
    #[error("{name}: `{prefix}` is blocked by {}", file.display())]
    Blocked {
        /// The image.
        name: String,
        /// The prefix that is blocked.
        prefix: String,
        /// The file that blocks it.
        file: PathBuf,
    },
    /// The name that the settings make of an image's name is not valid.
    #[error("{}: `{name}`, which stands for `{reference}`, is not an image name", file.display())]
    Location {
        /// The file with the setting.
        file: PathBuf,
        /// The image.
        reference: String,
        /// The resulting name.
        name: String,
    },
}

impl Hint for RegistriesError {
    fn hint(&self) -> Option<String> {
        Some("containers-registries.conf(5) has the settings; CONTAINERS_REGISTRIES_CONF names another file".to_owned())
    }
}

impl RegistriesConf {
    /// Parses files in the order given. A later file replaces a prefix or an alias of an earlier
    /// one.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::File`] if a file is not valid.
    pub fn parse<'f>(
        files: impl IntoIterator<Item = (&'f Path, &'f str)>,
    ) -> Result<Self, RegistriesError> {
        let mut conf = Self::default();
        for (file, text) in files {
            let wrong = |reason: String| RegistriesError::File { file: file.to_owned(), reason };
            let mut parsed: File = toml::from_str(text).map_err(|error| {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                wrong(format!("line {line}: {}", error.message()))
            })?;
            let registries = parsed.registries(file).map_err(wrong)?;
            // Of two equal prefixes of one file the first counts.
            conf.registries.retain(|old| registries.iter().all(|new| new.prefix != old.prefix));
            for registry in registries {
                if conf.registries.iter().all(|other| other.prefix != registry.prefix) {
                    conf.registries.push(registry);
                }
            }
            conf.aliases.extend(parsed.aliases);
        }
        Ok(conf)
    }

    /// Returns the name that a name stands for: replaces a name without a registry by its alias.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Location`] if the alias is not a valid name.
    pub fn named(&self, reference: &Reference) -> Result<Reference, RegistriesError> {
        let alias = reference.short_name().and_then(|name| Some((name, self.aliases.get(name)?)));
        let Some((short, whole)) = alias.filter(|(_, whole)| !whole.is_empty()) else {
            return Ok(reference.clone());
        };
        let name = reference.to_string().replacen(short, whole, 1);
        name.parse().map_err(|_| RegistriesError::Location {
            file: "[aliases]".into(),
            reference: reference.to_string(),
            name,
        })
    }

    /// Returns the place that an image is pushed to.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Blocked`] if the registry is blocked.
    pub fn target(&self, reference: &Reference) -> Result<Location, RegistriesError> {
        let insecure = self.registry(reference)?.is_some_and(|registry| registry.insecure);
        Ok(Location { reference: reference.clone(), insecure })
    }

    /// Returns the places that an image may be read from, in the order in which to try them: the
    /// mirrors, and at last the registry itself.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Blocked`] if the registry is blocked, and with
    /// [`RegistriesError::Location`] if a resulting name is not valid.
    pub fn sources(&self, reference: &Reference) -> Result<Vec<Location>, RegistriesError> {
        let Some(registry) = self.registry(reference)? else {
            return Ok(vec![Location { reference: reference.clone(), insecure: false }]);
        };
        let by_digest = reference.digest().is_some();
        let is_for = |mirror: &&Mirror| match mirror.pull_from_mirror {
            Some(PullFromMirror::All) => true,
            Some(PullFromMirror::DigestOnly) => by_digest,
            Some(PullFromMirror::TagOnly) => !by_digest,
            None => by_digest || !registry.mirror_by_digest_only,
        };
        let mirrors = registry.mirrors.iter().filter(is_for);
        let mirrors = mirrors.map(|mirror| (&mirror.location, mirror.insecure));
        let all = mirrors.chain([(&registry.location, registry.insecure)]);
        all.map(|(location, insecure)| {
            Ok(Location { reference: registry.moved(reference, location)?, insecure })
        })
        .collect()
    }

    /// Returns the settings for the longest matching prefix of a name.
    fn registry(&self, reference: &Reference) -> Result<Option<&RegistryTable>, RegistriesError> {
        let matching = self.registries.iter().filter(|registry| registry.covers(reference));
        // A name is more specific than a pattern of the same length.
        let found = matching.max_by_key(|registry| match &registry.prefix {
            Prefix::Domain(domain) => (domain.len() + 1, false),
            Prefix::Name(name) => (name.len(), true),
        });
        match found {
            Some(RegistryTable { blocked: true, prefix, file, .. }) => {
                Err(RegistriesError::Blocked {
                    name: reference.name(),
                    prefix: prefix.to_string(),
                    file: file.clone(),
                })
            }
            found => Ok(found),
        }
    }
}

#[cfg(test)]
mod tests;
