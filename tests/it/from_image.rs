use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use stowage::digest::Digest;
use stowage::oci::ImageSpec;

use crate::base_image::{BaseFiles, Item, OCI_LAYER, archive, gzip, layer, write_files, zstd};
use crate::support::{FakeStore, members, stderr};

/// A store with a base in `bases`, which `write` makes, and files for the root.
struct OnBase {
    store: FakeStore,
    root: String,
    base: String,
}

impl OnBase {
    fn new(write: impl FnOnce(&Path)) -> Self {
        let mut store = FakeStore::new();
        // The base is found by the reference in the image spec only: it is not in the closure.
        let base = store.store().physical_dir().join(format!("{}-base", "9".repeat(32)));
        write(&base);
        let root = store.add('1', "root", &[], |path| {
            for name in ["bin/app", "tmp/x", "etc/app.conf"] {
                fs::create_dir_all(path.join(name).parent().unwrap()).unwrap();
                fs::write(path.join(name), name).unwrap();
            }
        });
        let root = store.store().print(&root);
        Self { store, root, base: format!("/nix/store/{}-base", "9".repeat(32)) }
    }

    fn options(&self, more: Value) -> String {
        let mut options = json!({"fromImage": self.base, "copyToRoot": [self.root]});
        options.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        options.to_string()
    }

    fn build(&self, more: Value) -> ImageSpec {
        self.store.build(&self.options(more));
        ImageSpec::read(&self.store.root().join("image.json")).unwrap()
    }

    fn image_json(&self) -> String {
        fs::read_to_string(self.store.root().join("image.json")).unwrap()
    }

    fn error(&self, more: Value) -> String {
        let output = self.store.try_build(&self.options(more));
        assert_eq!(output.status.code(), Some(1));
        stderr(&output).replace(&self.base, "BASE")
    }

    fn stream(&self) -> BTreeMap<String, Vec<u8>> {
        let output = self.store.stowage(&["stream", "image.json", "-t", "a:b"]).output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        members(&output.stdout)
    }
}

fn parse(members: &BTreeMap<String, Vec<u8>>, name: &str) -> Value {
    serde_json::from_slice(&members[name]).unwrap()
}

fn blob_name(digest: &Value) -> String {
    digest.as_str().unwrap().replacen("sha256:", "blobs/sha256/", 1)
}

/// Parses both formats of the stream, each with the documents that it names.
fn manifest_and_config(members: &BTreeMap<String, Vec<u8>>) -> (Value, Value) {
    let index = parse(members, "index.json");
    let manifest = parse(members, &blob_name(&index["manifests"][0]["digest"]));
    let docker = &parse(members, "manifest.json")[0];
    for (place, layer) in manifest["layers"].as_array().unwrap().iter().enumerate() {
        let name = blob_name(&layer["digest"]);
        assert_eq!(docker["Layers"][place], name[..]);
        assert_eq!(layer["size"], members[&name].len());
        assert_eq!(layer["digest"], Digest::of(&members[&name]).to_string());
    }
    let config = parse(members, docker["Config"].as_str().unwrap());
    (manifest, config)
}

#[test]
fn the_base_is_below_and_inherited() {
    let image = BaseFiles::gzipped();
    let on_base = OnBase::new(|path| drop(write_files(path, &image.directory())));
    let spec =
        on_base.build(json!({"config": {"Env": ["LANG=en", "A=1"], "Entrypoint": ["/bin/app"]}}));
    assert_eq!(spec.layers.len(), 4);
    let json: Value = serde_json::from_slice(&spec.to_json()).unwrap();
    let blob = &json["layers"][0]["blob"];
    assert!(blob["file"].as_str().unwrap().starts_with(&on_base.base), "{blob}");
    assert_eq!(blob["size"], image.layers[0].1.len());

    let members = on_base.stream();
    let (manifest, config) = manifest_and_config(&members);
    for (place, (media_type, bytes)) in image.layers.iter().enumerate() {
        let layer = &manifest["layers"][place];
        assert_eq!(layer["mediaType"], media_type[..]);
        assert!(members[&blob_name(&layer["digest"])] == *bytes, "byte for byte");
    }
    assert_eq!(manifest["layers"][3]["mediaType"], OCI_LAYER);
    let base = &image.configuration;
    for place in 0..3 {
        assert_eq!(config["rootfs"]["diff_ids"][place], base["rootfs"]["diff_ids"][place]);
    }
    let history = config["history"].as_array().unwrap();
    assert_eq!(&history[..4], &base["history"].as_array().unwrap()[..]);
    assert_eq!(history[4]["created_by"], "stowage: root");
    assert_eq!(
        config["config"],
        json!({
            "Env": ["PATH=/usr/bin", "LANG=en", "A=1"],
            "Entrypoint": ["/bin/app"],
            "Labels": {"base": "yes"},
        })
    );

    // The image's own layer is written through the base's link, and has the base's modes.
    let top = &members[&blob_name(&manifest["layers"][3]["digest"])];
    let mut names = Vec::new();
    for entry in tar::Archive::new(&top[..]).entries().unwrap() {
        let entry = entry.unwrap();
        names.push(format!(
            "{} {:o}",
            entry.path().unwrap().display(),
            entry.header().mode().unwrap()
        ));
    }
    assert_eq!(
        names,
        [
            "etc/ 755",
            "etc/app.conf 444",
            "tmp/ 1777",
            "tmp/x 444",
            "usr/ 755",
            "usr/bin/ 755",
            "usr/bin/app 444",
        ]
    );
    let verified = on_base.store.stowage(&["verify", "image.json"]).output().unwrap();
    assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
}

