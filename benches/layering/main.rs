//! Measures the cost of plans over real updates: `cargo bench --bench layering`.
//!
//! No layer is made. An update sends the layers in which a store path has changed, and a store path
//! changes with everything that it refers to, as in Nix. All numbers are computed, or drawn from a
//! fixed seed: except for times, the tables are the same on every run.

#![allow(clippy::unwrap_used, missing_docs)]

mod plan;
mod population;
mod scale;
mod suite;
mod updates;

use std::time::{Duration, Instant};

use stowage::layer::{LayerPlan, Layering, PlanOptions, Popularity};

use plan::{Planned, shared};
use suite::{Change, Image, Suite};
use updates::{KINDS, Mean};

const BUDGETS: [u64; 5] = [10, 30, 60, 100, 125];

/// The measurements for one way to plan.
#[derive(Default)]
struct Score {
    kinds: [Mean; KINDS.len()],
    shared: f64,
    added: Mean,
    dropped: Mean,
    planning: Duration,
    layers: usize,
    small_layers: usize,
}

/// The images, each in three versions: now, in the previous release, and in the next one.
struct Fleet {
    suite: Suite,
    images: Vec<[Image; 3]>,
}

impl Fleet {
    fn new() -> Self {
        let [suite, old, new] = ["trixie-sec", "trixie", "forky"].map(Suite::read);
        let releases =
            |name: &String| [&suite, &old, &new].map(|suite| suite.image(name, Change::None));
        let images = suite.images.keys().map(releases).collect();
        Self { suite, images }
    }

    fn score(&self, way: &Way) -> Score {
        let start = Instant::now();
        let plans: Vec<_> = self.images.iter().map(|[image, ..]| way.plan(image)).collect();
        let planning = start.elapsed();
        let mut score = Score { planning, ..Score::default() };
        for ([image, old, new], (plan, layers)) in self.images.iter().zip(&plans) {
            // With `previousPlan`, the previous release is planned first.
            let (old, old_layers) = way.plan(old);
            let kept = way.keep.then(|| way.replan(image, &old_layers));
            let (plan, layers) = kept.as_ref().map_or((plan, layers), |kept| (&kept.0, &kept.1));
            let new = way.replan(new, layers).0;
            for (mean, sent) in score.kinds.iter_mut().zip(updates::sent(plan, &old, &new)) {
                sent.into_iter().for_each(|sent| mean.add(1.0, sent));
            }
            let after = |change| {
                let image = self.suite.image(&image.name, change);
                let sent = way.replan(&image, layers).0.sent_after(plan);
                sent.times(100.0 / image.size() as f64)
            };
            score.added.add(1.0, after(Change::Added));
            let roots = self.suite.images[&image.name].len();
            for root in (0..roots).filter(|_| roots > 1) {
                score.dropped.add(1.0 / roots as f64, after(Change::Dropped(root)));
            }
            score.layers += plan.layers.len();
            score.small_layers += plan.sizes().filter(|size| *size < 65_536.0).count();
        }
        let plans: Vec<_> = plans.into_iter().map(|(plan, _)| plan).collect();
        score.shared = shared(&plans);
        score
    }
}

/// A way to plan.
struct Way<'p> {
    layering: Layering,
    /// True if the previous plan is kept.
    keep: bool,
    /// The popularity of packages in the whole distribution.
    popularity: Option<&'p Popularity>,
    budget: u64,
}

impl Way<'_> {
    fn plan<'i>(&self, image: &'i Image) -> (Planned<'i>, LayerPlan) {
        Planned::new(image, self.budget, &self.options(image))
    }

    fn replan<'i>(&self, image: &'i Image, before: &LayerPlan) -> (Planned<'i>, LayerPlan) {
        let previous = self.keep.then(|| before.into());
        Planned::new(image, self.budget, &PlanOptions { previous, ..self.options(image) })
    }

    /// Returns the options of a plan. Nixery always takes popularity into account, by its own
    /// count.
    fn options(&self, image: &Image) -> PlanOptions {
        let uses = image.members.iter().map(|member| (member.name.clone(), member.uses));
        let popularity = match &self.layering {
            Layering::Nixery => uses.collect(),
            _ => self.popularity.cloned().unwrap_or_default(),
        };
        PlanOptions { popularity, ..self.layering.clone().into() }
    }
}

impl Score {
    fn mix(&self) -> Mean {
        let mut mix = Mean::new();
        for (mean, (_, weight)) in self.kinds.iter().zip(KINDS) {
            mix.add(weight, mean.value().unwrap());
        }
        mix
    }
}

/// The name of a way, and its results for each budget.
type Row<S> = (String, Vec<S>);

fn table<S>(title: &str, rows: &[Row<S>], cell: impl Fn(&S) -> String) {
    println!("\n### {title}\n");
    let budgets = BUDGETS.map(|budget| format!("{budget} layers"));
    println!("| | {} |\n| --- |{}", budgets.join(" | "), " ---: |".repeat(budgets.len()));
    for (name, scores) in rows {
        let cells: Vec<_> = scores.iter().map(&cell).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}

fn main() {
    let fleet = Fleet::new();
    let needed = fleet.suite.popularity();
    let layerings = Layering::ALL.into_iter().map(|layering| (layering, false, None));
    let layerings =
        layerings.chain([(Layering::Runs, true, None), (Layering::Runs, false, Some(&needed))]);
    let rows: Vec<Row<Score>> = layerings
        .map(|(layering, keep, popularity)| {
            let with = match (keep, popularity) {
                (true, _) => " with `previousPlan`",
                (_, Some(_)) => " with `popularity`",
                _ => "",
            };
            let name = format!("`{layering}`{with}");
            let score =
                |budget| fleet.score(&Way { layering: layering.clone(), keep, popularity, budget });
            (name, BUDGETS.map(score).into())
        })
        .collect();
    let ideal = rows[0].1[0].mix().value().unwrap().ideal;
    let tenths = |value: f64| format!("{value:.1}");
    let of_mix = |score: &Score| score.mix().value().unwrap();

    println!("{} images, with one layer a path {ideal:.1} % per update", fleet.images.len());
    table("Sent per update, % of the image", &rows, |score| tenths(of_mix(score).layers));
    table("Sent unnecessarily", &rows, |score| tenths(of_mix(score).excess()));
    for (kind, (name, _)) in KINDS.iter().enumerate() {
        let of_kind = |score: &Score| score.kinds[kind].value().unwrap();
        let ideal = of_kind(&rows[0].1[0]).ideal;
        let title = format!("Sent unnecessarily per `{name}` update, which needs {ideal:.1} %");
        table(&title, &rows, |score| tenths(of_kind(score).excess()));
    }
    table("Shared between the images, % of what they have in common", &rows, |score| {
        format!("{:.0}", score.shared)
    });
    let excess = |mean: Mean| tenths(mean.value().unwrap().excess());
    table("Sent unnecessarily when a path of 200 KiB is added", &rows, |score| excess(score.added));
    table("Sent unnecessarily when a package is dropped", &rows, |score| excess(score.dropped));
    table("Above the lowest layer that changed", &rows, |score| tenths(of_mix(score).chain));
    let per_image = |count: usize| format!("{:.1}", count as f64 / fleet.images.len() as f64);
    table("Layers", &rows, |score| per_image(score.layers));
    table("Layers below 64 KiB", &rows, |score| per_image(score.small_layers));
    table("Time to plan all images, ms", &rows, |score| {
        format!("{:.0}", score.planning.as_secs_f64() * 1e3)
    });
    population::print(&fleet.suite, &needed);
    scale::print();
}
