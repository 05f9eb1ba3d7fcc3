//! Measures the speed of layers with many small files and with few large ones, of a plan for a
//! large closure, and of hashing on one core: `cargo bench`. `benches/run` measures whole commands
//! beside other tools.

#![allow(clippy::unwrap_used, missing_docs)]

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::io::{self, Write};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use stowage::closure::{Closure, NarHash, ValidPathInfo};
use stowage::digest::{DigestWriter, in_lanes};
use stowage::layer::{
    LayerBudget, LayerContents, LayerPlan, PlanOptions, build_layers, write_layer,
};
use stowage::sink::PIECE;
use stowage::store::{Store, StorePath};

/// Returns bytes that do not repeat: xorshift with a fixed seed.
fn bytes(length: usize, mut state: u64) -> Vec<u8> {
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(next).collect()
}

fn store_path(number: usize, name: &str) -> StorePath {
    format!("{number:032}-{name}").parse().unwrap()
}

/// Makes a store with one path of `files` files, each of `size` bytes.
fn store(files: usize, size: usize) -> (tempfile::TempDir, Store, LayerContents) {
    let root = tempfile::tempdir().unwrap();
    let store = Store::below(root.path());
    let path = store_path(0, "bench");
    let directory = store.physical(&path);
    for file in 0..files {
        let directory = directory.join(format!("directory{}", file / 100));
        fs::create_dir_all(&directory).unwrap();
        fs::write(directory.join(format!("file{file}")), bytes(size, file as u64 + 1)).unwrap();
    }
    let contents =
        LayerContents { store_paths: BTreeSet::from([path]), ..LayerContents::default() };
    (root, store, contents)
}

fn layers(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("layer");
    for (name, files, size) in [("small files", 5_000, 6_000), ("large files", 4, 16 << 20)] {
        let (_guard, store, contents) = store(files, size);
        let build = || build_layers(&store, &[black_box(&contents)], |_| 0, |_| ()).unwrap();
        group.throughput(Throughput::Bytes(build()[0].size));
        group.bench_function(format!("{name}: tar"), |bencher| {
            bencher.iter(|| write_layer(&store, &contents, io::sink()).unwrap());
        });
        group.bench_function(format!("{name}: tar and diff ID"), |bencher| {
            bencher.iter(build);
        });
    }
}

/// Returns a closure of `paths` paths, each of which refers to up to ten paths before it.
fn closure(paths: usize) -> Closure {
    let random = bytes(paths * 40, 42);
    let random = |at: usize| usize::from(random[2 * at]) << 8 | usize::from(random[2 * at + 1]);
    let infos = (0..paths).map(|number| ValidPathInfo {
        path: store_path(number, &format!("package{number}")),
        nar_hash: NarHash::new([0; 32]),
        nar_size: (random(number) as u64) << (random(number + paths) % 14),
        references: (0..10.min(number))
            .map(|edge| random(number * 10 + edge) % number)
            .map(|other| store_path(other, &format!("package{other}")))
            .collect(),
    });
    Closure::new(infos.collect()).unwrap()
}

fn plans(criterion: &mut Criterion) {
    for paths in [1_000, 10_000] {
        let closure = closure(paths);
        criterion.bench_function(&format!("plan: {paths} paths in 60 layers"), |bencher| {
            let (budget, options) = (LayerBudget::default(), PlanOptions::default());
            bencher.iter(|| LayerPlan::new(black_box(&closure), budget, options.clone()).unwrap());
        });
    }
}

fn digests(criterion: &mut Criterion) {
    let messages: Vec<_> = (1..=32).map(|seed| bytes(1 << 20, seed)).collect();
    let mut group = criterion.benchmark_group("SHA-256 on one processor");
    for count in [1, 2, 16, 32] {
        let messages = &messages[..count];
        group.throughput(Throughput::Bytes((count << 20) as u64));
        group.bench_function(format!("{count} messages"), |bencher| {
            bencher.iter(|| {
                let weight = |bytes: &&Vec<u8>| bytes.len() as u64;
                in_lanes(black_box(messages), weight, 1, |place, bytes| {
                    let mut writer = DigestWriter::at(place, io::sink());
                    bytes.chunks(PIECE).for_each(|piece| writer.write_all(piece).unwrap());
                    writer.finish()
                })
            });
        });
    }
}

criterion_group!(benches, layers, plans, digests);
criterion_main!(benches);
