//! Limits what is unpacked, and how much of it is kept in memory.
//! Stage: oci (pure).

use std::io::{self, BufRead, Read};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

/// The largest size of an unpacked layer, or of an unpacked archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnpackLimits {
    /// The largest number of unpacked bytes.
    pub total: u64,
    /// The largest number of unpacked bytes for each packed byte, beyond 512 MiB.
    pub ratio: u64,
}

static CHOSEN: OnceLock<UnpackLimits> = OnceLock::new();

impl Default for UnpackLimits {
    fn default() -> Self {
        Self { total: Self::TOTAL, ratio: Self::RATIO }
    }
}

impl UnpackLimits {
    /// The default of [`Self::total`].
    pub const TOTAL: u64 = 128 << 30;
    /// The default of [`Self::ratio`]. Programs and texts have far smaller ratios;
    /// only bytes such as zeros have far larger ones.
    pub const RATIO: u64 = 100;
    /// The number of unpacked bytes that is always allowed.
    const FREE: u64 = 512 << 20;

    /// Sets the limits of the program. Only the first call has an effect.
    pub fn choose(self) {
        let _ = CHOSEN.set(self);
    }

    /// Returns the limits of the program.
    pub fn chosen() -> Self {
        CHOSEN.get().copied().unwrap_or_default()
    }

    /// Fails if `unpacked` bytes are too many for `packed` packed bytes.
    ///
    /// # Errors
    /// Fails with [`io::ErrorKind::InvalidData`]. The message names the option that raises the limit.
    pub fn check(self, unpacked: u64, packed: u64) -> io::Result<()> {
        let Self { total, ratio } = self;
        let reason = if unpacked > total {
            format!(
                "it unpacks to more than {total} bytes (`--max-unpacked`, or `maxUnpacked` in Nix)"
            )
        } else if unpacked > Self::FREE.saturating_add(packed.saturating_mul(ratio)) {
            format!(
                "{packed} bytes of it unpack to more than {ratio} times as many (`--max-ratio`, or `maxRatio` in Nix)"
            )
        } else {
            return Ok(());
        };
        Err(io::Error::new(io::ErrorKind::InvalidData, reason))
    }
}

/// Counts the bytes that a decoder reads.
pub struct Counted<R> {
    from: R,
    taken: Arc<AtomicU64>,
}

impl<R> Counted<R> {
    /// Makes a reader of `from`. Also returns the count.
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

/// Reads from a decoder, and fails beyond the limits.
pub struct Limited<D> {
    decoder: D,
    taken: Arc<AtomicU64>,
    given: u64,
    limits: UnpackLimits,
}

impl<D> Limited<D> {
    /// Limits a decoder. `taken` is the number of bytes that the decoder has read.
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

/// Counts down the memory for the names of an image, for all layers together.
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
    /// The default, in bytes: enough for some 240,000 directories and links, 160,000 hard links, or
    /// 1,100,000 files.
    const BYTES: u64 = 48 << 20;

    /// Makes a budget of `bytes` bytes.
    pub fn of(bytes: u64) -> Self {
        Self { left: AtomicU64::new(bytes) }
    }

    /// Takes bytes from the budget.
    ///
    /// # Errors
    /// Fails if fewer bytes are left.
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
