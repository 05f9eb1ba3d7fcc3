//! An image's configuration and manifest, byte for byte.
//! Stage: oci (pure). Input: [`ImageSpec`]. Output: [`Image`].

use oci_spec::image::{
    Descriptor, DescriptorBuilder, Digest as OciDigest, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder,
};
use serde::Serialize;
use serde_json::Value;

use super::blob::{Form, LayerBlob};
use super::spec::ImageSpec;
use crate::digest::{BlobDigest, Digest, ImageId};

/// Bytes in memory with their digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// Digest of the bytes.
    pub digest: BlobDigest,
    /// The bytes.
    pub bytes: Vec<u8>,
}

impl Blob {
    fn json(value: &impl Serialize) -> Self {
        // Through `Value`, whose objects are sorted by key: no hash map's order gets out.
        let value = serde_json::to_value(value).expect("OCI's documents are JSON");
        let bytes = serde_json::to_vec(&value).expect("a value is JSON");
        Self { digest: BlobDigest::new(Digest::of(&bytes)), bytes }
    }
}

/// The documents that make an image of layers (image-spec 1.1, config.md and manifest.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image configuration.
    pub config: Blob,
    /// The image manifest.
    pub manifest: Blob,
}

impl Image {
    /// Writes both documents; the same spec gives the same bytes.
    pub fn new(spec: &ImageSpec) -> Self {
        Self::in_form(spec, Form::AsStored)
    }

    /// Writes both documents for layers that are transferred in some other form. The
    /// configuration is the same in all.
    pub fn in_form(spec: &ImageSpec, form: Form) -> Self {
        let config = config(spec);
        let layers = spec.layers.iter().map(|layer| {
            let LayerBlob { digest, size, media_type } = layer.blob(form);
            // Docker's names for the same bytes have no place in OCI's manifest.
            descriptor(MediaType::from(&*media_type.as_oci().to_string()), digest, size)
        });
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(MediaType::ImageManifest)
            .config(descriptor(MediaType::ImageConfig, config.digest, config.bytes.len() as u64))
            .layers(layers.collect::<Vec<_>>())
            .build()
            .expect("every required field is set");
        Self { config, manifest: Blob::json(&manifest) }
    }

    /// Digest of the configuration: what Docker's classic store calls the image's ID.
    pub fn id(&self) -> ImageId {
        ImageId::new(*self.config.digest.digest())
    }

    /// Names the manifest in an index.
    pub fn descriptor(&self) -> Descriptor {
        descriptor(MediaType::ImageManifest, self.manifest.digest, self.manifest.bytes.len() as u64)
    }
}

fn descriptor(media_type: MediaType, digest: BlobDigest, size: u64) -> Descriptor {
    DescriptorBuilder::default()
        .media_type(media_type)
        .digest(digest.to_string().parse::<OciDigest>().expect("a digest is a digest"))
        .size(size)
        .build()
        .expect("every required field is set")
}

fn config(spec: &ImageSpec) -> Blob {
    let diff_ids = spec.layers.iter().map(|layer| layer.diff_id.to_string());
    let rootfs = RootFsBuilder::default().typ("layers").diff_ids(diff_ids.collect::<Vec<_>>());
    let configuration = ImageConfigurationBuilder::default()
        .created(spec.created.to_string())
        .architecture(spec.architecture.as_oci())
        .os(Os::Linux)
        .rootfs(rootfs.build().expect("every required field is set"))
        .history(spec.history.clone())
        .build()
        .expect("every required field is set");
    let mut document = serde_json::to_value(configuration).expect("OCI's documents are JSON");
    // Not by oci-spec's type: it lacks what Docker adds to `config`, such as `Healthcheck`.
    document["config"] = Value::Object(spec.config.as_map().clone());
    if let Some(variant) = &spec.variant {
        document["variant"] = Value::String(variant.clone());
    }
    Blob::json(&document)
}
