//! Requires that a trusted key signed the store paths of an image, as `nix store verify` has it.
//! Stage: registry. Input: store paths. Output: those that nothing vouches for.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::process::Command;

use super::processes::command;

/// The program that verifies signatures.
pub const VERIFIER: &str = "nix";
/// The number of store paths that one process verifies: a command line has a limit.
pub const PATHS_AT_ONCE: usize = 2000;

/// Says which store paths an image may have.
#[derive(Clone, Debug)]
pub struct RequiredSignatures {
    /// The keys that are trusted; none for those of Nix's own setting.
    pub keys: Vec<TrustedKey>,
    /// True if paths that this machine built need no signature.
    pub built_here: bool,
}

/// A public key in Nix's form, `NAME:BASE64`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedKey(String);

impl FromStr for TrustedKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const EXPECTED: &str = "expected a key of `nix key convert-secret-to-public`, such as \
            `cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=`";
        let (name, key) = text.split_once(':').ok_or(EXPECTED)?;
        let is_key = STANDARD.decode(key).is_ok_and(|bytes| bytes.len() == 32);
        if name.is_empty() || name.contains(char::is_whitespace) || !is_key {
            return Err(EXPECTED.to_owned());
        }
        Ok(Self(text.to_owned()))
    }
}

impl RequiredSignatures {
    /// Returns a text that differs between servers that accept different store paths.
    pub fn settings(&self) -> String {
        let keys = self.keys.iter().map(|TrustedKey(key)| &**key);
        let mut keys: Vec<_> = keys.collect();
        keys.sort_unstable();
        keys.dedup();
        format!("signed built-here={} {}", self.built_here, keys.join(" "))
    }

    /// Returns the command that verifies store paths, and with `closure` also those that they refer
    /// to.
    pub fn verify<'p>(&self, paths: impl IntoIterator<Item = &'p str>, closure: bool) -> Command {
        let mut verify = command(VERIFIER);
        verify.args(["--extra-experimental-features", "nix-command", "store", "verify"]);
        // The contents are compared with the image spec when layers are made.
        verify.arg("--no-contents");
        if !self.built_here {
            verify.args(["--sigs-needed", "1"]);
        }
        if closure {
            verify.arg("--recursive");
        }
        if !self.keys.is_empty() {
            let keys: Vec<_> = self.keys.iter().map(|TrustedKey(key)| &**key).collect();
            verify.args(["--option", "trusted-public-keys", &keys.join(" ")]);
        }
        verify.arg("--").args(paths);
        verify
    }
}

/// Returns the store paths that nothing vouches for, by their names, from the messages of a failed
/// [`RequiredSignatures::verify`].
pub fn untrusted(messages: &str) -> Vec<String> {
    let lines = messages.lines().filter(|line| line.trim_end().ends_with("is untrusted"));
    names(lines.filter_map(|line| line.split('\'').nth(1)))
}

/// Returns the derivations that Nix would build, by their names, from the messages of a dry run.
pub fn to_build(messages: &str) -> Vec<String> {
    let lines = messages.lines().skip_while(|line| !line.contains("will be built:"));
    let lines = lines.skip(1).map_while(|line| line.strip_prefix("  "));
    names(lines.map(|path| path.trim().trim_end_matches(".drv")))
}

fn names<'p>(paths: impl Iterator<Item = &'p str>) -> Vec<String> {
    let name = |path: &str| path.rsplit('/').next()?.get(33..).map(str::to_owned);
    let mut names: Vec<_> = paths.filter_map(name).collect();
    names.sort_unstable();
    names.dedup();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c";

    #[test]
    fn keys_are_checked() {
        let key = "cache.nixos.org-1:6NCHdD59X431o0gWypbMrAURkbJ16ZPMQFGspcDShjY=";
        assert_eq!(key.parse(), Ok(TrustedKey(key.to_owned())));
        for bad in
            ["", "a", "a:", "a:AAAA", &format!("{key} {key}"), &key[17..], &format!("a {key}")]
        {
            assert!(bad.parse::<TrustedKey>().is_err(), "{bad}");
        }
    }

    #[test]
    fn nix_says_what_it_does_not_trust_and_what_it_would_build() {
        let messages = format!(
            "warning: odd\npath '/nix/store/{HASH}-b-1' is untrusted\n\
             path '/nix/store/{HASH}-a' is untrusted\n2 paths checked, 2 untrusted\n"
        );
        assert_eq!(untrusted(&messages), ["a", "b-1"]);
        let one = format!("this derivation will be built:\n  /nix/store/{HASH}-a-1.drv\n");
        assert_eq!(to_build(&one), ["a-1"]);
        let both = format!(
            "these 2 derivations will be built:\n  /nix/store/{HASH}-b.drv\n  /nix/store/{HASH}-a.drv\n\
             this path will be fetched (0.05 MiB download, 0.25 MiB unpacked):\n  /nix/store/{HASH}-c\n"
        );
        assert_eq!(to_build(&both), ["a", "b"]);
        assert!(to_build("this path will be fetched (…):\n  /nix/store/x\n").is_empty());
    }

    #[test]
    fn the_order_of_keys_does_not_matter() {
        let key = |name: &str| TrustedKey(format!("{name}:x"));
        let of = |keys: Vec<_>| RequiredSignatures { keys, built_here: false }.settings();
        assert_eq!(of(vec![key("a"), key("b")]), of(vec![key("b"), key("a"), key("b")]));
    }
}
