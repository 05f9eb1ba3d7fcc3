//! Reads the name of a target, in skopeo's notation.
//! Stage: target (pure). Input: text. Output: [`Target`].

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use thiserror::Error;

use super::archive::is_stdout;
use super::remote::{ParseHostError, RemoteHost};
use crate::outgoing::{ImageReference, ParseRefNameError, ParseReferenceError, RefName, Reference};

/// A target: a place to which an image is copied (containers-transports(5)).
#[derive(Clone, Debug)]
pub enum Target {
    /// `docker-daemon:NAME:TAG`
    DockerDaemon(ImageReference),
    /// `containerd:NAME:TAG`, which skopeo does not have
    Containerd(ImageReference),
    /// `docker-archive:PATH[:NAME:TAG]`
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// The name under which the image is loaded.
        reference: Option<ImageReference>,
    },
    /// `oci-archive:PATH[:REF]`
    OciArchive {
        /// The file.
        path: PathBuf,
        /// The image's name in the archive.
        ref_name: Option<RefName>,
    },
    /// `oci:PATH[:REF]`
    Oci {
        /// The directory of the image layout.
        path: PathBuf,
        /// The image's name in the layout.
        ref_name: Option<RefName>,
    },
    /// `dir:PATH`
    Dir {
        /// The directory.
        path: PathBuf,
    },
    /// `docker://NAME[:TAG]`, a registry.
    Registry(Reference),
    /// `containers-storage:NAME[:TAG]`, the image store of podman, Buildah and CRI-O; written by
    /// skopeo
    ContainersStorage(String),
    /// `ssh://[USER@]HOST[:PORT]/TARGET`, a target of another machine, which skopeo does not have
    Ssh {
        /// The other machine.
        host: RemoteHost,
        /// The target there.
        target: Box<Target>,
    },
}

