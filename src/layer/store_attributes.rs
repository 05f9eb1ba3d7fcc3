//! Unusual attributes of all entries of an image's store, which the author may set.
//! Stage: layer (pure). Input: the JSON of an image's options. Output: [`Given`].

use serde::{Deserialize, Serialize};

use super::permissions::{Given, check_id, check_name};
use crate::date;

/// Owner and modification time of the store directory and everything below it; `perms` take
/// precedence.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", try_from = "StoreAttributesJson")]
pub struct StoreAttributes {
    /// The number of the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u64>,
    /// The number of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    gid: Option<u64>,
    /// The name of the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    uname: Option<String>,
    /// The name of the group.
    #[serde(skip_serializing_if = "Option::is_none")]
    gname: Option<String>,
    /// The modification time, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    mtime: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StoreAttributesJson {
    uid: Option<u64>,
    gid: Option<u64>,
    uname: Option<String>,
    gname: Option<String>,
    mtime: Option<Mtime>,
}

/// A modification time, in the form of image specs or as people write it.
#[derive(Deserialize)]
#[serde(untagged)]
enum Mtime {
    Seconds(u64),
    Date(String),
}

impl TryFrom<StoreAttributesJson> for StoreAttributes {
    type Error = String;

    fn try_from(json: StoreAttributesJson) -> Result<Self, String> {
        let StoreAttributesJson { uid, gid, uname, gname, mtime } = json;
        for (key, name) in [("uname", &uname), ("gname", &gname)] {
            check_name(key, name.as_deref())?;
        }
        for (key, id) in [("uid", uid), ("gid", gid)] {
            check_id(key, id)?;
        }
        let mtime = mtime.map(Mtime::seconds).transpose()?;
        Ok(Self { uid, gid, uname, gname, mtime })
    }
}

impl Mtime {
    fn seconds(self) -> Result<u64, String> {
        match self {
            Self::Seconds(seconds) => Ok(seconds),
            Self::Date(text) => date::parse(&text)
                .and_then(|date| date.unix_timestamp().try_into().ok())
                .ok_or_else(|| {
                    format!("`mtime` must be a date, or a date and time, since 1970, such as `2024-05-13` or `1970-01-01T00:00:01Z`, not `{text}`")
                }),
        }
    }
}

impl StoreAttributes {
    /// Returns whether no attribute is set.
    pub fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the attributes of every entry.
    pub fn given(&self) -> Given<'_> {
        Given {
            mode: None,
            uid: self.uid,
            gid: self.gid,
            uname: self.uname.as_deref(),
            gname: self.gname.as_deref(),
            mtime: self.mtime,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parse(json: Value) -> Result<StoreAttributes, String> {
        serde_json::from_value(json).map_err(|error| error.to_string())
    }

    #[test]
    fn dates_are_seconds() {
        for (mtime, seconds) in [
            (json!("1970-01-01T00:00:01Z"), Some(1)),
            (json!("2026-02-28T01:00:00+01:00"), Some(1_772_236_800)),
            (json!("19700102"), Some(86_400)),
            (json!(7), Some(7)),
            (json!("1969-12-31T23:59:59Z"), None),
            (json!("now"), None),
            (json!(-1), None),
        ] {
            let parsed = parse(json!({ "mtime": mtime }));
            assert_eq!(parsed.ok().and_then(|parsed| parsed.given().mtime), seconds, "{mtime}");
        }
    }

    #[test]
    fn they_are_written_as_they_are_read() {
        let whole = json!({"uid": 1000, "gid": 100, "uname": "me", "gname": "us", "mtime": 5});
        for written in [json!({}), json!({"uid": 0}), whole] {
            assert_eq!(serde_json::to_value(parse(written.clone()).unwrap()).unwrap(), written);
        }
        assert!(parse(json!({"uname": "n".repeat(33)})).unwrap_err().contains("32 bytes"));
        assert!(parse(json!({"user": 1})).unwrap_err().contains("unknown field `user`"));
    }
}
