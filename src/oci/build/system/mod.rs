//! The files that an image's author declares: accounts, directories, files and links.
//! Stage: oci. Input: [`SystemOptions`]. Output: [`SystemFiles`], whose files are copied to `/`.
//!
//! These files are made before the image, as a store path of their own, since they depend on the accounts and
//! directories of the base image. The image takes modes and owners from [`RECORD`] beside them.

mod accounts;
mod beneath;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::json;

pub use accounts::AccountError;
use accounts::{Accounts, Field, Ids, Merged};
use beneath::Beneath;

use super::options::{BuildOptions, SystemPath};
use super::warning::{Built, Warning};
use crate::error::Hint;
use crate::layer::{DirectoryLinks, MergedFiles, PermissionRule};
use crate::oci::Error;
use crate::oci::architecture::Architecture;
use crate::oci::json_file;
use crate::store::{self, Store, StorePath};

/// The file with modes and owners. What is in `nix-support` is not copied to an image.
pub const RECORD: &str = "nix-support/system-files.json";

/// Mode of a directory that is not there already, and says nothing else.
const DIRECTORY_MODE: u32 = 0o755;
/// Mode of a user's home.
const HOME_MODE: u32 = 0o700;
/// Homes by which a user has none.
const NO_HOMES: [&str; 6] =
    ["", "/", "/var/empty", "/nonexistent", "/dev/null", "/homeless-shelter"];

/// Directories that all accounts share, though accounts of the system name some of them as their homes
/// (`bin:x:2:2:bin:/bin`).
const SHARED: [&str; 27] = [
    "bin",
    "boot",
    "dev",
    "etc",
    "home",
    "lib",
    "lib64",
    "media",
    "mnt",
    "nix",
    "nix/store",
    "opt",
    "proc",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "usr/bin",
    "usr/games",
    "usr/lib",
    "usr/sbin",
    "usr/share",
    "var",
    "var/lib",
    "var/run",
    "var/tmp",
];

/// The declarations, and the parts of the image that they have to agree with.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SystemOptions {
    #[serde(default)]
    accounts: Accounts,
    /// Directories by their absolute path.
    #[serde(default)]
    directories: BTreeMap<String, Permissions>,
    /// Files by their absolute path.
    #[serde(default)]
    files: BTreeMap<String, File>,
    /// Targets of links by their absolute path.
    #[serde(default)]
    links: BTreeMap<String, String>,
    /// The user who runs the container, by name or number, perhaps with a group.
    #[serde(default)]
    user: Option<String>,
    #[serde(default)]
    from_image: Option<PathBuf>,
    #[serde(default)]
    architecture: Architecture,
    #[serde(with = "store::full_paths", default)]
    copy_to_root: Vec<StorePath>,
    #[serde(default)]
    directory_links: DirectoryLinks,
    #[serde(with = "store::full_paths", default)]
    layers: Vec<StorePath>,
    #[serde(default)]
    perms: Vec<PermissionRule>,
}

/// The mode and the owner of a declared directory or file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Permissions {
    mode: Option<Octal>,
    user: Option<Field>,
    group: Option<Field>,
}

/// A declared file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct File {
    text: Option<String>,
    source: Option<PathBuf>,
    mode: Option<Octal>,
    user: Option<Field>,
    group: Option<Field>,
}

/// A mode in octal digits.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(transparent)]
struct Octal(String);

impl Octal {
    fn of(mode: u32) -> Self {
        Self(format!("{mode:04o}"))
    }
}

/// The files that are written to the store for an image.
#[derive(Debug, Default)]
pub struct SystemFiles {
    /// By name in the image, without a slash at the beginning.
    pub entries: BTreeMap<String, SystemEntry>,
    /// Modes, owners, and the container's user.
    pub record: SystemRecord,
}

/// An entry of [`SystemFiles`].
#[derive(Debug, PartialEq, Eq)]
pub enum SystemEntry {
    /// A directory.
    Directory,
    /// A file with these bytes.
    Bytes(Vec<u8>),
    /// A file with the bytes of another one.
    Copy(PathBuf),
    /// A symbolic link.
    Link(String),
}

/// Describes the files of [`SystemFiles`] to the image.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct SystemRecord {
    /// Modes and owners by name in the image.
    entries: BTreeMap<String, Owned>,
    /// The files that have those of the image's other parts in them.
    merged: BTreeSet<String>,
    /// The container's user, in numbers.
    user: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Owned {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mode: Option<Octal>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    gid: Option<u32>,
}

/// Says why declared files can't be made.
#[derive(Debug, thiserror::Error)]
pub enum SystemError {
    /// The accounts don't go together.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The accounts that are there can't be read.
    #[error("/etc/{file} of {of} can't be merged with `accounts`: {reason}")]
    Unreadable {
        /// The name of the file in `/etc`.
        file: &'static str,
        /// The part of the image that has the file.
        of: String,
        /// The reason.
        reason: String,
    },
    /// A declared path has another kind in the image, or leads into the store.
    #[error("`{option}`: {reason}")]
    Place {
        /// The option.
        option: String,
        /// The reason.
        reason: String,
    },
}

