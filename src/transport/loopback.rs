//! A registry for one copy: other programs pull an image from it that is made as they read.
//! Stage: transport. Input: [`Artifact`]. Output: [`Loopback`].

use std::net::{Ipv4Addr, SocketAddr};

use super::Error;
use super::copied::Copied;
use super::registry::{Catalog, Registry, ServerOptions};
use crate::digest::BlobDigest;
use crate::oci::{Artifact, Documents, Form, ManifestFormat};
use crate::store::Store;

/// What the image is called in it; where it goes, nobody sees that.
const NAME: &str = "image";
const TAG: &str = "copy";

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
    /// [`Error::Registry`].
    pub fn open(store: &Store, artifact: Artifact, form: Form) -> Result<Self, Error> {
        let mut catalog = Catalog::default();
        catalog.add(NAME, TAG, &artifact, form).expect("the name is one");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ServerOptions::default();
        let registry = Registry::start(catalog, store.clone(), address, options)
            .map_err(|error| Error::Registry(Box::new(error)))?;
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

    /// What went wrong here, which is why it went wrong there.
    ///
    /// # Errors
    /// Whatever kept a layer from being made.
    pub fn check(&self) -> Result<(), Error> {
        self.registry.take_error().map_or(Ok(()), Err)
    }

    /// What the copy took: which layers were asked for, and which were not.
    pub fn account(&self, reference: String, manifest_digest: BlobDigest) -> Copied {
        let served = self.registry.served().layers;
        let mut copied = Copied {
            reference,
            manifest_digest,
            image_id: self.documents().id(),
            layers_sent: 0,
            layers_skipped: 0,
            bytes_sent: 0,
            bytes_skipped: 0,
            layers_mounted: 0,
            fell_back: false,
        };
        let layers = self.artifact.images().iter().flat_map(|spec| &spec.layers);
        for blob in layers.map(|layer| layer.blob(self.form)) {
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
        copied
    }
}
