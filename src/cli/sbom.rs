//! Runs `sbom`: lists the packages of an image, for scanners and auditors.

use super::Failure;
use super::arguments::{SbomArguments, SbomFormat};
use super::commands::read_file;
use super::output::print_json;
use crate::oci::ImageSpec;
use crate::report::sbom::{BaseList, Facts, Inventory, cyclonedx, spdx};

pub fn sbom(arguments: &SbomArguments) -> Result<(), Failure> {
    let SbomArguments { image, format, meta, name, supplier, base } = arguments;
    let spec = ImageSpec::read(image)?;
    let facts = match meta {
        Some(file) => {
            let json = read_file(file)?;
            Facts::parse(&json).map_err(|source| Failure::Facts { file: file.clone(), source })?
        }
        None => Facts::default(),
    };
    let bases = base.iter().map(|file| {
        BaseList::parse(&read_file(file)?)
            .map_err(|source| Failure::BaseList { file: file.clone(), source })
    });
    let bases = bases.collect::<Result<Vec<_>, Failure>>()?;
    let inventory = Inventory::new(&spec, name.as_ref(), supplier, &facts, &bases);
    match format {
        SbomFormat::Spdx => print_json(&spdx(&inventory)),
        SbomFormat::Cyclonedx => print_json(&cyclonedx(&inventory)),
    }
}