impl Hint for SystemError {
    fn hint(&self) -> Option<String> {
        match self {
            Self::Account(error) => error.hint(),
            Self::Unreadable { .. } | Self::Place { .. } => None,
        }
    }
}

impl SystemOptions {
    /// Returns whether an option has or names an account, so that those of the other parts must be known.
    fn needs_accounts(&self) -> bool {
        let Self { accounts, directories, files, user, .. } = self;
        !accounts.users.is_empty()
            || !accounts.groups.is_empty()
            || user.is_some()
            || directories.values().any(|it| it.user.is_some() || it.group.is_some())
            || files.values().any(|it| it.user.is_some() || it.group.is_some())
    }
}

/// Makes the declared files, for an image with the other parts of the options.
///
/// # Errors
/// Fails if the base image or a `buildLayer` can't be read, and with [`SystemError`].
pub fn system_files(store: &Store, options: &SystemOptions) -> Result<Built<SystemFiles>, Error> {
    let beneath = Beneath::read(store, options)?;
    let accounts = &options.accounts;
    let sources = if options.needs_accounts() { beneath.sources()? } else { Vec::new() };
    let mut merged = Merged::of(&sources).map_err(SystemError::from)?;
    let mut make = Make { beneath: &beneath, made: SystemFiles::default(), warnings: Vec::new() };
    let has_accounts = !accounts.users.is_empty() || !accounts.groups.is_empty();
    if has_accounts {
        merged.declare(accounts).map_err(SystemError::from)?;
        make.accounts(&merged)?;
    }
    for (path, File { text, source, mode, user, group }) in &options.files {
        let option = format!("files.\"{path}\"");
        let entry = match (text, source) {
            (Some(text), None) => SystemEntry::Bytes(text.clone().into_bytes()),
            (None, Some(source)) if store.locate(source).is_file() => {
                SystemEntry::Copy(source.clone())
            }
            (None, Some(source)) => {
                let reason = format!("`source` is no file: {}", source.display());
                return Err(SystemError::Place { option, reason }.into());
            }
            _ => {
                let reason = "there must be a `text` or a `source`".to_owned();
                return Err(SystemError::Place { option, reason }.into());
            }
        };
        let permissions =
            Permissions { mode: mode.clone(), user: user.clone(), group: group.clone() };
        let owned = owned(&permissions, &merged, &option)?;
        make.add(path, &option, entry, owned)?;
    }
    for (path, target) in &options.links {
        let option = format!("links.\"{path}\"");
        make.add(path, &option, SystemEntry::Link(target.clone()), Owned::default())?;
    }
    for (path, permissions) in &options.directories {
        let option = format!("directories.\"{path}\"");
        let owned = owned(permissions, &merged, &option)?;
        make.add(path, &option, SystemEntry::Directory, owned)?;
    }
    if has_accounts {
        for (home, ids) in merged.homes(accounts) {
            make.home(&home, ids, options.directories.contains_key(&home))?;
        }
    }
    let user = options.user.as_deref().map(|user| merged.config_user(user));
    make.made.record.user = user.transpose().map_err(SystemError::from)?;
    let Make { made, warnings, .. } = make;
    Ok(Built { made, warnings })
}

fn owned(permissions: &Permissions, merged: &Merged, option: &str) -> Result<Owned, SystemError> {
    let Permissions { mode, user, group } = permissions;
    let of_user =
        user.as_ref().map(|user| merged.user_ids(user.as_str(), &format!("{option}.user")));
    let of_user = of_user.transpose()?;
    let gid = group.as_ref().map(|group| merged.gid(group.as_str(), &format!("{option}.group")));
    let gid = gid.transpose()?.or(of_user.and_then(|ids| ids.gid));
    Ok(Owned { mode: mode.clone(), uid: of_user.map(|ids| ids.uid), gid })
}

struct Make<'b> {
    beneath: &'b Beneath<'b>,
    made: SystemFiles,
    warnings: Vec<Warning>,
}

