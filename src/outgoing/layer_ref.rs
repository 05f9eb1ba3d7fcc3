//! Names a layer of an image, and the form in which it is sent.
//! Stage: outgoing (pure). Vocabulary of copies.

use std::borrow::Borrow;
use std::cmp::Reverse;
use std::sync::Arc;

use crate::digest::BlobDigest;
use crate::oci::{Form, ImageSpec, LayerBlob, SpecLayer};

/// A layer of an image, with the form in which it is sent.
#[derive(Clone, Copy, Debug)]
pub struct LayerRef<S> {
    /// The image.
    pub spec: S,
    /// The index of the layer, from 0 at the bottom.
    pub index: usize,
    /// The form in which the layer is sent.
    pub form: Form,
}

/// A layer of an image that is borrowed.
pub type ImageLayer<'a> = LayerRef<&'a ImageSpec>;
/// A layer that keeps its image, for tasks that outlive the caller.
pub type SharedLayer = LayerRef<Arc<ImageSpec>>;

impl<S: Borrow<ImageSpec>> LayerRef<S> {
    /// Returns what the image spec says about the layer.
    pub fn layer(&self) -> &SpecLayer {
        &self.spec.borrow().layers[self.index]
    }

    /// Borrows the image.
    pub fn borrowed(&self) -> ImageLayer<'_> {
        LayerRef { spec: self.spec.borrow(), index: self.index, form: self.form }
    }

    /// Returns digest and size of the bytes that are sent.
    pub fn blob(&self) -> LayerBlob {
        self.layer().blob(self.form)
    }

    /// Returns the layer's turn among those that are sent.
    pub fn turn(&self) -> Turn {
        let LayerBlob { digest, size, .. } = self.blob();
        match self.layer().stored() {
            Some(blob) if !blob.archive.is_none() => Turn::InArchive(blob.offset),
            _ => Turn::OfSize(Reverse((size, digest))),
        }
    }

    /// Returns the names of the store paths in the layer, for messages.
    pub fn names(&self) -> String {
        self.layer().names()
    }
}

/// Sorts layers into the order in which they are best sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// A member of a compressed archive, by its offset. Such layers come first, in the order of the
    /// archive: to reach one, everything before it is decompressed.
    InArchive(u64),
    /// Any other layer, by its size and digest. The largest comes first: if it came last, all
    /// others would wait for it.
    OfSize(Reverse<(u64, BlobDigest)>),
}
