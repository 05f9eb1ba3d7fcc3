//! Warnings about likely mistakes in the options of a build.
//! Stage: oci. Output: [`Warning`].

use std::fmt;

use crate::image_path::ImagePath;
use crate::layer::{self, BaseTree, LayerContents, PermissionRule, RootLinks};
use crate::oci::Error;
use crate::store::{Store, StorePath};

/// A result, and warnings about it.
#[derive(Clone, Debug)]
pub struct Built<T> {
    /// The result.
    pub made: T,
    /// Options that the author may not have meant.
    pub warnings: Vec<Warning>,
}

/// A part of the options that had no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warning {
    /// A rule of `perms` for a store path that no layer of this build has.
    PermissionForAbsent(StorePath),
    /// Store paths of the image that are missing in the database of the Nix in the image.
    NotRegistered(Vec<StorePath>),
    /// Links in `/` to store paths that the image lacks, each with the store path.
    DanglingLinks(Vec<(String, StorePath)>),
    /// Links and files of `copyToRoot` that replace directories of the base.
    LinksOverDirectories(Vec<String>),
    /// The base's `/etc` is a link to this place.
    LinkedEtc(ImagePath),
    /// The home of a declared user, which another one owns.
    HomeOfOther {
        /// The home.
        home: String,
        /// The number of the user.
        uid: u32,
        /// The number of the owner.
        owner: u64,
    },
    /// A rule of `perms` that no file matches.
    PermissionForNothing {
        /// The rule's store path.
        path: StorePath,
        /// The rule's regular expression.
        regex: String,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let print = |path| Store::default().print(path);
        match self {
            Self::PermissionForAbsent(path) => write!(
                f,
                "`perms` for {}: neither `copyToRoot` nor the store of these layers has it",
                print(path)
            ),
            Self::NotRegistered(paths) => write!(
                f,
                "the base image has a Nix database, or this image has one, without {} of the \
                 image's store paths, which `nix-store --gc` in a container deletes: {}; \
                 `initializeNixDatabase` (`includeNixDB` in dockerTools) registers those that this image adds",
                paths.len(),
                named(paths),
            ),
            Self::DanglingLinks(links) => {
                let shown = |(name, path): &(String, StorePath)| {
                    format!("/{name} -> {}", Store::default().print(path))
                };
                write!(
                    f,
                    "`copyToRoot`: links lead to store paths that are not in the image: {}",
                    first_few(links.iter().map(shown))
                )
            }
            Self::LinksOverDirectories(names) => write!(
                f,
                "`copyToRoot`: links or files take the place of directories of the base image, with all \
                 that is in these: {}",
                first_few(names.iter().map(|name| format!("/{name}")))
            ),
            Self::LinkedEtc(place) => write!(
                f,
                "the base image's /etc is a link to {place}: Docker puts a directory in its place when a container \
                 starts, so that no file in /etc is found there, such as accounts",
            ),
            Self::HomeOfOther { home, uid, owner } => write!(
                f,
                "`accounts`: the home {home} of user {uid} is there already, and stays that of user {owner}; \
                 `directories.\"{home}\".user` gives it another owner"
            ),
            Self::PermissionForNothing { path, regex } => {
                write!(f, "`perms` for {}: no file of it matches `{regex}`", print(path))
            }
        }
    }
}

fn named(paths: &[StorePath]) -> String {
    first_few(paths.iter().map(|path| Store::default().print(path)))
}

fn first_few(texts: impl ExactSizeIterator<Item = String>) -> String {
    const SHOWN: usize = 5;
    let more = texts.len().saturating_sub(SHOWN);
    let shown: Vec<_> = texts.take(SHOWN).collect();
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}

/// Returns warnings about likely mistakes in the links that are copied to `/`.
pub fn of_links(
    links: &RootLinks,
    in_image: impl Fn(&StorePath) -> bool,
    base: &BaseTree,
) -> Vec<Warning> {
    // A base image of another program may contain any store path. Its directories are known, but
    // not its files.
    let dir = ImagePath::normal(Store::default().dir().as_bytes());
    let dangling: Vec<_> = match base.has_directory(&dir) {
        true => Vec::new(),
        false => links.store_paths.iter().filter(|(_, path)| !in_image(path)).cloned().collect(),
    };
    let mut warnings = Vec::new();
    if !dangling.is_empty() {
        warnings.push(Warning::DanglingLinks(dangling));
    }
    let etc = ImagePath::normal(b"/etc");
    warnings.extend(base.resolve(&etc).ok().filter(|place| *place != etc).map(Warning::LinkedEtc));
    if !links.replacing.is_empty() {
        warnings.push(Warning::LinksOverDirectories(links.replacing.clone()));
    }
    warnings
}

/// Returns the rules that had no effect on layers with these contents.
pub fn idle_rules(
    store: &Store,
    rules: &[PermissionRule],
    contents: &[LayerContents],
) -> Result<Vec<Warning>, Error> {
    let (present, absent): (Vec<_>, Vec<_>) = rules
        .iter()
        .cloned()
        .partition(|rule| contents.iter().any(|layer| layer.permissions.contains(rule)));
    let absent = absent.into_iter().map(|rule| Warning::PermissionForAbsent(rule.path));
    let unmatched = layer::unmatched_rules(store, &present)?.into_iter().map(|rule| {
        Warning::PermissionForNothing { path: rule.path.clone(), regex: rule.regex().to_owned() }
    });
    Ok(absent.chain(unmatched).collect())
}
