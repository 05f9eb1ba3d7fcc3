//! Asks a daemon which layers of an image it has.

use std::collections::BTreeSet;

use super::client::{DockerError, docker, run};
use crate::digest::DiffId;
use crate::oci::Image;
use crate::outgoing::ImageReference;

/// The image that is wanted in the daemon.
pub struct Wanted<'w> {
    pub documents: &'w Image,
    /// The diff IDs of the layers, from the bottom up.
    pub layers: Vec<DiffId>,
}

impl Wanted<'_> {
    /// Returns whether an image of the daemon is this one.
    fn is(&self, (id, layers): (&str, &[DiffId])) -> bool {
        // The classic store names an image by its configuration, and containerd's by its manifest;
        // podman leaves out the algorithm.
        let Image { config, manifest, .. } = self.documents;
        let id = id.trim_start_matches("sha256:");
        let is_named = [config.digest, manifest.digest].iter().any(|it| it.digest().hex() == id);
        is_named && self.layers == layers
    }
}

/// The parts of an image that the daemon has.
#[derive(Default)]
pub struct Known {
    /// The number of the wanted layers, from the bottom up, that are the lowest layers of some image
    /// in the daemon.
    pub layers: usize,
    /// The ID of the wanted image, if the daemon has all of it.
    pub image: Option<String>,
}

/// Asks the daemon which parts of an image it has.
pub fn known(wanted: &Wanted) -> Result<Known, DockerError> {
    /// The number of IDs in one command: their 71 bytes each are far from the limit on a command's
    /// arguments.
    const IDS_AT_ONCE: usize = 200;
    let ids = docker(&["image", "ls", "--all", "--quiet", "--no-trunc"])?;
    let ids: BTreeSet<&str> = ids.lines().collect();
    let ids: Vec<&str> = ids.into_iter().collect();
    let mut known = Known::default();
    for ids in ids.chunks(IDS_AT_ONCE) {
        let mut arguments = vec!["image", "inspect", "--format", ID_AND_LAYERS];
        arguments.extend(ids);
        // If an image has been removed meanwhile, the command prints the others and fails.
        let output = run(&arguments)?;
        for line in String::from_utf8_lossy(&output.stdout).lines() {
            let Some((id, layers)) = id_and_layers(line) else { continue };
            known.layers = known.layers.max(common_prefix(&layers, &wanted.layers));
            if wanted.is((id, &layers)) {
                known.image = Some(id.to_owned());
            }
        }
    }
    Ok(known)
}

/// The format by which `docker image inspect` prints, on one line, an image's ID, a space, and the
/// diff IDs as a JSON array.
const ID_AND_LAYERS: &str = "{{.ID}} {{json .RootFS.Layers}}";

/// Parses a line that was printed in this format.
fn id_and_layers(line: &str) -> Option<(&str, Vec<DiffId>)> {
    let (id, layers) = line.trim().split_once(' ')?;
    // An image without layers has `null` here.
    let layers = serde_json::from_str::<Option<Vec<DiffId>>>(layers).ok()?;
    Some((id, layers.unwrap_or_default()))
}

/// Returns the number of layers, from the bottom up, that two images share.
fn common_prefix(a: &[DiffId], b: &[DiffId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

/// Returns whether the daemon has the image under that name, with its layers.
pub fn has_image(reference: &ImageReference, wanted: &Wanted) -> Result<bool, DockerError> {
    let output = run(&["image", "inspect", "--format", ID_AND_LAYERS, &reference.to_string()])?;
    let text = String::from_utf8_lossy(&output.stdout);
    let found = id_and_layers(&text).is_some_and(|(id, layers)| wanted.is((id, &layers)));
    Ok(output.status.success() && found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn diff_id(text: char) -> DiffId {
        DiffId::new(Digest::of(text.to_string().as_bytes()))
    }

    #[test]
    fn only_the_lowest_layers_in_common_count() {
        let image = |ids: &str| ids.chars().map(diff_id).collect::<Vec<_>>();
        for (there, wanted, common) in [
            ("", "ab", 0),
            ("ab", "ab", 2),
            ("abc", "ab", 2),
            ("ab", "abc", 2),
            ("xbc", "abc", 0),
            ("axc", "abc", 1),
        ] {
            assert_eq!(common_prefix(&image(there), &image(wanted)), common, "{there} {wanted}");
        }
    }

    #[test]
    fn an_image_without_layers_has_none() {
        let [a, b] = ['a', 'b'].map(diff_id);
        let both = format!(r#"1 ["{a}","{b}"]"#);
        for (line, expected) in [
            ("sha256:1 null\n", Some(("sha256:1", vec![]))),
            ("sha256:1 []", Some(("sha256:1", vec![]))),
            (&*both, Some(("1", vec![a, b]))),
            (r#"1 ["sha256:a"]"#, None),
            ("", None),
            ("sha256:1", None),
            ("Error: no such image", None),
        ] {
            assert_eq!(id_and_layers(line), expected, "{line}");
        }
    }
}
