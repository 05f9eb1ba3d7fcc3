//! Matches names of images against the prefixes of `registries.conf`.
//! Stage: registry (pure). Input: [`RegistryTable`] tables and a name. Output: the name to use.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use super::RegistriesError;
use crate::outgoing::Reference;

/// A `[[registry]]` table.
#[derive(Clone, Debug)]
pub struct RegistryTable {
    /// The file with the table.
    pub file: PathBuf,
    /// The images that the table is for.
    pub prefix: Prefix,
    /// The name that replaces the prefix; empty if the prefix stays.
    pub location: String,
    /// True if any certificate, and plain HTTP, is accepted.
    pub insecure: bool,
    /// True if the images may be neither read nor pushed.
    pub blocked: bool,
    /// True if only images named by a digest are read from the mirrors.
    pub mirror_by_digest_only: bool,
    /// The mirrors, in the order in which to try them.
    pub mirrors: Vec<Mirror>,
}

/// The images that a table is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Prefix {
    /// `*.DOMAIN`: the images of all registries whose host ends with this text, such as `.DOMAIN`,
    /// whatever their port is.
    Domain(String),
    /// A registry, or a part of the path of its images.
    Name(String),
}

/// A `[[registry.mirror]]` table.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub struct Mirror {
    /// The name that replaces the prefix.
    pub location: String,
    /// True if any certificate, and plain HTTP, is accepted.
    pub insecure: bool,
    /// The images that are read from the mirror; none if the registry's setting counts.
    pub pull_from_mirror: Option<PullFromMirror>,
}

/// The images that are read from a mirror.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PullFromMirror {
    /// All images.
    All,
    /// The images that are named by a digest.
    DigestOnly,
    /// The images that are named by a tag alone.
    TagOnly,
}

impl RegistryTable {
    /// Returns whether the table is for an image.
    pub fn covers(&self, reference: &Reference) -> bool {
        // containers/image matches all ports of a registry without a port. That is safe where a
        // registry is blocked.
        let is_blocked_port = || match &self.prefix {
            Prefix::Name(name) if self.blocked && !name.contains('/') => {
                let host = reference.registry().as_str().to_ascii_lowercase();
                host.strip_prefix(&**name).is_some_and(|rest| rest.starts_with(':'))
            }
            _ => false,
        };
        self.length(reference).is_some() || is_blocked_port()
    }

    /// Returns the number of characters of a whole name that the prefix matches.
    fn length(&self, reference: &Reference) -> Option<usize> {
        let host = reference.registry().as_str().to_ascii_lowercase();
        match &self.prefix {
            Prefix::Domain(domain) => {
                let without_port = host.rsplit_once(':').map_or(&*host, |(host, _)| host);
                without_port.ends_with(&**domain).then_some(host.len())
            }
            // A colon after a registry would begin a port, and so another registry's name.
            Prefix::Name(name) if !name.contains('/') => (*name == host).then_some(host.len()),
            Prefix::Name(name) => {
                let whole = host.clone() + &reference.whole()[host.len()..];
                let rest = whole.strip_prefix(&**name)?;
                (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(name.len())
            }
        }
    }

    /// Returns the place where the images are.
    pub fn place(&self) -> String {
        match &*self.location {
            "" => self.prefix.to_string(),
            location => location.to_owned(),
        }
    }

    /// Returns the name with another location in place of the prefix.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Location`] if the result is not a valid name.
    pub fn moved(
        &self,
        reference: &Reference,
        location: &str,
    ) -> Result<Reference, RegistriesError> {
        let length = self.length(reference).unwrap_or_default();
        let whole = reference.whole();
        if location.is_empty() || location == &whole[..length] {
            return Ok(reference.clone());
        }
        let name = format!("{location}{}", &whole[length..]);
        name.parse().map_err(|_| RegistriesError::Location {
            file: self.file.clone(),
            reference: reference.to_string(),
            name,
        })
    }
}

impl Prefix {
    /// Parses the `prefix` of a table.
    ///
    /// # Errors
    /// Fails with a reason for people if the text is a pattern other than `*.DOMAIN`.
    pub fn parse(mut text: String) -> Result<Self, String> {
        // Hosts have no case.
        let host = text.find('/').unwrap_or(text.len());
        text[..host].make_ascii_lowercase();
        let Some(domain) = text.strip_prefix('*') else { return Ok(Self::Name(text)) };
        let is_domain =
            domain.len() > 1 && domain.starts_with('.') && !domain.contains(['/', ':', '@', '*']);
        if !is_domain {
            return Err(format!(
                "`{text}` matches nothing: a pattern is `*.DOMAIN`, without a port or a path"
            ));
        }
        Ok(Self::Domain(domain.to_owned()))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domain(domain) => write!(f, "*{domain}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}
