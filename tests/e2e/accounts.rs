use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::{Docker, Image, build_together, nix, run, stderr, stowage};

fn image(name: &str) -> Image {
    Image::named(&format!("accounts-{name}"))
}

fn user(docker: &Docker, image: &Image) -> Value {
    let inspected = docker.run(&["image", "inspect", &image.reference()]);
    let inspected: Value = serde_json::from_str(&inspected).unwrap();
    inspected[0]["Config"]["User"].clone()
}

#[test]
fn declared_accounts_and_files_are_there() {
    build_together(&[
        "accounts-alone",
        "accounts-onNode",
        "accounts-onAlone",
        "accounts-asNode",
        "accounts-onNoGroups",
    ]);
    let docker = Docker::start();
    let alone = image("alone");
    docker.load(&alone);
    let shell = |image: &Image, script: &str| {
        let reference = image.reference();
        docker.container(&reference, &["/bin/bash", "-ec", script])
    };
    let as_root = |image: &Image, script: &str| {
        let reference = image.reference();
        let run = ["run", "--rm", "--network=none", "--user=0", &reference, "/bin/bash", "-ec"];
        docker.run(&[&run[..], &[script]].concat())
    };

    assert_eq!(user(&docker, &alone), "1000:1000");
    assert_eq!(
        shell(
            &alone,
            "id; echo $HOME; id helper; cat /etc/app/app.conf; /usr/local/bin/run; /opt/bash -c 'echo sh'"
        ),
        "uid=1000(app) gid=1000(app) groups=1000(app)\n/home/app\n\
         uid=1001(helper) gid=1000(app) groups=1000(app),5000(data)\nsetting = 1\nran\nsh\n"
    );
    // Everything of the user's can be written, and nothing else.
    shell(
        &alone,
        "touch ~/f /tmp/f /var/lib/app/cache/f; ! touch /var/lib/app/f /srv/f /etc/f 2> /dev/null",
    );
    assert_eq!(
        as_root(
            &alone,
            "stat -c '%a %u:%g %n' /tmp /home /home/app /root /var/lib/app /var/lib/app/cache /srv /etc/app/app.conf /etc/passwd /etc/shadow /usr/local/bin/run /bin"
        ),
        "1777 0:0 /tmp\n755 0:0 /home\n700 1000:1000 /home/app\n700 0:0 /root\n755 0:0 /var/lib/app\n\
         750 1000:1000 /var/lib/app/cache\n2770 0:5000 /srv\n600 1000:1000 /etc/app/app.conf\n\
         644 0:0 /etc/passwd\n640 0:0 /etc/shadow\n555 0:0 /usr/local/bin/run\n555 0:0 /bin\n"
    );
    // What the tools have in /etc is still there.
    shell(&alone, "test -s /etc/ssl/certs/ca-bundle.crt");

    let on_node = image("onNode");
    docker.load(&on_node);
    // With a number for the group, Docker would forget the others.
    assert_eq!(user(&docker, &on_node), "1001");
    assert_eq!(
        shell(&on_node, "id; id daemon; id node; touch ~/f"),
        "uid=1001(app) gid=1001(app) groups=1001(app),10(wheel),300(build)\n\
         uid=1(daemon) gid=10(wheel) groups=10(wheel)\n\
         uid=1000(node) gid=1000(node) groups=1000(node),10(wheel)\n"
    );
    assert_eq!(
        as_root(
            &on_node,
            "cat /etc/nsswitch.conf /etc/shadow; stat -c '%a %u:%g' /etc/shadow /home/node /home/app"
        ),
        "passwd: files sss\ngroup: files\nroot:*:19000:0:99999:7:::\nnode:!:19000::::::\n\
         daemon:!:1::::::\napp:!:1::::::\nnobody:!:1::::::\n640 0:42\n750 1000:1001\n700 1001:1001\n"
    );

    let on_alone = image("onAlone");
    docker.load(&on_alone);
    assert_eq!(user(&docker, &on_alone), "2000:5000");
    assert_eq!(
        shell(
            &on_alone,
            "id; id app; stat -c %U /home/app; cat /etc/app/app.conf 2> /dev/null || echo secret"
        ),
        "uid=2000(second) gid=5000(data) groups=5000(data)\n\
         uid=1000(app) gid=1000(app) groups=1000(app)\napp\nsecret\n"
    );
    let on_no_groups = image("onNoGroups");
    docker.load(&on_no_groups);
    assert_eq!(
        shell(&on_no_groups, "stat -c '%a %u:%g' /srv/app; cat /etc/app.conf"),
        "711 0:0\nsetting = 1\n"
    );
    docker.load(&image("asNode"));
    // It is in the base's wheel too.
    assert_eq!(user(&docker, &image("asNode")), "1000");
}