/// Checks that the image does not depend on the format of its base, except for the path in the
/// spec. The archive may be compressed around layers that are compressed too.
#[test]
fn every_format_gives_the_same_stream() {
    let image = BaseFiles::gzipped();
    type Write<'a> = Box<dyn Fn(&Path) + 'a>;
    let formats: [Write; 6] = [
        Box::new(|path| drop(write_files(path, &image.directory()))),
        Box::new(|path| drop(write_files(path, &image.layout(&[])))),
        Box::new(|path| fs::write(path, archive(&image.layout(&[]))).unwrap()),
        Box::new(|path| fs::write(path, archive(&image.docker())).unwrap()),
        Box::new(|path| fs::write(path, gzip(&archive(&image.docker()))).unwrap()),
        Box::new(|path| fs::write(path, zstd(&archive(&image.layout(&[])))).unwrap()),
    ];
    let mut streams = Vec::new();
    for write in formats {
        let on_base = OnBase::new(write);
        on_base.build(json!({}));
        let verified = on_base.store.stowage(&["verify", "image.json"]).output().unwrap();
        assert!(verified.status.success(), "{}", String::from_utf8_lossy(&verified.stdout));
        streams.push(on_base.stream());
    }
    assert!(streams.windows(2).all(|pair| pair[0] == pair[1]));
}

/// Checks the order of layers in a compressed archive: in another order, the archive would be
/// decompressed from the start for each of them.
#[test]
fn layers_in_a_compressed_archive_are_sent_as_they_are_there() {
    let image = BaseFiles::gzipped();
    let archive = gzip(&archive(&image.docker()));
    let on_base = OnBase::new(|path| fs::write(path, archive).unwrap());
    let spec = on_base.build(json!({}));
    let offsets: Vec<_> =
        spec.layers.iter().map(|layer| layer.stored().map(|blob| blob.offset)).collect();
    let mut turns: Vec<usize> = (0..spec.layers.len()).collect();
    turns.sort_by_key(|layer| (offsets[*layer].is_none(), offsets[*layer]));
    let arguments = ["--jobs", "1", "copy", "image.json", "oci:layout", "--progress", "plain"];
    let output = on_base.store.stowage(&arguments).output().unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stderr(&output);
    let sent = said.lines().filter_map(|line| line.strip_prefix("sent layer "));
    let sent: Vec<usize> =
        sent.map(|line| line.split(' ').next().unwrap().parse::<usize>().unwrap() - 1).collect();
    assert_eq!(sent, turns, "{offsets:?}");
}

/// Checks that Zstandard is decompressed for `docker load`: the versions in today's distributions
/// do not know it.
#[test]
fn zstd_is_unpacked_on_its_way_to_docker() {
    let tars = crate::base_image::distribution();
    let image = BaseFiles::new(&tars, |tar| (format!("{OCI_LAYER}+zstd"), zstd(tar)));
    let on_base = OnBase::new(|path| drop(write_files(path, &image.directory())));
    on_base.build(json!({}));
    let members = on_base.stream();
    let (manifest, _) = manifest_and_config(&members);
    for (place, tar) in tars.iter().enumerate() {
        assert_eq!(manifest["layers"][place]["mediaType"], OCI_LAYER);
        assert_eq!(manifest["layers"][place]["digest"], Digest::of(tar).to_string());
    }
}

