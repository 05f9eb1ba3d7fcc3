use super::*;

const CONF: &str = r#"
    unqualified-search-registries = ["example.com"]
    short-name-mode = "enforcing"

    [[registry]]
    prefix = "example.com/foo"
    location = "internal.example.net/bar"

    [[registry.mirror]]
    location = "mirror-0.local/for-foo"

    [[registry.mirror]]
    location = "mirror-1.local/foo"
    insecure = true
    pull-from-mirror = "digest-only"

    [[registry]]
    location = "plain.example:5000"
    insecure = true

    [[registry]]
    location = "example.com/foo/blocked"
    blocked = true

    [[registry]]
    prefix = "*.corp.example"
    insecure = true

    [[registry]]
    prefix = "*.moved.example"
    location = "one.example/all"

    [[registry]]
    location = "docker.io"
    mirror-by-digest-only = true
    [[registry.mirror]]
    location = "hub.local:5000"

    [aliases]
    "app" = "registry.example/team/app"
    "team/tool" = "registry.example/tool"
    "gone" = ""
"#;
const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn conf(texts: &[&str]) -> Result<RegistriesConf, RegistriesError> {
    RegistriesConf::parse(texts.iter().map(|text| (Path::new("conf"), *text)))
}

/// Returns the places that a name is read from, in one line; an exclamation mark stands for
/// insecure.
fn sources(conf: &RegistriesConf, name: &str) -> String {
    let sources = match conf.sources(&name.parse().unwrap()) {
        Ok(sources) => sources,
        Err(error) => return error.to_string(),
    };
    let text = sources.iter().map(|Location { reference, insecure }| {
        format!("{}{}", reference.whole(), if *insecure { "!" } else { "" })
    });
    text.collect::<Vec<_>>().join(" ").replace(DIGEST, "DIGEST")
}

#[test]
fn images_are_read_where_the_longest_prefix_says() {
    let conf = conf(&[CONF]).unwrap();
    for (name, expected) in [
        ("other.example/a:v1", "other.example/a:v1"),
        ("example.com/a:v1", "example.com/a:v1"),
        ("example.com/food:v1", "example.com/food:v1"),
        (
            "example.com/foo/image:v1",
            "mirror-0.local/for-foo/image:v1 internal.example.net/bar/image:v1",
        ),
        (
            "example.com/foo/image@DIGEST",
            "mirror-0.local/for-foo/image@DIGEST mirror-1.local/foo/image@DIGEST! \
             internal.example.net/bar/image@DIGEST",
        ),
        ("example.com/foo:v1", "mirror-0.local/for-foo:v1 internal.example.net/bar:v1"),
        (
            "example.com/foo/blocked/a:v1",
            "example.com/foo/blocked/a: `example.com/foo/blocked` is blocked by conf",
        ),
        ("plain.example:5000/a/b:v1", "plain.example:5000/a/b:v1!"),
        ("plain.example/a:v1", "plain.example/a:v1"),
        ("a.corp.example/b:v1", "a.corp.example/b:v1!"),
        ("A.Corp.Example:5000/b:v1", "A.Corp.Example:5000/b:v1!"),
        ("a.b.corp.example:5000/b:v1", "a.b.corp.example:5000/b:v1!"),
        ("corp.example:5000/b:v1", "corp.example:5000/b:v1"),
        ("a.corp.example.net/b:v1", "a.corp.example.net/b:v1"),
        ("x.example/a.corp.example/b:v1", "x.example/a.corp.example/b:v1"),
        ("a.moved.example:5000/b:v1", "one.example/all/b:v1"),
        ("corp.example/b:v1", "corp.example/b:v1"),
        ("hello:v1", "docker.io/library/hello:v1"),
        ("hello@DIGEST", "hub.local:5000/library/hello@DIGEST docker.io/library/hello@DIGEST"),
    ] {
        assert_eq!(sources(&conf, &name.replace("DIGEST", DIGEST)), expected, "{name}");
    }
}

