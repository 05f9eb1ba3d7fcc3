//! Lets a daemon pull an image from this process.

use std::collections::BTreeSet;
use std::io::{self, Read};
use std::process::Stdio;

use super::client::{DockerError, command, docker, said};
use crate::oci::unpack::TarReader;
use crate::oci::{Form, ImageSpec};
use crate::outgoing::{Copied, ImageReference, Watch, run_program};
use crate::store::Store;
use crate::target::image_layout::blob_path;
use crate::target::program::loopback::Loopback;

/// Lets a daemon with containerd's store pull the image from a registry on a loopback port. The
/// daemon asks for the blobs that it lacks by their digests, and compares them, so that no other
/// check is needed. Layers arrive as they are sent to registries, compressed if the image says so.
///
/// Returns `None` if the image has to be loaded instead: the daemon did not reach the registry,
/// since it is on another machine or in a network of its own; or it lacks a blob afterwards.
pub fn pull(
    store: &Store,
    spec: &ImageSpec,
    reference: &ImageReference,
    watch: &dyn Watch,
) -> Result<Option<Copied>, DockerError> {
    watch.hold();
    let loopback = Loopback::open(store, spec.clone().into(), Form::AsStored)?;
    let (pulled, name) = (loopback.reference(), reference.to_string());
    let output = run_program(&mut command(&["pull", "--quiet", &pulled]), watch);
    let output = output.map_err(DockerError::NoDocker)?;
    // If a layer could not be made, that is the cause of the daemon's failure.
    loopback.check()?;
    if !output.status.success() {
        if !loopback.was_asked() {
            return Ok(None);
        }
        let output = said(&String::from_utf8_lossy(&output.stderr));
        return Err(DockerError::Failed { command: format!("pull {pulled}"), output });
    }
    let tagged = docker(&["tag", &pulled, &name]);
    // The name on the loopback port is of no use later: remove it, even if tagging failed.
    docker(&["image", "rm", &pulled])?;
    tagged?;
    let copied = loopback.account(loopback.manifest_digest());
    // The daemon does not pull a layer whose files it has, unpacked from other bytes: the image
    // then runs, but can't be pushed or saved.
    if copied.tally.layers_skipped > 0 && !has_blobs(spec, &name) {
        return Ok(None);
    }
    Ok(Some(copied))
}

/// Returns whether the daemon has the blob of each layer: reads the archive that it saves of the
/// image.
fn has_blobs(spec: &ImageSpec, name: &str) -> bool {
    let blobs = spec.layers.iter().map(|layer| blob_path(&layer.blob(Form::AsStored).digest));
    let saved = command(&["save", name]).stdin(Stdio::null()).stderr(Stdio::null()).spawn();
    let Ok(mut saved) = saved else { return false };
    let has_all = has_files(saved.stdout.take().expect("it was asked for"), blobs.collect());
    saved.wait().is_ok_and(|status| status.success()) && has_all
}

/// Returns whether an archive has all of some files. Reads it to its end, also beyond the block after
/// which no member follows: a program that can't write its last block fails.
fn has_files(archive: impl Read, mut files: BTreeSet<String>) -> bool {
    let mut archive = TarReader::new(archive);
    while let Ok(Some(member)) = archive.next_member() {
        files.remove(&*String::from_utf8_lossy(member.path()));
    }
    io::copy(&mut archive.into_inner(), &mut io::sink()).is_ok() && files.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks that an archive is read to its end, if its blocks arrive one by one.
    #[test]
    fn an_archive_is_read_to_its_end() {
        struct Blocks<'b>(&'b [u8]);
        impl Read for Blocks<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let length = buffer.len().min(512);
                self.0.read(&mut buffer[..length])
            }
        }
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(3);
        archive.append_data(&mut header, "blobs/a", &b"abc"[..]).unwrap();
        let archive = archive.into_inner().unwrap();
        for (files, expected) in [(&["blobs/a"][..], true), (&["blobs/a", "blobs/b"], false)] {
            let mut blocks = Blocks(&archive);
            let files = files.iter().map(|file| (*file).to_owned()).collect();
            assert_eq!(has_files(&mut blocks, files), expected);
            assert_eq!(blocks.0, b"");
        }
    }
}
