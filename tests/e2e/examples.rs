use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::{Docker, Image, REPOSITORY, build_together, check};

const NAMES: [&str; 8] =
    ["web", "python", "postgresql", "base-image", "nix-shell", "names", "front", "back"];

/// Checks that each example is an image that runs. Uses one evaluation and one daemon for all.
#[test]
fn each_is_an_image_that_runs() {
    let names = NAMES.map(|name| format!("example-{name}"));
    build_together(&names.each_ref().map(String::as_str));
    let docker = Docker::start();
    for name in &names {
        let image = Image::named(name);
        docker.load(&image);
    }

    assert_eq!(docker.container("front:v1", &[]), "front: Linux\n");
    assert_eq!(docker.container("back:v1", &[]), "back: x86_64\n");
    let python: Value =
        serde_json::from_str(&docker.container("python-app:v1", &["a", "b"])).unwrap();
    assert_eq!(python["arguments"], serde_json::json!(["a", "b"]));
    assert!(docker.container("on-alpine:v1", &[]).starts_with("hello from "));
    let shell = "git --version; jq --version";
    assert!(docker.container("shell/git/jq:v1", &["bash", "-c", shell]).contains("jq-"));
    assert_eq!(docker.container("nix-shell:v1", &[]), "welcome\n");

    let web = Service::start(&docker, &["--health-interval=200ms", "web:v1"]);
    web.until_it_prints(&["inspect", "--format={{.State.Health.Status}}", &web.id], "healthy\n");
    let database = Service::start(&docker, &["postgresql:v1"]);
    let query = "--command=select 6 * 7";
    let psql = ["exec", &database.id, "psql", "--tuples-only", "--no-align", query];
    database.until_it_prints(&psql, "42\n");
}

#[test]
fn services_of_a_monorepo_share_layers() {
    let (front, back) = (Image::named("example-front"), Image::named("example-back"));
    let (front, back) = (front.diff_ids(), back.diff_ids());
    assert_eq!(front[..5], back[..5]);
    assert_ne!(front.last(), back.last());
}

#[test]
fn the_index_has_both_platforms() {
    let spec = crate::support::build(&format!("{}.spec", check("example-platforms")));
    let spec: Value = serde_json::from_slice(&std::fs::read(spec).unwrap()).unwrap();
    assert_eq!(spec["images"].as_array().unwrap().len(), 2);
}

/// Checks that every example has a test.
#[test]
fn no_example_is_left_out() {
    let directory = Path::new(REPOSITORY).join("examples");
    let mut found: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.contains('.'))
        .collect();
    found.sort();
    let mut tested = [&NAMES[..6], &["monorepo", "platforms"]].concat();
    tested.sort_unstable();
    assert_eq!(found, tested);
}

/// A container that runs until it is dropped.
struct Service<'a> {
    docker: &'a Docker,
    id: String,
}

impl<'a> Service<'a> {
    fn start(docker: &'a Docker, arguments: &[&str]) -> Self {
        let id = docker.run(&[&["run", "--detach", "--network=none"], arguments].concat());
        Self { docker, id: id.trim().to_owned() }
    }

    /// Runs a command of `docker` again and again, until it prints the expected text.
    fn until_it_prints(&self, command: &[&str], expected: &str) {
        let begin = Instant::now();
        loop {
            let output = self.docker.command(command).output().unwrap();
            if output.stdout == expected.as_bytes() {
                return;
            }
            let logs = || self.docker.command(&["logs", &self.id]).output().unwrap();
            assert!(begin.elapsed() < Duration::from_secs(60), "{output:?}\n{:?}", logs());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        let _ = self.docker.command(&["rm", "--force", "--volumes", &self.id]).output();
    }
}
