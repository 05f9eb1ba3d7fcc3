//! The processor architecture that an image's programs are for.
//! Stage: oci. Input: text, or this machine. Output: [`Architecture`].

use std::fmt;
use std::str::FromStr;

use oci_spec::image::Arch;
use serde::{Deserialize, Deserializer, Serialize};

/// A processor architecture by Go's name (`GOARCH`), as OCI demands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Default)]
pub struct Architecture(Arch);

impl Architecture {
    /// Returns the architecture that this program runs on.
    pub fn of_this_machine() -> Self {
        let name = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            "x86" => "386",
            "powerpc64" => "ppc64le",
            "loongarch64" => "loong64",
            same => same,
        };
        Self(Arch::from(name))
    }

    /// Returns the architecture as OCI's own type.
    pub fn as_oci(&self) -> Arch {
        self.0.clone()
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Architecture {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Arch::from(text) {
            Arch::Other(_) => Err(format!(
                "`arch` must be one of Go's names, such as `amd64` or `arm64`, not `{text}`"
            )),
            known => Ok(Self(known)),
        }
    }
}

impl<'de> Deserialize<'de> for Architecture {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
