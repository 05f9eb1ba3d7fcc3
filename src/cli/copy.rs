//! Runs `stowage copy`: copies an image to each target, and prints the result.

use std::io::{self, Write};
use std::path::Path;
use std::time::Instant;

use serde::Serialize;
use serde_json::json;

use super::Failure;
use super::arguments::{CopyOptions, FormatArgument, ProgressArgument, SkopeoArguments};
use super::commands::{layers, write_file};
use super::output::say;
use super::progress::Bytes;
use super::proof;
use super::registry_options;
use super::watching::Watching;
use crate::oci::{Architecture, Artifact, Form, ImageSpec, ManifestFormat};
use crate::outgoing::{Copied, Reference};
use crate::proof::{AttachedDocument, Predicate, SigningKey};
use crate::registry::client::{self, ClientOptions};
use crate::report;
use crate::store::Store;
use crate::system;
use crate::target::{self, SkopeoOptions, SshOptions, Target};

pub fn copy(
    store: &Store,
    image: &Path,
    targets: &[Target],
    options: &CopyOptions,
) -> Result<(), Failure> {
    let CopyOptions { format, digestfile, quiet, .. } = options;
    if digestfile.is_some() && targets.len() > 1 {
        return Err(Failure::OneDigestFile);
    }
    let key = options.sign_key.as_deref().map(proof::signing_key).transpose()?;
    let documents = proof::documents(&options.attach)?;
    let beside = Beside { key, documents, attestations: proof::predicates(&options.attestation)? };
    for target in targets {
        beside.check(target)?;
    }
    // Check the formats of all targets before anything is sent.
    let formats = targets.iter().map(|target| format_for(target, *format));
    let formats = formats.collect::<Result<Vec<_>, _>>()?;
    let artifact = Artifact::read(store, image)?;
    if !quiet {
        let found = artifact.images().iter().flat_map(|spec| report::lint_config(store, spec));
        for finding in found.filter(|finding| finding.level != report::Level::Note) {
            match options.progress {
                // With JSON, each line must be an object.
                Some(ProgressArgument::Json) => {
                    say(json!({ "event": "warning", "message": finding.to_string() }));
                }
                _ => say(format_args!("warning: {finding}")),
            }
        }
    }
    for (target, format) in targets.iter().zip(formats) {
        copy_one(store, &artifact, target, format, options, &beside)?;
    }
    Ok(())
}

/// The documents, the statements and the signature to keep beside an image.
#[derive(Default)]
pub struct Beside {
    key: Option<SigningKey>,
    documents: Vec<AttachedDocument>,
    attestations: Vec<Predicate>,
}

impl Beside {
    /// Checks that a target has a place for everything.
    fn check(&self, target: &Target) -> Result<(), Failure> {
        let is_layout = matches!(target, Target::Oci { .. });
        let given = [
            (self.key.is_some(), "--sign-key", "registries", false),
            (!self.attestations.is_empty(), "--attestation", "registries", false),
            (!self.documents.is_empty(), "--attach", "registries and layouts", is_layout),
        ];
        let no_place = |&(is_given, _, _, has_place): &(bool, _, _, bool)| is_given && !has_place;
        match given.into_iter().find(no_place) {
            Some((_, option, places, _)) if !matches!(target, Target::Registry(_)) => {
                Err(Failure::NotInRegistry { option, places, target: target.to_string() })
            }
            _ => Ok(()),
        }
    }

    fn send(
        &self,
        reference: &Reference,
        copied: &Copied,
        options: &CopyOptions,
    ) -> Result<(), Failure> {
        let Self { key, documents, .. } = self;
        if key.is_none() && documents.is_empty() {
            return Ok(());
        }
        let watch = Watching::new("sending", options.progress, true);
        let push = push_options(options)?;
        let digest = Some(copied.manifest_digest);
        let signed = client::attach_to_image(
            reference,
            digest,
            documents,
            key.as_ref().map(|key| (key, &[][..])),
            &push,
            &watch,
        )?;
        watch.end();
        if !options.quiet && !options.json && options.progress != Some(ProgressArgument::Json) {
            say(proof::account(&signed));
        }
        Ok(())
    }
}

fn copy_one(
    store: &Store,
    artifact: &Artifact,
    target: &Target,
    format: ManifestFormat,
    options: &CopyOptions,
    beside: &Beside,
) -> Result<(), Failure> {
    let CopyOptions { digestfile, json, quiet, progress, .. } = options;
    let start = Instant::now();
    // If the image goes to standard output, the result must not go there too.
    let to_stdout = target.archive().is_some_and(target::is_stdout);
    let watch = Watching::new("sending", *progress, *quiet);
    let copied = copy_to(store, artifact, target, format, options, beside, &watch)?;
    watch.end();
    if let Target::Registry(reference) = target {
        beside.send(reference, &copied, options)?;
    }
    if let Some(file) = digestfile {
        // Like skopeo, write no newline.
        write_file(file, 0o644, |out| write!(out, "{}", copied.manifest_digest))?;
    }
    let out: &mut dyn Write = if to_stdout {
        &mut io::stderr().lock()
    } else {
        &mut system::stdout().map_err(Failure::Stdout)?
    };
    if *json {
        let account = Account { reference: reference_in(target), copied };
        let json = serde_json::to_string_pretty(&account).expect("an account is JSON");
        return writeln!(out, "{json}").map_err(Failure::Stdout);
    }
    if !quiet && *progress != Some(ProgressArgument::Json) {
        let taken = format!("{:.1} s", start.elapsed().as_secs_f64());
        let digest = match target {
            Target::Registry(_) => format!("; its digest is {}", copied.manifest_digest),
            _ => String::new(),
        };
        say(format_args!("{}, in {taken}{digest}", account(&copied, target)));
    }
    writeln!(out, "{}", reference_in(target)).map_err(Failure::Stdout)
}

