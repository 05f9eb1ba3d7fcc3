//! `sign`, `verify --key` and `verify --against`: commands that prove or verify images.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};

use super::Failure;
use super::arguments::{ProvenanceArguments, SignArguments, VerifyArguments};
use super::commands::read_file;
use super::output::{print, print_json, say};
use super::registry_options;
use super::watching::Watching;
use crate::oci::base::read_base;
use crate::oci::{self, Form, Image, ImageSpec, ManifestFormat, Platform};
use crate::outgoing::{ImageReference, Reference};
use crate::proof::{
    self, AttachedDocument, AttachedFile, Build, KeyError, PROVENANCE, Predicate, PublicKey,
    SigningKey,
};
use crate::registry::client::{self, ClientOptions, Pulled, Signed};
use crate::report::{self, Comparison};
use crate::store::Store;
use crate::target::{Target, save_from_docker_daemon};

/// The prefix of an environment variable's name, in place of a key file's name.
const VARIABLE: &str = "env://";

pub fn sign(arguments: &SignArguments) -> Result<(), Failure> {
    let SignArguments { image, key, attach, attest, source, json, quiet } = arguments;
    let key = key.as_deref().map(signing_key).transpose()?;
    let documents = documents(attach)?;
    let predicates = predicates(attest)?;
    let signing = key.as_ref().map(|key| (key, &predicates[..]));
    let options = registry_options::for_source(source)?;
    let reference = named(image, &options)?;
    let watch = Watching::new("sending", None, *quiet);
    let signed = client::attach_to_image(&reference, None, &documents, signing, &options, &watch)?;
    watch.end();
    if *json {
        return print_json(&signed);
    }
    if !quiet {
        say(account(&signed));
    }
    print(&format!("{}@{}", reference.name(), signed.manifest_digest))
}

/// Says how many documents and signatures were sent.
pub fn account(signed: &Signed) -> String {
    match signed.sent {
        0 => "all signatures and documents are there already".to_owned(),
        1 => "sent 1 signature or document".to_owned(),
        sent => format!("sent {sent} signatures and documents"),
    }
}

/// Reads the documents to attach to an image.
pub fn documents(attach: &[AttachedFile]) -> Result<Vec<AttachedDocument>, Failure> {
    attach.iter().map(|attached| Ok(attached.document(read_file(&attached.file)?))).collect()
}

/// Reads documents that statements will contain.
pub fn predicates(files: &[PathBuf]) -> Result<Vec<Predicate>, Failure> {
    files.iter().map(|file| predicate(file)).collect()
}

/// Reads a document that a statement will contain.
fn predicate(file: &Path) -> Result<Predicate, Failure> {
    let document = serde_json::from_slice(&read_file(file)?).unwrap_or_default();
    Predicate::of(document).ok_or_else(|| Failure::NoPredicate(file.to_owned()))
}

/// Prints a statement that says how an image was built.
pub fn provenance(arguments: &ProvenanceArguments) -> Result<(), Failure> {
    let ProvenanceArguments { image, lock, flake, attribute, system, drv, nix_version, builder } =
        arguments;
    let spec = ImageSpec::read_outline(image)?;
    let build = Build {
        flake: flake.clone(),
        attribute: attribute.clone(),
        system: system.clone(),
        derivation: drv.clone(),
        nix_version: nix_version.clone(),
        builder: builder.clone(),
    };
    let predicate = proof::provenance(&read_file(lock)?, &build)
        .map_err(|source| Failure::Lock { file: lock.clone(), source })?;
    let digest = Image::new(&spec).manifest.digest;
    let statement = proof::statement_of(&digest, PROVENANCE, &predicate);
    print(&String::from_utf8_lossy(&statement))
}

/// Reads a private key from a file or an environment variable.
pub fn signing_key(name: &str) -> Result<SigningKey, Failure> {
    let password = || env::var_os("COSIGN_PASSWORD").map(|text| text.into_encoded_bytes());
    let text = match name.strip_prefix(VARIABLE) {
        Some(variable) => env::var_os(variable)
            .ok_or_else(|| Failure::NoVariable(variable.to_owned()))?
            .into_encoded_bytes(),
        None => {
            let file = Path::new(name);
            let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
            if real.starts_with(Store::default().dir()) {
                return Err(Failure::KeyInStore(real));
            }
            read_file(file)?
        }
    };
    SigningKey::parse(&text, password).map_err(|error| bad_key(name, error))
}

pub fn public_key(file: &Path) -> Result<PublicKey, Failure> {
    let text = read_file(file)?;
    PublicKey::parse(&text).map_err(|error| bad_key(&file.display().to_string(), error))
}

fn bad_key(name: &str, source: KeyError) -> Failure {
    Failure::Key { name: name.to_owned(), source }
}

/// Parses an image's name. A name after `docker://` is not replaced by an alias of the registry
/// settings.
fn named(image: &str, options: &ClientOptions) -> Result<Reference, Failure> {
    match image.parse() {
        Ok(Target::Registry(reference)) => Ok(reference),
        Ok(_) => Err(Failure::NoSignatures(image.to_owned())),
        Err(_) => Ok(options.registries.named(&image.parse()?)?),
    }
}

