//! Runs the commands that read one image, or a tar, and report on its contents.

use std::io::{self, Write};

use super::Failure;
use super::arguments::{LintArguments, ManifestArguments, VerifyArguments};
use super::commands::{binary_stdout, layers};
use super::output::{print, print_json};
use super::progress::{Bytes, bar};
use crate::oci::{self, Architecture, Form, Image, ImageSpec};
use crate::outgoing::{self, Hashing, ImageLayer};
use crate::report;
use crate::sink::{Plain, Spliced};
use crate::store::Store;
use crate::system;

pub fn manifest(store: &Store, arguments: &ManifestArguments) -> Result<(), Failure> {
    let file = &arguments.image;
    let spec = ImageSpec::read_outline(file)?;
    if arguments.locations {
        return print_json(&report::locations(&spec, file));
    }
    let image = Image::new(&spec);
    // Write the exact bytes, without a newline at the end.
    let document = |bytes: &[u8]| {
        let mut stdout = system::stdout().map_err(Failure::Stdout)?;
        stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
    };
    let Some(digest) = arguments.blob else { return document(&image.manifest.bytes) };
    if digest == image.config.digest {
        return document(&image.config.bytes);
    }
    let form = Form::AsStored;
    let is_wanted = |layer: &oci::SpecLayer| layer.blob(form).digest == digest;
    let index = spec.layers.iter().position(is_wanted);
    let index = index.ok_or_else(|| Failure::NoSuchBlob { file: file.clone(), digest })?;
    let layer = ImageLayer { spec: &spec, index, form };
    Ok(outgoing::write_checked_layer(
        store,
        layer,
        Hashing::Beside,
        Plain(Spliced::new(binary_stdout()?)),
    )?)
}

pub fn verify(store: &Store, arguments: &VerifyArguments) -> Result<(), Failure> {
    let spec = ImageSpec::read_outline(&arguments.image)?;
    let bar = bar("verifying", spec.size());
    let report = report::validate(store, &spec, |size| bar.inc(size));
    bar.finish_and_clear();
    if arguments.json {
        print_json(&report)?;
    } else if report.differences.is_empty() {
        print(&format!("{}, {}: all as recorded", layers(report.layers), Bytes(report.size)))?;
    } else {
        for difference in &report.differences {
            print(&describe(store, difference, report.layers))?;
        }
    }
    match report.differences.len() {
        0 => Ok(()),
        layers => Err(Failure::Differences { layers, count: report.layers }),
    }
}

pub fn tarsum() -> Result<(), Failure> {
    print(&report::tarsum(io::stdin().lock()).map_err(|error| Failure::Stdin(error.into()))?)
}

pub fn lint(store: &Store, arguments: &LintArguments) -> Result<(), Failure> {
    let arch = arguments.arch.clone().unwrap_or_else(Architecture::of_this_machine);
    let spec = oci::image_of(store, &arguments.image, &arch)?;
    let bar = bar("reading", spec.size());
    let mut findings = report::lint(store, &spec, |size| bar.inc(size))?;
    bar.finish_and_clear();
    findings.retain(|finding| !arguments.allow.contains(&finding.check));
    if arguments.json {
        print_json(&findings)?;
    } else {
        findings.iter().try_for_each(|it| print(&format!("{}: {it}", it.level)))?;
    }
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (errors, warnings) = (count(report::Level::Error), count(report::Level::Warning));
    if errors > 0 || (warnings > 0 && arguments.strict) {
        return Err(Failure::Lint { errors, warnings });
    }
    Ok(())
}

fn describe(store: &Store, difference: &report::Difference, count: usize) -> String {
    let report::Difference { layer, expected, found, error, store_paths, file } = difference;
    let mut text = format!(
        "layer {layer} of {count}: expected {} and {} bytes, ",
        expected.diff_id, expected.size
    );
    text += &match (found, error) {
        (Some(_), Some(error)) => format!("which it is, but {error}"),
        (Some(found), None) => format!("found {} and {} bytes", found.diff_id, found.size),
        (None, error) => format!("which can't be made: {}", error.as_deref().unwrap_or("unknown")),
    };
    if let Some(file) = file {
        return text + &format!("\n  in {}", file.display());
    }
    for changed in store_paths {
        let expected = changed.expected.map_or("none".to_owned(), |hash| hash.to_string());
        let found = match (&changed.found, &changed.error) {
            (Some(hash), _) => format!("found {hash}"),
            (None, error) => error.clone().unwrap_or_default(),
        };
        text +=
            &format!("\n  {}: NAR hash {expected} registered, {found}", store.print(&changed.path));
    }
    if store_paths.is_empty() {
        text += "\n  each of its store paths is as registered: the image spec was altered, or written by \
                 another version of this program";
    }
    text
}
