//! Takes the name of a store path apart, where evaluation has nothing to say of it.
//! Stage: report (pure).

/// Outputs that packages commonly have, besides `out` (nixpkgs manual, "Multiple-output packages").
const OUTPUTS: [&str; 14] = [
    "bin", "data", "debug", "dev", "devdoc", "devman", "dist", "doc", "info", "lib", "libgcc",
    "man", "py", "static",
];

/// A store path's name in parts.
#[derive(Debug, PartialEq, Eq)]
pub struct Version<'t> {
    /// The package.
    pub name: &'t str,
    /// Its version, if the name has one.
    pub version: Option<&'t str>,
    /// The output, if the name has one that is common.
    pub output: Option<&'t str>,
}

impl<'t> Version<'t> {
    /// Parses `NAME[-VERSION][-OUTPUT]`. The version begins at the first dash that no letter follows
    /// (Nix manual, `builtins.parseDrvName`).
    pub fn of(text: &'t str) -> Self {
        let (rest, output) = match text.rsplit_once('-') {
            Some((rest, last)) if !rest.is_empty() && OUTPUTS.contains(&last) => (rest, Some(last)),
            _ => (text, None),
        };
        let is_dash = |(dash, _): &(usize, &str)| {
            let next = rest[dash + 1..].chars().next();
            next.is_some_and(|next| !next.is_ascii_alphabetic())
        };
        let dash = rest.match_indices('-').find(is_dash);
        match dash {
            Some((dash, _)) if dash > 0 => {
                Self { name: &rest[..dash], version: Some(&rest[dash + 1..]), output }
            }
            // Without a version, what looks like an output is as likely a part of the name.
            _ => Self { name: text, version: None, output: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart_as_nix_does() {
        for (text, name, version, output) in [
            ("hello", "hello", None, None),
            ("hello-2.12", "hello", Some("2.12"), None),
            ("glibc-2.40-66-bin", "glibc", Some("2.40-66"), Some("bin")),
            ("python3.12-requests-2.31.0", "python3.12-requests", Some("2.31.0"), None),
            ("source-unstable-2024-01-01", "source-unstable", Some("2024-01-01"), None),
            ("7zip-24.08", "7zip", Some("24.08"), None),
            ("image-lib", "image-lib", None, None),
            ("a-", "a-", None, None),
            ("-1", "-1", None, None),
            ("x--1", "x", Some("-1"), None),
        ] {
            assert_eq!(Version::of(text), Version { name, version, output }, "{text}");
        }
    }
}