#[test]
fn what_does_not_fit_is_named() {
    let on_base = OnBase::new(|path| drop(write_files(path, &BaseFiles::gzipped().directory())));
    let error = on_base.error(json!({"architecture": "arm64"}));
    assert_eq!(
        error,
        "error: base image BASE: is for linux/amd64, not for linux/arm64\n\n\
         hint: pull the image for linux/arm64, or give `arch` the name of the base's architecture\n"
    );

    let tars: Vec<_> =
        (0..127).map(|number| layer(&[Item::File(&format!("f{number}"), b"")])).collect();
    let mut full = BaseFiles::new(&tars, |tar| (OCI_LAYER.to_owned(), tar.to_vec()));
    full.configuration["history"] = json!(null);
    let on_base = OnBase::new(|path| drop(write_files(path, &full.directory())));
    let error = on_base.error(json!({"maxLayers": 1}));
    assert!(
        error.starts_with(
            "error: the image would have 128 layers, and 127 is the most that image tools take\n"
        ),
        "{error}"
    );

    let mut odd = BaseFiles::gzipped();
    odd.configuration["config"]["Env"] = json!("PATH=/bin");
    let on_base = OnBase::new(|path| drop(write_files(path, &odd.directory())));
    let error = on_base.error(json!({}));
    assert!(error.starts_with("error: base image BASE: `config.Env` must be a list"), "{error}");

    let on_base = OnBase::new(|_| ());
    let error = on_base.error(json!({}));
    assert_eq!(
        error,
        "error: base image BASE: cannot read BASE: No such file or directory (os error 2)\n"
    );
}

/// Checks that a layer which was built without the base still follows the base's links.
#[test]
fn layers_of_build_layer_obey_the_base() {
    let on_base = OnBase::new(|path| drop(write_files(path, &BaseFiles::gzipped().directory())));
    on_base.store.write("registration", &on_base.store.registration());
    let closure = stowage::closure::Closure::read(&on_base.store.root().join("registration"));
    let options = serde_json::from_value(json!({"copyToRoot": [on_base.root]})).unwrap();
    let store = on_base.store.store();
    let set =
        stowage::oci::build_layer_set(&store, closure.unwrap(), options, |_| ()).unwrap().made;
    let layers = format!("{}-layers", "8".repeat(32));
    write_files(&store.physical_dir(), &[(format!("{layers}/layers.json"), set.to_json())]);
    let spec = on_base.build(json!({"copyToRoot": [], "layers": [format!("/nix/store/{layers}")], "exclude": [on_base.root]}));
    assert_eq!(spec.layers.len(), 4);
    assert_ne!(spec.layers[3].diff_id, set.layers[0].diff_id);
    let whole = OnBase::new(|path| drop(write_files(path, &BaseFiles::gzipped().directory())));
    assert_eq!(spec.layers[3].diff_id, whole.build(json!({})).layers[3].diff_id);
}

/// Checks that `maxLayers` does not count the base's layers.
#[test]
fn the_budget_is_ours_alone() {
    let on_base = OnBase::new(|path| drop(write_files(path, &BaseFiles::gzipped().directory())));
    assert_eq!(on_base.build(json!({"maxLayers": 1})).layers.len(), 4);
    // An earlier image's spec is used as a plan; its base's layers are not part of the plan.
    on_base.store.write("previous.json", &on_base.image_json());
    let previous = on_base.store.root().join("previous.json");
    let again = on_base.build(json!({"maxLayers": 1, "previousPlan": previous}));
    assert_eq!(again.layers.len(), 4);
}

#[test]
fn a_base_that_changed_is_named() {
    type Change = fn(&Path);
    let changes: [(&str, Change, &str, &str); 3] = [
        (
            "other bytes",
            |file| {
                let mut bytes = fs::read(file).unwrap();
                bytes[9] ^= 1;
                fs::write(file, bytes).unwrap();
            },
            "is not what it was: expected sha256:",
            "which can't be made: its blob is sha256:",
        ),
        (
            "cut short",
            |file| fs::File::options().write(true).open(file).unwrap().set_len(20).unwrap(),
            " bytes, found 20 bytes",
            "which can't be made: it is cut short: it is not a complete tar archive in a gzip stream",
        ),
        (
            "gone",
            |file| fs::remove_file(file).unwrap(),
            "cannot read ",
            "which can't be made: No such file or directory",
        ),
    ];
    for (how, change, streamed, verified) in changes {
        let image = BaseFiles::gzipped();
        let on_base = OnBase::new(|path| drop(write_files(path, &image.directory())));
        let spec = on_base.build(json!({}));
        let blob = crate::base_image::hex(&image.layers[1].1);
        change(&on_base.store.root().join(&on_base.base[1..]).join(&blob));

        let output = on_base.store.stowage(&["stream", "image.json"]).output().unwrap();
        let error = stderr(&output);
        assert!(
            error.starts_with("error: layer 2 of 4") && error.contains(streamed),
            "{how}: {error}"
        );
        assert!(!output.stdout.windows(13).any(|window| window == b"manifest.json"), "{how}");

        let output = on_base.store.stowage(&["verify", "image.json"]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.starts_with("layer 2 of 4: ") && text.contains(verified), "{how}: {text}");
        assert!(text.ends_with(&format!("\n  in {}/{blob}\n", on_base.base)), "{how}: {text}");
        assert_eq!(spec.layers[1].names(), format!("{}/{blob}", on_base.base));
    }
}
