//! Serves one copy as a registry: another program pulls an image from it, and layers are made as
//! that program reads them.
//! Stage: target. Input: [`Artifact`]. Output: [`Loopback`].

use std::net::{Ipv4Addr, SocketAddr};

use thiserror::Error;

use crate::digest::BlobDigest;
use crate::oci::{Artifact, Documents, Form, ManifestFormat};
use crate::outgoing::{self, Copied, TaggedName, Tally};
use crate::registry::SetupError;
use crate::registry::catalog::Catalog;
use crate::registry::server::{Registry, ServerOptions};
use crate::store::Store;

/// The image's name in the registry, which is not its name at the target.
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
    /// Opens the registry. `form` is the form in which the program that pulls takes layers.
    ///
    /// # Errors
    /// Fails with [`LoopbackError`] if there is no port or no thread for the registry.
    pub fn open(store: &Store, artifact: Artifact, form: Form) -> Result<Self, LoopbackError> {
        let mut catalog = Catalog::default();
        let name = TaggedName::parse(NAME, TAG).expect("the name is one");
        catalog.add(&name, &artifact, form);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ServerOptions::default();
        let registry = Registry::start(catalog, store.clone(), address, options)
            .map_err(|error| LoopbackError(Box::new(error)))?;
        Ok(Self { registry, artifact, form })
    }

    /// Returns the image's name for the program that pulls.
    pub fn reference(&self) -> String {
        format!("{}/{NAME}:{TAG}", self.registry.address())
    }

    /// Returns the digest of the manifest that is pulled.
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

    /// Fails if a layer could not be made, which is then the cause of the other program's failure.
    ///
    /// # Errors
    /// Fails with the error of the layer.
    pub fn check(&self) -> Result<(), outgoing::Error> {
        self.registry.take_error().map_or(Ok(()), Err)
    }

    /// Returns the result of the copy: which layers were asked for, and which were not.
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
