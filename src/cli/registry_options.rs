//! Reads from options and the environment how registries are reached, as Docker, podman and skopeo
//! do.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Failure;
use super::arguments::{SkopeoArguments, SourceArguments};
use super::environment::variable;
use crate::registry::client::{
    AuthSource, Certificates, ClientOptions, Credentials, DROP_INS, Proxies, RegistriesConf,
    RegistriesError,
};
use crate::small_file;

/// Returns the options of `stowage copy` and `stowage push`.
pub fn for_target(arguments: &SkopeoArguments) -> Result<ClientOptions, Failure> {
    let SkopeoArguments { dest_tls_verify, dest_cert_dir, dest_creds, authfile, .. } =
        arguments.clone();
    Ok(ClientOptions {
        tls_verify: dest_tls_verify,
        credentials: dest_creds.as_deref().map(credentials),
        ..of_environment(dest_cert_dir, authfile)?
    })
}

/// Returns the options of `stowage prefetch`.
pub fn for_source(arguments: &SourceArguments) -> Result<ClientOptions, Failure> {
    let SourceArguments { tls_verify, cert_dir, creds, authfile } = arguments;
    Ok(ClientOptions {
        tls_verify: *tls_verify,
        credentials: creds.as_deref().map(credentials),
        ..of_environment(cert_dir.clone(), authfile.clone())?
    })
}

fn of_environment(
    cert_dir: Option<PathBuf>,
    authfile: Option<PathBuf>,
) -> Result<ClientOptions, Failure> {
    let auth_sources = match authfile {
        // A file that was named must exist.
        Some(file) if !file.exists() => return Err(Failure::AuthFile(file)),
        Some(file) => vec![AuthSource::File(file)],
        None => auth_sources(&variable, nix::unistd::getuid().as_raw()),
    };
    let certificates = Certificates { directory: cert_dir, ..certificates(&variable) };
    let text = |name: &str| variable(name)?.into_string().ok();
    let proxies = Arc::new(Proxies::read(&text));
    let registries = Arc::new(registries(&variable)?);
    Ok(ClientOptions {
        certificates,
        proxies,
        registries,
        auth_sources,
        ..ClientOptions::default()
    })
}

