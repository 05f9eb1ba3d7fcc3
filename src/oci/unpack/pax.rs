//! Parses the records of a PAX header.
//! Stage: oci (pure). Input: the header's bytes. Output: [`Records`].

/// Key and value pairs (POSIX.1-2001 `pax`, "pax Extended Header"): `LENGTH KEY=VALUE\n`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Records(Vec<(Vec<u8>, Vec<u8>)>);

impl Records {
    /// Parses the bytes of a header. Returns `None` if a record is malformed.
    pub fn parse(mut bytes: &[u8]) -> Option<Self> {
        let mut records = Vec::new();
        // Some writers pad the records with NULs.
        while bytes.first().is_some_and(|byte| *byte != 0) {
            let space = bytes.iter().take(20).position(|byte| *byte == b' ')?;
            let length: usize = std::str::from_utf8(&bytes[..space]).ok()?.parse().ok()?;
            let record = bytes.get(space + 1..length)?.strip_suffix(b"\n")?;
            let equals = record.iter().position(|byte| *byte == b'=')?;
            if equals == 0 {
                return None;
            }
            records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Some(Self(records))
    }

    /// Returns the value of a key. The last of several counts.
    pub fn get(&self, key: &str) -> Option<&[u8]> {
        let of_key = self.0.iter().rev().find(|(name, _)| name == key.as_bytes());
        of_key.map(|(_, value)| &**value)
    }

    /// Returns the value of a key as a number.
    pub fn number(&self, key: &str) -> Option<Result<u64, ()>> {
        let parse = |value| std::str::from_utf8(value).ok()?.parse().ok();
        self.get(key).map(|value| parse(value).ok_or(()))
    }

    /// Returns all records in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_by_their_lengths() {
        let records = Records::parse(b"8 a=bcd\n9 x=1\n=2\n8 a=efg\n\0\0").unwrap();
        assert_eq!(records.get("a"), Some(&b"efg"[..]));
        assert_eq!(records.get("x"), Some(&b"1\n=2"[..]));
        assert_eq!(records.get("b"), None);
        for bytes in [
            &b"9999999999"[..],
            b"5 a=b",
            b"6 a=b",
            b"6 ab=\n",
            b"0 a=b\n",
            b"5 =b\n",
            b"6 abc\n",
            b"-6 a=b\n",
        ] {
            let parsed = Records::parse(bytes);
            assert_eq!(parsed.is_none(), bytes != b"6 ab=\n", "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn numbers_are_whole_and_positive() {
        let records = Records::parse(b"11 size=12\n11 uid=-12\n").unwrap();
        assert_eq!(records.number("size"), Some(Ok(12)));
        assert_eq!(records.number("uid"), Some(Err(())));
        assert_eq!(records.number("gid"), None);
    }
}
