//! Reads what Nix printed and built.
//! Stage: registry. Input: lines, and links to store paths. Output: sizes, a list, an image spec.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use serde_json::Value;

use super::error::OnDemandError;
use crate::oci::ImageSpec;

/// The largest list of packages in bytes. Servers without a storage keep it in memory.
const LARGEST_LIST: u64 = 32 << 20;

/// Returns the number of bytes that Nix would fetch, unpacked, from the lines that a dry run
/// prints: `these 2 paths will be fetched (1.20 MiB download, 4.56 MiB unpacked):`.
pub fn bytes_to_fetch(output: &str) -> u64 {
    let lines = output.lines().filter(|line| line.contains("will be fetched ("));
    let numbers = lines.filter_map(|line| {
        let mut words = line.rsplit_once(" unpacked")?.0.rsplit(' ');
        let (unit, number) = (words.next()?, words.next()?);
        let unit: u64 = match unit {
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return None,
        };
        // A number that is too large becomes the largest.
        Some((number.parse::<f64>().ok()? * unit as f64) as u64)
    });
    numbers.fold(0, u64::saturating_add)
}

/// Reads a list of packages.
pub fn read_list(link: &Path) -> Result<Vec<u8>, OnDemandError> {
    let mut list = Vec::new();
    let read = File::open(link).and_then(|file| file.take(LARGEST_LIST + 1).read_to_end(&mut list));
    let size = read.map_err(OnDemandError::Internal)? as u64;
    if size > LARGEST_LIST {
        return Err(OnDemandError::TooLarge { size, most: LARGEST_LIST });
    }
    Ok(list)
}

/// Reads the result of `on-demand.nix`: the `json` of `buildImageFromNames`.
pub fn read_image(link: &Path) -> Result<ImageSpec, OnDemandError> {
    let odd = |what: &str| OnDemandError::Internal(io::Error::other(what.to_owned()));
    let bytes = std::fs::read(link).map_err(OnDemandError::Internal)?;
    let json: Value = serde_json::from_slice(&bytes).map_err(|error| odd(&error.to_string()))?;
    if json.get("error").is_some() {
        let names = json["pkgs"].as_array().into_iter().flatten();
        let names = names.filter_map(|name| name.as_str().map(str::to_owned));
        return Err(OnDemandError::NoPackages(names.collect()));
    }
    let mut locations = json["layerLocations"].as_object().into_iter().flat_map(|map| map.values());
    let spec = locations.find_map(|location| location["spec"].as_str());
    let spec = spec.ok_or_else(|| odd("an image without layers"))?;
    ImageSpec::read_outline(Path::new(spec))
        .map_err(|error| odd(&crate::error::with_causes(&error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_be_fetched_is_read() {
        let one =
            "this path will be fetched (0.05 MiB download, 0.25 MiB unpacked):\n  /nix/store/x\n";
        let more = "these 3 derivations will be built:\n  /nix/store/a.drv\n\
            these 20 paths will be fetched (200.50 MiB download, 2.50 GiB unpacked):\n";
        for (output, expected) in [
            ("", 0),
            (one, 256 << 10),
            (more, 5 << 29),
            ("these paths will be fetched (odd)", 0),
            ("these 3 paths will be fetched (1 MiB download, 9 XiB unpacked)", 0),
        ] {
            assert_eq!(bytes_to_fetch(output), expected, "{output}");
        }
    }
}
