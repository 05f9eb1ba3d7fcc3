//! Reads images to plan from the update histories in `benches/data` (the README there has the
//! format).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use serde::Deserialize;
use stowage::closure::{Closure, NarHash, ValidPathInfo};
use stowage::digest::Digest;
use stowage::layer::Popularity;
use stowage::store::StorePath;

/// A release of a distribution, with the images made of its packages.
#[derive(Debug, Deserialize)]
pub struct Suite {
    packages: Vec<Package>,
    /// The root packages of each image.
    pub images: BTreeMap<String, Vec<usize>>,
}

/// Name, version, source package, NAR KiB, compressed KiB, dependencies, updates in 41 months, uses
/// in the whole archive.
#[derive(Debug, Deserialize)]
struct Package(String, String, String, u64, #[allow(dead_code)] u64, Vec<usize>, f64, u64);

/// A store path of an image.
#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub version: String,
    /// The source package; all members of one source change together.
    pub source: String,
    /// The size in bytes.
    pub size: u64,
    /// The members that this one refers to, all of them before this one.
    pub references: Vec<usize>,
    /// The number of updates in 41 months.
    pub updates: f64,
    /// The number of references to this member from all packages of the archive, in this image or
    /// not.
    pub uses: u64,
}

/// The closure of an image, references before their referrers.
#[derive(Clone, Debug)]
pub struct Image {
    pub name: String,
    pub members: Vec<Member>,
}

/// A change that the author of an image makes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// The application needs a further library, of 200 KiB.
    Added,
    /// A root package is removed, by its index in [`Suite::images`], with everything that only this
    /// package needs.
    Dropped(usize),
}

/// The images with an application; the others have tools and their settings.
const APPLICATIONS: [&str; 16] = [
    "py-web",
    "py-django",
    "py-data",
    "php-fpm",
    "apache-php",
    "jre",
    "node",
    "ruby",
    "perl",
    "gis",
    "r-base",
    "jupyter",
    "redis",
    "nginx",
    "postgres",
    "go-build",
];
/// The sizes of the applications, which repeat in the alphabetical order of the images.
const APPLICATION_KIB: [u64; 5] = [40, 600, 4_096, 25_600, 61_440];
/// The rate of updates of what the author builds several times a month.
const OFTEN: f64 = 200.0;

