//! A registry for one copy: other programs pull an image from it that is made as they read.
//! Stage: target. Input: [`Artifact`]. Output: [`Loopback`].

use std::net::{Ipv4Addr, SocketAddr};

use thiserror::Error;

use crate::digest::BlobDigest;
use crate::oci::{Artifact, Documents, Form, ManifestFormat};
use crate::outgoing::{self, Copied, Tally};
use crate::registry::SetupError;
use crate::registry::catalog::Catalog;
use crate::registry::server::{Registry, ServerOptions};
use crate::store::Store;

/// The image's name in the registry. It is not the name at the target.
const NAME: &str = "image";
const TAG: &str = "copy";

/// Says why no registry could be opened for a copy.
#[derive(Debug, Error)]
#[error("cannot open a registry on a loopback port")]
pub struct LoopbackError(#[source] Box<SetupError>);

/// A registry on a loopback port with one image.
pub struct Loopback {
    registry: Registry,
    artifact: Artifact,
    form: Form,
}

impl Loopback {
    /// Opens it. `form` is what the program that pulls takes layers in.
    ///
    /// # Errors
    /// [`LoopbackError`] if there is no port or no thread for it.
    pub fn open(store: &Store, artifact: Artifact, form: Form) -> Result<Self, LoopbackError> {
        let mut catalog = Catalog::default();
        catalog.add(NAME, TAG, &artifact, form).expect("the name is one");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ServerOptions::default();
        let registry = Registry::start(catalog, store.clone(), address, options)
            .map_err(|error| LoopbackError(Box::new(error)))?;
        Ok(Self { registry, artifact, form })
    }

    /// The image's name for the program that pulls.
    pub fn reference(&self) -> String {
        format!("{}/{NAME}:{TAG}", self.registry.address())
    }

    /// Digest of the manifest that is pulled.
    pub fn manifest_digest(&self) -> BlobDigest {
        self.documents().top().digest
    }

    fn documents(&self) -> Documents {
        self.artifact.documents(self.form, ManifestFormat::Oci)
    }

    /// Returns whether any request has arrived.
    pub fn was_asked(&self) -> bool {
        self.registry.was_asked()
    }

    /// Returns the error that kept a layer from being made: the reason why the other program failed.
    ///
    /// # Errors
    /// Whatever kept a layer from being made.
    pub fn check(&self) -> Result<(), outgoing::Error> {
        self.registry.take_error().map_or(Ok(()), Err)
    }

    /// Accounts for the copy: which layers were asked for, and which were not.
    pub fn account(&self, manifest_digest: BlobDigest) -> Copied {
        let served = self.registry.served().layers;
        let mut tally = Tally::default();
        let layers = self.artifact.images().iter().flat_map(|spec| &spec.layers);
        for blob in layers.map(|layer| layer.blob(self.form)) {
            match served.get(&blob.digest) {
                Some(bytes) => tally.sent(*bytes),
                None => tally.skipped(blob.size),
            }
        }
        Copied { manifest_digest, ..Copied::new(&self.documents(), tally) }
    }
}