/// The result of a copy, as `--json` prints it.
#[derive(Serialize)]
struct Account {
    reference: String,
    #[serde(flatten)]
    copied: Copied,
}

/// Returns the image's name at the target: in the daemon, or else the target itself.
fn reference_in(target: &Target) -> String {
    match target {
        Target::DockerDaemon(reference) => reference.to_string(),
        Target::Containerd(reference) => reference.whole(),
        other => other.to_string(),
    }
}

impl From<FormatArgument> for ManifestFormat {
    fn from(format: FormatArgument) -> Self {
        match format {
            FormatArgument::Oci => Self::Oci,
            FormatArgument::V2s2 => Self::DockerV2S2,
        }
    }
}

/// Returns the format of the manifest. Fails if the target does not take the wanted one.
pub fn format_for(
    target: &Target,
    wanted: Option<FormatArgument>,
) -> Result<ManifestFormat, Failure> {
    match (target, wanted) {
        (Target::Ssh { target, .. }, wanted) => format_for(target, wanted),
        (Target::Oci { .. } | Target::OciArchive { .. }, Some(FormatArgument::V2s2)) => {
            Err(Failure::Format { target: target.to_string() })
        }
        (_, wanted) => Ok(wanted.map_or(ManifestFormat::Oci, Into::into)),
    }
}

/// Copies an image to a target.
pub fn copy_to(
    store: &Store,
    artifact: &Artifact,
    target: &Target,
    format: ManifestFormat,
    options: &CopyOptions,
    beside: &Beside,
    watch: &Watching,
) -> Result<Copied, Failure> {
    // For a target that takes one image, choose the image for this machine of several.
    let spec = || artifact.image_for(&Architecture::of_this_machine());
    Ok(match target {
        Target::DockerDaemon(reference) => {
            target::copy_to_docker_daemon(store, spec()?, reference, watch)?
        }
        Target::DockerArchive { path, reference } => {
            target::copy_to_docker_archive(store, spec()?, path, reference.as_ref(), watch)?
        }
        Target::OciArchive { path, ref_name } => {
            target::copy_to_oci_archive(store, artifact, path, ref_name.as_ref(), watch)?
        }
        Target::Oci { path, ref_name } => {
            let documents = &beside.documents;
            target::copy_to_oci(store, artifact, documents, path, ref_name.as_ref(), watch)?
        }
        Target::Dir { path } => target::copy_to_dir(store, spec()?, path, format, watch)?,
        Target::Containerd(reference) => {
            target::copy_to_containerd(store, spec()?, reference, watch)?
        }
        Target::Registry(reference) => {
            let attestations = beside.attestations.clone();
            let push = ClientOptions { attestations, ..push_options(options)? };
            client::copy_to_registry(store, artifact, reference, format, &push, watch)?
        }
        Target::ContainersStorage(_) => {
            let image = Artifact::from(ImageSpec::clone(spec()?));
            by_skopeo(store, &image, target, options, watch)?
        }
        Target::Ssh { host, target } => {
            let mut arguments = vec!["receive".to_owned()];
            if format == ManifestFormat::DockerV2S2 {
                arguments.push("--format=v2s2".to_owned());
            }
            arguments.extend(["--".to_owned(), target.to_string()]);
            let ssh = SshOptions {
                // As for `nix copy`.
                arguments: std::env::var("NIX_SSHOPTS")
                    .map(|options| options.split_whitespace().map(str::to_owned).collect())
                    .unwrap_or_default(),
                program: options.remote_program.clone(),
            };
            target::copy_to_remote(store, artifact, host, &arguments, &ssh, watch)?
        }
    })
}

fn push_options(options: &CopyOptions) -> Result<ClientOptions, Failure> {
    Ok(ClientOptions {
        mount_from: options.mount_from.clone(),
        reuse_compressed: options.reuse_compressed,
        ..registry_options::for_target(&options.skopeo)?
    })
}

fn by_skopeo(
    store: &Store,
    artifact: &Artifact,
    target: &Target,
    options: &CopyOptions,
    watch: &Watching,
) -> Result<Copied, Failure> {
    // None of the targets that need skopeo asks for credentials, so that none are passed on.
    let SkopeoArguments { dest_tls_verify, dest_cert_dir, authfile, all, retry_times, .. } =
        options.skopeo.clone();
    let options = SkopeoOptions {
        dest_tls_verify,
        dest_cert_dir,
        authfile,
        format: options.format.map(Into::into),
        // An index must arrive unchanged: its digest is what was signed, or what is deployed.
        all: all || artifact.is_index(),
        preserve_digests: artifact.is_index(),
        retry_times,
        temporary: std::env::temp_dir(),
    };
    let destination = target.to_string();
    let form = Form::Loadable;
    Ok(target::copy_with_skopeo(store, artifact, &destination, form, &options, watch)?)
}

fn account(copied: &Copied, target: &Target) -> String {
    let fell_back = if copied.fell_back {
        "the daemon asked for layers that it seemed to have: sent the whole image\n"
    } else {
        ""
    };
    let there = match target {
        Target::DockerDaemon(_) => "that the daemon has",
        Target::Ssh { .. } => "that the other machine has",
        _ => "that are there",
    };
    let sent = match target {
        Target::Ssh { .. } => "sent the missing pieces of",
        _ => "sent",
    };
    format!(
        "{fell_back}{sent} {} ({}), skipped {} ({}) {there}",
        layers(copied.tally.layers_sent),
        Bytes(copied.tally.bytes_sent),
        layers(copied.tally.layers_skipped),
        Bytes(copied.tally.bytes_skipped),
    )
}
