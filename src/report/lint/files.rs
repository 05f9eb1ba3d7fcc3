//! Checks every file of a layer, in the form that programs which unpack the layer read.
//! Stage: report. Input: [`SpecLayer`]. Output: [`Finding`]s.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read;

use super::program::{HEAD, misfit};
use super::{Check, Finding, LARGEST_ID, Level};
use crate::layer::Error;
use crate::oci::Architecture;
use crate::oci::SpecLayer;
use crate::oci::read_tar;
use crate::oci::unpack::{Budget, MemberProblem, TarError, TarReader};
use crate::store::Store;

const SET_ID: u32 = 0o6000;

/// Reads a layer and checks its files.
///
/// # Errors
/// Fails if the layer can't be made or read.
pub fn lint(
    store: &Store,
    layer: &SpecLayer,
    number: usize,
    architecture: &Architecture,
) -> Result<Vec<Finding>, Error> {
    let mut notes = Notes { number, found: BTreeMap::new() };
    if let Err(error) = read_tar(store, layer, |tar| read(tar, layer, architecture, &mut notes))? {
        let (path, message) = match error {
            TarError::Member { name, problem } => (format!("/{name}"), problem.to_string()),
            TarError::Body { name, error } => (format!("/{name}"), error.to_string()),
            error => ("/".to_owned(), format!("is in a layer that can't be read on: {error}")),
        };
        notes.add(Check::Name, &path, message);
    }
    Ok(notes.found.into_values().collect())
}

/// The findings so far: one for each check and message, with the first file that shows it.
struct Notes {
    number: usize,
    found: BTreeMap<(Check, String), Finding>,
}

impl Notes {
    fn add(&mut self, check: Check, path: &str, message: String) {
        let layer = Some(self.number);
        self.found
            .entry((check, message.clone()))
            .and_modify(|finding| finding.more += 1)
            .or_insert_with(|| Finding {
                check,
                level: Level::Warning,
                layer,
                path: Some(path.to_owned()),
                message,
                more: 0,
            });
    }
}

fn read(
    tar: impl Read,
    layer: &SpecLayer,
    architecture: &Architecture,
    notes: &mut Notes,
) -> Result<(), TarError> {
    // Only the layers of others can have a name twice. The names take much memory, so they are
    // not remembered for layers that are made here, `loadable` or not.
    let mut names = layer.contents().is_none().then(BTreeSet::new);
    let mut head = Vec::with_capacity(HEAD);
    let budget = Budget::default();
    let mut archive = TarReader::new(tar);
    while let Some(mut entry) = archive.next_member()? {
        let name = entry.path().to_vec();
        let path = format!("/{}", name.escape_ascii().to_string().trim_start_matches('/'));
        let header = entry.header().clone();
        if name.starts_with(b"/") || name.split(|byte| *byte == b'/').any(|part| part == b"..") {
            notes.add(Check::Name, &path, "has a name that leads out of the image".to_owned());
        }
        if let Err(TarError::Member { problem, .. }) = entry.check()
            && problem != MemberProblem::LeadsOut
        {
            notes.add(Check::Name, &path, problem.to_string());
            continue;
        }
        if names.is_some() {
            budget.take(64 + name.len() as u64)?;
        }
        if names.as_mut().is_some_and(|names| !names.insert(name)) {
            notes.add(Check::Name, &path, "is in this layer twice".to_owned());
        }
        let kind = header.entry_type();
        if kind.is_file() && header.mode()? & SET_ID != 0 {
            let message = "runs as its owner or group, whoever starts it (set-ID)".to_owned();
            notes.add(Check::SetId, &path, message);
        }
        if header.uid()?.max(header.gid()?) > LARGEST_ID {
            let message =
                format!("has an owner over {LARGEST_ID}, which engines without root have not");
            notes.add(Check::Owner, &path, message);
        }
        if kind.is_file() && (header.mode()? & 0o111 != 0 || path.contains(".so")) {
            head.clear();
            entry.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
            if let Some(message) = misfit(&head, &architecture.as_oci()) {
                notes.add(Check::Machine, &path, message);
            }
        }
    }
    Ok(())
}
