//! Makes ELF programs and libraries that contain only the parts that a loader reads.

/// The contents of an ELF file.
#[derive(Clone, Default)]
pub struct Elf<'a> {
    pub machine: u16,
    pub interpreter: Option<&'a str>,
    pub needed: &'a [&'a str],
    pub soname: Option<&'a str>,
    pub rpath: Option<&'a str>,
    pub runpath: Option<&'a str>,
    pub flags_1: u64,
    pub is_32: bool,
    pub is_big_endian: bool,
}

pub const AMD64: u16 = 62;
pub const ARM64: u16 = 183;

impl Elf<'_> {
    /// Returns the bytes: headers, the interpreter's path, the dynamic section, and its texts.
    pub fn bytes(&self) -> Vec<u8> {
        let number = |value: u64, size: usize| {
            let bytes = value.to_le_bytes()[..size].to_vec();
            if self.is_big_endian { bytes.into_iter().rev().collect() } else { bytes }
        };
        let word = if self.is_32 { 4 } else { 8 };
        let address = |value: u64| number(value, word);
        let mut texts = vec![0];
        let mut entries = Vec::new();
        let dynamic = [
            (14, self.soname.as_slice()),
            (15, self.rpath.as_slice()),
            (29, self.runpath.as_slice()),
            (1, self.needed),
        ];
        for (tag, values) in dynamic {
            for value in values {
                entries.push((tag, texts.len() as u64));
                texts.extend(value.bytes().chain([0]));
            }
        }
        if self.flags_1 != 0 {
            entries.push((0x6fff_fffb, self.flags_1));
        }
        let is_dynamic = !entries.is_empty() || self.interpreter.is_some();
        let interpreter = self.interpreter.map(|path| [path.as_bytes(), b"\0"].concat());
        let headers = 1 + u64::from(interpreter.is_some()) + u64::from(is_dynamic);
        let (header, segment) = if self.is_32 { (52, 32) } else { (64, 56) };
        let interpreter_at = header + headers * segment;
        let interpreter = interpreter.unwrap_or_default();
        let dynamic_at = interpreter_at + interpreter.len() as u64;
        let dynamic_size = 2 * word as u64 * (entries.len() as u64 + 2);
        let texts_at = dynamic_at + dynamic_size;
        let size = texts_at + texts.len() as u64;
        // Addresses differ from offsets in the file.
        const LOADED: u64 = 0x40_0000;

        let mut bytes = vec![0x7f, b'E', b'L', b'F'];
        bytes.extend([if self.is_32 { 1 } else { 2 }, if self.is_big_endian { 2 } else { 1 }, 1]);
        bytes.resize(16, 0);
        for (value, size) in [(3, 2), (u64::from(self.machine), 2), (1, 4)] {
            bytes.extend(number(value, size));
        }
        for value in [LOADED, header, 0] {
            bytes.extend(address(value));
        }
        bytes.extend(number(0, 4));
        for value in [header, segment, headers, 0, 0, 0] {
            bytes.extend(number(value, 2));
        }
        let mut add = |kind: u64, at: u64, size: u64| {
            let fields = [at, LOADED + at, LOADED + at, size, size];
            bytes.extend(number(kind, 4));
            if self.is_32 {
                bytes.extend(fields.iter().flat_map(|field| number(*field, 4)));
                bytes.extend([number(5, 4), number(1, 4)].concat());
            } else {
                bytes.extend(number(5, 4));
                bytes.extend(fields.iter().flat_map(|field| number(*field, 8)));
                bytes.extend(number(1, 8));
            }
        };
        if !interpreter.is_empty() {
            add(3, interpreter_at, interpreter.len() as u64);
        }
        add(1, 0, size);
        if is_dynamic {
            add(2, dynamic_at, dynamic_size);
        }
        bytes.extend(interpreter);
        for (tag, value) in entries.into_iter().chain([(5, LOADED + texts_at), (0, 0)]) {
            bytes.extend([address(tag), address(value)].concat());
        }
        bytes.extend(texts);
        bytes
    }
}

#[test]
fn programs_are_read() {
    for (is_32, is_big_endian) in [(false, false), (true, false), (false, true), (true, true)] {
        let bytes = Elf {
            machine: 22,
            interpreter: Some("/lib/ld.so.1"),
            needed: &["liba.so", "libb.so.2"],
            soname: Some("libself.so"),
            rpath: Some("/a:$ORIGIN/b"),
            runpath: Some("/c"),
            flags_1: 0x801,
            is_32,
            is_big_endian,
        }
        .bytes();
        let elf = stowage::report::Elf::read(&bytes[..]).unwrap();
        assert_eq!(elf.machine, 22);
        assert_eq!(elf.interpreter.as_deref(), Some(&b"/lib/ld.so.1"[..]));
        assert_eq!(elf.needed, [&b"liba.so"[..], b"libb.so.2"]);
        assert_eq!(elf.soname.as_deref(), Some(&b"libself.so"[..]));
        assert_eq!(elf.rpath.as_deref(), Some(&b"/a:$ORIGIN/b"[..]));
        assert_eq!(elf.runpath.as_deref(), Some(&b"/c"[..]));
        assert!(elf.no_default_directories && elf.is_64 != is_32);
        // A part that is cut off counts as absent.
        for end in 0..bytes.len() {
            let _ = stowage::report::Elf::read(&bytes[..end]);
        }
    }
    assert!(stowage::report::Elf::read(&b"#!/bin/sh\n"[..]).is_none());
    // A real program. If it is linked statically, it needs no libraries.
    let shell = std::fs::read("/bin/sh").unwrap();
    let shell = stowage::report::Elf::read(&shell[..]).unwrap();
    let needs_libc = shell.needed.iter().any(|name| name.starts_with(b"libc."));
    assert_eq!(needs_libc, shell.interpreter.is_some());
}

proptest::proptest! {
    /// Checks that no bytes make the reader panic, hang, or return more than there is.
    #[test]
    fn any_bytes_are_read(
        changes in proptest::collection::vec((0_usize..600, proptest::prelude::any::<u8>()), 0..20),
        is_32: bool,
        length in 0_usize..700,
    ) {
        let runpath = Some("$ORIGIN/lib");
        let elf = Elf { machine: 62, interpreter: Some("/ld"), needed: &["a", "b"], runpath, is_32, ..Elf::default() };
        let mut bytes = elf.bytes();
        for (at, byte) in changes {
            if let Some(place) = bytes.get_mut(at) {
                *place = byte;
            }
        }
        bytes.truncate(length);
        if let Some(elf) = stowage::report::Elf::read(&bytes[..]) {
            proptest::prop_assert!(elf.needed.len() <= 4096);
        }
    }
}
