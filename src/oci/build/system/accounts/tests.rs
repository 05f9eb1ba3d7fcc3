//! Tests the merging of accounts.

use serde_json::{Value, json};

use super::*;

fn source(name: &str, files: &[(&'static str, &str)]) -> AccountSource {
    let files = files.iter().map(|(file, text)| (*file, bytes(text))).collect();
    AccountSource { name: name.to_owned(), files }
}

fn debian() -> AccountSource {
    source(
        "the base image",
        &[
            (
                "passwd",
                "root:x:0:0:root:/root:/bin/bash\nnode:x:1000:1000::/home/node:/bin/sh\nnobody:x:65534:65534::/:/x\n",
            ),
            ("group", "root:x:0:\nwheel:x:10:node\nnode:x:1000:\nnogroup:x:65534:\n"),
            ("shadow", "root:*:19000:0:99999:7:::\nnode:!:19000::::::\nnobody:*:1::::::\n"),
        ],
    )
}

fn merged(sources: &[AccountSource], accounts: Value) -> Result<Merged, String> {
    let accounts: Accounts = serde_json::from_value(accounts).map_err(|it| it.to_string())?;
    let mut merged = Merged::of(sources).map_err(|error| error.to_string())?;
    merged.declare(&accounts).map_err(|error| error.to_string())?;
    Ok(merged)
}

fn file(merged: &Merged, name: &str) -> String {
    String::from_utf8(merged.files()[name].clone()).unwrap()
}

#[test]
fn an_image_of_nothing_has_root_and_nobody() {
    let merged = merged(&[], json!({"users": {"app": {"uid": 1000}}})).unwrap();
    assert_eq!(
        file(&merged, "passwd"),
        "app:x:1000:1000::/home/app:/bin/sh\n\
         root:x:0:0:System administrator:/root:/bin/sh\n\
         nobody:x:65534:65534:Unprivileged account:/var/empty:/bin/sh\n"
    );
    assert_eq!(file(&merged, "group"), "app:x:1000:\nroot:x:0:\nnobody:x:65534:\n");
    assert_eq!(file(&merged, "shadow"), "app:!:1::::::\nroot:!:1::::::\nnobody:!:1::::::\n");
    assert_eq!(merged.config_user("app").unwrap(), "1000:1000");
}

#[test]
fn the_base_keeps_what_it_has() {
    let accounts = json!({
        "users": {
            "app": {"uid": 1001, "gid": 10, "home": "/srv", "shell": "/bin/app", "groups": ["node"], "description": "An app"},
            "node": {"shell": "/bin/bash"},
        },
        "groups": {"data": {"gid": 5000, "members": ["app", "node"]}, "wheel": {}},
    });
    let merged = merged(&[debian()], accounts).unwrap();
    assert_eq!(
        file(&merged, "passwd"),
        "root:x:0:0:root:/root:/bin/bash\n\
         node:x:1000:1000::/home/node:/bin/bash\n\
         nobody:x:65534:65534::/:/x\n\
         app:x:1001:10:An app:/srv:/bin/app\n"
    );
    assert_eq!(
        file(&merged, "group"),
        "root:x:0:\nwheel:x:10:node\nnode:x:1000:app\nnogroup:x:65534:\ndata:x:5000:app,node\n"
    );
    assert_eq!(
        file(&merged, "shadow"),
        "root:*:19000:0:99999:7:::\nnode:!:19000::::::\nnobody:*:1::::::\napp:!:1::::::\n"
    );
    assert!(!merged.files().contains_key("gshadow"));
    // A user and a group as numbers would leave out the user's other groups: a name with such groups
    // is refused.
    for (user, expected) in [
        ("app", Ok("1001")),
        ("app:app", Err("app")),
        ("app:wheel", Ok("1001:10")),
        ("nobody", Ok("65534:65534")),
        ("0", Ok("0:0")),
        ("7", Ok("7")),
        ("7:wheel", Ok("7:10")),
        ("7:8", Ok("7:8")),
    ] {
        match (merged.config_user(user), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{user}"),
            (Err(error), Err(name)) => assert!(error.to_string().contains(name), "{error}"),
            (found, _) => panic!("{user}: {found:?}"),
        }
    }
}

#[test]
fn groups_have_shadows_where_the_base_has_them() {
    let mut base = debian();
    base.files.insert("gshadow", bytes("root:*::\nwheel:!:a:node\n"));
    let merged =
        merged(&[base], json!({"users": {"app": {"uid": 7, "groups": ["wheel"]}}})).unwrap();
    let gshadow = file(&merged, "gshadow");
    assert!(gshadow.contains("wheel:!:a:node,app\n") && gshadow.contains("app:!::\n"), "{gshadow}");
}

#[test]
fn upper_parts_come_before_lower_ones() {
    let nss = source(
        "`copyToRoot`",
        &[
            ("passwd", "# ours\nroot:x:0:0::/root:/nix/bash\n"),
            ("group", "root:x:0:\nbuild:x:300:\n"),
        ],
    );
    let merged = merged(&[debian(), nss], json!({"users": {"app": {"uid": 2000}}})).unwrap();
    let passwd = file(&merged, "passwd");
    assert!(passwd.starts_with("root:x:0:0::/root:/nix/bash\nnode:"), "{passwd}");
    assert!(file(&merged, "group").contains("wheel:x:10:node\n"));
    assert!(file(&merged, "group").contains("build:x:300:\n"));
}

/// Checks that the members of a group stay if an upper part has the same groups and no others.
#[test]
fn members_stay_under_a_table_of_the_same_groups() {
    let upper = source(
        "`copyToRoot`",
        &[("group", "root:x:0:\nwheel:x:10:\nnode:x:1000:\nnogroup:x:65534:\n")],
    );
    let merged = merged(&[debian(), upper], json!({"users": {"app": {"uid": 2000}}})).unwrap();
    assert!(file(&merged, "group").contains("wheel:x:10:node\n"), "{}", file(&merged, "group"));
}

/// Checks that the first entry of a name counts, as for glibc, and that the others stay where they are.
#[test]
fn the_first_entry_of_a_name_counts() {
    let base = source(
        "the base image",
        &[
            (
                "passwd",
                "# ours\nroot:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/bash\nold:x:5:5::/:/x\nold:x:6:6::/:/x\n",
            ),
            ("group", "root:x:0:\nwheel:x:10:a\nwheel:x:11:b\n"),
            ("shadow", "root:*:1::::::\nroot:secret:1::::::\n"),
        ],
    );
    let merged = merged(
        &[base],
        json!({"users": {"app": {"uid": 2000, "groups": ["wheel"]}, "old": {"shell": "/y"}}}),
    )
    .unwrap();
    let passwd = file(&merged, "passwd");
    let expected = "# ours\nroot:x:0:0::/root:/bin/sh\nroot:x:0:0::/root:/bin/bash\nold:x:5:5::/:/y\nold:x:6:6::/:/x\n";
    assert!(passwd.starts_with(expected), "{passwd}");
    let group = file(&merged, "group");
    assert!(group.starts_with("root:x:0:\nwheel:x:10:a,app\nwheel:x:11:b\n"), "{group}");
    assert!(file(&merged, "shadow").starts_with("root:*:1::::::\n"));
}

#[test]
fn conflicts_name_both_sides() {
    let user = |name: &str, user: Value| json!({"users": {name: user}});
    let group = |name: &str, group: Value| json!({"groups": {name: group}});
    for (accounts, message) in [
        (
            user("node", json!({"uid": 1001})),
            "user `node` has the number 1001 by `accounts.users.node`, and 1000 by /etc/passwd of the base image",
        ),
        (
            user("app", json!({"uid": 1000, "gid": 10})),
            "user 1000 is `app` by `accounts.users.app`, and `node` by /etc/passwd of the base image",
        ),
        (
            user("app", json!({"uid": 1000})),
            "group 1000 is `app` by `accounts.users.app`, and `node` by /etc/group of the base image",
        ),
        (
            group("wheel", json!({"gid": 11})),
            "group `wheel` has the number 11 by `accounts.groups.wheel`, and 10 by /etc/group of the base image",
        ),
        (
            group("ten", json!({"gid": 10})),
            "group 10 is `ten` by `accounts.groups.ten`, and `wheel` by /etc/group",
        ),
        (
            json!({"users": {"a": {"uid": 7, "gid": 10}, "b": {"uid": 7, "gid": 10}}}),
            "user 7 is `b` by `accounts.users.b`, and `a` by `accounts.users.a`",
        ),
        (user("app", json!({})), "`accounts.users.app.uid` is missing"),
        (group("app", json!({})), "`accounts.groups.app.gid` is missing"),
        (user("app", json!({"uid": 4294967295_u32})), "the largest number is 4294967294"),
        (
            user("app", json!({"uid": 7, "groups": ["root", "whel"]})),
            "`accounts.users.app.groups[1]` has the group `whel`, which is none of the image's: root, wheel",
        ),
        (
            group("data", json!({"gid": 7, "members": ["nod"]})),
            "`accounts.groups.data.members[0]` has the user `nod`",
        ),
        (user("a:b", json!({"uid": 7})), "has a colon"),
        (
            user("app", json!({"uid": 7, "home": "/a\nb:x:0:0"})),
            "has a colon or is more than one line",
        ),
        (user("app", json!({"uid": 7, "password": "x"})), "unknown field `password`"),
    ] {
        let error = merged(&[debian()], accounts).unwrap_err();
        assert!(error.contains(message), "{error}");
    }
}
