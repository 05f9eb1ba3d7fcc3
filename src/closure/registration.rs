//! The text that `nix-store --load-db` reads and `closureInfo` writes.
//! Stage: closure (pure). Input: its lines. Output: records, not yet a closure.

use std::io::{self, BufRead};

use super::Error;
use super::builder::Builder;
use crate::store::Store;

/// Parses a registration: records of one field a line, without separators:
///
/// ```text
/// store path
/// NAR hash            (sha256:…)
/// NAR size            (bytes, decimal)
/// deriver             (a store path, or empty)
/// number of references
/// reference …         (one a line)
/// ```
///
/// Source: Nix, `decodeValidPathInfo` in `src/libstore/path-info.cc`.
///
/// # Errors
/// Fails with [`Error::Malformed`], which has the line number, if a line does not have the format
/// of its place, and with [`Error::Input`] if the input can't be read.
pub fn parse(input: impl BufRead) -> Result<Builder, Error> {
    let store = Store::default();
    let mut lines = Lines { input, line: Vec::new(), number: 0 };
    let mut builder = Builder::default();
    let mut references = Vec::new();
    while !lines.at_end()? {
        let path =
            lines.field(|| "a store path".to_owned(), |text| builder.place_of(&store, text))?;
        let nar_hash =
            lines.field(|| "a NAR hash (`sha256:…`)".to_owned(), |text| text.parse().ok())?;
        let nar_size = lines.field(|| "a NAR size in bytes".to_owned(), decimal)?;
        lines.field(
            || "a deriver's store path or an empty line".to_owned(),
            |text| (text.is_empty() || store.parse(text).is_ok()).then_some(()),
        )?;
        let count: u64 = lines.field(|| "a number of references".to_owned(), decimal)?;
        for number in 1..=count {
            references.push(lines.field(
                || format!("reference {number} of {count} (a store path)"),
                |text| builder.place_of(&store, text),
            )?);
        }
        builder.record(path, nar_hash, nar_size, references.drain(..));
    }
    Ok(builder)
}

/// Parses decimal digits. Unlike `u64::from_str`, refuses a sign.
fn decimal(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

struct Lines<I> {
    input: I,
    /// The line that was read last.
    line: Vec<u8>,
    /// The number of the line, counted from 1.
    number: usize,
}

impl<I: BufRead> Lines<I> {
    fn at_end(&mut self) -> Result<bool, Error> {
        loop {
            match self.input.fill_buf() {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                buffer => return Ok(buffer.map_err(Error::Input)?.is_empty()),
            }
        }
    }

    /// Reads the next line as one field.
    fn field<T>(
        &mut self,
        expected: impl Fn() -> String,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, Error> {
        self.number += 1;
        let line = self.number;
        let malformed = |found| Error::Malformed { line, expected: expected(), found };
        self.line.clear();
        self.input.read_until(b'\n', &mut self.line).map_err(Error::Input)?;
        // Every line ends in a newline. A line without one was cut short, and the rest of it may
        // look valid (half a size is a size).
        let Some(line) = self.line.strip_suffix(b"\n") else {
            return Err(malformed(match &self.line[..] {
                [] => "the end of the file".to_owned(),
                cut => format!("`{}` without a newline: the file was cut short", excerpt(cut)),
            }));
        };
        let value = std::str::from_utf8(line).ok().and_then(parse);
        value.ok_or_else(|| malformed(format!("`{}`", excerpt(line))))
    }
}

/// Returns the line in the form that messages quote: escaped, and cut if it is long.
fn excerpt(line: &[u8]) -> String {
    const SHOWN: usize = 120;
    let text = line[..line.len().min(SHOWN)].escape_ascii().to_string();
    if line.len() > SHOWN { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::ValidPathInfo;
    use super::super::tests::{info, path, records_of};
    use super::*;

    const HASH: &str = "sha256:0000000000000000000000000000000000000000000000000000";

    fn print(infos: &[ValidPathInfo]) -> String {
        let store = Store::default();
        let mut text = String::new();
        for info in infos {
            let ValidPathInfo { path, nar_hash, nar_size, references } = info;
            text +=
                &format!("{}\n{nar_hash}\n{nar_size}\n\n{}\n", store.print(path), references.len());
            for reference in references {
                text += &format!("{}\n", store.print(reference));
            }
        }
        text
    }

    fn read(text: &str) -> Vec<ValidPathInfo> {
        records_of(&parse(text.as_bytes()).unwrap().finish().unwrap())
    }

    #[test]
    fn reads_what_nix_writes() {
        let infos = [
            info(path('a', "a"), 112, &[]),
            info(path('b', "b"), 7, &[path('a', "a"), path('b', "b")]),
        ];
        assert_eq!(read(&print(&infos)), infos);
    }

    #[test]
    fn a_deriver_is_read_over() {
        let text = print(&[info(path('a', "a"), 1, &[])]);
        let deriver = Store::default().print(&path('d', "a.drv"));
        let with = text.replacen("\n\n", &format!("\n{deriver}\n"), 1);
        assert_eq!(read(&with), read(&text));
    }

    #[test]
    fn a_malformed_line_is_named() {
        let a = Store::default().print(&path('a', "a"));
        for (text, line, expected) in [
            ("/nix/store\n".to_owned(), 1, "a store path"),
            (format!("\n{a}\n"), 1, "a store path"),
            (format!("{a}\nsha256:0\n1\n\n0\n"), 2, "a NAR hash"),
            (format!("{a}\n{HASH}\n-1\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n+1\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n99999999999999999999\n\n0\n"), 3, "a NAR size"),
            (format!("{a}\n{HASH}\n1\nunknown\n0\n"), 4, "a deriver"),
            (format!("{a}\n{HASH}\n1\n\nmany\n"), 5, "a number of references"),
            (format!("{a}\n{HASH}\n1\n\n2\n{a}\n"), 7, "reference 2 of 2"),
            (format!("{a}\n{HASH}\n1\n\n18446744073709551615\n"), 6, "reference 1 of"),
            (format!("{a}\n{HASH}\n1\n\n0\n\u{e9}\n"), 6, "a store path"),
        ] {
            let error = parse(text.as_bytes()).unwrap_err();
            let Error::Malformed { line: found_line, expected: found, .. } = &error else {
                panic!("{error}")
            };
            assert_eq!(
                (*found_line, found.starts_with(expected)),
                (line, true),
                "{text:?}: {error}"
            );
        }
    }

    proptest! {
        /// A registration that was cut short anywhere but between two records is an error.
        #[test]
        fn no_truncation_goes_unnoticed(cut in 0usize..1000) {
            let records = [info(path('a', "a"), 123, &[]), info(path('b', "b"), 7, &[path('a', "a")])];
            let text = print(&records);
            let cut = cut % text.len();
            let boundary = print(&records[..1]).len();
            prop_assert_eq!(parse(&text.as_bytes()[..cut]).is_ok(), cut == 0 || cut == boundary);
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes[..]);
        }
    }
}
