//! Measures compression levels, block sizes and windows on one thread: `cargo bench --bench compression --
//! FILE…`.
//!
//! Each FILE is an uncompressed layer, such as the blobs of `stowage copy image.json dir:DIRECTORY`. Each line
//! is one choice of `src/oci/compressor.rs`: the size of all files together, and the speed
//! by processor time.

use std::io::Write;

use flate2::write::GzEncoder;
use libdeflater::{CompressionLvl, Compressor};
use nix::time::{ClockId, clock_gettime};
use zstd::bulk;
use zstd::zstd_safe::CParameter;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

fn main() {
    let files: Vec<_> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if files.is_empty() {
        println!("no file to compress: cargo bench --bench compression -- FILE…");
        return;
    }
    let read = |file| std::fs::read(file).expect("the file can be read");
    let layers: Vec<_> = files.iter().map(read).collect();
    println!("{:>26} {:>6} {:>9} {:>7} {:>9}", "", "level", "block", "size", "MB/s");
    for level in [1, 4, 6, 9] {
        for block in [256 * KIB, MIB, 4 * MIB] {
            let mut deflate = Compressor::new(CompressionLvl::new(level).expect("valid"));
            measure("gzip, libdeflate", level, block, &layers, |block| {
                let mut out = vec![0; deflate.gzip_compress_bound(block.len())];
                deflate.gzip_compress(block, &mut out).expect("there is room")
            });
        }
    }
    for level in [1, 4, 6] {
        measure("gzip, zlib-rs", level, MIB, &layers, |block| {
            let level = flate2::Compression::new(u32::try_from(level).expect("positive"));
            let mut gzip = GzEncoder::new(Vec::new(), level);
            gzip.write_all(block).expect("there is room");
            gzip.finish().expect("there is room").len()
        });
    }
    for level in [1, 3, 6, 9, 15] {
        for block in [MIB, 4 * MIB, 16 * MIB] {
            measure("zstd", level, block, &layers, |block| {
                bulk::compress(block, level).expect("there is room").len()
            });
        }
    }
    // A window as large as the block, and matches further back than the level looks for them.
    for level in [1, 3, 5] {
        for (block, log) in [(4 * MIB, 22), (8 * MIB, 23), (16 * MIB, 24), (64 * MIB, 26)] {
            for long in [false, true] {
                let name = format!("zstd, window of 2^{log}{}", if long { ", long" } else { "" });
                measure(&name, level, block, &layers, |block| {
                    let mut zstd = bulk::Compressor::new(level).expect("the level is valid");
                    zstd.set_parameter(CParameter::WindowLog(log)).expect("the window is valid");
                    let long = CParameter::EnableLongDistanceMatching(long);
                    zstd.set_parameter(long).expect("the value is valid");
                    zstd.compress(block).expect("there is room").len()
                });
            }
        }
    }
}

fn measure(
    name: &str,
    level: i32,
    block: usize,
    layers: &[Vec<u8>],
    compress: impl FnMut(&[u8]) -> usize,
) {
    let start = seconds();
    let size: usize = layers.iter().flat_map(|layer| layer.chunks(block)).map(compress).sum();
    let bytes: usize = layers.iter().map(Vec::len).sum();
    let speed = bytes as f64 / 1e6 / (seconds() - start);
    let percent = size as f64 * 100.0 / bytes as f64;
    println!("{name:>26} {level:>6} {:>7} K {percent:>6.2}% {speed:>9.0}", block >> 10);
}

/// Returns the processor time of this thread.
fn seconds() -> f64 {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("a thread has a clock");
    time.tv_sec() as f64 + time.tv_nsec() as f64 / 1e9
}
