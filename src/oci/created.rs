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
        let parsed = date::parse(text);
        if parsed.is_some() && is_read_by_go(text) {
            return Ok(Self(text.to_owned()));
        }
        let created = parsed.and_then(|time| time.format(&Rfc3339).ok());
        created.map(Self).ok_or_else(|| {
            let given = given.as_str().map_or_else(|| given.to_string(), str::to_owned);
            serde::de::Error::custom(format_args!(
                "`created` must be a date, or a date and time, such as `2024-05-13`, `1970-01-01T00:00:01Z` or `self.lastModifiedDate` of a flake, not `{given}`"
            ))
        })
    }
}

/// Returns whether programs in Go, such as Docker, read a date and time as it is written: RFC 3339 with
/// capital letters, and at most nine digits of a fraction.
fn is_read_by_go(text: &str) -> bool {
    let fraction = text.split_once('.').map_or("", |(_, behind)| behind);
    let digits = fraction.bytes().take_while(u8::is_ascii_digit).count();
    OffsetDateTime::parse(text, &Rfc3339).is_ok()
        && text.as_bytes().get(10) == Some(&b'T')
        && !text.ends_with('z')
        && digits <= 9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_docker_reads_it() {
        for (given, expected) in [
            ("2024-05-13T09:31:10Z", Some("2024-05-13T09:31:10Z")),
            ("2024-05-13T09:31:10.120+00:00", Some("2024-05-13T09:31:10.120+00:00")),
            ("2024-05-13t09:31:10z", Some("2024-05-13T09:31:10Z")),
            ("2024-05-13 09:31:10Z", Some("2024-05-13T09:31:10Z")),
            ("2024-05-13T09:31:10.1234567890123Z", Some("2024-05-13T09:31:10.123456789Z")),
            ("2016-12-31T23:59:60Z", None),
        ] {
            let created = serde_json::from_value(Value::from(given)).ok();
            assert_eq!(created, expected.map(|text| Created(text.to_owned())), "{given}");
        }
    }
}
