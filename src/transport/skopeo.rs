//! Targets that skopeo knows: it pulls from a registry of ours, which is there for as long as
//! the copy takes.
//! Stage: transport. Input: [`ImageSpec`]. Output: an image wherever skopeo can put it.
//!
//! The stock program will do. It asks for the layers that the target lacks, and they are made
//! while it reads them.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::Error;
use super::copied::Copied;
use super::registry::{Catalog, Registry, ServerOptions};
use crate::oci::{Form, Image, ImageSpec, ManifestFormat};
use crate::store::Store;

/// What the image is called in our registry; where it goes, nobody sees that.
const NAME: &str = "image";
const TAG: &str = "copy";

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
    spec: &ImageSpec,
    destination: &str,
    form: Form,
    options: &SkopeoOptions,
) -> Result<Copied, Error> {
    let spec = Arc::new(spec.clone());
    let mut catalog = Catalog::default();
    catalog.add(NAME, TAG, &spec, form).expect("the name is one");
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let registry = Registry::start(catalog, store.clone(), loopback, ServerOptions::default())
        .map_err(Error::Registry)?;
    let temporary = |source| Error::Temporary { path: options.temporary.clone(), source };
    let directory = tempfile::tempdir_in(&options.temporary).map_err(temporary)?;
    let digest_file = directory.path().join("digest");
    let source = format!("docker://{}/{NAME}:{TAG}", registry.address());

    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy").arg("--tmpdir").arg(directory.path());
    command.args(["copy", "--quiet", "--src-tls-verify=false", "--src-no-creds"]);
    command.arg("--digestfile").arg(&digest_file).args(options.arguments());
    command.arg(source).arg(destination).stdin(Stdio::null()).stdout(Stdio::null());
    let output = command.stderr(Stdio::piped()).output().map_err(Error::NoSkopeo)?;
    // What went wrong here is why it went wrong there.
    if let Some(error) = registry.take_error() {
        return Err(error);
    }
    if !output.status.success() {
        let output = said(&String::from_utf8_lossy(&output.stderr));
        return Err(Error::Skopeo { destination: destination.to_owned(), output });
    }
    let digest = std::fs::read_to_string(&digest_file).map_err(temporary)?;
    let digest = digest.trim().parse().map_err(io::Error::other).map_err(temporary)?;
    let served = registry.served().layers;
    let mut copied = Copied {
        reference: destination.to_owned(),
        manifest_digest: digest,
        image_id: Image::new(&spec).id().to_string(),
        layers_sent: 0,
        layers_skipped: 0,
        bytes_sent: 0,
        bytes_skipped: 0,
        fell_back: false,
    };
    for blob in spec.layers.iter().map(|layer| layer.blob(form)) {
        match served.get(&blob.digest) {
            Some(bytes) => {
                copied.layers_sent += 1;
                copied.bytes_sent += bytes;
            }
            None => {
                copied.layers_skipped += 1;
                copied.bytes_skipped += blob.size;
            }
        }
    }
    Ok(copied)
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
