//! Searches for the libraries of a program in the same places as its dynamic loader.
//! Stage: report. Input: an ELF program of the image. Output: the first library that is missing.
//!
//! glibc's rules are those of ld.so(8), except for its cache, which may come from another image:
//! the directories of `ld.so.conf` are searched as well, and those paths of the cache that exist.
//! musl's rules are those of its `ldso/dynlink.c`.

use std::collections::{BTreeSet, VecDeque};
use std::path::Path;

use super::surroundings::Surroundings;
use crate::report::elf::Elf;
use crate::report::image_files::{Found, ImageFile, ReadAt};

/// The largest number of objects that are read.
const OBJECTS: usize = 1000;
/// The largest configuration of a loader that is read, in bytes.
const CONFIGURATION: u64 = 64 << 10;
/// The largest cache of libraries that is read, in bytes.
const CACHE: u64 = 4 << 20;
/// The largest loader in which directories are looked for.
const LOADER: u64 = 8 << 20;
/// The largest number of directories that a configuration may name.
const DIRECTORIES: usize = 200;
/// The libraries of musl that are all in musl's loader.
const OF_MUSL: [&str; 7] =
    ["libc.", "libpthread.", "librt.", "libm.", "libdl.", "libutil.", "libxnet."];

/// A missing library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingLibrary {
    /// The name of the library.
    pub library: String,
    /// The library that needs the missing one; none if the program itself needs it.
    pub by: Option<String>,
    /// The directories in which it was looked for.
    pub looked_in: String,
}

/// The rules of a loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    Glibc,
    Musl,
}

/// The loader of a program.
pub struct Libraries<'a> {
    surroundings: &'a Surroundings<'a>,
    /// None for a loader whose rules are not known.
    rules: Option<Rules>,
    /// The names by which the loader itself is known.
    own_names: Vec<String>,
    /// The directories that are searched last; none if they are not known.
    default: Option<Vec<String>>,
    /// The paths in the loader's cache, which may be of another image: not all need be there.
    cached: Vec<String>,
}

/// An object that was loaded.
struct Loaded {
    elf: Elf,
    /// The name in messages; none for the program itself.
    name: Option<String>,
    /// The directory that `$ORIGIN` stands for.
    origin: String,
    /// The number of the object that needed it first.
    by: Option<usize>,
}

/// The result of a search.
enum Search {
    /// The path, and the library.
    Here(String, Box<Elf>),
    Nowhere(Vec<String>),
    Unknown,
}

impl<'a> Libraries<'a> {
    /// Reads the configuration of a loader, given the name by which the program knows it.
    pub fn new(surroundings: &'a Surroundings<'a>, name: &str, loader: &ImageFile) -> Self {
        let base = |path: &str| path.rsplit('/').next().unwrap_or_default().to_owned();
        let real = text_of(loader.path.as_bytes()).unwrap_or_default();
        let own_names = vec![base(name), base(&real)];
        let known = |prefix: &str| own_names.iter().any(|name| name.starts_with(prefix));
        let rules = if known("ld-musl-") {
            Some(Rules::Musl)
        } else if known("ld-linux") || known("ld64.so") || known("ld.so") || known("ld-2.") {
            Some(Rules::Glibc)
        } else {
            None
        };
        let mut libraries =
            Self { surroundings, rules, own_names, default: None, cached: Vec::new() };
        libraries.default = match rules {
            // Alpine's gcompat has glibc's name, and loads what musl's loader loads.
            Some(Rules::Glibc) if libraries.has_musl_beside(&real) => {
                libraries.rules = None;
                None
            }
            Some(Rules::Glibc) => libraries.of_glibc(name, &real, loader),
            Some(Rules::Musl) => libraries.of_musl(name),
            None => None,
        };
        libraries
    }

