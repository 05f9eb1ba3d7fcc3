//! Copies an image to a target that skopeo knows: skopeo pulls the missing layers from a registry
//! of this program.
//! Stage: target. Input: [`Artifact`]. Output: an image at any of skopeo's targets.
//!
//! An unmodified skopeo is enough. It asks for the layers that the target lacks, and they are made
//! while it reads them.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;

use thiserror::Error;

use super::loopback::{Loopback, LoopbackError};
use crate::error::Hint;
use crate::oci::{Artifact, Form, ManifestFormat};
use crate::outgoing::{self, Copied, SkopeoError, Watch, run_skopeo};
use crate::store::Store;

/// Says why skopeo did not copy an image.
#[derive(Debug, Error)]
pub enum SkopeoTargetError {
    /// A layer could not be made.
    #[error(transparent)]
    Outgoing(#[from] outgoing::Error),
    /// The registry from which skopeo pulls could not be opened.
    #[error(transparent)]
    Loopback(#[from] LoopbackError),
    /// skopeo failed, or could not be run.
    #[error(transparent)]
    Skopeo(#[from] SkopeoError),
}

impl Hint for SkopeoTargetError {
    fn hint(&self) -> Option<String> {
        match self {
            SkopeoTargetError::Outgoing(error) => error.hint(),
            SkopeoTargetError::Loopback(_) => None,
            SkopeoTargetError::Skopeo(error) => error.hint(),
        }
    }
}

/// The options that are passed on to skopeo (skopeo-copy(1)).
#[derive(Clone, Debug, Default)]
pub struct SkopeoOptions {
    /// True to require HTTPS and a valid certificate of the target; none for skopeo's default.
    pub dest_tls_verify: Option<bool>,
    /// The directory with the target's certificates.
    pub dest_cert_dir: Option<PathBuf>,
    /// The file with credentials.
    pub authfile: Option<PathBuf>,
    /// The format of the manifest; none leaves the choice to skopeo.
    pub format: Option<ManifestFormat>,
    /// True to copy all images of an index.
    pub all: bool,
    /// True to fail rather than write a different manifest.
    pub preserve_digests: bool,
    /// The number of times to try again.
    pub retry_times: Option<u32>,
    /// The directory for large temporary files, in place of skopeo's `/var/tmp`.
    pub temporary: PathBuf,
}

impl SkopeoOptions {
    fn arguments(&self) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = Vec::new();
        let mut option = |name: &str, value: Option<OsString>| {
            if let Some(value) = value {
                let mut argument = OsString::from(format!("--{name}="));
                argument.push(value);
                arguments.push(argument);
            }
        };
        let format = self.format.map(|format| match format {
            ManifestFormat::Oci => "oci",
            ManifestFormat::DockerV2S2 => "v2s2",
        });
        option("dest-tls-verify", self.dest_tls_verify.map(|verify| verify.to_string().into()));
        option("dest-cert-dir", self.dest_cert_dir.clone().map(Into::into));
        option("dest-authfile", self.authfile.clone().map(Into::into));
        option("format", format.map(Into::into));
        option("retry-times", self.retry_times.map(|times| times.to_string().into()));
        if self.all {
            arguments.push("--all".into());
        }
        if self.preserve_digests {
            arguments.push("--preserve-digests".into());
        }
        arguments
    }
}

/// Copies an image by skopeo to `destination`, in skopeo's own notation. `form` is the form in
/// which the destination takes layers.
///
/// # Errors
/// Fails with [`SkopeoError`], which has what skopeo printed, or if a layer can't be made.
pub fn copy_with_skopeo(
    store: &Store,
    artifact: &Artifact,
    destination: &str,
    form: Form,
    options: &SkopeoOptions,
    watch: &dyn Watch,
) -> Result<Copied, SkopeoTargetError> {
    watch.hold();
    let loopback = Loopback::open(store, artifact.clone(), form)?;
    let temporary = |source| SkopeoError::Temporary { path: options.temporary.clone(), source };
    let directory = tempfile::tempdir_in(&options.temporary).map_err(temporary)?;
    let digest_file = directory.path().join("digest");
    let source = format!("docker://{}", loopback.reference());

    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg("--tmpdir").arg(directory.path());
    command.args(["copy", "--quiet", "--src-tls-verify=false", "--src-no-creds"]);
    command.arg("--digestfile").arg(&digest_file).args(options.arguments());
    command.arg(source).arg(destination);
    let result = run_skopeo(&mut command, destination, watch);
    // An error here is the cause of skopeo's failure.
    loopback.check()?;
    result?;
    let digest = std::fs::read_to_string(&digest_file).map_err(temporary)?;
    let digest = digest.trim().parse().map_err(io::Error::other).map_err(temporary)?;
    Ok(loopback.account(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_passed_on() {
        let options = SkopeoOptions {
            dest_tls_verify: Some(false),
            authfile: Some("/auth".into()),
            format: Some(ManifestFormat::DockerV2S2),
            all: true,
            retry_times: Some(3),
            ..SkopeoOptions::default()
        };
        let expected = [
            "--dest-tls-verify=false",
            "--dest-authfile=/auth",
            "--format=v2s2",
            "--retry-times=3",
            "--all",
        ];
        assert_eq!(options.arguments(), expected);
    }
}
