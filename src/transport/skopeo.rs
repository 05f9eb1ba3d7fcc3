//! Targets that skopeo knows: it pulls what they lack from a registry of ours.
//! Stage: transport. Input: [`Artifact`]. Output: an image wherever skopeo can put it.
//!
//! The stock program will do. It asks for the layers that the target lacks, and they are made
//! while it reads them.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{Command, Output};

use super::Error;
use super::copied::Copied;
use super::loopback::Loopback;
use super::program;
use super::push::{Credentials, PushOptions};
use super::watch::Watch;
use crate::digest::{Digest, DigestWriter};
use crate::oci::{Artifact, Form, ManifestFormat};
use crate::store::Store;

/// Options of skopeo's that are passed on (skopeo-copy(1)).
#[derive(Clone, Debug, Default)]
pub struct SkopeoOptions {
    /// Whether the target must have a certificate.
    pub dest_tls_verify: Option<bool>,
    /// Directory with the target's certificates.
    pub dest_cert_dir: Option<PathBuf>,
    /// `user:password` for the target.
    pub dest_creds: Option<String>,
    /// File with credentials.
    pub authfile: Option<PathBuf>,
    /// Whose manifest to write.
    pub format: Option<ManifestFormat>,
    /// Whether to copy all of an index.
    pub all: bool,
    /// Whether to fail rather than to write another manifest.
    pub preserve_digests: bool,
    /// How often to try again.
    pub retry_times: Option<u32>,
    /// Where big files may be for a while: skopeo's own choice is `/var/tmp`.
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
        option("dest-creds", self.dest_creds.clone().map(Into::into));
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

/// Copies an image by skopeo to `destination`, in skopeo's own notation. `form` is what the
/// destination takes the layers in.
///
/// # Errors
/// [`Error::NoSkopeo`], [`Error::Skopeo`] with what it printed, or whatever kept a layer from
/// being made.
pub fn copy_with_skopeo(
    store: &Store,
    artifact: &Artifact,
    destination: &str,
    form: Form,
    options: &SkopeoOptions,
    watch: &dyn Watch,
) -> Result<Copied, Error> {
    watch.hold();
    let loopback = Loopback::open(store, artifact.clone(), form)?;
    let temporary = |source| Error::Temporary { path: options.temporary.clone(), source };
    let directory = tempfile::tempdir_in(&options.temporary).map_err(temporary)?;
    let digest_file = directory.path().join("digest");
    let source = format!("docker://{}", loopback.reference());

    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg("--tmpdir").arg(directory.path());
    command.args(["copy", "--quiet", "--src-tls-verify=false", "--src-no-creds"]);
    command.arg("--digestfile").arg(&digest_file).args(options.arguments());
    command.arg(source).arg(destination);
    let output = program::run(&mut command, watch).map_err(Error::NoSkopeo)?;
    loopback.check()?;
    check(&output, destination)?;
    let digest = std::fs::read_to_string(&digest_file).map_err(temporary)?;
    let digest = digest.trim().parse().map_err(io::Error::other).map_err(temporary)?;
    Ok(loopback.account(destination.to_owned(), digest))
}

/// Digest of the docker-archive that skopeo makes of an image in a registry, called `reference`
/// in it. `source` is in skopeo's notation. The archive is as large as the image unpacked, and
/// stays until it is read.
///
/// # Errors
/// [`Error::NoSkopeo`], [`Error::Skopeo`] with what it printed, or [`Error::Temporary`].
pub fn docker_archive_digest(
    source: &str,
    reference: &str,
    options: &PushOptions,
    watch: &dyn Watch,
) -> Result<Digest, Error> {
    watch.hold();
    let path = std::env::temp_dir();
    let temporary = |source| Error::Temporary { path: path.clone(), source };
    let directory = tempfile::tempdir_in(&path).map_err(temporary)?;
    let archive = directory.path().join("image.tar");
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg("--tmpdir").arg(directory.path());
    command.args(["copy", "--quiet"]);
    if let Some(verify) = options.tls_verify {
        command.arg(format!("--src-tls-verify={verify}"));
    }
    if let Some(directory) = &options.cert_dir {
        command.arg("--src-cert-dir").arg(directory);
    }
    if let Some(Credentials::Password(user, password)) = &options.credentials {
        command.arg("--src-creds").arg(format!("{user}:{password}"));
    } else if let [file] = &options.auth_files[..] {
        command.arg("--src-authfile").arg(file);
    }
    command.arg(source).arg(format!("docker-archive:{}:{reference}", archive.display()));
    let output = program::run(&mut command, watch).map_err(Error::NoSkopeo)?;
    check(&output, "docker-archive:")?;
    let mut digest = DigestWriter::with_thread(io::sink());
    let copied = File::open(&archive).and_then(|mut file| io::copy(&mut file, &mut digest));
    copied.map_err(temporary)?;
    Ok(digest.finish().0)
}

fn check(output: &Output, destination: &str) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let output = said(&String::from_utf8_lossy(&output.stderr));
    Err(Error::Skopeo { destination: destination.to_owned(), output })
}

/// What skopeo has to say in the end: the message of its last line, which has a time and a
/// level before it.
fn said(output: &str) -> String {
    let last = output.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    let message = last.split_once("msg=\"").and_then(|(_, message)| message.rsplit_once('"'));
    match (last, message) {
        ("", _) => "it printed nothing".to_owned(),
        (_, Some((message, _))) => message.replace("\\\"", "\""),
        (last, None) => last.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skopeos_message_is_found() {
        for (output, message) in [
            ("", "it printed nothing"),
            ("odd\n", "odd"),
            (
                "time=\"2026\" level=fatal msg=\"writing \\\"x\\\": denied\"\n",
                "writing \"x\": denied",
            ),
        ] {
            assert_eq!(said(output), message);
        }
    }

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
