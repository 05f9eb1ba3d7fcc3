//! Reads the first bytes of a file as the kernel does to find out how to start it.
//! Stage: report (pure). Input: at most 256 bytes. Output: [`Head`].

/// The number of bytes of a file that the kernel reads to find out how to start it
/// (`BINPRM_BUF_SIZE`).
pub const START: usize = 256;

/// The kind of a file that is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// An ELF program, or one for macOS.
    Program,
    /// A script: the path of its interpreter, and the argument after it, which may be empty.
    Script {
        /// The path, as it is written.
        interpreter: Vec<u8>,
        /// The rest of the line.
        argument: Vec<u8>,
    },
    /// A script that the kernel refuses, with the reason.
    Problem(&'static str),
    /// Something else.
    Other,
}

/// Reads the head of a file, as in Linux's `fs/binfmt_script.c`. `start` is the first 256 bytes, or
/// all of a shorter file.
pub fn head_of(start: &[u8]) -> Head {
    if super::program::machine(start).is_some() || start.starts_with(b"\x7fELF") {
        return Head::Program;
    }
    let Some(rest) = start.strip_prefix(b"#!") else {
        return match start.is_empty() {
            true => Head::Problem("is empty"),
            false if start.starts_with(b"\xef\xbb\xbf#!") => {
                Head::Problem("begins with a byte order mark, so that `#!` is not its first line")
            }
            false => Head::Other,
        };
    };
    let blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let end = |byte: &u8| matches!(byte, b' ' | b'\t' | b'\0');
    let line = match rest.iter().position(|byte| *byte == b'\n') {
        Some(newline) => &rest[..newline],
        None => {
            let first = rest.iter().position(|byte| !blank(byte)).unwrap_or(rest.len());
            let is_whole = start.len() < START || rest[first..].iter().any(end);
            if !is_whole {
                return Head::Problem(
                    "has a first line with an interpreter of more than 253 bytes, which the kernel does not read",
                );
            }
            rest
        }
    };
    let line = line.trim_ascii_start_of(blank);
    let name = line.iter().position(end).unwrap_or(line.len());
    if name == 0 {
        return Head::Problem("has a first line `#!` without an interpreter");
    }
    let argument = line[name..].trim_ascii_start_of(blank);
    let argument =
        &argument[..argument.iter().position(|byte| *byte == 0).unwrap_or(argument.len())];
    let last = argument.iter().rposition(|byte| !blank(byte)).map_or(0, |last| last + 1);
    Head::Script { interpreter: line[..name].to_vec(), argument: argument[..last].to_vec() }
}

trait TrimStart {
    /// Returns the bytes without those at the start for which the test is true.
    fn trim_ascii_start_of(&self, test: impl Fn(&u8) -> bool) -> &[u8];
}

impl TrimStart for [u8] {
    fn trim_ascii_start_of(&self, test: impl Fn(&u8) -> bool) -> &[u8] {
        &self[self.iter().position(|byte| !test(byte)).unwrap_or(self.len())..]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_read_as_by_the_kernel() {
        let script = |interpreter: &str, argument: &str| Head::Script {
            interpreter: interpreter.into(),
            argument: argument.into(),
        };
        let long = |length: usize| format!("#!/{}\n", "x".repeat(length)).into_bytes();
        let cut = |bytes: Vec<u8>| bytes[..bytes.len().min(256)].to_vec();
        for (start, expected) in [
            (b"#!/bin/sh\necho".to_vec(), script("/bin/sh", "")),
            (b"#!/bin/sh".to_vec(), script("/bin/sh", "")),
            (b"#! \t/bin/sh -e  \n".to_vec(), script("/bin/sh", "-e")),
            (b"#!/usr/bin/env -S a  b\n".to_vec(), script("/usr/bin/env", "-S a  b")),
            (b"#!/bin/sh\r\n".to_vec(), script("/bin/sh\r", "")),
            (b"#!/bin/sh -e\r\n".to_vec(), script("/bin/sh", "-e\r")),
            (cut(long(252)), script(&format!("/{}", "x".repeat(252)), "")),
            (
                cut([b"#!/bin/sh ".to_vec(), vec![b'a'; 300]].concat()),
                script("/bin/sh", &"a".repeat(246)),
            ),
        ] {
            assert_eq!(head_of(&start), expected, "{}", start.escape_ascii());
        }
        for start in [
            cut(long(254)),
            cut(long(300)),
            b"#!\n".to_vec(),
            b"#!  \n".to_vec(),
            b"".to_vec(),
            b"\xef\xbb\xbf#!/bin/sh\n".to_vec(),
        ] {
            assert!(matches!(head_of(&start), Head::Problem(_)), "{}", start.escape_ascii());
        }
        assert_eq!(head_of(b"echo\n"), Head::Other);
        assert_eq!(head_of(b"\x7fELF"), Head::Program);
    }
}
