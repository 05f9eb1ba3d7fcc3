//! Runs `stowage prefetch`: prints `pullImage`'s arguments, to be pasted.

use super::Failure;
use super::arguments::PrefetchArguments;
use super::output::{print, print_json};
use super::proof;
use super::registry_options;
use super::watching::Watching;
use crate::oci::{Architecture, Platform};
use crate::registry::client::{self, Prefetch, Prefetched, PulledAs};

pub fn prefetch(arguments: &PrefetchArguments) -> Result<(), Failure> {
    let PrefetchArguments { image, os, arch, all, .. } = arguments;
    let mut platform = Platform::linux(&Architecture::of_this_machine());
    platform.os = os.clone().unwrap_or(platform.os);
    platform.architecture = arch.clone().unwrap_or(platform.architecture);
    let options = registry_options::for_source(&arguments.source)?;
    // The form of skopeo. Names in this form are not looked up as aliases.
    let reference = match image.strip_prefix("docker://") {
        Some(name) => name.parse()?,
        None => options.registries.named(&image.parse()?)?,
    };
    // Nothing of the image is pulled before its signature is verified. From then on the verified
    // digest is used, and not the tag.
    let reference = match &arguments.key {
        Some(file) => {
            let key = proof::public_key(file)?;
            let watch = Watching::new("reading", None, true);
            let verified = client::verify_signatures(&reference, &key, &options, &watch)?;
            watch.end();
            reference.with_digest(verified.manifest_digest)
        }
        None => reference,
    };
    let wanted = Prefetch {
        reference: &reference,
        platform: (!all).then_some(&platform),
        strict: os.is_some() || arch.is_some(),
        pulled_as: if arguments.docker_tools { PulledAs::DockerArchive } else { PulledAs::Dir },
        final_image_name: arguments.final_image_name.as_deref(),
        final_image_tag: arguments.final_image_tag.as_deref(),
        options: &options,
    };
    let watch = Watching::new("reading", None, arguments.quiet);
    let found = client::prefetch(&wanted, &watch)?;
    watch.end();
    match (arguments.json, *all, &found[..]) {
        (true, false, [one]) => print_json(one),
        (true, ..) => print_json(&found),
        (false, false, [one]) => print(&nix(one, "")),
        (false, ..) => {
            let sets: Vec<_> = found.iter().map(|image| nix(image, "  ")).collect();
            print(&format!("[\n{}\n]", sets.join("\n")))
        }
    }
}

/// Formats an attribute set.
fn nix(image: &Prefetched, indent: &str) -> String {
    let digest = image.image_digest.to_string();
    let pairs = [
        ("imageName", &image.image_name),
        ("imageDigest", &digest),
        ("hash", &image.hash),
        ("finalImageName", &image.final_image_name),
        ("finalImageTag", &image.final_image_tag),
        ("os", &image.os),
        ("arch", &image.arch),
    ];
    let mut lines: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{indent}  {name} = {};", quoted(value)))
        .collect();
    if image.insecure {
        lines.push(format!("{indent}  tlsVerify = false;"));
    }
    format!("{indent}{{\n{}\n{indent}}}", lines.join("\n"))
}

/// Quotes a string for Nix.
fn quoted(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace("${", "\\${");
    format!("\"{}\"", text.replace('\n', "\\n").replace('\r', "\\r"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_written_as_nix_reads_them() {
        for (text, expected) in [
            ("a/b", r#""a/b""#),
            (r#"a"b\c"#, r#""a\"b\\c""#),
            ("${a}$b", r#""\${a}$b""#),
            ("a\nb", r#""a\nb""#),
        ] {
            assert_eq!(quoted(text), expected);
        }
    }
}
