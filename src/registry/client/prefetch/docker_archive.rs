//! Computes the digest of the docker-archive that skopeo makes of an image in a registry.
//! Stage: registry. Input: an image's name. Output: the archive's [`Digest`].

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::json;

use crate::digest::{Digest, DigestWriter};
use crate::outgoing::{SkopeoError, Watch, run_skopeo};
use crate::registry::client::credentials::{AuthSource, Credentials};
use crate::registry::client::repository::ClientOptions;

/// Returns the digest of the docker-archive that skopeo makes of an image in a registry, with the
/// name `reference` in it. `image` is its name with registry and digest. The archive takes the space
/// of the uncompressed image in a temporary file until it is read.
///
/// # Errors
/// Fails with [`SkopeoError`] if skopeo can't be run or fails.
pub fn docker_archive_digest(
    image: &str,
    reference: &str,
    options: &ClientOptions,
    watch: &dyn Watch,
) -> Result<Digest, SkopeoError> {
    watch.hold();
    let path = std::env::temp_dir();
    let temporary = |source| SkopeoError::Temporary { path: path.clone(), source };
    let directory = tempfile::tempdir_in(&path).map_err(temporary)?;
    let archive = directory.path().join("image.tar");
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg("--tmpdir").arg(directory.path());
    command.args(["copy", "--quiet"]);
    if let Some(verify) = options.tls_verify {
        command.arg(format!("--src-tls-verify={verify}"));
    }
    if let Some(directory) = &options.certificates.directory {
        command.arg("--src-cert-dir").arg(directory);
    }
    if let Some(Credentials::Password(user, password)) = &options.credentials {
        // Every user of the machine can read the arguments of a program.
        let file = directory.path().join("auth.json");
        let registry = image.split('/').next().unwrap_or_default();
        let written = write_login(&file, registry, user, password);
        written.map_err(|source| SkopeoError::Temporary { path: file.clone(), source })?;
        command.arg("--src-authfile").arg(file);
    } else if let [AuthSource::File(file)] = &options.auth_sources[..] {
        command.arg("--src-authfile").arg(file);
    }
    command
        .arg(format!("docker://{image}"))
        .arg(format!("docker-archive:{}:{reference}", archive.display()));
    run_skopeo(&mut command, "docker-archive:", watch)?;
    let mut digest = DigestWriter::with_thread(io::sink());
    let copied = File::open(&archive).and_then(|mut file| io::copy(&mut file, &mut digest));
    copied.map_err(temporary)?;
    Ok(digest.finish().0)
}

/// Writes a file with credentials, as skopeo reads them (containers-auth.json(5)): for this user
/// alone.
fn write_login(file: &Path, registry: &str, user: &str, password: &str) -> io::Result<()> {
    let auth = BASE64_STANDARD.encode(format!("{user}:{password}"));
    let login = json!({"auths": {registry: {"auth": auth}}}).to_string();
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file)?;
    open.write_all(login.as_bytes())
}
