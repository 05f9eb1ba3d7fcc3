//! Reads what evaluation knows of an image's packages.
//! Stage: report (pure). Input: the JSON that `nix/sbom.nix` writes. Output: [`Facts`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use thiserror::Error;

use crate::store::{Store, StorePath};

/// Says why a text holds no facts about packages.
#[derive(Debug, Error)]
#[error("it is no table of packages by store path: {0}")]
pub struct FactsError(#[from] serde_json::Error);

/// What evaluation knows, by whole store path.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    packages: BTreeMap<String, PackageFacts>,
    none: PackageFacts,
}

/// What evaluation knows of one package.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PackageFacts {
    /// The name without a version.
    pub pname: Option<String>,
    /// The version.
    pub version: Option<String>,
    /// The output that the store path is.
    pub output: Option<String>,
    /// The licences, all of which hold.
    pub licenses: Vec<LicenceFacts>,
    /// The page about it.
    pub homepage: Option<String>,
    /// What it is, in a line.
    pub description: Option<String>,
    /// Its name in lists of vulnerabilities (Common Platform Enumeration 2.3).
    pub cpe: Option<String>,
    /// Its names elsewhere.
    pub purls: Vec<String>,
    /// Where its sources are.
    pub urls: Vec<String>,
    /// Who supplies it.
    pub supplier: Option<String>,
}

/// A licence as nixpkgs has it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LicenceFacts {
    /// The identifier or expression of SPDX.
    pub spdx: Option<String>,
    /// Its name, if SPDX knows none.
    pub name: Option<String>,
    /// Where its text is.
    pub url: Option<String>,
}

impl Facts {
    /// Parses the table.
    ///
    /// # Errors
    /// [`FactsError`].
    pub fn parse(json: &[u8]) -> Result<Self, FactsError> {
        let packages: BTreeMap<String, PackageFacts> = serde_json::from_slice(json)?;
        let packages = packages.into_iter().map(|(path, facts)| (path, facts.cleaned())).collect();
        Ok(Self { packages, none: PackageFacts::default() })
    }

    /// Returns what is known of a store path.
    pub fn of(&self, path: &StorePath) -> &PackageFacts {
        self.packages.get(&Store::default().print(path)).unwrap_or(&self.none)
    }
}

impl PackageFacts {
    /// Leaves out what the formats have no room for: package sets hold anything.
    fn cleaned(self) -> Self {
        let Self { pname, version, output, licenses, homepage, description, .. } = self;
        let filled = |text: Option<String>| text.filter(|text| !text.trim().is_empty());
        Self {
            pname: filled(pname),
            version: filled(version),
            output: filled(output),
            licenses,
            homepage: homepage.filter(|url| is_url(url)),
            description: filled(description),
            cpe: self.cpe.filter(|cpe| is_cpe(cpe)),
            purls: self.purls.into_iter().filter(|purl| is_purl(purl)).collect(),
            urls: self.urls.into_iter().filter(|url| is_url(url)).collect(),
            supplier: filled(self.supplier),
        }
    }
}

/// Tells whether a text is an address that all can follow: `mirror://` is known to nixpkgs alone.
pub fn is_url(text: &str) -> bool {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        let pattern =
            r"^(https?|ftp)://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*)?$";
        Regex::new(pattern).expect("a pattern")
    });
    URL.is_match(text)
}

/// Tells whether a text is a package URL: `pkg:TYPE/NAME` and more.
fn is_purl(text: &str) -> bool {
    static PURL: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"^pkg:[a-z][a-z0-9.+-]*/[A-Za-z0-9._~:/?#@!&+,;=%-]+$";
        Regex::new(pattern).expect("a pattern")
    });
    PURL.is_match(text)
}

/// Tells whether a text is a formatted name of the Common Platform Enumeration 2.3 (NIST IR 7695).
fn is_cpe(text: &str) -> bool {
    static CPE: LazyLock<Regex> = LazyLock::new(|| {
        let part = r##"(\?*|\*?)([a-zA-Z0-9\-._]|\\[\\*?!"#$%&'()+,/:;<=>@\[\]^`{|}~])+(\?*|\*?)"##;
        let part = format!(r"({part}|[*\-])");
        let language = r"([a-zA-Z]{2,3}(-([a-zA-Z]{2}|[0-9]{3}))?|[*\-])";
        let pattern = format!(r"^cpe:2\.3:[aho*\-](:{part}){{5}}:{language}(:{part}){{4}}$");
        Regex::new(&pattern).expect("a pattern")
    });
    CPE.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_scanners_would_refuse_are_left_out() {
        for (text, expected) in [
            ("cpe:2.3:a:gnu:hello:2.12:*:*:*:*:*:*:*", true),
            (r"cpe:2.3:a:gnu:c\+\+:1:-:*:*:en:*:*:*:*", false),
            (r"cpe:2.3:a:gnu:c\+\+:1:-:*:en:*:*:*:*", true),
            ("cpe:2.3:a:gnu:hello", false),
            ("cpe:2.3:a:gnu:a b:2.12:*:*:*:*:*:*:*", false),
            ("", false),
        ] {
            assert_eq!(is_cpe(text), expected, "{text}");
        }
        for (text, expected) in [
            ("pkg:github/a/b@1", true),
            ("pkg:generic/a@1?download_url=https%3A%2F%2Fx", true),
            ("github/a/b", false),
            ("pkg:github/a b", false),
            ("pkg:/a", false),
        ] {
            assert_eq!(is_purl(text), expected, "{text}");
        }
        for (text, expected) in [
            ("https://example.org", true),
            ("http://example.org:8080/a?b=c#d", true),
            ("mirror://gnu/a", false),
            ("https://example.org/a b", false),
            ("https://", false),
            ("file:///a", false),
        ] {
            assert_eq!(is_url(text), expected, "{text}");
        }
    }
}
