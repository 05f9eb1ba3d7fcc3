//! Reads from a program or shared library what the kernel and the dynamic loader need to start it.
//! Stage: report (pure). Input: any bytes. Output: [`Elf`].
//!
//! The format is that of the System V ABI, "Object Files" and "Program Loading and Dynamic
//! Linking". Every offset and size comes from the file: what does not fit in the file is taken for
//! absent, and tables have limits.

use super::image_files::ReadAt;

/// The largest number of program headers and of entries in the dynamic section.
const ENTRIES: u64 = 4096;
/// The largest length of a path or name, as on Linux.
const TEXT: usize = 4096;

const PT_LOAD: u64 = 1;
const PT_DYNAMIC: u64 = 2;
const PT_INTERP: u64 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_SONAME: u64 = 14;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;
const DT_FLAGS_1: u64 = 0x6fff_fffb;
/// The flag of objects for which the loader does not search its own directories.
const DF_1_NODEFLIB: u64 = 0x800;

/// A program or shared library.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elf {
    /// True for 64 bits, false for 32.
    pub is_64: bool,
    /// The number of the processor (`e_machine`).
    pub machine: u16,
    /// The path of the program that loads this one, if there is one (`PT_INTERP`).
    pub interpreter: Option<Vec<u8>>,
    /// The names of the libraries that this one needs, in order (`DT_NEEDED`).
    pub needed: Vec<Vec<u8>>,
    /// The name of the library (`DT_SONAME`).
    pub soname: Option<Vec<u8>>,
    /// The directories that are searched first, for this object and those that it loads
    /// (`DT_RPATH`).
    pub rpath: Option<Vec<u8>>,
    /// The directories that are searched after `LD_LIBRARY_PATH`, for this object only
    /// (`DT_RUNPATH`).
    pub runpath: Option<Vec<u8>>,
    /// True if the loader's own directories are not searched.
    pub no_default_directories: bool,
}

/// Reads numbers of a file in its byte order and with its size of addresses.
struct Reader<'f, F: ReadAt + ?Sized> {
    file: &'f F,
    is_big_endian: bool,
    is_64: bool,
}

/// The part of a program header that is used.
struct Segment {
    kind: u64,
    offset: u64,
    address: u64,
    size: u64,
}

impl Elf {
    /// Reads an executable or shared object. Returns none for anything else.
    pub fn read(file: &(impl ReadAt + ?Sized)) -> Option<Self> {
        let start = file.bytes_at(0, 20)?;
        let [0x7f, b'E', b'L', b'F', class @ (1 | 2), data @ (1 | 2), ..] = start[..] else {
            return None;
        };
        let reader = Reader { file, is_big_endian: data == 2, is_64: class == 2 };
        if !matches!(reader.number(16, 2)?, 2 | 3) {
            return None;
        }
        let machine = u16::try_from(reader.number(18, 2)?).ok()?;
        let mut elf = Self { is_64: reader.is_64, machine, ..Self::default() };
        let Some(segments) = reader.segments() else { return Some(elf) };
        let interpreter = segments.iter().find(|segment| segment.kind == PT_INTERP);
        elf.interpreter = interpreter.and_then(|segment| {
            let size = usize::try_from(segment.size).ok()?.min(TEXT);
            reader.text(segment.offset, size)
        });
        if let Some(dynamic) = segments.iter().find(|segment| segment.kind == PT_DYNAMIC) {
            elf.read_dynamic(&reader, &segments, dynamic);
        }
        Some(elf)
    }

    fn read_dynamic<F: ReadAt + ?Sized>(
        &mut self,
        reader: &Reader<F>,
        segments: &[Segment],
        dynamic: &Segment,
    ) {
        let entry = if reader.is_64 { 16 } else { 8 };
        let count = (dynamic.size / entry).min(ENTRIES);
        let entries = (0..count).map_while(|index| {
            let at = dynamic.offset.checked_add(index * entry)?;
            let tag = reader.address(at)?;
            let value = reader.address(at.checked_add(entry / 2)?)?;
            (tag != 0).then_some((tag, value))
        });
        let entries: Vec<_> = entries.collect();
        let value = |tag| entries.iter().find(|(other, _)| *other == tag).map(|(_, value)| *value);
        let names = value(DT_STRTAB).and_then(|address| offset_of(segments, address));
        let name = |at: u64| reader.text(names?.checked_add(at)?, TEXT);
        self.needed = entries
            .iter()
            .filter(|(tag, _)| *tag == DT_NEEDED)
            .filter_map(|(_, at)| name(*at))
            .filter(|name| !name.is_empty())
            .collect();
        self.soname = value(DT_SONAME).and_then(name);
        self.rpath = value(DT_RPATH).and_then(name);
        self.runpath = value(DT_RUNPATH).and_then(name);
        self.no_default_directories =
            value(DT_FLAGS_1).is_some_and(|flags| flags & DF_1_NODEFLIB != 0);
    }
}

/// Returns the offset in the file of the bytes that are loaded at an address.
fn offset_of(segments: &[Segment], address: u64) -> Option<u64> {
    segments.iter().filter(|segment| segment.kind == PT_LOAD).find_map(|segment| {
        let within = address.checked_sub(segment.address)?;
        (within < segment.size).then(|| segment.offset.checked_add(within))?
    })
}

impl<F: ReadAt + ?Sized> Reader<'_, F> {
    fn number(&self, at: u64, size: usize) -> Option<u64> {
        let bytes = self.file.bytes_at(at, size)?;
        let add = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        Some(match self.is_big_endian {
            true => bytes.iter().fold(0, add),
            false => bytes.iter().rev().fold(0, add),
        })
    }

    /// Reads an address, an offset or a size.
    fn address(&self, at: u64) -> Option<u64> {
        self.number(at, if self.is_64 { 8 } else { 4 })
    }

    /// Reads text up to a NUL, which must be among the first `most` bytes.
    fn text(&self, at: u64, most: usize) -> Option<Vec<u8>> {
        let left = self.file.size().checked_sub(at)?;
        let length = most.min(usize::try_from(left).unwrap_or(usize::MAX));
        let mut bytes = self.file.bytes_at(at, length)?;
        let end = bytes.iter().position(|byte| *byte == 0)?;
        bytes.truncate(end);
        Some(bytes)
    }

    fn segments(&self) -> Option<Vec<Segment>> {
        let (table, size_at, count_at) = if self.is_64 { (32, 54, 56) } else { (28, 42, 44) };
        let table = self.address(table)?;
        let size = self.number(size_at, 2)?;
        let count = self.number(count_at, 2)?.min(ENTRIES);
        let segments = (0..count).map_while(|index| {
            let at = table.checked_add(index.checked_mul(size)?)?;
            let (offset, address, in_file) = if self.is_64 { (8, 16, 32) } else { (4, 8, 16) };
            let field = |place: u64| self.address(at.checked_add(place)?);
            Some(Segment {
                kind: self.number(at, 4)?,
                offset: field(offset)?,
                address: field(address)?,
                size: field(in_file)?,
            })
        });
        Some(segments.collect())
    }
}