impl Suite {
    pub fn read(name: &str) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/data");
        let bytes = fs::read(directory.join(format!("{name}.json"))).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    }

    /// Returns one of the images, unchanged or with a change by its author.
    pub fn image(&self, name: &str, change: Change) -> Image {
        let mut roots = self.images[name].clone();
        if let Change::Dropped(root) = change {
            roots.remove(root);
        }
        let mut members = self.closure_of(&roots);
        let place: BTreeMap<_, _> =
            members.iter().zip(0..).map(|(member, place)| (member.name.clone(), place)).collect();
        let mut named: Vec<_> = roots.iter().map(|root| place[&self.packages[*root].0]).collect();
        let mut add = |name: String, kib: u64, mut references: Vec<usize>, updates: f64| {
            references.sort_unstable();
            references.dedup();
            let (version, size) = ("1".to_owned(), kib << 10);
            let source = name.clone();
            members.push(Member { name, version, source, size, references, updates, uses: 1 });
            members.len() - 1
        };
        let is_application = APPLICATIONS.contains(&name);
        let etc = add(format!("etc-{name}"), 12, vec![], if is_application { 1.0 } else { OFTEN });
        if matches!(change, Change::Added) {
            named.push(add("libadded".to_owned(), 200, vec![place["libc6"]], 1.0));
        }
        let mut above = named.clone();
        if is_application {
            let at = self.images.keys().position(|other| other == name).unwrap();
            let kib = APPLICATION_KIB[at % APPLICATION_KIB.len()];
            above.push(add(format!("app-{name}"), kib, named, OFTEN));
        }
        above.push(etc);
        add(format!("env-{name}"), 32, above, OFTEN);
        Image { name: name.to_owned(), members }
    }

    /// Returns the index of a package of this name, or `None` if there is none.
    pub fn package(&self, name: &str) -> Option<usize> {
        self.packages.iter().position(|package| package.0 == name)
    }

    /// Returns the image of some packages, with an environment of them as the author's own path.
    pub fn image_of(&self, name: &str, roots: &[usize]) -> Image {
        let mut members = self.closure_of(roots);
        let is_root =
            |member: &Member| roots.iter().any(|root| self.packages[*root].0 == member.name);
        let references = (0..members.len()).filter(|place| is_root(&members[*place])).collect();
        let (name, version) = (name.to_owned(), "1".to_owned());
        let env = format!("env-{name}");
        members.push(Member {
            name: env.clone(),
            version,
            source: env,
            size: 32 << 10,
            references,
            updates: OFTEN,
            uses: 1,
        });
        Image { name, members }
    }

    /// Returns the packages that people ask for: the root packages, not the libraries that these
    /// need.
    pub fn asked_for(&self) -> BTreeSet<usize> {
        self.images.values().flatten().copied().collect()
    }

    /// Counts how many packages of the whole suite need each package.
    pub fn popularity(&self) -> Popularity {
        let all: Vec<_> = (0..self.packages.len()).collect();
        let whole = Image { name: "whole".to_owned(), members: self.closure_of(&all) };
        let paths = whole.store_paths();
        let asked_for = self.asked_for();
        let packages = asked_for.iter().map(|package| paths[*package].clone()).collect();
        Popularity::of(&whole.closure(), &packages)
    }

    /// Returns, for each package, the number of packages in the whole archive that refer to it.
    pub fn uses(&self) -> impl Iterator<Item = (String, u64)> {
        self.packages.iter().map(|package| (package.0.clone(), package.7))
    }

    fn closure_of(&self, roots: &[usize]) -> Vec<Member> {
        let mut needed = BTreeSet::new();
        let mut open = roots.to_vec();
        while let Some(package) = open.pop() {
            if needed.insert(package) {
                open.extend(&self.packages[package].5);
            }
        }
        let place: BTreeMap<_, _> = needed.iter().copied().zip(0..).collect();
        let member = |package: &usize| {
            let Package(name, version, source, kib, _, references, updates, uses) =
                &self.packages[*package];
            Member {
                name: name.clone(),
                version: version.clone(),
                source: source.clone(),
                size: kib << 10,
                references: references.iter().map(|reference| place[reference]).collect(),
                updates: *updates,
                uses: *uses,
            }
        };
        needed.iter().map(member).collect()
    }
}

impl Image {
    /// Returns, for each member, the members that it refers to, directly or not, and itself.
    pub fn below(&self) -> Vec<BTreeSet<usize>> {
        let mut below: Vec<BTreeSet<usize>> = Vec::new();
        for (place, member) in self.members.iter().enumerate() {
            let mut reached = BTreeSet::from([place]);
            for reference in &member.references {
                reached.extend(&below[*reference]);
            }
            below.push(reached);
        }
        below
    }

    /// Returns the store path of each member, made as Nix does: the hash covers the name, the
    /// version, and the store paths of all references.
    pub fn store_paths(&self) -> Vec<StorePath> {
        let mut paths: Vec<StorePath> = Vec::new();
        for member in &self.members {
            let mut text = format!("{}\n{}", member.name, member.version);
            for reference in &member.references {
                text += &format!("\n{}", paths[*reference]);
            }
            let hash: String = Digest::of(text.as_bytes())
                .bytes()
                .iter()
                .map(|byte| char::from(b"0123456789abcdfghijklmnpqrsvwxyz"[usize::from(byte % 32)]))
                .collect();
            paths.push(format!("{hash}-{}", member.name).parse().unwrap());
        }
        paths
    }

    /// Returns the closure as Nix would register it.
    pub fn closure(&self) -> Closure {
        let paths = self.store_paths();
        let info = |(member, path): (&Member, &StorePath)| ValidPathInfo {
            path: path.clone(),
            nar_hash: NarHash::new([0; 32]),
            nar_size: member.size,
            references: member.references.iter().map(|other| paths[*other].clone()).collect(),
        };
        Closure::new(self.members.iter().zip(&paths).map(info).collect()).unwrap()
    }

    /// Returns the number of bytes of all members.
    pub fn size(&self) -> u64 {
        self.members.iter().map(|member| member.size).sum()
    }
}
