//! Computes the digest of the docker-archive that skopeo makes of an image in a registry.
//! Stage: registry. Input: an image's name. Output: the archive's [`Digest`].

use std::fs::File;
use std::io;
use std::process::Command;

use crate::digest::{Digest, DigestWriter};
use crate::outgoing::{SkopeoError, Watch, run_skopeo};
use crate::registry::client::credentials::{AuthSource, Credentials};
use crate::registry::client::repository::ClientOptions;

/// Returns the digest of the docker-archive that skopeo makes of an image in a registry, with the
/// name `reference` in it. `source` is in skopeo's notation. The archive takes the space of the
/// uncompressed image in a temporary file until it is read.
///
/// # Errors
/// Fails with [`SkopeoError`] if skopeo can't be run or fails.
pub fn docker_archive_digest(
    source: &str,
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
        command.arg("--src-creds").arg(format!("{user}:{password}"));
    } else if let [AuthSource::File(file)] = &options.auth_sources[..] {
        command.arg("--src-authfile").arg(file);
    }
    command.arg(source).arg(format!("docker-archive:{}:{reference}", archive.display()));
    run_skopeo(&mut command, "docker-archive:", watch)?;
    let mut digest = DigestWriter::with_thread(io::sink());
    let copied = File::open(&archive).and_then(|mut file| io::copy(&mut file, &mut digest));
    copied.map_err(temporary)?;
    Ok(digest.finish().0)
}