/// Checks accounts on a base whose `/etc` is a link: they are behind it. Docker itself removes the
/// link, which the lint says.
#[test]
fn accounts_are_behind_a_link_of_the_base() {
    let image = image("onLinkedEtc");
    let said = crate::support::build_log(&format!("{}.spec", image.attribute));
    assert!(said.contains("/etc is a link to /data/etc: Docker puts a directory"), "{said}");
    let directory = tempfile::tempdir().unwrap();
    let archive = directory.path().join("whole.tar");
    let file = std::fs::File::create(&archive).unwrap();
    run(stowage(&["flatten"]).arg(&image.spec_file).stdout(file));
    let read = |name: &str| {
        run(Command::new("tar")
            .args(["--extract", "--to-stdout", "--file"])
            .arg(&archive)
            .arg(name))
    };
    assert!(read("data/etc/passwd").contains("\napp:x:1000:1000::/home/app:/bin/sh\n"));
    assert!(read("data/etc/group").contains("\nwheel:x:10:app\n"));
    assert_eq!(read("data/etc/app.conf") + &read("data/etc/own"), "setting = 1\nown");
    let links = run(Command::new("tar").args(["--list", "--verbose", "--file"]).arg(&archive));
    assert!(links.lines().any(|line| line.ends_with(" etc -> data/etc")), "{links}");
    let found = run(stowage(&["lint"]).arg(&image.spec_file));
    assert!(found.contains("/etc: is a link to data/etc: Docker puts a directory"), "{found}");
}

/// Checks accounts together with a Nix database.
#[test]
fn accounts_go_with_nix() {
    let docker = Docker::start();
    for (name, tool) in [("withNix", "hello"), ("onNix", "jq")] {
        let image = image(name);
        docker.load(&image);
        let script = format!(
            "id -un; nix-store --verify --check-contents; nix-store -q --hash $(readlink /opt/{tool}); \
             nix-store --gc > /dev/null 2>&1; test -x $(readlink /opt/{tool})/bin/{tool}; \
             test -x $(readlink /opt/hello)/bin/hello; \
             nix-store --delete $(echo text > ~/f; nix-store --add ~/f); touch /tmp/f; echo there"
        );
        let found = docker.container(&image.reference(), &["/bin/bash", "-ec", &script]);
        assert!(found.starts_with("app\nsha256:") && found.ends_with("\nthere\n"), "{found}");
    }
}

/// Evaluates and builds images with these arguments, and returns what is said of each that fails.
fn errors(arguments: &[&str]) -> BTreeMap<String, String> {
    let mut errors = BTreeMap::new();
    for arguments in arguments {
        let apply = format!(
            "checks: let node = checks.accounts-node; in (checks.accounts-alone.override (_: {{ \
               accounts = {{ }}; user = null; directories = {{ }}; files = {{ }}; links = {{ }}; }} // {arguments})).spec.drvPath"
        );
        let checks = [".#checks.x86_64-linux", "--apply", &apply];
        let evaluated = nix(&[&["eval", "--raw"][..], &checks].concat()).output().unwrap();
        let error = if evaluated.status.success() {
            let derivation = String::from_utf8(evaluated.stdout).unwrap();
            let built = nix(&["--exec", "nix-store", "--realise", &derivation]).output().unwrap();
            assert!(!built.status.success(), "{arguments} builds");
            format!("when built: {}", stderr(&built))
        } else {
            stderr(&evaluated)
        };
        errors.insert((*arguments).to_owned(), error);
    }
    errors
}