#[test]
fn pushes_go_where_they_are_sent() {
    let conf = conf(&[CONF]).unwrap();
    for (name, insecure) in [
        ("example.com/foo/image:v1", Some(false)),
        ("plain.example:5000/a:v1", Some(true)),
        ("example.com/foo/blocked/a:v1", None),
        ("other.example/a:v1", Some(false)),
    ] {
        let reference: Reference = name.parse().unwrap();
        let target = conf.target(&reference).ok();
        assert_eq!(target, insecure.map(|insecure| Location { reference, insecure }), "{name}");
    }
}

#[test]
fn names_without_a_registry_may_stand_for_others() {
    let conf = conf(&[CONF]).unwrap();
    for (name, expected) in [
        ("app", "registry.example/team/app"),
        ("app:v1", "registry.example/team/app:v1"),
        ("app@DIGEST", "registry.example/team/app@DIGEST"),
        ("team/tool:v1", "registry.example/tool:v1"),
        ("gone:v1", "gone:v1"),
        ("docker.io/app:v1", "docker.io/app:v1"),
        ("docker.io/library/app", "docker.io/library/app"),
        ("other/app", "other/app"),
    ] {
        let named = conf.named(&name.replace("DIGEST", DIGEST).parse().unwrap()).unwrap();
        assert_eq!(named.to_string(), expected.replace("DIGEST", DIGEST), "{name}");
    }
}

#[test]
fn a_block_covers_every_way_to_write_a_registry() {
    for (prefix, blocked, allowed) in [
        ("*.0.0.1", "127.0.0.1/a 127.0.0.1:7005/a 9.0.0.1:1/a/b", "127.0.0.2/a 10.0.0.10/a"),
        ("*.b.c", "a.b.c/d A.B.C:1/d x.a.b.c/d@DIGEST", "b.c/d ab.c/d a.b.c.d/e d.e/a.b.c/f"),
        ("reg.b", "reg.b/a REG.b/a reg.b:5000/a", "reg.bc/a a.reg.b/a"),
        ("Reg.B:5000", "reg.b:5000/a", "reg.b/a reg.b:50001/a"),
        ("reg.b/Team", "", "reg.b/team/a"),
        ("reg.b/team", "reg.b/team/a reg.b/team REG.B/team:v1", "reg.b:1/team reg.b/teams"),
        ("[::1]", "[::1]/a [::1]:5000/a", "[::2]/a"),
        ("docker.io", "a docker.io/a/b index.docker.io/a", "quay.io/a"),
    ] {
        let text = format!("[[registry]]\nprefix = '{prefix}'\nblocked = true");
        let conf = conf(&[&text]).unwrap();
        let is_blocked = |name: &&str| {
            let reference = name.replace("DIGEST", DIGEST).parse().unwrap();
            matches!(conf.target(&reference), Err(RegistriesError::Blocked { .. }))
        };
        let (blocked, allowed) = (blocked.split(' '), allowed.split(' '));
        for name in blocked.filter(|name| !name.is_empty()) {
            assert!(is_blocked(&name), "{prefix}: {name}");
        }
        for name in allowed {
            assert!(!is_blocked(&name), "{prefix}: {name}");
        }
    }
    // A name is more specific than a pattern, also of the same length.
    for blocked in [true, false] {
        let (first, second) = ("[[registry]]\nprefix = '*.b.c'", "[[registry]]\nprefix = 'a.b.c'");
        for text in [
            format!("{first}\nblocked = {}\n{second}\nblocked = {blocked}", !blocked),
            format!("{second}\nblocked = {blocked}\n{first}\nblocked = {}", !blocked),
        ] {
            let target = conf(&[&text]).unwrap().target(&"a.b.c/d".parse().unwrap());
            assert_eq!(target.is_err(), blocked, "{text}");
        }
    }
}

#[test]
fn later_files_count() {
    let later = "[[registry]]\nprefix = \"example.com/foo\"\nlocation = \"x.example/y\"\n\
                 [aliases]\napp = \"other.example/app\"";
    let conf = conf(&[CONF, later]).unwrap();
    assert_eq!(sources(&conf, "example.com/foo/image:v1"), "x.example/y/image:v1");
    assert_eq!(conf.named(&"app".parse().unwrap()).unwrap().to_string(), "other.example/app");
    // In one file the first of equal prefixes counts.
    let twice = "[[registry]]\nprefix = \"b.example\"\nlocation = \"x.example/1\"\n\
                 [[registry]]\nprefix = \"b.example\"\nlocation = \"x.example/2\"";
    let conf = self::conf(&[twice]).unwrap();
    assert_eq!(sources(&conf, "b.example/a:v1"), "x.example/1/a:v1");
}

