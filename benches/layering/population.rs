//! Measures what images by package names share, such as an image service builds.

use std::collections::BTreeMap;

use stowage::layer::{Layering, PlanOptions, Popularity};

use crate::plan::Planned;
use crate::suite::{Image, Suite};
use crate::{BUDGETS, table};

/// The number of images. Each has one to four names, besides those in all images.
const IMAGES: usize = 48;
const MOST_NAMES: u64 = 4;
/// The packages that `buildImageFromNames` puts in every image, by Debian's names.
const EVERYWHERE: [&str; 3] = ["coreutils", "ca-certificates", "netbase"];

/// The results for images that are planned in one way.
struct Shared {
    /// The bytes of all layers, each counted once.
    distinct: f64,
    /// The bytes that an image sends to a place that has one other image, in the mean over all
    /// pairs.
    second: f64,
    /// The bytes that an image sends to a place that has all other images, in the mean.
    last: f64,
}

/// Makes images from names that are drawn with a fixed seed. The names are those of the suite's
/// root packages, since people do not ask for images of libraries.
fn images(suite: &Suite) -> Vec<Image> {
    let asked_for: Vec<_> = suite.asked_for().into_iter().collect();
    let everywhere = EVERYWHERE.iter().filter_map(|name| suite.package(name));
    let everywhere: Vec<_> = everywhere.collect();
    let asked_for =
        if std::env::var("UNI").is_ok() { (0..suite.uses().count()).collect() } else { asked_for };
    let mut seed = 0;
    let mut draw = |below: u64| {
        // SplitMix64.
        seed += 1;
        let mut bits = 0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed);
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % below
    };
    let image = |number: usize| {
        let mut roots = everywhere.clone();
        for _ in 0..=draw(MOST_NAMES) {
            roots.push(asked_for[draw(asked_for.len() as u64) as usize]);
        }
        suite.image_of(&number.to_string(), &roots)
    };
    (0..IMAGES).map(image).collect()
}

fn shared(images: &[Image], budget: u64, options: &PlanOptions) -> Shared {
    let plans: Vec<_> = images.iter().map(|image| Planned::new(image, budget, options).0).collect();
    let layers: Vec<BTreeMap<_, _>> =
        plans.iter().map(|plan| plan.store_path_sets().zip(plan.sizes()).collect()).collect();
    sent(&layers)
}

/// Returns the results if every path had a layer of its own.
fn ideal(images: &[Image]) -> Shared {
    let paths = |image: &Image| -> BTreeMap<_, _> {
        image.store_paths().into_iter().zip(image.members.iter().map(|m| m.size as f64)).collect()
    };
    sent(&images.iter().map(paths).collect::<Vec<_>>())
}

fn sent<L: Ord>(images: &[BTreeMap<L, f64>]) -> Shared {
    let mut places = BTreeMap::<&L, (usize, f64)>::new();
    for (layer, size) in images.iter().flatten() {
        places.entry(layer).or_insert((0, *size)).0 += 1;
    }
    let mut second = 0.0;
    for (one, image) in images.iter().enumerate() {
        let others = images.iter().enumerate().filter(|(other, _)| *other != one);
        for (_, other) in others {
            let new = image.iter().filter(|(layer, _)| !other.contains_key(*layer));
            second += new.map(|(_, size)| size).sum::<f64>();
        }
    }
    let alone = places.values().filter(|(count, _)| *count == 1);
    let count = images.len() as f64;
    Shared {
        distinct: places.values().map(|(_, size)| size).sum(),
        second: second / (count * (count - 1.0)),
        last: alone.map(|(_, size)| size).sum::<f64>() / count,
    }
}

/// Returns the ways that are compared.
fn ways(suite: &Suite, needed: &Popularity) -> Vec<(&'static str, PlanOptions)> {
    let direct: Popularity = suite.uses().collect();
    let with = |layering: Layering, popularity: &Popularity| PlanOptions {
        popularity: popularity.clone(),
        ..layering.into()
    };
    let none = Popularity::default();
    vec![
        ("`runs`", with(Layering::Runs, &none)),
        ("`auto`", with(Layering::Auto, &none)),
        ("`popularity`", with(Layering::Popularity, &none)),
        ("`nixery`, without data", with(Layering::Nixery, &none)),
        ("`nixery`, direct references", with(Layering::Nixery, &direct)),
        ("`nixery` with `popularity`", with(Layering::Nixery, needed)),
        ("`auto` with `popularity`", with(Layering::Auto, needed)),
        ("`runs` with `popularity`", with(Layering::Runs, needed)),
    ]
}

/// Prints what images by package names share.
pub fn print(suite: &Suite, needed: &Popularity) {
    const MIB: f64 = 1048576.0;
    let images = images(suite);
    let total: f64 = images.iter().map(|image| image.size() as f64).sum();
    let ideal = ideal(&images);
    println!(
        "\n{IMAGES} images by name, {:.0} MiB; with one layer a path {:.0} MiB, {:.1} MiB to a second, {:.1} MiB to the last",
        total / MIB,
        ideal.distinct / MIB,
        ideal.second / MIB,
        ideal.last / MIB
    );
    let rows: Vec<(String, Vec<Shared>)> = ways(suite, needed)
        .into_iter()
        .map(|(name, options)| {
            let scores = BUDGETS.map(|budget| shared(&images, budget, &options));
            (name.to_owned(), scores.into())
        })
        .collect();
    table("Images by name: bytes of all layers, MiB", &rows, |shared| {
        format!("{:.0}", shared.distinct / MIB)
    });
    table("Images by name: sent where one other is, MiB", &rows, |shared| {
        format!("{:.1}", shared.second / MIB)
    });
    table("Images by name: sent where all others are, MiB", &rows, |shared| {
        format!("{:.1}", shared.last / MIB)
    });
}
