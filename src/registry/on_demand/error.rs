//! The errors of building an image of packages.
//! Stage: registry. Output: messages for clients, which must not reveal anything of this machine.

use std::io;
use std::time::Duration;

use thiserror::Error;

use super::served_tags::ServedTags;
use crate::outgoing::Tag;
use crate::registry::storage::StorageError;

/// Says why there is no image of some packages. All clients may see the message.
#[derive(Debug, Error)]
pub enum OnDemandError {
    /// The package set has no packages of these names.
    #[error("there are no packages by the names {}", quoted(.0))]
    NoPackages(Vec<String>),
    /// The package set refuses a package: the package was removed or renamed, is broken, or has a
    /// licence that is not allowed. Holds the reason that the set gives.
    #[error("there is no such package: {0}")]
    Unavailable(String),
    /// The name lists more packages than an image may have.
    #[error("an image may have {most} packages, not {packages}")]
    TooManyPackages {
        /// The number of packages that were asked for.
        packages: usize,
        /// The number that is allowed.
        most: usize,
    },
    /// The source has no tags, so only `latest` is valid.
    #[error("`{0}` is no tag: packages from a directory only have `latest`")]
    NoTag(Tag),
    /// Tags of this kind are not served.
    #[error("`{tag}` is no tag here: this registry serves {served}")]
    NotServed {
        /// The tag.
        tag: Tag,
        /// The kinds of tags that are served.
        served: ServedTags,
    },
    /// The packages' repository does not have this revision.
    #[error("there is no `{0}` in the repository that the packages are from")]
    NoRevision(Tag),
    /// Too many other images wait to be built.
    #[error("{0} other images wait to be built: try again later")]
    Busy(usize),
    /// The clients that waited for the image have left.
    #[error("the build was ended, since no client waited for it: ask again")]
    Abandoned,
    /// The build takes too long.
    #[error("the image was not built within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The image is too large.
    #[error("the image has {size} bytes, and at most {most} are allowed")]
    TooLarge {
        /// The size of all layers in bytes.
        size: u64,
        /// The size that is allowed.
        most: u64,
    },
    /// Nix would have to fetch too much.
    #[error("building the image would fetch {bytes} bytes, and at most {most} are allowed")]
    TooMuchToFetch {
        /// The number of bytes that would be fetched, unpacked.
        bytes: u64,
        /// The number that is allowed.
        most: u64,
    },
    /// The image would have store paths that no trusted key signed. Holds their names.
    #[error("no trusted key signed {}: this registry only serves store paths with a signature", some(.0))]
    NotSigned(Vec<String>),
    /// Packages would have to be built, and only those with a signature are served. Holds the
    /// names of the derivations.
    #[error("{} would have to be built: this registry only serves store paths with a signature", some(.0))]
    NotBuiltHere(Vec<String>),
    /// Evaluating the packages takes too much memory.
    #[error("evaluating the packages takes more than {0} bytes of memory")]
    TooMuchMemory(u64),
    /// Nix can't evaluate or build the image.
    #[error("the image cannot be built: {0}")]
    Failed(String),
    /// The storage does not take the image.
    #[error("the image cannot be stored: {}", reason(.0))]
    Storage(#[source] StorageError),
    /// The server has a problem. Clients are not told the cause, which goes to the log.
    #[error("the image cannot be built because of a problem of the server")]
    Internal(#[source] io::Error),
}

/// Says, for clients, why the storage does not take the image, without naming the storage.
fn reason(error: &StorageError) -> &'static str {
    match error {
        StorageError::Full { .. } => "the storage is full",
        StorageError::Unreachable { .. } => "the storage does not answer",
        _ => "the storage does not take it",
    }
}

fn quoted(names: &[String]) -> String {
    names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// Lists the first of some names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 10;
    let shown = quoted(&names[..names.len().min(SHOWN)]);
    match names.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}

/// Reduces Nix's output for clients: only the last errors, of limited length, with store paths
/// replaced by their names and other paths removed.
pub fn redacted(output: &str) -> String {
    const LONGEST: usize = 1000;
    let errors = output
        .lines()
        .map(str::trim)
        .filter(|line| line.starts_with("error:"))
        .map(|line| line.trim_start_matches("error:").trim())
        .filter(|line| !line.is_empty());
    let text = errors.collect::<Vec<_>>().join("; ");
    if text.is_empty() {
        return "Nix does not say why".to_owned();
    }
    let text: Vec<_> = text.split(' ').map(without_paths).collect();
    text.join(" ").chars().take(LONGEST).collect()
}

/// Returns a word in which store paths are replaced by their names, and other paths by three dots.
fn without_paths(word: &str) -> String {
    // URLs of sources are not paths, but may have a user's name and password in them.
    if word.contains("://") {
        return "…".to_owned();
    }
    let is_path = |c: char| c.is_alphanumeric() || "/.-_+=?@~:".contains(c);
    let (mut text, mut rest) = (String::new(), word);
    while let Some(begin) = rest.find('/') {
        let end = rest[begin..].find(|c| !is_path(c)).map_or(rest.len(), |end| begin + end);
        let path = rest[begin..end].trim_end_matches(':');
        let name = path.strip_prefix("/nix/store/").and_then(|path| path.get(33..));
        let name = name.map(|name| name.split('/').next().unwrap_or(name));
        text += &rest[..begin];
        text += name.unwrap_or("…");
        rest = &rest[begin + path.len()..];
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_have_no_paths() {
        let hash = "0".repeat(32);
        for (output, expected) in [
            ("", "Nix does not say why"),
            ("warning: odd\nerror: it is broken\n", "it is broken"),
            ("error:\n       error: a\n  error: b", "a; b"),
            (
                "error: undefined variable 'x' at /srv/secret/default.nix:3:4",
                "undefined variable 'x' at …",
            ),
            (
                &*format!("error: builder for '/nix/store/{hash}-hello-2.drv' failed"),
                "builder for 'hello-2.drv' failed",
            ),
            (
                &*format!("error: '/nix/store/{hash}-source/pkgs/x.nix' and (/root):"),
                "'source' and (…):",
            ),
            ("error: cannot fetch https://user:secret@host/x now", "cannot fetch … now"),
            ("error: program 'git' failed with 1/2", "program 'git' failed with 1…"),
            ("error: cannot find 'path:/srv/x'", "cannot find 'path:…'"),
            ("error: neither '/a','/srv/b' nor x:/c:", "neither '…','…' nor x:…:"),
            ("error: in ('/a','https://user:secret@host/x')", "in …"),
            ("error: no file '/srv/prés/x'", "no file '…'"),
            (
                &*format!("error: '/nix/store/{hash}-a/b' and \"/nix/store/{hash}-c\",/srv"),
                "'a' and \"c\",…",
            ),
        ] {
            assert_eq!(redacted(output), expected, "{output}");
        }
        assert_eq!(redacted(&format!("error: {}", "é".repeat(3000))).chars().count(), 1000);
    }
}
