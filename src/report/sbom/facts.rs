//! Parses facts about packages, which `nix/sbom.nix` collects by evaluation.
//! Stage: report (pure). Input: the JSON that `nix/sbom.nix` writes. Output: [`Facts`].

use std::collections::BTreeMap;
use std::sync::LazyLock;

use regex::Regex;
use serde::Deserialize;
use thiserror::Error;

use crate::store::{Store, StorePath};

/// Says why a text could not be parsed as facts about packages.
#[derive(Debug, Error)]
#[error("it is not an object of packages by store path")]
pub struct FactsError(#[from] serde_json::Error);

/// Facts about packages, by store path (with the store directory).
#[derive(Clone, Debug, Default)]
pub struct Facts {
    packages: BTreeMap<String, PackageFacts>,
    none: PackageFacts,
}

/// Facts about one package.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PackageFacts {
    /// The name without a version.
    pub pname: Option<String>,
    /// The version.
    pub version: Option<String>,
    /// The name of the output, such as `dev`.
    pub output: Option<String>,
    /// The licences.
    pub licenses: Vec<LicenceFacts>,
    /// The address of the home page.
    pub homepage: Option<String>,
    /// The description, of one line.
    pub description: Option<String>,
    /// The name in lists of vulnerabilities (Common Platform Enumeration 2.3).
    pub cpe: Option<String>,
    /// The package URLs of the package upstream.
    pub purls: Vec<String>,
    /// The addresses of the sources.
    pub urls: Vec<String>,
    /// The supplier.
    pub supplier: Option<String>,
}

/// A licence, as nixpkgs describes it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LicenceFacts {
    /// The SPDX identifier or expression.
    pub spdx: Option<String>,
    /// The name, if the licence has no SPDX identifier.
    pub name: Option<String>,
    /// The address of the text.
    pub url: Option<String>,
}

impl Facts {
    /// Parses the JSON of `nix/sbom.nix`.
    ///
    /// # Errors
    /// Fails with [`FactsError`].
    pub fn parse(json: &[u8]) -> Result<Self, FactsError> {
        let packages: BTreeMap<String, PackageFacts> = serde_json::from_slice(json)?;
        let packages = packages.into_iter().map(|(path, facts)| (path, facts.cleaned())).collect();
        Ok(Self { packages, none: PackageFacts::default() })
    }

    /// Returns the facts about a store path; empty facts if there are none.
    pub fn of(&self, path: &StorePath) -> &PackageFacts {
        self.packages.get(&Store::default().print(path)).unwrap_or(&self.none)
    }
}

impl PackageFacts {
    /// Removes values that the formats do not allow. Package sets may have any values.
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

/// Returns whether a text is an address that every program can open. Only nixpkgs can open
/// `mirror://`.
pub fn is_url(text: &str) -> bool {
    static URL: LazyLock<Regex> = LazyLock::new(|| {
        let pattern =
            r"^(https?|ftp)://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~:/?#@!$&'()*+,;=%-]*)?$";
        Regex::new(pattern).expect("a pattern")
    });
    URL.is_match(text)
}

/// Returns whether a text is a package URL: `pkg:TYPE/NAME` and more.
fn is_purl(text: &str) -> bool {
    static PURL: LazyLock<Regex> = LazyLock::new(|| {
        let pattern = r"^pkg:[a-z][a-z0-9.+-]*/[A-Za-z0-9._~:/?#@!&+,;=%-]+$";
        Regex::new(pattern).expect("a pattern")
    });
    PURL.is_match(text)
}

/// Returns whether a text is a formatted name of the Common Platform Enumeration 2.3 (NIST IR
/// 7695).
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
