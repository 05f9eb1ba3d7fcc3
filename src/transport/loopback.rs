//! A registry for one copy: other programs pull an image from it that is made as they read.
//! Stage: transport. Input: [`ImageSpec`]. Output: [`Loopback`].

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::Error;
use super::copied::Copied;
use super::registry::{Catalog, Registry};
use crate::digest::BlobDigest;
use crate::oci::{Form, Image, ImageSpec, ManifestFormat};
use crate::store::Store;

/// What the image is called in it; where it goes, nobody sees that.
const NAME: &str = "image";
const TAG: &str = "copy";

/// A registry on a loopback port with one image.
pub struct Loopback {
    registry: Registry,
    spec: Arc<ImageSpec>,
    form: Form,
}

impl Loopback {
    /// Opens it. `form` is what the program that pulls takes layers in.
    ///
    /// # Errors
    /// [`Error::Registry`].
    pub fn open(store: &Store, spec: &ImageSpec, form: Form) -> Result<Self, Error> {
        let spec = Arc::new(spec.clone());
        let mut catalog = Catalog::default();
        catalog.add(NAME, TAG, &spec, form).expect("the name is one");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let registry = Registry::start(catalog, store.clone(), address).map_err(Error::Registry)?;
        Ok(Self { registry, spec, form })
    }

    /// The image's name for the program that pulls.
    pub fn reference(&self) -> String {
        format!("{}/{NAME}:{TAG}", self.registry.address())
    }

    /// Digest of the manifest that is pulled.
    pub fn manifest_digest(&self) -> BlobDigest {
        Image::in_form(&self.spec, self.form, ManifestFormat::Oci).manifest.digest
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
            image_id: Image::new(&self.spec).id().to_string(),
            layers_sent: 0,
            layers_skipped: 0,
            bytes_sent: 0,
            bytes_skipped: 0,
            fell_back: false,
        };
        for blob in self.spec.layers.iter().map(|layer| layer.blob(self.form)) {
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
