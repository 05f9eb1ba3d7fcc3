//! Writes an image's configuration and manifest, byte for byte.
//! Stage: oci (pure). Input: [`ImageSpec`]. Output: [`Image`].

use oci_spec::image::{
    Descriptor, DescriptorBuilder, Digest as OciDigest, ImageConfigurationBuilder,
    ImageManifestBuilder, MediaType, Os, RootFsBuilder,
};
use serde::Serialize;
use serde_json::Value;

use super::annotations::annotated;
use super::blob::Form;
use super::layer_blob::LayerBlob;
use super::media_type::Family;
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
    /// Takes bytes with their digest.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { digest: BlobDigest::new(Digest::of(&bytes)), bytes }
    }

    /// Returns a descriptor of the bytes.
    pub fn descriptor(&self, media_type: MediaType) -> Descriptor {
        descriptor(media_type, self.digest, self.bytes.len() as u64)
    }

    /// Writes a document with sorted keys: the same value has the same bytes.
    pub fn json(value: &impl Serialize) -> Self {
        // The objects of `Value` are sorted by key, so that no hash map's order affects the bytes.
        let value = serde_json::to_value(value).expect("OCI's documents are JSON");
        let mut bytes = serde_json::to_vec(&value).expect("a value is JSON");
        // A server keeps the documents of many images.
        bytes.shrink_to_fit();
        Self { digest: BlobDigest::new(Digest::of(&bytes)), bytes }
    }
}

/// The format of a manifest, which also decides the media types in it. The manifest names the same
/// bytes in both formats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ManifestFormat {
    /// OCI's format (image-spec, manifest.md).
    #[default]
    Oci,
    /// Docker's image manifest V2, schema 2 (distribution, manifest-v2-2.md).
    DockerV2S2,
}

impl ManifestFormat {
    /// Returns the form in which all readers of the format take layers: readers of Docker's format
    /// do not know Zstandard.
    pub const fn form(self) -> Form {
        match self {
            Self::Oci => Form::AsStored,
            Self::DockerV2S2 => Form::Loadable,
        }
    }

    const fn family(self) -> Family {
        match self {
            Self::Oci => Family::Oci,
            Self::DockerV2S2 => Family::Docker,
        }
    }

    fn manifest(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageManifest,
            Self::DockerV2S2 => "application/vnd.docker.distribution.manifest.v2+json".into(),
        }
    }

    fn config(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageConfig,
            Self::DockerV2S2 => "application/vnd.docker.container.image.v1+json".into(),
        }
    }
}

/// The documents that make an image of layers (image-spec 1.1, config.md and manifest.md).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The image configuration.
    pub config: Blob,
    /// The image manifest.
    pub manifest: Blob,
    /// The format of the manifest.
    pub format: ManifestFormat,
}

impl Image {
    /// Writes both documents. Equal specs give equal bytes.
    pub fn new(spec: &ImageSpec) -> Self {
        Self::in_form(spec, Form::AsStored, ManifestFormat::Oci)
    }

    /// Writes both documents for layers in another form, or for another format of the manifest. The
    /// configuration is the same in all cases.
    pub fn in_form(spec: &ImageSpec, form: Form, format: ManifestFormat) -> Self {
        let config = config(spec);
        let layers = spec.layers.iter().map(|layer| {
            let LayerBlob { digest, size, media_type, toc } = layer.blob(form);
            let media_type = media_type.in_family(format.family()).to_string();
            let mut descriptor = descriptor(MediaType::from(&*media_type), digest, size);
            if let Some(toc) = toc {
                let annotations = toc.annotations().map(|(key, value)| (key.to_owned(), value));
                descriptor.set_annotations(Some(annotations.into()));
            }
            descriptor
        });
        let manifest = ImageManifestBuilder::default()
            .schema_version(2u32)
            .media_type(format.manifest())
            .config(descriptor(format.config(), config.digest, config.bytes.len() as u64))
            .layers(layers.collect::<Vec<_>>())
            .build()
            .expect("every required field is set");
        let manifest = serde_json::to_value(manifest).expect("OCI's documents are JSON");
        let manifest = match format {
            ManifestFormat::Oci => annotated(manifest, &spec.annotations),
            // This format has no annotations.
            ManifestFormat::DockerV2S2 => manifest,
        };
        Self { config, manifest: Blob::json(&manifest), format }
    }

    /// Returns the digest of the configuration, which Docker's classic store uses as the image's
    /// ID.
    pub fn id(&self) -> ImageId {
        ImageId::new(*self.config.digest.digest())
    }

    /// Returns the manifest's descriptor, for an index.
    pub fn descriptor(&self) -> Descriptor {
        self.manifest.descriptor(self.format.manifest())
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
    // oci-spec's type for `config` lacks the keys that Docker adds, such as `Healthcheck`.
    document["config"] = Value::Object(spec.config.as_map().clone());
    if let Some(variant) = &spec.variant {
        document["variant"] = Value::String(variant.clone());
    }
    Blob::json(&document)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn both_formats_name_the_same_bytes() {
        let digest = format!("sha256:{}", "1".repeat(64));
        let stored = |media_type: &str| {
            json!({
                "diffId": digest,
                "size": 2048,
                "blob": {"file": "/a", "digest": digest, "size": 1000, "mediaType": media_type},
            })
        };
        let spec: ImageSpec = serde_json::from_value(json!({
            "version": 1,
            "platform": {"architecture": "amd64", "os": "linux"},
            "created": "1970-01-01T00:00:01Z",
            "config": {},
            "annotations": {"b": "2", "a": "1"},
            "history": [{}, {}],
            "layers": [
                stored("application/vnd.docker.image.rootfs.diff.tar.gzip"),
                stored("application/vnd.oci.image.layer.v1.tar+zstd"),
            ],
            "storePaths": [],
        }))
        .unwrap();
        let documents = |format: ManifestFormat| {
            let image = Image::in_form(&spec, format.form(), format);
            (image.id(), serde_json::from_slice::<Value>(&image.manifest.bytes).unwrap())
        };
        let (oci_id, oci) = documents(ManifestFormat::Oci);
        let (docker_id, docker) = documents(ManifestFormat::DockerV2S2);
        assert_eq!(oci_id, docker_id);
        for (pointer, in_oci, in_docker) in [
            (
                "/mediaType",
                json!("application/vnd.oci.image.manifest.v1+json"),
                json!("application/vnd.docker.distribution.manifest.v2+json"),
            ),
            (
                "/config/mediaType",
                json!("application/vnd.oci.image.config.v1+json"),
                json!("application/vnd.docker.container.image.v1+json"),
            ),
            (
                "/layers/0/mediaType",
                json!("application/vnd.oci.image.layer.v1.tar+gzip"),
                json!("application/vnd.docker.image.rootfs.diff.tar.gzip"),
            ),
            (
                "/layers/1/mediaType",
                json!("application/vnd.oci.image.layer.v1.tar+zstd"),
                json!("application/vnd.docker.image.rootfs.diff.tar"),
            ),
            ("/layers/1/size", json!(1000), json!(2048)),
            ("/annotations", json!({"a": "1", "b": "2"}), json!(null)),
        ] {
            assert_eq!(oci.pointer(pointer).unwrap_or(&Value::Null), &in_oci, "{pointer}");
            assert_eq!(docker.pointer(pointer).unwrap_or(&Value::Null), &in_docker, "{pointer}");
        }
    }
}
