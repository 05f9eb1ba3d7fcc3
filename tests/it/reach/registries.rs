use super::agreeable::{Agreeable, Setup};
use super::{image, push, write_home};

/// The name of an image at a host that no resolver knows.
const NAME: &str = "reg.invalid:5000/a/b:v1";

#[test]
fn registries_conf_says_how_a_host_is_reached() {
    let store = image();
    let conf = ".config/containers/registries.conf";
    write_home(&store, conf, "[[registry]]\nlocation = \"reg.invalid:5000\"\nblocked = true\n");
    let error = push(&store, NAME, &[], &[]).unwrap_err();
    assert!(error.contains("reg.invalid:5000/a/b: `reg.invalid:5000` is blocked by "), "{error}");
    // A file that a variable names replaces all others.
    let other = store.write("other.conf", "[[registry]\n");
    let variables = [("CONTAINERS_REGISTRIES_CONF", other.to_str().unwrap())];
    let error = push(&store, NAME, &[], &variables).unwrap_err();
    assert!(error.contains("other.conf: line 1: "), "{error}");
    // A flag forbids plain HTTP for a registry on this machine, and no setting does.
    let registry = Agreeable::start(Setup::default());
    let insecure = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host);
    write_home(&store, conf, &insecure);
    let name = format!("{}/a/b:v1", registry.host);
    push(&store, &name, &[], &[]).unwrap();
    push(&store, &name, &["--dest-tls-verify=true"], &[]).unwrap_err();
    // A later file counts.
    write_home(
        &store,
        ".config/containers/registries.conf.d/9.conf",
        "[[registry]]\nprefix = \"127.0.0.1:1\"\nlocation = \"x\"\nblocked = true\n",
    );
    push(&store, &name, &[], &[]).unwrap();
    let error = push(&store, "127.0.0.1:1/a:v1", &[], &[]).unwrap_err();
    assert!(error.contains("is blocked by ") && error.contains("9.conf"), "{error}");
}
