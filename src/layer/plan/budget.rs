//! Limits the number of layers.
//! Stage: layer (pure). Vocabulary of the plan.

use std::fmt;
use std::num::NonZeroU8;
use std::str::FromStr;

use serde::{Deserialize, Deserializer};
use thiserror::Error;

/// The number of layers that an image may have, from 1 to [`LayerBudget::MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LayerBudget(NonZeroU8);

/// Says why a number is not a [`LayerBudget`].
#[derive(Debug, Error, PartialEq, Eq)]
#[error("an image may have 1 to {max} layers, not {given}", max = LayerBudget::MAX)]
pub struct ParseBudgetError {
    given: String,
}

impl LayerBudget {
    /// The limit that image tools agree on (`MAX_LAYERS` of dockerTools: overlayfs takes 128
    /// directories at the length of Docker's paths, and the container needs one of them).
    pub const MAX: u8 = 127;

    /// Returns a budget of `layers`.
    ///
    /// # Errors
    /// Fails if there are none or more than [`LayerBudget::MAX`].
    pub fn new(layers: u64) -> Result<Self, ParseBudgetError> {
        let checked = u8::try_from(layers).ok().filter(|layers| *layers <= Self::MAX);
        checked
            .and_then(NonZeroU8::new)
            .map(Self)
            .ok_or_else(|| ParseBudgetError { given: layers.to_string() })
    }

    /// Returns the number of layers.
    pub fn get(self) -> usize {
        usize::from(self.0.get())
    }

    /// Returns the budget that is left after `layers` of it are taken, or `None` if nothing is
    /// left.
    pub fn less(self, layers: usize) -> Option<Self> {
        let left = self.get().checked_sub(layers)?;
        u8::try_from(left).ok().and_then(NonZeroU8::new).map(Self)
    }
}

impl Default for LayerBudget {
    /// Returns 60: more layers hardly make an update smaller, and the limits of some runtimes begin
    /// soon above (mount options of one page; 64 layers in sysbox).
    fn default() -> Self {
        Self(NonZeroU8::new(60).expect("60 is not 0"))
    }
}

impl fmt::Display for LayerBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LayerBudget {
    type Err = ParseBudgetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let layers = text.parse().map_err(|_| ParseBudgetError { given: text.to_owned() })?;
        Self::new(layers)
    }
}

impl<'de> Deserialize<'de> for LayerBudget {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Parse any JSON number, so that -1 and 1.5 get the same message as 0.
        let number = serde_json::Number::deserialize(deserializer)?;
        number.to_string().parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        for good in ["1", "60", "127"] {
            assert_eq!(good.parse::<LayerBudget>().unwrap().get().to_string(), good);
            assert!(serde_json::from_str::<LayerBudget>(good).is_ok());
        }
        for bad in ["0", "-1", "128", "1.5", "256", "99999999999999999999"] {
            assert_eq!(
                bad.parse::<LayerBudget>().unwrap_err().to_string(),
                format!("an image may have 1 to 127 layers, not {bad}")
            );
            assert!(serde_json::from_str::<LayerBudget>(bad).is_err(), "{bad}");
        }
        assert_eq!(LayerBudget::new(1).unwrap().less(1), None);
    }
}
