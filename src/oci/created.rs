//! The creation time of an image.
//! Stage: oci (pure). Input: text. Output: [`Created`].

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use crate::date;

/// A date and time in the form of RFC 3339, as the author wrote it. Other forms of ISO 8601 are
/// converted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Created(String);

impl Default for Created {
    /// Returns the modification time of all files in Nix's store: the first second of 1970.
    fn default() -> Self {
        Self("1970-01-01T00:00:01Z".to_owned())
    }
}

impl Created {
    /// Returns the time in UTC, without fractions of a second: `YYYY-MM-DDThh:mm:ssZ`.
    pub fn in_utc(&self) -> String {
        let parsed = OffsetDateTime::parse(&self.0, &Rfc3339).ok();
        let utc = parsed
            .and_then(|time| time.checked_to_offset(UtcOffset::UTC)?.replace_nanosecond(0).ok());
        // A time before the year 0 in UTC can't be written: keep the text.
        utc.and_then(|time| time.format(&Rfc3339).ok()).unwrap_or_else(|| self.0.clone())
    }
}

impl fmt::Display for Created {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Created {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let given = Value::deserialize(deserializer)?;
        let text = given.as_str().unwrap_or_default();
        if OffsetDateTime::parse(text, &Rfc3339).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        let created = date::parse(text).and_then(|time| time.format(&Rfc3339).ok());
        created.map(Self).ok_or_else(|| {
            let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            serde::de::Error::custom(format_args!(
                "`created` must be a date, or a date and time, such as `2024-05-13`, `1970-01-01T00:00:01Z` or `self.lastModifiedDate` of a flake, not `{given}`"
            ))
        })
    }
}
