//! Reads an image of any format that this program knows.
//! Stage: oci. Opens files. Input: a path. Output: [`ImageSpec`].

use std::path::Path;

use serde_json::Value;

use super::annotations::Annotations;
use super::architecture::Architecture;
use super::base::{self, BaseImage};
use super::config::ContainerConfig;
use super::created::Created;
use super::recognise::{GivenFile, recognise};
use super::spec::ImageSpec;
use super::{Error, IndexSpec};
use crate::store::Store;

/// Reads an image. `image` is an image spec of any architecture, the script that streams an image,
/// an index spec, or any format that [`base::read_base`] reads. The store paths of the result have
/// no references.
///
/// # Errors
/// Fails if the image can't be read, does not have its digests, or if of several images none is for
/// the architecture.
pub fn image_of(
    store: &Store,
    image: &Path,
    architecture: &Architecture,
) -> Result<ImageSpec, Error> {
    let read_error = |source| Error::Read { file: image.to_owned(), source };
    match recognise(store, image) {
        Ok(GivenFile::Image(spec)) => return ImageSpec::read_outline(&store.locate(&spec)),
        Ok(GivenFile::Index(index)) => {
            let index = IndexSpec::read(&store.locate(&index))?;
            let spec = index.file_for(store, architecture)?;
            return ImageSpec::read_outline(&store.locate(spec));
        }
        Ok(_) => {}
        // A name of an image in an archive may follow the path.
        Err(_) if base::BaseName::parse(image).path != image => {}
        Err(source) => return Err(read_error(source)),
    }
    let BaseImage { configuration, history, layers, sources, .. } =
        base::read_base(store, image, architecture).map_err(base::Error::of_subject)?;
    let text = |key: &str| configuration.get(key).and_then(Value::as_str);
    let config = configuration.get("config").cloned().unwrap_or_default();
    let config = ContainerConfig::of_any_keys(config).map_err(|problem| base::Error {
        role: base::ImageRole::Subject,
        file: image.to_owned(),
        layer: None,
        problem: Box::new(problem.into()),
    })?;
    Ok(ImageSpec {
        architecture: text("architecture")
            .and_then(|name| name.parse().ok())
            .unwrap_or_else(|| architecture.clone()),
        variant: text("variant").map(str::to_owned),
        created: Created::default(),
        config,
        annotations: Annotations::default(),
        history,
        layers,
        sources,
    })
}