#[test]
fn mistakes_name_the_whole_option() {
    let cases = [
        (
            "{ accounts.users.app.uid = \"7\"; }",
            "`accounts.users.app.uid` must be a number from 0 to 4294967294, not `7`",
        ),
        ("{ accounts.users.app.uid = -1; }", "`accounts.users.app.uid` must be a number"),
        (
            "{ accounts.users.app = { uid = 7; Shell = \"/x\"; }; }",
            "`accounts.users.app.Shell` is none of `description`, `gid`",
        ),
        (
            "{ accounts.users.\"a b\".uid = 7; }",
            "`accounts.users.\"a b\"` is no name of an account",
        ),
        ("{ accounts.user.app.uid = 7; }", "`accounts.user` is none of `users`, `groups`"),
        (
            "{ accounts.users.app = { uid = 7; home = \"srv\"; }; }",
            "`accounts.users.app.home` must be an absolute path, not `srv`",
        ),
        (
            "{ accounts.users.app = { uid = 7; description = \"a:b\"; }; }",
            "`accounts.users.app.description` must be a string of one line without a colon",
        ),
        (
            "{ accounts.groups.app = { gid = 7; members = \"a\"; }; }",
            "`accounts.groups.app.members` must be a list",
        ),
        (
            "{ directories.\"/a\".mode = \"0888\"; }",
            "`directories.\"/a\".mode` must be a string of octal digits",
        ),
        ("{ directories.\"a\".mode = \"0755\"; }", "`directories.a` must be an absolute path"),
        (
            "{ directories.\"/a/../b\" = { }; }",
            "`directories.\"/a/../b\"` must be an absolute path below `/`, without `..`",
        ),
        ("{ directories.\"/nix/store/x\" = { }; }", "is in the Nix store"),
        ("{ directories.\"/dev//x\" = { }; }", "`directories.\"/dev//x\"` is in /dev"),
        ("{ files.\"/proc/sys/x\".text = \"\"; }", "`files.\"/proc/sys/x\"` is in /proc"),
        ("{ user = \"app\"; }", "`user` has the user `app`, and the image has no accounts"),
        (
            "{ files.\"/a\".mode = \"0644\"; }",
            "`files.\"/a\"` must have one of `text` and `source`",
        ),
        ("{ tmp = 1; }", "`tmp` must be true or false, not 1"),
        ("{ user = \"a b\"; }", "`user` must be a user"),
        ("{ user = \"app\"; config.User = \"app\"; }", "`user` is what `config.User` will be"),
        // These depend on what the base has.
        ("{ fromImage = node; accounts.users.app.uid = 1000; }", "when built: "),
        (
            "{ fromImage = node; accounts.users.node.uid = 7; }",
            "user `node` has the number 7 by `accounts.users.node`, and 1000 by /etc/passwd of the base image",
        ),
        (
            "{ fromImage = node; user = \"nod\"; }",
            "`user` has the user `nod`, which is none of the image's: root, node",
        ),
        ("{ directories.\"/a\".user = \"app\"; }", "`directories.\"/a\".user` has the user `app`"),
        (
            "{ fromImage = node; files.\"/home/node\".text = \"\"; }",
            "`files.\"/home/node\"`: the image has a directory there",
        ),
        (
            "{ files.\"/a\".text = \"\"; directories.\"/a/b\" = { }; }",
            "`directories.\"/a/b\"`: /a is no directory",
        ),
    ];
    let arguments: Vec<_> = cases.iter().map(|(arguments, _)| *arguments).collect();
    let errors = errors(&arguments);
    for (arguments, message) in cases {
        let error = &errors[arguments];
        assert!(error.contains(message), "{arguments}: {error}");
        assert!(!error.contains("panicked"), "{error}");
    }
}

/// Checks that an image without declarations is the same as before there were any.
#[test]
fn no_declarations_make_nothing() {
    let apply = "stowage: let image = arguments: (stowage.buildImage ({ name = \"a\"; } // arguments)).spec.drvPath; in
        [ (image { }) (image { accounts = { users = { }; }; directories = { }; tmp = false; user = null; }) ]";
    let attribute = ".#legacyPackages.x86_64-linux.stowage";
    let found: Vec<Value> =
        serde_json::from_str(&run(&mut nix(&["eval", "--json", attribute, "--apply", apply])))
            .unwrap();
    assert_eq!(found[0], found[1]);
    assert_ne!(found[0], json!(null));
}
