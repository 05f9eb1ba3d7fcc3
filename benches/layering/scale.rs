//! Measures how the time for planning grows with the closure.

use std::fs;
use std::time::Instant;

use stowage::closure::{Closure, NarHash, ValidPathInfo};
use stowage::layer::{LayerBudget, LayerPlan, Layering};
use stowage::store::StorePath;

/// A generator of pseudo-random numbers: SplitMix64 with a fixed seed.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) % limit as u64) as usize
    }
}

/// Returns a closure of `paths` paths with eight references each in the mean. Half of these are to
/// a few paths that everything needs, the others to neighbours. Sizes are from a KiB to 16 MiB.
fn closure(paths: usize) -> Closure {
    let mut numbers = Numbers(1);
    let path = |number: usize| -> StorePath {
        format!("{number:032}-package{}", number * 7_919 % paths).parse().unwrap()
    };
    let info = |number: usize| {
        let mut references = Vec::new();
        for _ in 0..numbers.below(17).min(number) {
            let reach = if numbers.below(2) == 0 { number.min(100) } else { number };
            let back = numbers.below(reach.min(1_000)) + 1;
            references.push(if reach <= 100 { back - 1 } else { number - back });
        }
        ValidPathInfo {
            path: path(number),
            nar_hash: NarHash::new([0; 32]),
            nar_size: (1 << (10 + numbers.below(14))) + numbers.below(1 << 10) as u64,
            references: references.into_iter().map(path).collect(),
        }
    };
    Closure::new((0..paths).map(info).collect()).unwrap()
}

pub fn print() {
    println!("\n### Time to plan 60 layers, ms\n");
    let sizes = [1_000, 10_000, 20_000, 100_000];
    let heads = sizes.map(|size| format!("{size} paths"));
    println!("| | {} |\n| --- |{}", heads.join(" | "), " ---: |".repeat(heads.len()));
    let closures = sizes.map(closure);
    let before = peak();
    for layering in Layering::ALL {
        let times = closures.each_ref().map(|closure| {
            let start = Instant::now();
            LayerPlan::new(closure, LayerBudget::default(), layering.clone().into()).unwrap();
            format!("{:.0}", start.elapsed().as_secs_f64() * 1e3)
        });
        println!("| `{layering}` | {} |", times.join(" | "));
        if layering == Layering::Runs {
            eprintln!("`runs` added {} MiB to a peak of {before} MiB", peak() - before);
        }
    }
}

/// Returns the peak memory of this process, in MiB.
fn peak() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}
