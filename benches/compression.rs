//! Measures compression levels and block sizes on one thread: `cargo bench --bench compression --
//! FILE`.
//!
//! FILE is an uncompressed tar, such as `stowage stream` of an image. Each line is one
//! choice of `src/oci/compressor.rs`.

use std::path::PathBuf;
use std::time::Instant;

use libdeflater::{CompressionLvl, Compressor};

fn main() {
    let Some(file) = std::env::args().skip(1).find(|argument| !argument.starts_with('-')) else {
        println!("no file to compress: cargo bench --bench compression -- FILE");
        return;
    };
    let bytes = std::fs::read(PathBuf::from(file)).expect("the file can be read");
    println!("{:>10} {:>6} {:>9} {:>7} {:>9}", "", "level", "block", "size", "MB/s");
    for level in [1, 4, 6, 9] {
        for block in [256 << 10, 1 << 20, 4 << 20] {
            measure("gzip", level, block, &bytes, |block| {
                let mut deflate = Compressor::new(CompressionLvl::new(level).expect("valid"));
                let mut out = vec![0; deflate.gzip_compress_bound(block.len())];
                deflate.gzip_compress(block, &mut out).expect("there is room")
            });
        }
    }
    for level in [1, 3, 6, 9, 15] {
        for block in [1 << 20, 4 << 20, 16 << 20] {
            measure("zstd", level, block, &bytes, |block| {
                zstd::bulk::compress(block, level).expect("there is room").len()
            });
        }
    }
}

fn measure(name: &str, level: i32, block: usize, bytes: &[u8], compress: impl Fn(&[u8]) -> usize) {
    let start = Instant::now();
    let size: usize = bytes.chunks(block).map(compress).sum();
    let speed = bytes.len() as f64 / 1e6 / start.elapsed().as_secs_f64();
    let percent = size as f64 * 100.0 / bytes.len() as f64;
    println!("{name:>10} {level:>6} {:>7} K {percent:>6.1}% {speed:>9.0}", block >> 10);
}