/// Says why a text is not a [`Target`].
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ParseTargetError {
    /// The transport is missing or unknown.
    #[error("{}; targets are {}", .0, known())]
    Unknown(String),
    /// The path is missing.
    #[error("no path is given: write `{0}`")]
    NoPath(&'static str),
    /// The name is missing.
    #[error("no name is given: write `{0}`")]
    NoName(&'static str),
    /// The name of an image is not valid.
    #[error(transparent)]
    Reference(#[from] ParseReferenceError),
    /// The name in an image layout is not valid.
    #[error(transparent)]
    RefName(#[from] ParseRefNameError),
    /// The name of another machine is not valid.
    #[error(transparent)]
    Host(#[from] ParseHostError),
    /// The target on another machine is one on a third machine, or standard output, which is not the
    /// user's there.
    #[error("`{0}` can't be a target on another machine")]
    Remote(String),
}

/// A transport, and how its targets are parsed.
struct Transport {
    name: &'static str,
    /// The form of the target, for messages.
    form: &'static str,
    /// Parses the text after the transport's name and colon.
    parse: fn(&str) -> Result<Target, ParseTargetError>,
}

const DOCKER_ARCHIVE: &str = "docker-archive:PATH[:NAME:TAG]";
const OCI_ARCHIVE: &str = "oci-archive:PATH[:REF]";
const OCI: &str = "oci:PATH[:REF]";
const DIR: &str = "dir:PATH";
const REGISTRY: &str = "docker://NAME[:TAG]";
const CONTAINERS_STORAGE: &str = "containers-storage:NAME[:TAG]";

const SSH: &str = "ssh://[USER@]HOST[:PORT]/TARGET";

/// The transports, in the order in which messages name them.
const TRANSPORTS: [Transport; 9] = [
    Transport {
        name: "docker-daemon",
        form: "docker-daemon:NAME:TAG",
        parse: |text| Ok(Target::DockerDaemon(text.parse()?)),
    },
    Transport {
        name: "docker-archive",
        form: DOCKER_ARCHIVE,
        parse: |text| {
            let (path, reference) = path_and_name(text, DOCKER_ARCHIVE)?;
            Ok(Target::DockerArchive { path, reference })
        },
    },
    Transport {
        name: "oci-archive",
        form: OCI_ARCHIVE,
        parse: |text| {
            let (path, ref_name) = path_and_name(text, OCI_ARCHIVE)?;
            Ok(Target::OciArchive { path, ref_name })
        },
    },
    Transport {
        name: "oci",
        form: OCI,
        parse: |text| {
            let (path, ref_name) = path_and_name(text, OCI)?;
            Ok(Target::Oci { path, ref_name })
        },
    },
    Transport {
        name: "dir",
        form: DIR,
        // No name follows the path, so this path may have colons.
        parse: |text| Ok(Target::Dir { path: path(text, DIR)? }),
    },
    Transport {
        name: "docker",
        form: REGISTRY,
        parse: |text| match text.strip_prefix("//") {
            Some(name) if !name.is_empty() => Ok(Target::Registry(name.parse()?)),
            _ => Err(ParseTargetError::NoName(REGISTRY)),
        },
    },
    Transport {
        name: "containerd",
        form: "containerd:NAME:TAG",
        parse: |text| Ok(Target::Containerd(text.parse()?)),
    },
    // Only skopeo knows the grammar of these names.
    Transport {
        name: "containers-storage",
        form: CONTAINERS_STORAGE,
        parse: |text| match text {
            "" => Err(ParseTargetError::NoName(CONTAINERS_STORAGE)),
            name => Ok(Target::ContainersStorage(name.to_owned())),
        },
    },
    Transport {
        name: "ssh",
        form: SSH,
        parse: |text| {
            let (host, target) = text
                .strip_prefix("//")
                .and_then(|rest| rest.split_once('/'))
                .ok_or(ParseTargetError::NoName(SSH))?;
            let (host, target) = (host.parse()?, Box::new(target.parse::<Target>()?));
            if !target.may_be_remote() {
                return Err(ParseTargetError::Remote(target.to_string()));
            }
            Ok(Target::Ssh { host, target })
        },
    },
];

impl Target {
    /// Returns the file, if the target is an archive.
    pub fn archive(&self) -> Option<&Path> {
        match self {
            Self::DockerArchive { path, .. } | Self::OciArchive { path, .. } => Some(path),
            Self::DockerDaemon(_)
            | Self::Containerd(_)
            | Self::Oci { .. }
            | Self::Dir { .. }
            | Self::Registry(_)
            | Self::ContainersStorage(_)
            | Self::Ssh { .. } => None,
        }
    }

    /// Returns whether another machine can send images to this target: the target is neither on a
    /// third machine, nor standard output, which is not the user's there.
    pub fn may_be_remote(&self) -> bool {
        !matches!(self, Self::Ssh { .. }) && !self.archive().is_some_and(is_stdout)
    }
}

/// Splits a path from a name at the first colon, as skopeo does. An empty name is an error: most
/// likely it comes from a variable without a value.
fn path_and_name<N: FromStr>(
    text: &str,
    form: &'static str,
) -> Result<(PathBuf, Option<N>), ParseTargetError>
where
    ParseTargetError: From<N::Err>,
{
    match text.split_once(':') {
        Some((before, name)) => Ok((path(before, form)?, Some(name.parse()?))),
        None => Ok((path(text, form)?, None)),
    }
}

fn path(text: &str, form: &'static str) -> Result<PathBuf, ParseTargetError> {
    if text.is_empty() { Err(ParseTargetError::NoPath(form)) } else { Ok(text.into()) }
}

/// Lists all forms of a target, for messages.
fn known() -> String {
    TRANSPORTS.map(|transport| format!("`{}`", transport.form)).join(", ")
}

/// Returns the beginning of targets, such as `oci:` and `docker://`, whose transport `name` probably
/// misspells: it differs by at most two typing errors, or by one if the name is short.
fn meant(name: &str) -> Option<String> {
    let name = name.to_lowercase();
    let distances = TRANSPORTS
        .iter()
        .map(|transport| (strsim::damerau_levenshtein(&name, transport.name), transport));
    let (distance, meant) = distances.min_by_key(|(distance, _)| *distance)?;
    let slashes = [meant.name, "://"].concat();
    let end = if meant.form.starts_with(&slashes) { "://" } else { ":" };
    (distance <= (meant.name.len() / 3).min(2)).then(|| [meant.name, end].concat())
}

/// Returns a question for messages, if `text` is probably the name of an image in a registry: a name
/// with a registry, or its address.
fn registry_meant(text: &str) -> String {
    let schemes = ["https://", "http://"].into_iter();
    let name = schemes.filter_map(|scheme| text.strip_prefix(scheme)).next().unwrap_or(text);
    match name.parse::<Reference>() {
        Ok(reference) if reference.short_name().is_none() => {
            format!(" (did you mean `docker://{name}`?)")
        }
        _ => String::new(),
    }
}

impl FromStr for Target {
    type Err = ParseTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((name, rest)) = text.split_once(':') else {
            let meant = registry_meant(text);
            return Err(ParseTargetError::Unknown(format!("no transport is named{meant}")));
        };
        match TRANSPORTS.iter().find(|transport| transport.name == name) {
            Some(transport) => (transport.parse)(rest),
            None => {
                let meant = meant(name).map(|meant| format!(" (did you mean `{meant}`?)"));
                let meant = meant.unwrap_or_else(|| registry_meant(text));
                Err(ParseTargetError::Unknown(format!("there is no transport `{name}`{meant}")))
            }
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut write = |transport: &str, path: &Path, name: Option<&dyn fmt::Display>| {
            write!(f, "{transport}:{}", path.display())?;
            name.map_or(Ok(()), |name| write!(f, ":{name}"))
        };
        fn name(name: &Option<impl fmt::Display>) -> Option<&dyn fmt::Display> {
            name.as_ref().map(|name| name as _)
        }
        match self {
            Self::DockerDaemon(reference) => write!(f, "docker-daemon:{reference}"),
            Self::Containerd(reference) => write!(f, "containerd:{reference}"),
            Self::DockerArchive { path, reference } => {
                write("docker-archive", path, name(reference))
            }
            Self::OciArchive { path, ref_name } => write("oci-archive", path, name(ref_name)),
            Self::Oci { path, ref_name } => write("oci", path, name(ref_name)),
            Self::Dir { path } => write("dir", path, None),
            Self::Registry(name) => write!(f, "docker://{name}"),
            Self::ContainersStorage(name) => write!(f, "containers-storage:{name}"),
            Self::Ssh { host, target } => write!(f, "ssh://{host}/{target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns path and name, if the target has them.
    fn parts(target: &Target) -> (String, String) {
        fn parts(path: &Path, name: &Option<impl fmt::Display>) -> (String, String) {
            let name = name.as_ref().map(ToString::to_string);
            (path.display().to_string(), name.unwrap_or_default())
        }
        match target {
            Target::DockerDaemon(reference) | Target::Containerd(reference) => {
                (String::new(), reference.to_string())
            }
            Target::Registry(name) => (String::new(), name.to_string()),
            Target::ContainersStorage(name) => (String::new(), name.clone()),
            Target::DockerArchive { path, reference } => parts(path, reference),
            Target::OciArchive { path, ref_name } | Target::Oci { path, ref_name } => {
                parts(path, ref_name)
            }
            Target::Dir { path } => parts(path, &None::<RefName>),
            Target::Ssh { host, target } => (host.to_string(), target.to_string()),
        }
    }

    #[test]
    fn targets_are_read_as_skopeo_reads_them() {
        for (text, path, name) in [
            ("docker-daemon:hello:v1", "", "hello:v1"),
            ("docker-archive:a.tar", "a.tar", ""),
            ("docker-archive:/a/b c.tar:hello:v1", "/a/b c.tar", "hello:v1"),
            ("docker-archive:a:localhost:5000/hello:v1", "a", "localhost:5000/hello:v1"),
            ("docker-archive:/dev/stdout:hello:v1", "/dev/stdout", "hello:v1"),
            ("oci-archive:a.tar", "a.tar", ""),
            ("oci-archive:a.tar:v1", "a.tar", "v1"),
            ("oci-archive:a.tar:docker.io/hello:v1", "a.tar", "docker.io/hello:v1"),
            ("oci:layout", "layout", ""),
            ("oci:./layout:v1", "./layout", "v1"),
            ("oci:layout:a:b:c", "layout", "a:b:c"),
            ("dir:a", "a", ""),
            ("dir:a:b:c", "a:b:c", ""),
            ("containerd:a/b:c", "", "a/b:c"),
            ("docker://localhost:5000/a/b:c", "", "localhost:5000/a/b:c"),
            ("containers-storage:[vfs@/a+/b]c:d", "", "[vfs@/a+/b]c:d"),
            ("ssh://me@host:22/docker-daemon:a/b:v1", "me@host:22", "docker-daemon:a/b:v1"),
            ("ssh://[::1]/oci:/srv/a b:v1", "[::1]", "oci:/srv/a b:v1"),
            ("ssh://host/docker://quay.io/a:v1", "host", "docker://quay.io/a:v1"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(parts(&target), (path.to_owned(), name.to_owned()), "{text}");
            assert_eq!(target.to_string(), text);
        }
    }

    #[test]
    fn mistakes_are_named() {
        let all = "; targets are `docker-daemon:NAME:TAG`, `docker-archive:PATH[:NAME:TAG]`, \
                   `oci-archive:PATH[:REF]`, `oci:PATH[:REF]`, `dir:PATH`, `docker://NAME[:TAG]`, `containerd:NAME:TAG`, \
                   `containers-storage:NAME[:TAG]`, `ssh://[USER@]HOST[:PORT]/TARGET`";
        for (text, message) in [
            ("hello", &format!("no transport is named{all}")[..]),
            ("", "no transport is named"),
            ("tarball:a.tar", &format!("there is no transport `tarball`{all}")),
            ("oci", "no transport is named"),
            ("OCI:a", "there is no transport `OCI` (did you mean `oci:`?); targets are"),
            ("docker-deamon:a:b", "`docker-deamon` (did you mean `docker-daemon:`?)"),
            ("conatinerd:a:b", "(did you mean `containerd:`?)"),
            ("di:a", "(did you mean `dir:`?)"),
            ("Docker://a", "(did you mean `docker://`?)"),
            ("shs://a/oci:b", "(did you mean `ssh://`?)"),
            ("podman:a", "there is no transport `podman`; targets are"),
            ("podman:a/b", "there is no transport `podman`; targets are"),
            ("a/b", "no transport is named; targets are"),
            ("quay.io/a/b:c", "`quay.io/a/b` (did you mean `docker://quay.io/a/b:c`?); targets"),
            ("quay.io/a", "no transport is named (did you mean `docker://quay.io/a`?)"),
            ("localhost:5000/a:v1", "(did you mean `docker://localhost:5000/a:v1`?)"),
            ("[::1]:5000/a", "(did you mean `docker://[::1]:5000/a`?)"),
            ("https://quay.io/a", "(did you mean `docker://quay.io/a`?)"),
            ("https:a", "there is no transport `https`; targets are"),
            ("docker-daemon:hello", "must be a name and a tag"),
            ("docker-archive:", "no path is given: write `docker-archive:PATH[:NAME:TAG]`"),
            ("docker-archive:a:", "`` is not an image name"),
            ("docker-archive:a:hello", "must be a name and a tag"),
            ("docker-archive:a:@1", "is not an image name"),
            ("oci-archive::v1", "no path is given"),
            ("oci::v1", "no path is given: write `oci:PATH[:REF]`"),
            ("oci:a:", "`` can't be a name in an image layout"),
            ("oci:a:b c", "`b c` can't be a name in an image layout"),
            ("dir:", "no path is given"),
            ("docker:a", "no name is given: write `docker://NAME[:TAG]`"),
            ("docker://", "no name is given"),
            ("containers-storage:", "no name is given: write `containers-storage:"),
            ("ssh:host/oci:a", "no name is given: write `ssh://[USER@]HOST[:PORT]/TARGET`"),
            ("ssh://host", "no name is given: write `ssh://"),
            ("ssh:///oci:a", "`` is not a machine: write `ssh://[USER@]HOST[:PORT]/TARGET`"),
            ("ssh://-oProxyCommand=x/oci:a", "`-oProxyCommand=x` is not a machine"),
            ("ssh://host/hello:v1", "there is no transport `hello`"),
            ("ssh://host/oci:", "no path is given: write `oci:PATH[:REF]`"),
            ("ssh://a/ssh://b/oci:c", "`ssh://b/oci:c` can't be a target on another machine"),
            (
                "ssh://a/docker-archive:/dev/stdout",
                "`docker-archive:/dev/stdout` can't be a target on another machine",
            ),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(message), "{text}: {error}");
        }
    }
}