/// Reads the settings of registries (containers-registries.conf(5),
/// containers-registries.conf.d(5)): the user's file or else the system's, and then both
/// directories; or only the file that a variable names.
fn registries(
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<RegistriesConf, RegistriesError> {
    let named =
        variable("CONTAINERS_REGISTRIES_CONF").or_else(|| variable("REGISTRIES_CONFIG_PATH"));
    let files = match named {
        Some(file) => vec![PathBuf::from(file)],
        None => {
            let user = variable("HOME").map(|home| Path::new(&home).join(".config/containers"));
            let system = PathBuf::from("/etc/containers");
            let places: Vec<_> = user.into_iter().chain([system]).collect();
            let mut files: Vec<_> = places.iter().map(|at| at.join("registries.conf")).collect();
            files.retain(|file| file.is_file());
            files.truncate(1);
            files.extend(places.iter().rev().flat_map(|at| drop_ins(&at.join(DROP_INS))));
            files
        }
    };
    let texts = files.iter().map(|file| match small_file::read_text(file) {
        Ok(text) => Ok((&**file, text)),
        Err(error) => Err(RegistriesError::File { file: file.clone(), reason: error.to_string() }),
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    RegistriesConf::parse(texts.iter().map(|(file, text)| (*file, &**text)))
}

/// Returns the files of a directory of settings, in the order of their names.
fn drop_ins(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|file| {
        file.extension().is_some_and(|extension| extension == "conf") && file.is_file()
    });
    files.sort();
    files
}

/// Parses `USER[:PASSWORD]`.
fn credentials(typed: &str) -> Credentials {
    let (user, password) = typed.split_once(':').unwrap_or((typed, ""));
    Credentials::Password(user.to_owned(), password.to_owned())
}

/// Returns the places of certificates: the file and the directories that OpenSSL and Nix use, in
/// which companies install their own authorities, and the directories for registries
/// (containers-certs.d(5); docker reads the last of them).
fn certificates(variable: &dyn Fn(&str) -> Option<OsString>) -> Certificates {
    let files = ["SSL_CERT_FILE", "NIX_SSL_CERT_FILE"].into_iter().filter_map(variable);
    let home = variable("HOME").map(|home| Path::new(&home).join(".config/containers/certs.d"));
    let system = ["/etc/containers/certs.d", "/etc/docker/certs.d"].map(PathBuf::from);
    Certificates {
        directory: None,
        registry_directories: home.into_iter().chain(system).collect(),
        // In a container or a derivation the variable may name a file that does not exist.
        authorities: files.map(PathBuf::from).find(|file| !is_missing(file)),
        authority_directories: variable("SSL_CERT_DIR")
            .map_or_else(Vec::new, |directories| env::split_paths(&directories).collect()),
    }
}

/// Returns whether there is nothing at a path. What is there and can't be read is not missing.
fn is_missing(path: &Path) -> bool {
    let error = fs::metadata(path).err();
    error
        .is_some_and(|error| matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory))
}

/// Returns the places of credentials, in the order in which clients look for them
/// (containers-auth.json(5); docker, "Configuration files"): first the one that a variable names,
/// then podman's own files, then Docker's.
fn auth_sources(variable: &dyn Fn(&str) -> Option<OsString>, user_id: u32) -> Vec<AuthSource> {
    let below = |name: &str, path: &str| Some(Path::new(&variable(name)?).join(path));
    let file = |file: Option<PathBuf>| file.map(AuthSource::File);
    let text = variable("DOCKER_AUTH_CONFIG").and_then(|text| text.into_string().ok());
    // The session's file; root often has no session.
    let run = || Some(PathBuf::from(format!("/run/containers/{user_id}/auth.json")));
    let docker = below("DOCKER_CONFIG", "config.json");
    let in_home = if docker.is_none() { below("HOME", ".docker/config.json") } else { None };
    let config = || below("HOME", ".config/containers/auth.json");
    let sources = [
        file(variable("REGISTRY_AUTH_FILE").map(PathBuf::from)),
        text.map(|text| AuthSource::Variable { name: "DOCKER_AUTH_CONFIG", text }),
        file(docker),
        file(below("XDG_RUNTIME_DIR", "containers/auth.json").or_else(run)),
        file(below("XDG_CONFIG_HOME", "containers/auth.json").or_else(config)),
        file(in_home),
    ];
    sources.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_missing_files_of_authorities_are_passed_over() {
        for (first, second, expected) in [
            ("/nonexistent", "/dev/null", Some("/dev/null")),
            ("/dev/null/below", "/nonexistent", None),
            // The error of reading it names it.
            ("/", "/dev/null", Some("/")),
        ] {
            let variable = |name: &str| match name {
                "SSL_CERT_FILE" => Some(OsString::from(first)),
                "NIX_SSL_CERT_FILE" => Some(OsString::from(second)),
                _ => None,
            };
            assert_eq!(certificates(&variable).authorities, expected.map(PathBuf::from), "{first}");
        }
    }

    #[test]
    fn credentials_are_looked_for_as_clients_do() {
        for (variables, expected) in [
            (&[][..], &["/run/containers/7/auth.json"][..]),
            (
                &[("HOME", "/h")],
                &[
                    "/run/containers/7/auth.json",
                    "/h/.config/containers/auth.json",
                    "/h/.docker/config.json",
                ],
            ),
            (
                &[("HOME", "/h"), ("XDG_RUNTIME_DIR", "/x"), ("XDG_CONFIG_HOME", "/c")],
                &["/x/containers/auth.json", "/c/containers/auth.json", "/h/.docker/config.json"],
            ),
            (
                &[
                    ("HOME", "/h"),
                    ("DOCKER_CONFIG", "/d"),
                    ("DOCKER_AUTH_CONFIG", "{}"),
                    ("REGISTRY_AUTH_FILE", "/a"),
                ],
                &[
                    "/a",
                    "DOCKER_AUTH_CONFIG",
                    "/d/config.json",
                    "/run/containers/7/auth.json",
                    "/h/.config/containers/auth.json",
                ],
            ),
        ] {
            let variable = |name: &str| {
                let found = variables.iter().find(|(key, _)| *key == name);
                found.map(|(_, value)| OsString::from(value))
            };
            let sources = auth_sources(&variable, 7);
            let sources: Vec<_> = sources.iter().map(ToString::to_string).collect();
            assert_eq!(sources, expected, "{variables:?}");
        }
    }
}
