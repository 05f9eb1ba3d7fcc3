//! Simulates updates of images, by kind and frequency.

use std::collections::BTreeMap;

use crate::plan::{Planned, Sent};
use crate::suite::Image;

/// The kinds of update, and the number of each kind in a hundred updates. The weights are a
/// judgement; the table shows each kind separately.
///
/// | kind | |
/// | --- | --- |
/// | app | the application, or else the image's settings |
/// | leaf, mid, deep | one source package that up to 6 %, up to 40 % or more of the image's paths refer to or are part of |
/// | month | all that a month brings |
/// | release | Debian 13 gets the updates of two months |
/// | upgrade | Debian 13 becomes 14, as far as that is |
pub const KINDS: [(&str, f64); 7] = [
    ("app", 55.0),
    ("leaf", 12.0),
    ("mid", 8.0),
    ("deep", 3.0),
    ("month", 14.0),
    ("release", 5.0),
    ("upgrade", 3.0),
];

/// Returns what an update of each kind sends in the mean, in per cent of the image's bytes. A kind
/// for which an image has no packages is `None`.
///
/// `old` is the plan of the image before a `release`, `new` that after an `upgrade`.
pub fn sent(plan: &Planned, old: &Planned, new: &Planned) -> [Option<Sent>; KINDS.len()] {
    let image = plan.image;
    let above = above(image);
    let [mut leaf, mut mid, mut deep] = [const { Mean::new() }; 3];
    for (source, updates) in sources(image) {
        let is_changed = changed(image, &above, &source);
        let share =
            is_changed.iter().filter(|changed| **changed).count() as f64 / is_changed.len() as f64;
        let mean = match share {
            ..0.06 => &mut leaf,
            0.06..=0.4 => &mut mid,
            _ => &mut deep,
        };
        mean.add(updates, plan.sent_for(&is_changed));
    }
    let app = format!("app-{}", image.name);
    let has_app = image.members.iter().any(|member| member.source == app);
    let app = if has_app { app } else { format!("etc-{}", image.name) };
    let app = plan.sent_for(&changed(image, &above, &app));
    let per_cent = |image: &Image, sent: Sent| sent.times(100.0 / image.size() as f64);
    let kinds = [
        Some(app),
        leaf.value(),
        mid.value(),
        deep.value(),
        Some(plan.sent_in_a_month()),
        Some(plan.sent_after(old)),
    ];
    let [app, leaf, mid, deep, month, release] =
        kinds.map(|sent| sent.map(|sent| per_cent(image, sent)));
    let upgrade = per_cent(new.image, new.sent_after(plan));
    [app, leaf, mid, deep, month, release, Some(upgrade)]
}

/// Returns which members change with a new version of one source: its own, and all that refer to
/// them.
fn changed(image: &Image, above: &[Vec<usize>], source: &str) -> Vec<bool> {
    let mut changed = vec![false; image.members.len()];
    for (place, member) in image.members.iter().enumerate() {
        if member.source == source {
            above[place].iter().for_each(|above| changed[*above] = true);
        }
    }
    changed
}

/// Returns, for each member, all members that refer to it, directly or not, and itself.
fn above(image: &Image) -> Vec<Vec<usize>> {
    let mut above = vec![Vec::new(); image.members.len()];
    for (place, below) in image.below().into_iter().enumerate() {
        for member in below {
            above[member].push(place);
        }
    }
    above
}

/// Returns the sources of the distribution's packages, with their update rates.
fn sources(image: &Image) -> BTreeMap<String, f64> {
    let mut sources = BTreeMap::new();
    let own = ["app", "etc", "env"].map(|kind| format!("{kind}-{}", image.name));
    for member in image.members.iter().filter(|member| !own.contains(&member.source)) {
        let updates: &mut f64 = sources.entry(member.source.clone()).or_default();
        *updates = updates.max(member.updates);
    }
    sources
}

/// A weighted mean.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mean {
    weight: f64,
    sum: Sent,
}

impl Mean {
    pub const fn new() -> Self {
        Self { weight: 0.0, sum: Sent { ideal: 0.0, layers: 0.0, chain: 0.0 } }
    }

    pub fn add(&mut self, weight: f64, sent: Sent) {
        self.weight += weight;
        self.sum = self.sum.plus(sent.times(weight));
    }

    pub fn value(self) -> Option<Sent> {
        (self.weight > 0.0).then(|| self.sum.times(1.0 / self.weight))
    }
}

impl Sent {
    fn plus(self, other: Self) -> Self {
        Self {
            ideal: self.ideal + other.ideal,
            layers: self.layers + other.layers,
            chain: self.chain + other.chain,
        }
    }

    pub fn times(self, factor: f64) -> Self {
        Self {
            ideal: self.ideal * factor,
            layers: self.layers * factor,
            chain: self.chain * factor,
        }
    }

    /// Returns the bytes that are sent unnecessarily.
    pub fn excess(self) -> f64 {
        self.layers - self.ideal
    }
}
