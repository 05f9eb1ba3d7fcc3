//! Tests unusual statuses, redirections and headers.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;

use super::registry::{Quirks, Quirky};
use super::{Pushed, access};
use access::Access;

/// Checks that every 2xx status is a success (distribution-spec names one status; registries have
/// others).
#[test]
fn every_success_is_one() {
    let image = Pushed::new();
    type Step = (&'static str, fn(u16) -> Quirks, &'static [u16]);
    let all: [Step; 4] = [
        ("POST", |status| Quirks { post: Some(status), ..Quirks::default() }, &[200, 201, 202]),
        (
            "PATCH",
            |status| Quirks { patch: Some(status), ..Quirks::default() },
            &[200, 201, 202, 204],
        ),
        (
            "PUT of a blob",
            |status| Quirks { put_blob: Some(status), ..Quirks::default() },
            &[200, 201, 202, 204],
        ),
        (
            "PUT of a manifest",
            |status| Quirks { put_manifest: Some(status), ..Quirks::default() },
            &[200, 201, 202, 204],
        ),
    ];
    for (step, quirks, statuses) in all {
        for &status in statuses {
            image.arrives_twice(&format!("{step} {status}"), quirks(status), &[], true);
        }
    }
}

/// Checks that an image is sent even if the registry refuses to say what it has.
#[test]
fn what_may_not_be_asked_is_sent() {
    let image = Pushed::new();
    for status in [400, 401, 403, 405] {
        let quirks = Quirks { get_manifest: Some(status), ..Quirks::default() };
        image.arrives_twice(&format!("GET of the tag {status}"), quirks, &[], true);
        // A question that is refused by HEAD is asked by GET.
        let quirks = Quirks { head_blob: Some(status), ..Quirks::default() };
        image.arrives_twice(&format!("HEAD {status}"), quirks, &[], status == 405);
        let quirks =
            Quirks { head_blob: Some(status), get_blob: Some(status), ..Quirks::default() };
        image.arrives_twice(&format!("HEAD and GET {status}"), quirks, &[], false);
        let quirks = Quirks {
            head_blob: Some(status),
            get_blob: Some(status),
            get_manifest: Some(status),
            ..Quirks::default()
        };
        image.arrives_twice(&format!("nothing may be read {status}"), quirks, &[], false);
    }
}

/// Checks that after a 417 no further `Expect` is sent.
#[test]
fn an_expectation_may_fail() {
    let image = Pushed::new();
    let registry = Quirky::start(Quirks { no_expect: true, ..Quirks::default() });
    image.arrives("417", &registry, &[]);
    let refused = registry.take_seen().into_iter().filter(|seen| seen.status == 417).count();
    assert_eq!(refused, 1);
}

/// Checks that `100 Continue` with headers, as some gateways send it, is no error (RFC 9110,
/// section 15.2).
#[test]
fn leave_to_send_a_body_may_have_headers() {
    let image = Pushed::new();
    let registry = Quirky::start(Quirks::default());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gateway = listener.local_addr().unwrap().to_string();
    let behind = registry.host();
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut server = TcpStream::connect(&behind).unwrap();
            let (mut requests, mut answers) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut requests, &mut server));
            std::thread::spawn(move || {
                let mut buffer = [0; 1 << 16];
                while let Ok(read @ 1..) = answers.read(&mut buffer) {
                    let bytes = &buffer[..read];
                    let rest = bytes.strip_prefix(b"HTTP/1.1 100 Continue\r\n");
                    if rest.is_some() {
                        client.write_all(b"HTTP/1.1 100 Continue\r\nVia: 1.1 gateway\r\n")?;
                    }
                    client.write_all(rest.unwrap_or(bytes))?;
                }
                std::io::Result::Ok(())
            });
        }
    });
    let said = image.push(&gateway, &[]);
    assert!(said.status.success(), "{}", crate::support::stderr(&said));
    registry.check("a/b", "v1", image.manifest());
}

#[test]
fn redirections_keep_method_and_body() {
    let image = Pushed::new();
    for status in [301, 302, 307, 308] {
        for access in [Access::Open, Access::Basic("u:p"), Access::Token(access::Token::default())]
        {
            let quirks = Quirks { redirect: Some(status), access, ..Quirks::default() };
            let what = format!("{status}, {:?}", quirks.access);
            image.arrives_twice(&what, quirks, &["--dest-creds", "u:p"], true);
        }
    }
}

/// Checks that another origin gets the upload, and no credentials.
#[test]
fn no_other_origin_is_told_who_asks() {
    let image = Pushed::new();
    let other = Quirky::start_at("127.0.0.2", Quirks::default(), None);
    let registry =
        Quirky::start(Quirks { redirect_to: Some(other.base().to_owned()), ..Quirks::default() });
    let output = image.push(&registry.host(), &["--dest-creds", "u:p"]);
    assert!(output.status.success(), "{}", crate::support::stderr(&output));
    other.check("a/b", "v1", image.manifest());
    assert!(other.take_seen().iter().all(|seen| seen.authorization.is_none()));

    let closed = Quirks { access: Access::Basic("u:p"), ..Quirks::default() };
    let other = Quirky::start_at("127.0.0.2", closed, None);
    let registry =
        Quirky::start(Quirks { redirect_to: Some(other.base().to_owned()), ..Quirks::default() });
    let said = image.fails("another origin asks", &registry, &["--dest-creds", "u:p"]);
    assert!(said.contains("401"), "{said}");
    assert!(other.take_seen().iter().all(|seen| seen.authorization.is_none()));

    // A registry that redirects to itself for ever is an error.
    let registry = Quirky::start(Quirks::default());
    registry.set(Quirks { redirect_to: Some(registry.base().to_owned()), ..Quirks::default() });
    let said = image.fails("a circle", &registry, &[]);
    assert!(said.contains("redirect") && !said.contains("trying again"), "{said}");
}

