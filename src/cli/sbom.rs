//! Runs `sbom`: lists the packages of an image, for scanners and auditors.

use super::Failure;
use super::arguments::{SbomArguments, SbomFormat};
use super::commands::print_json;
use crate::oci::ImageSpec;
use crate::report::sbom::{Facts, Inventory, cyclonedx, spdx};
use crate::small_file;

pub fn sbom(arguments: &SbomArguments) -> Result<(), Failure> {
    let SbomArguments { image, format, meta, name, supplier } = arguments;
    let spec = ImageSpec::read(image)?;
    let facts = match meta {
        Some(file) => {
            let json = small_file::read(file)
                .map_err(|source| Failure::Input { file: file.clone(), source })?;
            Facts::parse(&json).map_err(|source| Failure::Facts { file: file.clone(), source })?
        }
        None => Facts::default(),
    };
    let inventory = Inventory::new(&spec, name.as_ref(), supplier, &facts);
    match format {
        SbomFormat::Spdx => print_json(&spdx(&inventory)),
        SbomFormat::Cyclonedx => print_json(&cyclonedx(&inventory)),
    }
}
