//! Reads from `registries.conf` how registries are reached (containers-registries.conf(5)).
//! Stage: registry (pure). Input: the files' texts. Output: [`RegistriesConf`].
//!
//! As in containers/image, locations, mirrors and aliases are used for reading only; `insecure` and
//! `blocked` are used for pushing as well.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use thiserror::Error;

use crate::error::Hint;
use crate::outgoing::Reference;

/// The settings of all files.
#[derive(Clone, Debug, Default)]
pub struct RegistriesConf {
    registries: Vec<Registry>,
    /// The full names that names without a registry stand for.
    aliases: BTreeMap<String, String>,
}

/// A place that has an image, and how it is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// The image's name there.
    pub reference: Reference,
    /// True if any certificate, and plain HTTP, is accepted.
    pub insecure: bool,
}

/// Says why settings can't be used, or that they forbid a name.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum RegistriesError {
    /// A file can't be read as settings.
    #[error("{}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The registry is blocked.
    #[error("{name}: `{prefix}` is blocked by {}", file.display())]
    Blocked {
        /// The image.
        name: String,
        /// The prefix that is blocked.
        prefix: String,
        /// The file that blocks it.
        file: PathBuf,
    },
    /// The name that the settings make of an image's name is not valid.
    #[error("{}: `{name}`, which stands for `{reference}`, is not an image name", file.display())]
    Location {
        /// The file with the setting.
        file: PathBuf,
        /// The image.
        reference: String,
        /// The resulting name.
        name: String,
    },
}

impl Hint for RegistriesError {
    fn hint(&self) -> Option<String> {
        Some("containers-registries.conf(5) has the settings; CONTAINERS_REGISTRIES_CONF names another file".to_owned())
    }
}

