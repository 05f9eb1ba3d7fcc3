mod agreeable;
mod credentials;
mod proxies;
mod registries;
mod tls;

use std::path::Path;
use std::process::Command;

use crate::support::{FakeStore, stderr};

/// Makes an image of one layer.
fn image() -> FakeStore {
    let mut store = FakeStore::new();
    store.add_file('1', "a", &[], "a");
    store.build("{}");
    std::fs::create_dir(store.root().join("home")).unwrap();
    store
}

/// Removes all settings of this machine's user from a command. The home is `home` beside the store.
fn alone<'c>(command: &'c mut Command, store: &FakeStore) -> &'c mut Command {
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().to_ascii_uppercase();
        if ["XDG_", "DOCKER_", "REGISTRY_", "REGISTRIES_", "CONTAINERS_", "SSL_", "NIX_SSL_"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
            || name.ends_with("_PROXY")
        {
            command.env_remove(&name).env_remove(name.to_ascii_lowercase());
        }
    }
    command.env("HOME", store.root().join("home"))
}

/// Pushes the image as `NAME`, and returns the message if that fails.
fn push(
    store: &FakeStore,
    name: &str,
    flags: &[&str],
    variables: &[(&str, &str)],
) -> Result<(), String> {
    let arguments = [&["push", "--quiet", "image.json", name], flags].concat();
    let mut command = store.stowage(&arguments);
    let output = alone(&mut command, store).envs(variables.iter().copied()).output().unwrap();
    match output.status.code() {
        Some(0) => Ok(()),
        Some(1) => Err(stderr(&output)),
        code => panic!("{code:?}: {}", stderr(&output)),
    }
}

/// Writes a file in the home directory, and makes the directories for it.
fn write_home(store: &FakeStore, name: &str, text: &str) -> std::path::PathBuf {
    let file = store.root().join("home").join(name);
    std::fs::create_dir_all(file.parent().unwrap_or(Path::new("/"))).unwrap();
    std::fs::write(&file, text).unwrap();
    file
}
