use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::agreeable::{Agreeable, Setup};
use super::{image, push, write_home};

fn basic(text: &str) -> String {
    format!("Basic {}", STANDARD.encode(text))
}

/// Starts a registry that wants the user `u` and the password `p`.
fn closed() -> Agreeable {
    Agreeable::start(Setup { wants: Some(basic("u:p")), ..Setup::default() })
}

#[test]
fn entries_of_every_shape_let_in() {
    let store = image();
    let registry = closed();
    let host = &registry.host;
    let login = json!({"auth": STANDARD.encode("u:p")});
    for (key, entry) in [
        (host.clone(), json!({"username": "u", "password": "p", "auth": ""})),
        (host.clone(), json!({"username": "u", "password": "p", "auth": null})),
        (host.clone(), json!({"auth": STANDARD.encode("u:p\0")})),
        (host.clone(), login.clone()),
        (format!("{host}/"), login.clone()),
        (format!("{host}/v2/"), login.clone()),
        (format!("{host}/v1/"), login.clone()),
        (format!("https://{host}"), login.clone()),
        (format!("http://{host}/v2/"), login.clone()),
        (format!("{host}/a"), login.clone()),
        (format!("{host}/a/b"), login),
    ] {
        let file = store.write("auth.json", &json!({"auths": {&key: entry}}).to_string());
        push(&store, &format!("{host}/a/b:v1"), &["--authfile", file.to_str().unwrap()], &[])
            .unwrap_or_else(|error| panic!("{key} {entry}: {error}"));
    }
}

#[test]
fn credentials_are_found_where_clients_have_them() {
    let store = image();
    let registry = closed();
    let name = format!("{}/a/b:v1", registry.host);
    let good = json!({"auths": {&registry.host: {"username": "u", "password": "p"}}}).to_string();
    let elsewhere = json!({"auths": {"other.example": {"username": "x", "password": "y"}}});
    // Without credentials, the error names the places that were searched.
    let error = push(&store, &name, &[], &[]).unwrap_err();
    let home = store.root().join("home");
    let docker = home.join(".docker/config.json");
    assert!(error.contains(&*docker.to_string_lossy()), "{error}");
    assert!(error.contains("hint: `docker login`"), "{error}");
    let run = store.root().join("run");
    std::fs::create_dir_all(run.join("containers")).unwrap();
    std::fs::create_dir(store.root().join("docker")).unwrap();
    let path = |name: &str| store.root().join(name).to_string_lossy().into_owned();
    for (file, variables) in [
        ("home/.docker/config.json", vec![]),
        ("home/.config/containers/auth.json", vec![]),
        ("run/containers/auth.json", vec![("XDG_RUNTIME_DIR", path("run"))]),
        ("docker/config.json", vec![("DOCKER_CONFIG", path("docker"))]),
        ("any.json", vec![("REGISTRY_AUTH_FILE", path("any.json"))]),
    ] {
        write_home(&store, ".config/containers/auth.json", &elsewhere.to_string());
        std::fs::create_dir_all(home.join(".docker")).unwrap();
        store.write(file, &good);
        let variables: Vec<_> = variables.iter().map(|(name, value)| (*name, &**value)).collect();
        push(&store, &name, &[], &variables).unwrap_or_else(|error| panic!("{file}: {error}"));
        std::fs::remove_file(store.root().join(file)).unwrap();
    }
    push(&store, &name, &[], &[("DOCKER_AUTH_CONFIG", &good)]).unwrap();
    let error = push(&store, &name, &[], &[("DOCKER_AUTH_CONFIG", "{")]).unwrap_err();
    assert!(error.contains("DOCKER_AUTH_CONFIG is no file with credentials"), "{error}");
}

#[test]
fn what_needs_no_credentials_is_not_stopped() {
    let store = image();
    let registry = Agreeable::start(Setup::default());
    let (host, name) = (&registry.host, format!("{}/a/b:v1", registry.host));
    for text in [
        String::new(),
        "null".to_owned(),
        json!({"credsStore": "nonesuch"}).to_string(),
        json!({"credHelpers": {host: "nonesuch"}}).to_string(),
        json!({"auths": {host: null}}).to_string(),
        json!({"auths": {host: {}}}).to_string(),
        json!({"auths": null, "credHelpers": null, "credsStore": null}).to_string(),
    ] {
        write_home(&store, ".docker/config.json", &text);
        push(&store, &name, &[], &[]).unwrap_or_else(|error| panic!("{text}: {error}"));
    }
    push(&store, &name, &["--authfile", "/dev/null"], &[]).unwrap();
    // If credentials are needed, the error names the missing helper.
    let closed = closed();
    write_home(&store, ".docker/config.json", r#"{"credsStore": "nonesuch"}"#);
    let error = push(&store, &format!("{}/a/b:v1", closed.host), &[], &[]).unwrap_err();
    assert!(error.contains("`docker-credential-nonesuch` cannot be run"), "{error}");
}

#[test]
fn a_token_for_the_registry_is_sent_as_it_is() {
    let store = image();
    let setup = Setup { wants: Some("Bearer sesame".to_owned()), ..Setup::default() };
    let registry = Agreeable::start(setup);
    let entry = json!({"auths": {&registry.host: {"registrytoken": "sesame"}}});
    write_home(&store, ".docker/config.json", &entry.to_string());
    push(&store, &format!("{}/a/b:v1", registry.host), &[], &[]).unwrap();
    let puts = registry.requests().iter().filter(|request| request.contains("PUT")).count();
    assert_eq!(puts, 1);
}