#[test]
fn the_first_version_is_read() {
    let old = "[registries.search]\nregistries = ['a.example']\n\
               [registries.insecure]\nregistries = ['b.example:5000']\n\
               [registries.block]\nregistries = ['c.example']";
    let conf = conf(&[old]).unwrap();
    assert_eq!(sources(&conf, "b.example:5000/a:v1"), "b.example:5000/a:v1!");
    assert!(sources(&conf, "c.example/a").contains("is blocked"));
    let both = "[registries.insecure]\nregistries = ['a.b']\n\
                [registries.block]\nregistries = ['a.b']";
    let conf = self::conf(&[both]).unwrap();
    assert!(sources(&conf, "a.b/c").contains("is blocked"));
    let drop_in = [(Path::new("/etc/containers/registries.conf.d/1.conf"), old)];
    let error = RegistriesConf::parse(drop_in).unwrap_err().to_string();
    assert!(error.ends_with("must be of version 2: use `[[registry]]`"), "{error}");
}

#[test]
fn mistakes_are_named() {
    for (text, message) in [
        ("[[registry]]\ninsecure = 1", "conf: line 2: "),
        ("\n[[registry]\n", "conf: line 2: "),
        ("[[registry]]\ninsecure = true", "conf: a `[[registry]]` has neither"),
        ("[[registry]]\nlocation = 'http://a'", "conf: `http://a` must have no scheme"),
        ("[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]", "of `a.b` has no `location`"),
        (
            "[[registry]]\nlocation = 'a.b'\n[[registry.mirror]]\nlocation = 'c.d'\n\
             pull-from-mirror = 'never'",
            "conf: line 5: unknown variant `never`, expected one of `all`, `digest-only`, `tag-only`",
        ),
        (
            "[[registry]]\nlocation = 'a.b'\nmirror-by-digest-only = true\n\
             [[registry.mirror]]\nlocation = 'c.d'\npull-from-mirror = 'all'",
            "conf: `a.b` has `mirror-by-digest-only`, so that its mirror `c.d` can't have",
        ),
        (
            "[[registry]]\nlocation = 'a.b'\npull-from-mirror = 'all'",
            "conf: `pull-from-mirror` of `a.b` must be in one of its `[[registry.mirror]]`",
        ),
        (
            "[[registry]]\nlocation = 'a.b'\n[registries.block]\nregistries = ['c.d']",
            "conf: it mixes `[registries.…]` of version 1 with settings of version 2",
        ),
        (
            "unqualified-search-registries = ['a.b']\n[registries.search]\nregistries = ['c.d']",
            "conf: it mixes `[registries.…]` of version 1",
        ),
        (
            "[[registry]]\nprefix = 'a.b'\nblocked = true\n[[registry]]\nprefix = 'A.b'",
            "conf: two `[[registry]]` tables for `a.b` differ in `blocked`",
        ),
        (
            "[[registry]]\nprefix = 'a.b/1'\nlocation = 'c.d'\ninsecure = true\n\
             [[registry]]\nprefix = 'a.b/2'\nlocation = 'c.d'",
            "conf: two `[[registry]]` tables for `c.d` differ in `insecure`",
        ),
        (
            "[[registry]]\nprefix = 'a.b'\nlocation = 'c.d'\nblocked = true\n\
             [[registry]]\nprefix = 'a.b'\nlocation = 'e.f'",
            "conf: two `[[registry]]` tables for `a.b` differ in `blocked`",
        ),
    ] {
        let error = conf(&[text]).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    for pattern in ["*b", "*", "*.", "*.example/foo", "*.example:5000", "*.*.example"] {
        let error = conf(&[&format!("[[registry]]\nprefix = '{pattern}'")]).unwrap_err();
        let expected = format!("conf: `{pattern}` matches nothing: a pattern is `*.DOMAIN`");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    let conf = conf(&["[[registry]]\nprefix = 'a.b'\nlocation = 'C D'"]).unwrap();
    assert!(sources(&conf, "a.b/c").contains("is not an image name"));
}