    /// Returns the first missing library. If it is not certain that one is missing, returns none.
    pub fn first_missing(&self, program: &ImageFile, elf: Elf) -> Option<MissingLibrary> {
        let rules = self.rules?;
        let origin = parent(&text_of(program.path.as_bytes())?);
        let mut objects = vec![Loaded { elf, name: None, origin, by: None }];
        let mut names: BTreeSet<String> = self.own_names.iter().cloned().collect();
        let mut queue = VecDeque::from([0]);
        while let Some(number) = queue.pop_front() {
            for needed in objects[number].elf.needed.clone() {
                let name = String::from_utf8(needed).ok()?;
                let of_musl =
                    rules == Rules::Musl && OF_MUSL.iter().any(|library| name.starts_with(library));
                if of_musl || names.contains(&name) {
                    continue;
                }
                match self.search(rules, &objects, number, &name) {
                    // The library may exist in the container. Nothing is known about the libraries
                    // that it needs.
                    Search::Unknown => {
                        names.insert(name);
                    }
                    Search::Nowhere(mut looked_in) => {
                        looked_in.dedup();
                        let by = objects[number].name.clone();
                        let looked_in = match looked_in.is_empty() {
                            true => "there are none".to_owned(),
                            false => looked_in.join(":"),
                        };
                        return Some(MissingLibrary { library: name, by, looked_in });
                    }
                    Search::Here(path, elf) => {
                        names.extend(elf.soname.clone().and_then(|it| String::from_utf8(it).ok()));
                        names.insert(name);
                        if objects.len() >= OBJECTS {
                            return None;
                        }
                        queue.push_back(objects.len());
                        let origin = parent(&path);
                        let by = Some(number);
                        objects.push(Loaded { elf: *elf, name: Some(path), origin, by });
                    }
                }
            }
        }
        None
    }

    /// Searches for a library that an object needs.
    fn search(&self, rules: Rules, objects: &[Loaded], number: usize, name: &str) -> Search {
        let object = &objects[number];
        let machine = (object.elf.is_64, object.elf.machine);
        if name.contains('/') {
            let Some(path) = self.expanded(name, &object.origin) else { return Search::Unknown };
            return match self.library(&path, machine) {
                Search::Nowhere(_) => Search::Nowhere(vec![parent(&path)]),
                found => found,
            };
        }
        // `$ORIGIN` in the variable is the program's.
        let own = (self.surroundings.library_path.clone(), &*objects[0].origin);
        let chain = || std::iter::successors(Some(number), |number| objects[*number].by);
        let mut groups: Vec<(String, &str)> = Vec::new();
        let text = |path: &Option<Vec<u8>>| {
            path.as_ref().map(|path| String::from_utf8_lossy(path).into_owned())
        };
        match rules {
            Rules::Glibc => {
                if object.elf.runpath.is_none() {
                    for loader in chain().map(|number| &objects[number]) {
                        if loader.elf.runpath.is_none() {
                            groups.extend(
                                text(&loader.elf.rpath).map(|path| (path, &*loader.origin)),
                            );
                        }
                    }
                }
                groups.push(own);
                groups.extend(text(&object.elf.runpath).map(|path| (path, &*object.origin)));
            }
            Rules::Musl => {
                groups.push(own);
                for loader in chain().map(|number| &objects[number]) {
                    let path = text(&loader.elf.runpath).or_else(|| text(&loader.elf.rpath));
                    groups.extend(path.map(|path| (path, &*loader.origin)));
                }
            }
        }
        let mut directories = Vec::new();
        let mut unknown = false;
        for (path, origin) in groups {
            for part in path.split([':', ';']).filter(|part| !part.is_empty()) {
                match self.expanded(part, origin) {
                    Some(directory) => directories.push(directory),
                    None => unknown = true,
                }
            }
        }
        if !object.elf.no_default_directories {
            match &self.default {
                Some(default) => directories.extend(default.iter().cloned()),
                None => unknown = true,
            }
        }
        let end = format!("/{name}");
        let cached = self.cached.iter().filter(|path| path.ends_with(&end)).cloned();
        let in_directories = directories.iter().map(|directory| format!("{directory}{end}"));
        for path in in_directories.chain(cached) {
            match self.library(&path, machine) {
                Search::Nowhere(_) => {}
                Search::Unknown => unknown = true,
                here => return here,
            }
        }
        if unknown { Search::Unknown } else { Search::Nowhere(directories) }
    }

