//! How much may come out of compressed and sparse bytes, and how much of it is remembered.
//! Stage: oci (pure).

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// Says how large what is unpacked may be: a layer, or an archive that is compressed as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// Most bytes that may come out.
    pub total: u64,
    /// Most bytes that may come out of each byte that goes in, once more than [`Self::FREE`] came.
    pub ratio: u64,
}

static CHOSEN: OnceLock<UnpackLimits> = OnceLock::new();

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { total: Self::TOTAL, ratio: Self::RATIO }
    }
}

impl UnpackLimits {
    /// The most that a layer or an archive unpacks to by default, in bytes.
    pub const TOTAL: u64 = 128 << 30;
    /// The most that a byte unpacks to by default. Programs and texts are far below; what is far
    /// above are zeros.
    pub const RATIO: u64 = 100;
    /// So many bytes may come out of any number.
    const FREE: u64 = 512 << 20;

    /// Makes these the limits of the program. The first call counts.
    pub fn choose(self) {
        let _ = CHOSEN.set(self);
    }

    /// Returns the limits of the program.
    pub fn chosen() -> Self {
        CHOSEN.get().copied().unwrap_or_default()
    }

    /// Returns an error if `unpacked` bytes are too many to come out of `packed`.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`], with the limit and the option that raises it.
    pub fn check(self, unpacked: u64, packed: u64) -> io::Result<()> {
        let Self { total, ratio } = self;
        let reason = if unpacked > total {
            format!("it unpacks to more than {total} bytes (`--max-unpacked`)")
        } else if unpacked > Self::FREE.saturating_add(packed.saturating_mul(ratio)) {
            format!(
                "{packed} bytes of it unpack to more than {ratio} times as many (`--max-ratio`)"
            )
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

/// Counts the bytes that a decoder takes.
pub struct Counted<R> {
    from: R,
    taken: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    /// Counts what is read from `from`, and returns the count as well.
    pub fn new(from: R) -> (Self, Arc<AtomicU64>) {
        let taken = Arc::<AtomicU64>::default();
        (Self { from, taken: taken.clone() }, taken)
    }
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.taken.fetch_add(read as u64, Ordering::Relaxed);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.from.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        self.taken.fetch_add(count as u64, Ordering::Relaxed);
        self.from.consume(count);
    }
}

/// Reads from a decoder, and fails where more comes out than may.
pub struct Limited<D> {
    decoder: D,
    taken: Arc<AtomicU64>,
    given: u64,
    limits: UnpackLimits,
}

impl<D> Limited<D> {
    /// Holds a decoder to limits. `taken` counts its input.
    pub fn new(decoder: D, taken: Arc<AtomicU64>, limits: UnpackLimits) -> Self {
        Self { decoder, taken, given: 0, limits }
    }
}

impl<D: Read> Read for Limited<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.decoder.read(buffer)?;
        self.given = self.given.saturating_add(read as u64);
        self.limits.check(self.given, self.taken.load(Ordering::Relaxed))?;
        Ok(read)
    }
}

/// Counts down the memory that names of an image may take, whichever layers they are in.
#[derive(Debug)]
pub struct Budget {
    left: AtomicU64,
}

impl Default for Budget {
    fn default() -> Self {
        Self::of(Self::BYTES)
    }
}

impl Budget {
    /// Bytes of names and attributes: of some 250,000 directories and links, or ten times as many files.
    const BYTES: u64 = 40 << 20;

    /// Makes one of so many bytes.
    pub fn of(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    /// Takes so many bytes.
    ///
    /// # Errors
    /// If there are not so many left.
    pub fn take(&self, bytes: u64) -> io::Result<()> {
        let less = |left: u64| left.checked_sub(bytes);
        match self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less) {
            Ok(_) => Ok(()),
            Err(_) => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it has more directories, links and names than fit in memory",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn much_may_not_come_of_little() {
        let limits = UnpackLimits { total: 1 << 30, ratio: 10 };
        let free = UnpackLimits::FREE;
        for (unpacked, packed, expected) in [
            (free, 0, None),
            (free + 1, 0, Some("--max-ratio")),
            (free + 10, 1, None),
            (free + 11, 1, Some("--max-ratio")),
            (1 << 30, u64::MAX, None),
            ((1 << 30) + 1, u64::MAX, Some("--max-unpacked")),
        ] {
            let found = limits.check(unpacked, packed).err().map(|error| error.to_string());
            match (&found, expected) {
                (None, None) => {}
                (Some(found), Some(option)) if found.contains(option) => {}
                _ => panic!("{unpacked} of {packed}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_budget_ends() {
        let budget = Budget::default();
        budget.take(Budget::BYTES - 1).unwrap();
        budget.take(2).unwrap_err();
        budget.take(1).unwrap();
        budget.take(1).unwrap_err();
    }
}
