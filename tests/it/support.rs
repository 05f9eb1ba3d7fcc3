use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::Value;
use stowage::store::{Store, StorePath};

/// A Nix store in a temporary directory, and the files that belong to it.
pub struct FakeStore {
    directory: tempfile::TempDir,
    records: Vec<Record>,
}

struct Record {
    path: StorePath,
    references: Vec<StorePath>,
}

impl FakeStore {
    pub fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("nix/store")).unwrap();
        Self { directory, records: Vec::new() }
    }

    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    pub fn store(&self) -> Store {
        Store::below(self.root())
    }

    /// Adds a store path `<digit…>-<name>`, which `fill` makes as a file or a directory.
    pub fn add(
        &mut self,
        digit: char,
        name: &str,
        references: &[&StorePath],
        fill: impl FnOnce(&Path),
    ) -> StorePath {
        let path: StorePath = format!("{}-{name}", digit.to_string().repeat(32)).parse().unwrap();
        fill(&self.store().physical(&path));
        let references = references.iter().map(|path| (*path).clone()).collect();
        self.records.push(Record { path: path.clone(), references });
        path
    }

    /// Leaves all added paths out of further registrations.
    pub fn forget(&mut self) {
        self.records.clear();
    }

    /// Adds a directory with one file in it.
    pub fn add_file(
        &mut self,
        digit: char,
        name: &str,
        references: &[&StorePath],
        text: &str,
    ) -> StorePath {
        self.add(digit, name, references, |path| {
            fs::create_dir(path).unwrap();
            fs::write(path.join("file"), text).unwrap();
        })
    }

    /// Returns the registration of all added paths, with their real NAR hashes.
    pub fn registration(&self) -> String {
        let store = self.store();
        let mut text = String::new();
        for Record { path, references } in &self.records {
            let hash = stowage::layer::nar_hash(&store, path).unwrap();
            let size = tree_size(&store.physical(path));
            text += &format!("{}\n{hash}\n{size}\n\n{}\n", store.print(path), references.len());
            for reference in references {
                text += &format!("{}\n", store.print(reference));
            }
        }
        text
    }

    /// Writes a file beside the store.
    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.root().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    /// Returns the command `stowage --root … ARGUMENTS`, run in the directory beside the store.
    pub fn stowage(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stowage"));
        command.arg("--root").arg(self.root()).args(arguments).current_dir(self.root());
        command.env_remove("NIX_BUILD_CORES").env_remove("CI").stdin(Stdio::null());
        command
    }

    /// Builds `image.json` from all added paths, and returns its bytes.
    pub fn build(&self, options: &str) -> Vec<u8> {
        let output = self.try_build(options);
        assert!(output.status.success(), "{}", stderr(&output));
        fs::read(self.root().join("image.json")).unwrap()
    }

    pub fn try_build(&self, options: &str) -> Output {
        self.write("registration", &self.registration());
        // Images for one architecture, whatever this machine's is: their digests are the same
        // everywhere, and they fit the base images of tests.
        let options = match serde_json::from_str(options) {
            Ok(Value::Object(keys)) if !keys.contains_key("architecture") => {
                let comma = if keys.is_empty() { "" } else { ", " };
                options.replacen('{', &format!("{{\"architecture\": \"amd64\"{comma}"), 1)
            }
            _ => options.to_owned(),
        };
        self.write("options.json", &options);
        let arguments =
            ["build", "--closure", "registration", "--options", "options.json", "-o", "image.json"];
        self.stowage(&arguments).output().unwrap()
    }
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Returns the contents of a tar by name. Each name must be there once.
pub fn members(bytes: &[u8]) -> BTreeMap<String, Vec<u8>> {
    let mut members = BTreeMap::new();
    for entry in tar::Archive::new(bytes).entries().unwrap() {
        let mut entry = entry.unwrap();
        let name = entry.path().unwrap().display().to_string();
        let mut body = Vec::new();
        entry.read_to_end(&mut body).unwrap();
        assert!(members.insert(name.clone(), body).is_none(), "{name} is there twice");
    }
    members
}

fn tree_size(path: &Path) -> u64 {
    let metadata = fs::symlink_metadata(path).unwrap();
    if !metadata.is_dir() {
        return metadata.len();
    }
    fs::read_dir(path).unwrap().map(|entry| tree_size(&entry.unwrap().path())).sum()
}

/// Makes a directory with one of everything that a store path may hold.
pub fn odd_tree(path: &Path) {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    fs::create_dir_all(path.join("a/nested")).unwrap();
    fs::write(path.join("a/file"), "a file\n").unwrap();
    fs::write(path.join("a-b"), "before a/, as - is before /\n").unwrap();
    fs::write(path.join("a0"), "after a/\n").unwrap();
    fs::create_dir(path.join("empty")).unwrap();
    fs::write(path.join("empty-file"), "").unwrap();
    fs::write(path.join("run"), "#!/bin/sh\n").unwrap();
    fs::set_permissions(path.join("run"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::hard_link(path.join("a/file"), path.join("hard-link")).unwrap();
    symlink("a/file", path.join("link")).unwrap();
    symlink("x".repeat(150), path.join("long-link")).unwrap();
    symlink("nowhere", path.join("dangling")).unwrap();
    fs::write(path.join("n".repeat(255)), "a long name\n").unwrap();
    fs::write(path.join("naïve"), "UTF-8\n").unwrap();
    fs::write(path.join(OsStr::from_bytes(b"latin1-\xe9")), "not UTF-8\n").unwrap();
    let sparse = fs::File::create(path.join("sparse")).unwrap();
    sparse.set_len(2 << 20).unwrap();
}