/// Verifies an image outside of the store: by a key, against an image spec, or both.
pub fn verify(store: &Store, arguments: &VerifyArguments) -> Result<(), Failure> {
    let VerifyArguments { image, key, against, source, json } = arguments;
    let name = image.to_str().unwrap_or_default();
    if key.is_none() && against.is_none() {
        return Err(Failure::NoProof(name.to_owned()));
    }
    let options = registry_options::for_source(source)?;
    // The image that is compared is the one that is signed, whatever the tag names by then.
    let signed = key.as_ref().map(|key| verify_signed(name, key, &options, *json)).transpose()?;
    let Some(against) = against else { return Ok(()) };
    let spec = ImageSpec::read_outline(against)?;
    let comparison = match (signed, image.to_str().and_then(|it| it.strip_prefix("docker://"))) {
        (Some(reference), _) => compare_pulled(store, &reference, &spec, &options)?,
        (None, Some(_)) => compare_pulled(store, &named(name, &options)?, &spec, &options)?,
        (None, None) => compare(store, image, name, &spec)?,
    };
    if *json {
        print_json(&comparison)?;
    } else if comparison.is_same() {
        let what = match spec.layers.len() {
            1 => "configuration and 1 layer".to_owned(),
            layers => format!("configuration and {layers} layers"),
        };
        print(&format!(
            "{}: {what} are, byte for byte, what {} describes",
            image.display(),
            against.display()
        ))?;
    } else {
        print(&describe(&comparison))?;
    }
    if comparison.is_same() {
        return Ok(());
    }
    Err(Failure::OtherImage { image: image.display().to_string(), spec: against.clone() })
}

/// Verifies a signature of an image in a registry. Returns the name of the image by its digest.
fn verify_signed(
    name: &str,
    key: &Path,
    options: &ClientOptions,
    json: bool,
) -> Result<Reference, Failure> {
    let reference = named(name, options)?;
    let watch = Watching::new("reading", None, json);
    let verified = client::verify_signatures(&reference, &public_key(key)?, options, &watch)?;
    watch.end();
    let digest = verified.manifest_digest;
    if json {
        print_json(&verified)?;
    } else {
        print(&format!("{}@{digest}: signed by {}", reference.name(), key.display()))?;
    }
    Ok(reference.with_digest(digest))
}

fn temporary() -> Result<tempfile::TempDir, Failure> {
    tempfile::tempdir().map_err(|source| Failure::Output { file: env::temp_dir(), source })
}

/// Compares an image in a file, a directory or a Docker daemon.
fn compare(
    store: &Store,
    image: &Path,
    name: &str,
    spec: &ImageSpec,
) -> Result<Comparison, Failure> {
    if let Some(reference) = name.strip_prefix("docker-daemon:") {
        let reference: ImageReference = reference.parse()?;
        let directory = temporary()?;
        let file = directory.path().join("image.tar");
        let watch = Watching::new("reading", None, false);
        save_from_docker_daemon(&reference, &file, &watch)?;
        watch.end();
        return compare_file(store, &file, spec);
    }
    if let Some(unknown) =
        ["containerd:", "containers-storage:"].into_iter().find(|it| name.starts_with(it))
    {
        return Err(Failure::NotComparable(unknown));
    }
    let is_target = name.parse::<Target>().is_ok();
    if !is_target && !image.exists() && name.parse::<Reference>().is_ok() {
        return Err(Failure::NoImageFile(name.to_owned()));
    }
    compare_file(store, image, spec)
}

fn compare_file(store: &Store, image: &Path, spec: &ImageSpec) -> Result<Comparison, Failure> {
    let found = read_base(store, image, &spec.architecture);
    let found = found.map_err(|error| oci::Error::from(error.of_subject()))?;
    Ok(report::against(store, spec, &found))
}

/// Compares an image in a registry.
fn compare_pulled(
    store: &Store,
    reference: &Reference,
    spec: &ImageSpec,
    options: &ClientOptions,
) -> Result<Comparison, Failure> {
    // The manifests in which stowage would push this image. If the registry has one of them, its
    // blobs need not be pulled: each is named by its digest, which every client verifies.
    let forms = [
        (Form::AsStored, ManifestFormat::Oci),
        (Form::Loadable, ManifestFormat::Oci),
        (Form::Loadable, ManifestFormat::DockerV2S2),
    ];
    let known: BTreeSet<_> = forms
        .into_iter()
        .map(|(form, format)| Image::in_form(spec, form, format).manifest.digest)
        .collect();
    let platform = Platform::linux(&spec.architecture);
    let directory = temporary()?;
    let watch = Watching::new("reading", None, false);
    let pulled = client::pull(reference, &platform, &known, directory.path(), options, &watch)?;
    watch.end();
    match pulled {
        Pulled::Known => Ok(Comparison { config: Vec::new(), layers: Vec::new() }),
        Pulled::Directory => compare_file(store, directory.path(), spec),
    }
}

fn describe(comparison: &Comparison) -> String {
    let mut lines = Vec::new();
    if !comparison.config.is_empty() {
        lines.push(format!("the configuration differs in {}", comparison.config.join(", ")));
    }
    for layer in &comparison.layers {
        let digest = |digest: Option<crate::digest::DiffId>| {
            digest.map_or("none".to_owned(), |digest| digest.to_string())
        };
        lines.push(format!(
            "layer {}: expected {}, found {}",
            layer.layer,
            digest(layer.expected),
            digest(layer.found)
        ));
        lines.extend(layer.differs_in.iter().map(|name| format!("  differs in {name}")));
        lines.extend(layer.error.iter().map(|error| format!("  can't be compared: {error}")));
    }
    lines.join("\n")
}

/// Returns whether the image to verify is somewhere else, and not an image spec.
pub fn is_elsewhere(arguments: &VerifyArguments) -> bool {
    let VerifyArguments { image, key, against, .. } = arguments;
    let name = image.to_str().unwrap_or_default();
    let is_name = || name.parse::<Target>().is_ok() || name.parse::<ImageReference>().is_ok();
    key.is_some() || against.is_some() || !image.exists() && is_name()
}
