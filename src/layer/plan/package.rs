//! Compares the names of packages regardless of their versions.
//! Stage: layer (pure). Vocabulary of the plan.

/// Returns the name without its version: `openssl-3.0.14-bin` is `openssl-bin`, and so is every
/// later version. A part that begins with a digit is taken for a version or a part of one, except
/// for the first part of the name.
pub(super) fn package(name: &str) -> String {
    let is_version = |part: &str| part.starts_with(|first: char| first.is_ascii_digit());
    let mut parts = name.split('-');
    let first = parts.next().unwrap_or_default();
    let rest = parts.filter(|part| !is_version(part));
    std::iter::once(first).chain(rest).collect::<Vec<_>>().join("-")
}

/// Returns whether `package`, as a person writes it, means this name: the name itself, the name
/// without its version, or the name without its version and all that follows (`openssl` for every
/// output of openssl; Nix manual, `builtins.parseDrvName`).
pub(super) fn is_meant(name: &str, package: &str) -> bool {
    let version = name
        .match_indices('-')
        .find(|(dash, _)| !name[dash + 1..].starts_with(|next: char| next.is_ascii_alphabetic()));
    let before_version = version.map_or(name, |(dash, _)| &name[..dash]);
    package == name || package == before_version || package == self::package(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_left_out() {
        for (name, expected) in [
            ("hello", "hello"),
            ("hello-2.12", "hello"),
            ("glibc-2.40-66-bin", "glibc-bin"),
            ("python3.12-requests-2.31.0", "python3.12-requests"),
            ("source-unstable-2024-01-01", "source-unstable"),
            ("7zip-24.08", "7zip"),
        ] {
            assert_eq!(package(name), expected, "{name}");
        }
    }

    #[test]
    fn packages_are_meant_by_their_names() {
        for (name, package, expected) in [
            ("openssl-3.0.14", "openssl", true),
            ("openssl-3.0.14-bin", "openssl", true),
            ("openssl-3.0.14-bin", "openssl-bin", true),
            ("openssl-3.0.14-bin", "openssl-3.0.14-bin", true),
            ("openssl-3.0.14-bin", "openssl-3.0.14", false),
            ("openssl-3.0.14", "open", false),
            ("openssl-legacy-1.1", "openssl", false),
        ] {
            assert_eq!(is_meant(name, package), expected, "{name} by {package}");
        }
    }
}
