//! Guesses package, version and output from the name of a store path, for packages without facts.
//! Stage: report (pure).

/// The usual names of outputs, except `out` (nixpkgs manual, "Multiple-output packages").
const OUTPUTS: [&str; 14] = [
    "bin", "data", "debug", "dev", "devdoc", "devman", "dist", "doc", "info", "lib", "libgcc",
    "man", "py", "static",
];

/// The parts of a store path's name.
#[derive(Debug, PartialEq, Eq)]
pub struct Version<'t> {
    /// The name of the package.
    pub name: &'t str,
    /// The version, if the name has one.
    pub version: Option<&'t str>,
    /// The output, if the name ends with a usual one.
    pub output: Option<&'t str>,
}

impl<'t> Version<'t> {
    /// Parses `NAME[-VERSION][-OUTPUT]`. The version begins after the first dash that is not
    /// followed by a letter (Nix manual, `builtins.parseDrvName`).
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
            // Without a version, the end may be a part of the name rather than an output.
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
