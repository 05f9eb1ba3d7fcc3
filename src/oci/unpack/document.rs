//! Parses the JSON documents of images, with limits on their size.
//! Stage: oci (pure). Input: bytes. Output: a value.

use serde::de::DeserializeOwned;

/// The largest size of a manifest or an index: registries refuse more.
pub const MANIFEST: u64 = 4 << 20;
/// The largest size of a configuration: containerd refuses more.
pub const CONFIG: u64 = 8 << 20;
/// The largest number of values in a document. Each takes up to 700 bytes of memory.
const VALUES: usize = 100_000;

/// Parses a document.
///
/// # Errors
/// Fails with a message for the user if there are too many bytes or values, or if the bytes are
/// not a document of this type.
pub fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    if bytes.len() as u64 > CONFIG {
        return Err(format!("it has {} bytes, and {CONFIG} are the most", bytes.len()));
    }
    if values(bytes) > VALUES {
        return Err(format!("it has more than {VALUES} values"));
    }
    serde_json::from_slice(bytes).map_err(|error| error.to_string())
}

/// Counts brackets and commas outside of strings. A document of JSON has at most one value more.
pub fn values(json: &[u8]) -> usize {
    let (mut count, mut in_string, mut escaped) = (0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' | b',' if !in_string => count += 1,
            _ => {}
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn strings_hold_no_values() {
        for (json, count) in [
            (r#"{"a": [1, 2]}"#, 3),
            (r#"{"a,[{": "\",[{\\", "b": 1}"#, 2),
            ("", 0),
            (r#""never ends [["#, 0),
        ] {
            assert_eq!(values(json.as_bytes()), count, "{json}");
        }
    }

    #[test]
    fn large_documents_are_refused() {
        let of = |item: &str, count: usize| format!("[{}0]", item.repeat(count));
        for (json, expected) in [
            (of("0,", 1000), None),
            (of("0,", VALUES), Some("it has more than 100000 values")),
            (of(" ", CONFIG as usize), Some("it has 8388611 bytes, and 8388608 are the most")),
        ] {
            let error = parse_json::<Value>(json.as_bytes()).err();
            assert_eq!(error.as_deref(), expected);
        }
        let deep = parse_json::<Value>(&b"[".repeat(1000)).unwrap_err();
        assert!(deep.starts_with("recursion limit exceeded"), "{deep}");
    }
}