impl Make<'_> {
    fn accounts(&mut self, merged: &Merged) -> Result<(), Error> {
        for (file, bytes) in merged.files() {
            let path = format!("/etc/{file}");
            let usual = if file.ends_with("shadow") { 0o640 } else { 0o644 };
            let there = self.beneath.attributes_of(file);
            let owned = match there {
                Some(there) => Owned {
                    mode: Some(Octal::of(there.mode)),
                    uid: u32::try_from(there.uid).ok(),
                    gid: u32::try_from(there.gid).ok(),
                },
                None => Owned { mode: Some(Octal::of(usual)), uid: Some(0), gid: Some(0) },
            };
            let name = self.add(&path, "accounts", SystemEntry::Bytes(bytes), owned)?;
            self.made.record.merged.insert(name);
        }
        Ok(())
    }

    /// Makes a user's home. One that a part below the image has stays as it is, and so does a directory of the
    /// system.
    fn home(&mut self, home: &str, ids: Ids, is_declared: bool) -> Result<(), Error> {
        if is_declared || NO_HOMES.contains(&home) || !home.starts_with('/') {
            return Ok(());
        }
        let option = format!("accounts: home {home}");
        let place = self.beneath.place(home, &option)?;
        if SHARED.contains(&&*place) {
            return Ok(());
        }
        if let Some(there) = self.beneath.directory_below(&place) {
            if there.uid != u64::from(ids.uid) {
                let (home, uid) = (home.to_owned(), ids.uid);
                self.warnings.push(Warning::HomeOfOther { home, uid, owner: there.uid });
            }
            return Ok(());
        }
        if self.made.entries.contains_key(&place) {
            return Ok(());
        }
        let owned = Owned { mode: Some(Octal::of(HOME_MODE)), uid: Some(ids.uid), gid: ids.gid };
        self.add(home, &option, SystemEntry::Directory, owned)?;
        Ok(())
    }

    /// Adds an entry, and the directories on the way to it. Returns its name in the image.
    fn add(
        &mut self,
        path: &str,
        option: &str,
        entry: SystemEntry,
        mut owned: Owned,
    ) -> Result<String, Error> {
        let is_directory = entry == SystemEntry::Directory;
        let place = match is_directory {
            true => self.beneath.place(path, option)?,
            false => {
                let (parent, last) = path.rsplit_once('/').unwrap_or(("", path));
                let parent = self.beneath.place(parent, option)?;
                if parent.is_empty() { last.to_owned() } else { format!("{parent}/{last}") }
            }
        };
        let wrong = |reason: String| SystemError::Place { option: option.to_owned(), reason };
        if !is_directory && self.beneath.has_directory(&place) {
            return Err(wrong(format!("the image has a directory there, /{place}")).into());
        }
        if is_directory && !self.beneath.has_directory(&place) {
            owned.mode = owned.mode.or(Some(Octal::of(DIRECTORY_MODE)));
        }
        let mut end = 0;
        while let Some(slash) = place[end..].find('/') {
            let parent = &place[..end + slash];
            end += slash + 1;
            match self.made.entries.get(parent) {
                Some(SystemEntry::Directory) => continue,
                Some(_) => return Err(wrong(format!("/{parent} is no directory")).into()),
                None => {}
            }
            self.made.entries.insert(parent.to_owned(), SystemEntry::Directory);
            if !self.beneath.has_directory(parent) {
                let mode = Some(Octal::of(DIRECTORY_MODE));
                let new = Owned { mode, ..Owned::default() };
                self.made.record.entries.insert(parent.to_owned(), new);
            }
        }
        if let Some(there) = self.made.entries.get(&place)
            && !(is_directory && *there == SystemEntry::Directory)
        {
            return Err(wrong(format!("there is another declaration for /{place}")).into());
        }
        if is_directory
            && let Some(before) = self.made.record.entries.get(&place)
            && owned.mode.is_none()
        {
            owned.mode.clone_from(&before.mode);
        }
        self.made.entries.insert(place.clone(), entry);
        if owned != Owned::default() {
            self.made.record.entries.insert(place.clone(), owned);
        }
        Ok(place)
    }
}

impl SystemRecord {
    /// Gives the options of an image what was declared for it.
    ///
    /// # Errors
    /// Fails if the record can't be read.
    pub fn apply(store: &Store, options: &mut BuildOptions) -> Result<(), Error> {
        let Some(SystemPath(path)) = options.system_files.clone() else { return Ok(()) };
        let file = store.physical(&path).join(RECORD);
        let Self { entries, merged, user } = json_file::read(&file, "a record of declared files")?;
        let failed = |source| Error::Json { file: file.clone(), what: "rules", source };
        for (name, Owned { mode, uid, gid }) in entries {
            let path = store.print(&path);
            let regex = format!("^{}$", regex::escape(&format!("{path}/{name}")));
            let mut rule = json!({"path": path, "regex": regex});
            if let Some(Octal(mode)) = mode {
                rule["mode"] = mode.into();
            }
            for (key, id) in [("uid", uid), ("gid", gid)] {
                if let Some(id) = id {
                    rule[key] = id.into();
                }
            }
            options.perms.push(serde_json::from_value(rule).map_err(failed)?);
        }
        if let Some(user) = user {
            options.config.set_user(user);
        }
        options.merged_files = Some(MergedFiles { path, names: merged });
        Ok(())
    }
}
