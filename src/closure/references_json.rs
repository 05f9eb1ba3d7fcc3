//! The JSON of `exportReferencesGraph` under `__structuredAttrs`.
//! Stage: closure (pure). Input: JSON. Output: records, not yet a closure.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::builder::Builder;
use super::{Closure, Error, NarHash};
use crate::store::{self, StorePath};

/// A references graph as Nix writes it to `.attrs.json`, in either shape: an array of records, or
/// (as `nix path-info --json` since 2.19) an object of records by path. Fields that
/// [`ValidPathInfo`](super::ValidPathInfo) does not have differ between versions (`closureSize`,
/// `valid`, `ca` …) and are ignored.
///
/// Source: Nix, `pathInfoToJSON` in `src/libstore/store-api.cc` and
/// `src/libstore/parsed-derivations.cc`.
#[derive(Debug)]
pub struct ReferencesJson(Builder);

impl ReferencesJson {
    /// Checks that the records form a closure.
    ///
    /// # Errors
    /// Returns the errors of [`Closure::new`].
    pub fn into_closure(self) -> Result<Closure, Error> {
        self.0.finish()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    nar_hash: NarHash,
    nar_size: u64,
    #[serde(with = "store::full_paths")]
    references: BTreeSet<StorePath>,
    #[serde(default = "yes")]
    valid: bool,
}

#[derive(Deserialize)]
struct RecordWithPath {
    #[serde(with = "store::full_path")]
    path: StorePath,
    #[serde(flatten)]
    record: Record,
}

fn yes() -> bool {
    true
}

impl Record {
    fn add_to<E: serde::de::Error>(self, builder: &mut Builder, path: StorePath) -> Result<(), E> {
        let Record { nar_hash, nar_size, references, valid } = self;
        if !valid {
            return Err(E::custom(format_args!("store path `{path}` is not valid")));
        }
        builder.add(path, nar_hash, nar_size, references);
        Ok(())
    }
}

impl<'de> Deserialize<'de> for ReferencesJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Shapes).map(Self)
    }
}

/// Visits either shape. An untagged enum would do, but its errors only say "did not match".
struct Shapes;

impl<'de> Visitor<'de> for Shapes {
    type Value = Builder;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of store path records, or an object of them by path")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut records: A) -> Result<Self::Value, A::Error> {
        let mut builder = Builder::default();
        while let Some(RecordWithPath { path, record }) = records.next_element()? {
            record.add_to(&mut builder, path)?;
        }
        Ok(builder)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut records: A) -> Result<Self::Value, A::Error> {
        let mut builder = Builder::default();
        while let Some((path, record)) = records.next_entry::<String, Record>()? {
            let path = store::Store::default().parse(&path).map_err(A::Error::custom)?;
            record.add_to(&mut builder, path)?;
        }
        Ok(builder)
    }
}

#[cfg(test)]
mod tests {
    use super::super::ValidPathInfo;
    use super::super::tests::records_of;
    use super::*;

    const HASH: &str = "sha256:1b8m03r63zqhnjf7l5wnldhh7c134ap5vpj0850ymkq1iyzicy5s";
    const A: &str = "/nix/store/aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-a";

    fn parse(text: &str) -> Result<Vec<ValidPathInfo>, serde_json::Error> {
        let read = serde_json::from_str::<ReferencesJson>(text)?;
        Ok(records_of(&read.into_closure().unwrap()))
    }

    #[test]
    fn reads_both_shapes_alike() {
        let array = format!(
            r#"[{{"closureSize":9,"narHash":"{HASH}","narSize":8,"path":"{A}","references":["{A}"]}}]"#
        );
        let with_valid = array.replace(r#""narSize""#, r#""valid":true,"narSize""#);
        let sri = with_valid.replace(HASH, "sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0=");
        let object = format!(
            r#"{{"{A}":{{"narHash":"{HASH}","narSize":8,"references":["{A}"],"ca":null}}}}"#
        );
        let infos = parse(&array).unwrap();
        assert_eq!((infos.len(), infos[0].nar_size, infos[0].references.len()), (1, 8, 1));
        for other in [with_valid, sri, object] {
            assert_eq!(parse(&other).unwrap(), infos, "{other}");
        }
    }

    #[test]
    fn refuses_what_nix_never_writes() {
        let good = format!(r#"[{{"narHash":"{HASH}","narSize":8,"path":"{A}","references":[]}}]"#);
        assert!(parse(&good).is_ok());
        for (why, text) in [
            ("cut short", good[..good.len() - 2].to_owned()),
            ("a path below a store path", good.replace("-a\"", "-a/bin\"")),
            ("a bad reference", good.replace("[]", r#"["a"]"#)),
            ("a bad hash", good.replace("1b8m", "eeee")),
            ("a negative size", good.replace(":8", ":-8")),
            ("an invalid path", good.replace(r#""narSize""#, r#""valid":false,"narSize""#)),
            ("a missing field", good.replace(r#","references":[]"#, "")),
            ("another type", r#""closure""#.to_owned()),
        ] {
            assert!(parse(&text).is_err(), "{why}: {text}");
        }
    }

    #[test]
    fn errors_name_the_place() {
        let error = parse(&format!("[\n{{\"path\":\"{A}\",\n\"narHash\":7}}]")).unwrap_err();
        assert!(error.line() >= 2, "{error}");
    }
}