#[test]
fn a_mount_that_is_refused_is_an_upload() {
    let image = Pushed::new();
    let flags = ["--mount-from", "other/c"];
    for status in [400, 401, 403, 404, 405] {
        let quirks = Quirks { mount: Some(status), ..Quirks::default() };
        image.arrives_twice(&format!("mount {status}"), quirks, &flags, true);
    }
    // A mount that has only begun an upload is not a mount, whatever its status.
    let registry = Quirky::start(Quirks { mount_begins: true, ..Quirks::default() });
    let others: BTreeMap<_, _> = image
        .blobs()
        .into_iter()
        .map(|digest| (("other/c".to_owned(), digest), b"not this".to_vec()))
        .collect();
    registry.contents().blobs.extend(others);
    image.arrives("mount 201 that begins", &registry, &flags);
}

#[test]
fn an_immutable_tag_may_be_the_same() {
    let image = Pushed::new();
    for (status, code) in [
        (400, "TAG_INVALID"),
        (400, "ImageTagAlreadyExistsException"),
        (409, "CONFLICT"),
        (412, "PRECONDITION"),
        (403, "DENIED"),
        (405, "UNSUPPORTED"),
    ] {
        // The registry does not say what it has.
        let registry = Quirky::start(Quirks::default());
        image.arrives("first", &registry, &[]);
        registry.lose(&image.blobs());
        registry.set(Quirks { immutable: Some((status, code)), ..Quirks::default() });
        image.arrives(&format!("immutable {status}"), &registry, &[]);

        let other = Pushed::with_layers(2);
        let said = other.fails("another image", &registry, &[]);
        registry.check("a/b", "v1", image.manifest());
        let expected = "`v1` already names another image, ";
        assert!(said.contains(expected) && said.contains("may not be changed"), "{said}");
        assert!(said.contains("\nhint: "), "{said}");
    }
}

/// Checks that a blob is sent in the `PUT` that ends its upload if the registry refuses `PATCH`.
#[test]
fn what_no_patch_takes_goes_in_a_put() {
    let image = Pushed::new();
    std::thread::scope(|scope| {
        for status in [400, 404, 405, 411, 415, 416, 501] {
            let image = &image;
            scope.spawn(move || {
                for is_lost in [false, true] {
                    let no_patch = Some((status, is_lost));
                    let token = Access::Token(access::Token::default());
                    for (redirect, access) in [(None, token), (Some(307), Access::Open)] {
                        let quirks = Quirks { no_patch, redirect, access, ..Quirks::default() };
                        let what = format!("PATCH {status}, {is_lost}, {redirect:?}");
                        image.arrives_twice(&what, quirks, &["--dest-creds", "u:p"], true);
                    }
                }
                // The registry refuses during the body, which the client sees as a broken
                // connection.
                let no_patch = Some((status, true));
                let quirks = Quirks { no_patch, no_expect: true, ..Quirks::default() };
                image.arrives(&format!("PATCH {status}, 417"), &Quirky::start(quirks), &[]);
            });
        }
    });
    // If the registry refuses both, the message is that of the `PUT`, which is tried once.
    let quirks = Quirks { no_patch: Some((405, false)), no_whole: Some(403), ..Quirks::default() };
    let said = image.fails("neither", &Quirky::start(quirks), &[]);
    assert!(said.contains("403") && !said.contains("trying again"), "{said}");
}

/// Checks that the client remembers a refused `PATCH` for the blobs that follow.
#[test]
fn a_patch_that_was_refused_is_not_tried_for_every_blob() {
    let image = Pushed::with_layers_of(20, 2 << 20);
    let registry = Quirky::start(Quirks { no_patch: Some((405, true)), ..Quirks::default() });
    image.arrives("405", &registry, &[]);
    let patches = registry.take_seen().into_iter().filter(|seen| seen.method == "PATCH").count();
    // At most as many blobs as are sent at a time.
    assert!((1..=16).contains(&patches), "{patches}");
}

#[test]
fn uploads_go_on_or_begin_anew() {
    let image = Pushed::new();
    type Range = fn(usize) -> Option<String>;
    let ranges: [(&str, Option<Range>); 7] = [
        ("as it should be", None),
        ("bytes=", Some(|arrived| Some(format!("bytes=0-{}", arrived.saturating_sub(1))))),
        ("one more", Some(|arrived| Some(format!("0-{arrived}")))),
        ("one less", Some(|arrived| Some(format!("0-{}", arrived.saturating_sub(2))))),
        ("bytes=, one more", Some(|arrived| Some(format!("bytes=0-{arrived}")))),
        ("missing", Some(|_| None)),
        ("nonsense", Some(|_| Some("all of it".to_owned()))),
    ];
    std::thread::scope(|scope| {
        for (what, range) in ranges {
            let image = &image;
            scope.spawn(move || {
                for minimum_chunk in [None, Some(1 << 20), Some(8 << 20)] {
                    for cut in [None, Some(1), Some(700_000)] {
                        let quirks = Quirks { range, minimum_chunk, cut, ..Quirks::default() };
                        let what = format!("range {what}, {minimum_chunk:?}, cut {cut:?}");
                        image.arrives_twice(&what, quirks, &[], true);
                    }
                }
            });
        }
    });
}