/// The contents of a file: version 2, and the part of version 1 that both have.
#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    registry: Vec<Table>,
    aliases: BTreeMap<String, String>,
    registries: Version1,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Version1 {
    insecure: Hosts,
    block: Hosts,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Hosts {
    registries: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Table {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirror: Vec<Mirror>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Mirror {
    location: String,
    insecure: bool,
    /// `all`, `digest-only` or `tag-only`.
    pull_from_mirror: String,
}

/// A `[[registry]]` table.
#[derive(Clone, Debug)]
struct Registry {
    file: PathBuf,
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    mirrors: Vec<Mirror>,
}

impl RegistriesConf {
    /// Parses files in the order given. A later file replaces a prefix or an alias of an earlier
    /// one.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::File`] if a file is not valid.
    pub fn parse<'f>(
        files: impl IntoIterator<Item = (&'f Path, &'f str)>,
    ) -> Result<Self, RegistriesError> {
        let mut conf = Self::default();
        for (file, text) in files {
            let wrong = |reason: String| RegistriesError::File { file: file.to_owned(), reason };
            let parsed: File = toml::from_str(text).map_err(|error| {
                let line = error.span().map_or(1, |span| text[..span.start].lines().count().max(1));
                wrong(format!("line {line}: {}", error.message()))
            })?;
            for table in parsed.registry {
                conf.add(Registry::new(file, table).map_err(wrong)?);
            }
            let Version1 { insecure, block } = parsed.registries;
            for (hosts, blocked) in [(insecure, false), (block, true)] {
                for location in hosts.registries {
                    let table = Table { location, blocked, insecure: !blocked, ..Table::default() };
                    conf.add(Registry::new(file, table).map_err(wrong)?);
                }
            }
            conf.aliases.extend(parsed.aliases);
        }
        Ok(conf)
    }

    fn add(&mut self, registry: Registry) {
        self.registries.retain(|other| other.prefix != registry.prefix);
        self.registries.push(registry);
    }

    /// Returns the name that a name stands for: replaces a name without a registry by its alias.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Location`] if the alias is not a valid name.
    pub fn named(&self, reference: &Reference) -> Result<Reference, RegistriesError> {
        let alias = reference.short_name().and_then(|name| Some((name, self.aliases.get(name)?)));
        let Some((short, whole)) = alias.filter(|(_, whole)| !whole.is_empty()) else {
            return Ok(reference.clone());
        };
        let name = reference.to_string().replacen(short, whole, 1);
        name.parse().map_err(|_| RegistriesError::Location {
            file: "[aliases]".into(),
            reference: reference.to_string(),
            name,
        })
    }

    /// Returns the place that an image is pushed to.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Blocked`] if the registry is blocked.
    pub fn target(&self, reference: &Reference) -> Result<Location, RegistriesError> {
        let insecure = self.registry(reference)?.is_some_and(|registry| registry.insecure);
        Ok(Location { reference: reference.clone(), insecure })
    }

    /// Returns the places that an image may be read from, in the order in which to try them: the
    /// mirrors, and at last the registry itself.
    ///
    /// # Errors
    /// Fails with [`RegistriesError::Blocked`] if the registry is blocked, and with
    /// [`RegistriesError::Location`] if a resulting name is not valid.
    pub fn sources(&self, reference: &Reference) -> Result<Vec<Location>, RegistriesError> {
        let Some(registry) = self.registry(reference)? else {
            return Ok(vec![Location { reference: reference.clone(), insecure: false }]);
        };
        let by_digest = reference.digest().is_some();
        let is_for = |mirror: &&Mirror| match &*mirror.pull_from_mirror {
            "digest-only" => by_digest,
            "tag-only" => !by_digest,
            _ => by_digest || !registry.mirror_by_digest_only,
        };
        let mirrors = registry.mirrors.iter().filter(is_for);
        let mirrors = mirrors.map(|mirror| (&mirror.location, mirror.insecure));
        let all = mirrors.chain([(&registry.location, registry.insecure)]);
        all.map(|(location, insecure)| {
            Ok(Location { reference: registry.moved(reference, location)?, insecure })
        })
        .collect()
    }

    /// Returns the settings for the longest matching prefix of a name.
    fn registry(&self, reference: &Reference) -> Result<Option<&Registry>, RegistriesError> {
        let matching = self.registries.iter().filter(|registry| registry.length(reference) > 0);
        let found = matching.max_by_key(|registry| registry.prefix.len());
        match found {
            Some(Registry { blocked: true, prefix, file, .. }) => Err(RegistriesError::Blocked {
                name: reference.name(),
                prefix: prefix.clone(),
                file: file.clone(),
            }),
            found => Ok(found),
        }
    }
}

impl Registry {
    fn new(file: &Path, table: Table) -> Result<Self, String> {
        let Table { prefix, location, insecure, blocked, mirror_by_digest_only, mirror } = table;
        let checked = |text: String| {
            if text.contains("://") {
                return Err(format!("`{text}` must have no scheme"));
            }
            Ok(text.trim_end_matches('/').to_owned())
        };
        let (prefix, location) = (checked(prefix)?, checked(location)?);
        let prefix = if prefix.is_empty() { location.clone() } else { prefix };
        if prefix.is_empty() {
            return Err("a `[[registry]]` has neither `prefix` nor `location`".to_owned());
        }
        let mirrors = mirror.into_iter().map(|mirror| match checked(mirror.location)? {
            location if location.is_empty() => {
                Err(format!("a `[[registry.mirror]]` of `{prefix}` has no `location`"))
            }
            location => Ok(Mirror { location, ..mirror }),
        });
        let mirrors = mirrors.collect::<Result<_, String>>()?;
        let file = file.to_owned();
        Ok(Self { file, prefix, location, insecure, blocked, mirror_by_digest_only, mirrors })
    }

    /// Returns the number of characters of a whole name that the prefix matches; 0 if it does not
    /// match.
    fn length(&self, reference: &Reference) -> usize {
        let name = reference.whole();
        if let Some(domain) = self.prefix.strip_prefix('*') {
            let host = reference.registry().as_str();
            return if host.ends_with(domain) { host.len() } else { 0 };
        }
        // A prefix without a path is a whole host: a colon after it would begin a port, and so
        // another registry's name.
        let separators: &[char] = if self.prefix.contains('/') { &['/', ':', '@'] } else { &['/'] };
        match name.strip_prefix(&*self.prefix) {
            Some(rest) if rest.is_empty() || rest.starts_with(separators) => self.prefix.len(),
            _ => 0,
        }
    }

    /// Returns the name with another location in place of the prefix.
    fn moved(&self, reference: &Reference, location: &str) -> Result<Reference, RegistriesError> {
        if location.is_empty() || location == self.prefix {
            return Ok(reference.clone());
        }
        let name = format!("{location}{}", &reference.whole()[self.length(reference)..]);
        name.parse().map_err(|_| RegistriesError::Location {
            file: self.file.clone(),
            reference: reference.to_string(),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONF: &str = r#"
        unqualified-search-registries = ["example.com"]
        short-name-mode = "enforcing"

        [[registry]]
        prefix = "example.com/foo"
        location = "internal.example.net/bar"

        [[registry.mirror]]
        location = "mirror-0.local/for-foo"

        [[registry.mirror]]
        location = "mirror-1.local/foo"
        insecure = true
        pull-from-mirror = "digest-only"

        [[registry]]
        location = "plain.example:5000"
        insecure = true

        [[registry]]
        location = "example.com/foo/blocked"
        blocked = true

        [[registry]]
        prefix = "*.corp.example"
        insecure = true

        [[registry]]
        location = "docker.io"
        mirror-by-digest-only = true
        [[registry.mirror]]
        location = "hub.local:5000"

        [aliases]
        "app" = "registry.example/team/app"
        "team/tool" = "registry.example/tool"
        "gone" = ""
    "#;
    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn conf(texts: &[&str]) -> Result<RegistriesConf, RegistriesError> {
        RegistriesConf::parse(texts.iter().map(|text| (Path::new("conf"), *text)))
    }

    /// Returns the places that a name is read from, in one line; an exclamation mark stands for
    /// insecure.
    fn sources(conf: &RegistriesConf, name: &str) -> String {
        let sources = match conf.sources(&name.parse().unwrap()) {
            Ok(sources) => sources,
            Err(error) => return error.to_string(),
        };
        let text = sources.iter().map(|Location { reference, insecure }| {
            format!("{}{}", reference.whole(), if *insecure { "!" } else { "" })
        });
        text.collect::<Vec<_>>().join(" ").replace(DIGEST, "DIGEST")
    }

    #[test]
    fn images_are_read_where_the_longest_prefix_says() {
        let conf = conf(&[CONF]).unwrap();
        for (name, expected) in [
            ("other.example/a:v1", "other.example/a:v1"),
            ("example.com/a:v1", "example.com/a:v1"),
            ("example.com/food:v1", "example.com/food:v1"),
            (
                "example.com/foo/image:v1",
                "mirror-0.local/for-foo/image:v1 internal.example.net/bar/image:v1",
            ),
            (
                "example.com/foo/image@DIGEST",
                "mirror-0.local/for-foo/image@DIGEST mirror-1.local/foo/image@DIGEST! \
                 internal.example.net/bar/image@DIGEST",
            ),
            ("example.com/foo:v1", "mirror-0.local/for-foo:v1 internal.example.net/bar:v1"),
            (
                "example.com/foo/blocked/a:v1",
                "example.com/foo/blocked/a: `example.com/foo/blocked` is blocked by conf",
            ),
            ("plain.example:5000/a/b:v1", "plain.example:5000/a/b:v1!"),
            ("plain.example/a:v1", "plain.example/a:v1"),
            ("a.corp.example/b:v1", "a.corp.example/b:v1!"),
            ("corp.example/b:v1", "corp.example/b:v1"),
            ("hello:v1", "docker.io/library/hello:v1"),
            ("hello@DIGEST", "hub.local:5000/library/hello@DIGEST docker.io/library/hello@DIGEST"),
        ] {
            assert_eq!(sources(&conf, &name.replace("DIGEST", DIGEST)), expected, "{name}");
        }
    }

    #[test]
    fn pushes_go_where_they_are_sent() {
        let conf = conf(&[CONF]).unwrap();
        for (name, insecure) in [
            ("example.com/foo/image:v1", Some(false)),
            ("plain.example:5000/a:v1", Some(true)),
            ("example.com/foo/blocked/a:v1", None),
            ("other.example/a:v1", Some(false)),
        ] {
            let reference: Reference = name.parse().unwrap();
            let target = conf.target(&reference).ok();
            assert_eq!(target, insecure.map(|insecure| Location { reference, insecure }), "{name}");
        }
    }

    #[test]
    fn names_without_a_registry_may_stand_for_others() {
        let conf = conf(&[CONF]).unwrap();
        for (name, expected) in [
            ("app", "registry.example/team/app"),
            ("app:v1", "registry.example/team/app:v1"),
            ("app@DIGEST", "registry.example/team/app@DIGEST"),
            ("team/tool:v1", "registry.example/tool:v1"),
            ("gone:v1", "gone:v1"),
            ("docker.io/app:v1", "docker.io/app:v1"),
            ("docker.io/library/app", "docker.io/library/app"),
            ("other/app", "other/app"),
        ] {
            let named = conf.named(&name.replace("DIGEST", DIGEST).parse().unwrap()).unwrap();
            assert_eq!(named.to_string(), expected.replace("DIGEST", DIGEST), "{name}");
        }
    }

    #[test]
    fn later_files_count() {
        let later = "[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"x.example/y\"\n\
                     [aliases]\napp = \"other.example/app\"";
        let conf = conf(&[CONF, later]).unwrap();
        assert_eq!(sources(&conf, "example.com/foo/image:v1"), "x.example/y/image:v1");
        assert_eq!(conf.named(&"app".parse().unwrap()).unwrap().to_string(), "other.example/app");
    }

    #[test]
    fn the_first_version_is_read() {
        let old = "[registries.search]\nregistries = ['a.example']\n\
                   [registries.insecure]\nregistries = ['b.example:5000']\n\
                   [registries.block]\nregistries = ['c.example']";
        let conf = conf(&[old]).unwrap();
        assert_eq!(sources(&conf, "b.example:5000/a:v1"), "b.example:5000/a:v1!");
        assert!(sources(&conf, "c.example/a").contains("is blocked"));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, message) in [
            ("[[registry]]\ninsecure = 1", "conf: line 2: "),
            ("\n[[registry]\n", "conf: line 2: "),
            ("[[registry]]\ninsecure = true", "conf: a `[[registry]]` has neither"),
            ("[[registry]]\nlocation = 'http://a'", "conf: `http://a` must have no scheme"),
            ("[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]", "of `a.b` has no `location`"),
        ] {
            let error = conf(&[text]).unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
        let conf = conf(&["[[registry]]\nprefix = 'a.b'\nlocation = 'C D'"]).unwrap();
        assert!(sources(&conf, "a.b/c").contains("is not an image name"));
    }
}