    /// Looks for a library at one path. Ignores files for another machine, as loaders do.
    fn library(&self, path: &str, machine: (bool, u16)) -> Search {
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("{}/{path}", self.surroundings.directory)
        };
        let files = self.surroundings.files;
        match self.surroundings.look_up(&path) {
            Found::Nowhere(_) => Search::Nowhere(Vec::new()),
            Found::Unknown => Search::Unknown,
            Found::Here(file, _) => match files.open(&file) {
                Ok(Some(body)) => match Elf::read(&body) {
                    Some(elf) if (elf.is_64, elf.machine) == machine => {
                        Search::Here(path, elf.into())
                    }
                    // A file for another machine and an empty file are not the library. Any other
                    // file, such as a linker script, may be one.
                    Some(_) => Search::Nowhere(Vec::new()),
                    None if body.size() == 0 => Search::Nowhere(Vec::new()),
                    None => Search::Unknown,
                },
                Ok(None) => Search::Nowhere(Vec::new()),
                Err(_) => Search::Unknown,
            },
        }
    }

    /// Replaces `$ORIGIN`. Returns none for a path with other variables, which depend on the
    /// loader.
    fn expanded(&self, path: &str, origin: &str) -> Option<String> {
        let path = path.replace("${ORIGIN}", origin).replace("$ORIGIN", origin);
        (!path.contains('$')).then_some(path)
    }

    fn has_musl_beside(&self, real: &str) -> bool {
        let files = self.surroundings.files;
        match self.surroundings.look_up(parent(real)) {
            Found::Here(directory, _) => files
                .names_in(&directory)
                .is_ok_and(|names| names.iter().any(|name| name.starts_with(b"ld-musl-"))),
            Found::Nowhere(_) | Found::Unknown => false,
        }
    }

    /// Returns the directories that glibc's loader searches last.
    fn of_glibc(&mut self, name: &str, real: &str, loader: &ImageFile) -> Option<Vec<String>> {
        let mut directories = vec![parent(name), parent(real)];
        // Nix's loader searches only directories of its own store path. Their names are texts in
        // the loader's file.
        let bytes = match real.starts_with("/nix/store/") {
            true => self.surroundings.files.bytes(loader, LOADER).ok()?,
            false => None,
        };
        let texts = bytes.as_deref().map(texts);
        let searches = |directory: &str| {
            let text = format!("{directory}/");
            let is_it = |found: &&[u8]| found.ends_with(text.as_bytes());
            texts.as_ref().is_none_or(|texts| texts.iter().any(is_it))
        };
        let triplets: &[&str] = match self.surroundings.architecture {
            oci_spec::image::Arch::Amd64 => &["x86_64-linux-gnu", "i386-linux-gnu"],
            oci_spec::image::Arch::ARM64 => &["aarch64-linux-gnu"],
            oci_spec::image::Arch::i386 => &["i386-linux-gnu"],
            oci_spec::image::Arch::ARM => &["arm-linux-gnueabihf"],
            oci_spec::image::Arch::RISCV64 => &["riscv64-linux-gnu"],
            oci_spec::image::Arch::s390x => &["s390x-linux-gnu"],
            oci_spec::image::Arch::PowerPC64le => &["powerpc64le-linux-gnu"],
            oci_spec::image::Arch::LoongArch64 => &["loongarch64-linux-gnu"],
            _ => &[],
        };
        let of_triplet =
            |triplet: &&str| [format!("/lib/{triplet}"), format!("/usr/lib/{triplet}")];
        let usual: Vec<_> = triplets.iter().flat_map(of_triplet).collect();
        let usual = usual
            .into_iter()
            .chain(["/lib64", "/usr/lib64", "/lib", "/usr/lib"].map(str::to_owned));
        directories.extend(usual.filter(|directory| searches(directory)));
        let mut configurations = Vec::new();
        if texts.as_ref().is_none_or(|texts| texts.contains(&b"/etc/ld.so.cache".as_slice())) {
            configurations.push("/etc/ld.so.conf".to_owned());
            self.cached = self.paths_in_cache();
        }
        let mut seen = BTreeSet::new();
        while let Some(file) = configurations.pop() {
            if seen.len() > DIRECTORIES || !seen.insert(file.clone()) {
                continue;
            }
            let Some(text) = self.text(&file)? else { continue };
            for line in text.lines() {
                let line = line.split('#').next().unwrap_or_default().trim();
                if let Some(pattern) = line.strip_prefix("include") {
                    for pattern in pattern.split_whitespace() {
                        configurations.extend(self.matching(pattern)?);
                    }
                } else if line.starts_with('/') && directories.len() < DIRECTORIES {
                    directories.extend(line.split([':', ',', ' ', '\t']).map(str::to_owned));
                }
            }
        }
        let mut seen = BTreeSet::new();
        directories.retain(|directory| !directory.is_empty() && seen.insert(directory.clone()));
        Some(directories)
    }

    /// Returns the absolute paths that are texts in glibc's cache of libraries.
    fn paths_in_cache(&self) -> Vec<String> {
        let files = self.surroundings.files;
        let cache = match self.surroundings.look_up("/etc/ld.so.cache") {
            Found::Here(cache, _) => files.bytes(&cache, CACHE).ok().flatten().unwrap_or_default(),
            Found::Nowhere(_) | Found::Unknown => return Vec::new(),
        };
        let texts = cache.split(|byte| *byte == 0).filter(|text| text.starts_with(b"/"));
        texts.filter_map(|text| std::str::from_utf8(text).ok()).map(str::to_owned).collect()
    }

    /// Returns the directories that musl's loader searches last.
    fn of_musl(&self, name: &str) -> Option<Vec<String>> {
        // The configuration is below the directory that holds the loader's `lib`.
        let prefix = name.rsplit_once('/').and_then(|(lib, _)| lib.rsplit_once('/'));
        let prefix = prefix.map_or("", |(prefix, _)| prefix);
        let base = name.rsplit('/').next()?.strip_suffix(".so.1")?;
        let configured = self.text(&format!("{prefix}/etc/{base}.path"))?;
        let path = configured.unwrap_or_else(|| "/lib:/usr/local/lib:/usr/lib".to_owned());
        let parts = path.split([':', '\n']).filter(|part| !part.is_empty());
        Some(parts.take(DIRECTORIES).map(str::to_owned).collect())
    }

    /// Returns the text of a file: `Some(None)` if the file does not exist, and `None` if it is
    /// unknown whether it exists.
    fn text(&self, path: &str) -> Option<Option<String>> {
        let files = self.surroundings.files;
        match self.surroundings.look_up(path) {
            Found::Unknown => None,
            Found::Nowhere(_) => Some(None),
            Found::Here(file, _) => {
                let bytes = files.bytes(&file, CONFIGURATION).ok()?;
                Some(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()))
            }
        }
    }

    /// Returns the files of a pattern with one `*` in its last part, as in `include`.
    fn matching(&self, pattern: &str) -> Option<Vec<String>> {
        let pattern =
            if pattern.starts_with('/') { pattern.to_owned() } else { format!("/etc/{pattern}") };
        let Some((directory, name)) = pattern.rsplit_once('/') else { return Some(Vec::new()) };
        let Some((before, after)) = name.split_once('*') else { return Some(vec![pattern]) };
        let files = self.surroundings.files;
        let found = match self.surroundings.look_up(directory) {
            Found::Unknown => return None,
            Found::Nowhere(_) => return Some(Vec::new()),
            Found::Here(found, _) => found,
        };
        let names = files.names_in(&found).ok()?;
        let names = names.into_iter().filter_map(|name| String::from_utf8(name).ok());
        let matches = |name: &String| {
            name.len() >= before.len() + after.len()
                && name.starts_with(before)
                && name.ends_with(after)
        };
        let paths = names.filter(matches).map(|name| Path::new(directory).join(name));
        Some(paths.filter_map(|path| path.to_str().map(str::to_owned)).collect())
    }
}

/// Returns a path of the image with its leading slash, or none if the path is not UTF-8.
fn text_of(path: &[u8]) -> Option<String> {
    std::str::from_utf8(path).ok().map(|path| format!("/{path}"))
}

/// Returns the texts of a program's file: the bytes before each NUL.
fn texts(bytes: &[u8]) -> Vec<&[u8]> {
    let mut texts: Vec<_> = bytes.split(|byte| *byte == 0).collect();
    // No NUL ends the last one.
    texts.pop();
    texts
}

fn parent(path: &str) -> String {
    match path.rsplit_once('/') {
        Some(("", _)) | None => "/".to_owned(),
        Some((parent, _)) => parent.to_owned(),
    }
}
