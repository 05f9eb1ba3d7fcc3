use std::fs;
use std::path::Path;

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, date_time_ymd,
};

use super::agreeable::{Agreeable, Setup};
use super::{image, push};
use crate::tls::server_config;

/// Makes an authority as `openssl req -x509` does: servers may present its certificate themselves.
pub fn authority(names: &[&str]) -> Made {
    made(params(names, true))
}

/// A certificate, its key, and the parameters that it was made from.
pub struct Made {
    pub cert: Certificate,
    signing_key: KeyPair,
    params: CertificateParams,
}

fn params(names: &[&str], is_authority: bool) -> CertificateParams {
    let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    if is_authority {
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    }
    params
}

fn made(params: CertificateParams) -> Made {
    let signing_key = KeyPair::generate().unwrap();
    Made { cert: params.self_signed(&signing_key).unwrap(), signing_key, params }
}

/// Makes a certificate that an authority has signed.
fn signed(params: CertificateParams, by: &Made) -> Made {
    let signing_key = KeyPair::generate().unwrap();
    let issuer = Issuer::from_params(&by.params, &by.signing_key);
    Made { cert: params.signed_by(&signing_key, &issuer).unwrap(), signing_key, params }
}

/// Starts a registry that presents a certificate. If `clients` is given, it wants certificates of
/// clients, signed by that authority.
pub fn registry(shown: &Made, clients: Option<&Made>) -> Agreeable {
    let clients = clients.map(|authority| &authority.cert);
    let config = server_config(&shown.cert, &shown.signing_key, clients);
    Agreeable::start(Setup { tls: Some(config), ..Setup::default() })
}

fn write(file: &Path, text: &str) {
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

#[test]
fn certificates_are_trusted_from_where_clients_have_them() {
    let store = image();
    let trusted = authority(&["127.0.0.1"]);
    let by_authority = signed(params(&["127.0.0.1"], false), &trusted);
    let path = |name: &str| store.root().join(name);
    // Check a certificate that the authority has signed, and the authority's own as the server's.
    for shown in [&by_authority, &trusted] {
        let registry = registry(shown, None);
        let name = format!("{}/a/b:v1", registry.host);
        let error = push(&store, &name, &[], &[]).unwrap_err();
        assert!(error.contains("its certificate is not trusted"), "{error}");
        for file in ["certs/ca.crt", "certs/any.crt", "certs/ca.pem"] {
            write(&path(file), &trusted.cert.pem());
            let directory = path("certs");
            push(&store, &name, &["--dest-cert-dir", directory.to_str().unwrap()], &[])
                .unwrap_or_else(|error| panic!("{file}: {error}"));
            fs::remove_dir_all(path("certs")).unwrap();
        }
        write(&path("one"), &trusted.cert.pem());
        push(&store, &name, &[], &[("SSL_CERT_FILE", path("one").to_str().unwrap())]).unwrap();
        write(&path("many/1234abcd.0"), &trusted.cert.pem());
        let many = format!("/nonexistent:{}", path("many").display());
        push(&store, &name, &[], &[("SSL_CERT_DIR", &many)]).unwrap();
        let host = path("home/.config/containers/certs.d").join(&registry.host);
        write(&host.join("ca.crt"), &trusted.cert.pem());
        push(&store, &name, &[], &[]).unwrap();
        fs::remove_dir_all(host).unwrap();
        push(&store, &name, &["--dest-tls-verify=false"], &[]).unwrap();
    }
}

#[test]
fn what_is_wrong_with_a_certificate_is_said() {
    let store = image();
    let trusted = authority(&["authority"]);
    write(&store.root().join("certs/ca.crt"), &trusted.cert.pem());
    let directory = store.root().join("certs");
    let trusting = ["--dest-cert-dir", directory.to_str().unwrap()];
    let good = || params(&["127.0.0.1"], false);
    let mut expired = good();
    expired.not_before = date_time_ymd(2001, 1, 1);
    expired.not_after = date_time_ymd(2002, 1, 1);
    let mut early = good();
    early.not_before = date_time_ymd(3001, 1, 1);
    early.not_after = date_time_ymd(3002, 1, 1);
    let other = params(&["reg.example", "10.0.0.1"], false);
    for (shown, flags, message, hint) in [
        (made(good()), &[][..], "signed by an unknown authority", "certs.d"),
        (made(good()), &trusting[..], "signed by an unknown authority", "--dest-cert-dir"),
        (authority(&["127.0.0.1"]), &trusting[..], "signed by an unknown authority", "certs.d"),
        (signed(expired, &trusted), &trusting[..], "its certificate has expired", "clock"),
        (signed(early, &trusted), &trusting[..], "its certificate is not valid yet", "clock"),
        (
            signed(other, &trusted),
            &trusting[..],
            "its certificate is for another name: reg.example, 10.0.0.1",
            "name the registry",
        ),
    ] {
        let registry = registry(&shown, None);
        let name = format!("{}/a/b:v1", registry.host);
        let error = push(&store, &name, flags, &[]).unwrap_err();
        assert!(error.contains(&format!("error: https://{}/v2/", registry.host)), "{error}");
        assert!(error.contains(message) && error.contains(hint), "{message}: {error}");
        assert_eq!(registry.requests(), [""; 0]);
        push(&store, &name, &["--dest-tls-verify=false"], &[]).unwrap();
    }
    // This registry has no TLS.
    let plain = Agreeable::start(Setup::default());
    let name = format!("{}/a/b:v1", plain.host);
    let error = push(&store, &name, &["--dest-tls-verify=true"], &[]).unwrap_err();
    assert!(error.contains("it does not use HTTPS, but probably plain HTTP"), "{error}");
    assert!(error.contains("hint: `--dest-tls-verify=false` allows plain HTTP"), "{error}");
}

#[test]
fn registries_may_want_a_certificate_of_their_clients() {
    let store = image();
    let trusted = authority(&["authority"]);
    let client = |by: &Made| {
        let mut params = params(&["client"], false);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        signed(params, by)
    };
    let (known, unknown) = (client(&trusted), client(&authority(&["other"])));
    let registry = registry(&signed(params(&["127.0.0.1"], false), &trusted), Some(&trusted));
    let name = format!("{}/a/b:v1", registry.host);
    let directory = store.root().join("certs");
    let flags = ["--dest-cert-dir", directory.to_str().unwrap()];
    write(&directory.join("ca.crt"), &trusted.cert.pem());
    let error = push(&store, &name, &flags, &[]).unwrap_err();
    assert!(error.contains("it demands a client certificate"), "{error}");
    assert!(error.contains("`client.cert`, `client.key`"), "{error}");
    write(&directory.join("client.cert"), &unknown.cert.pem());
    write(&directory.join("client.key"), &unknown.signing_key.serialize_pem());
    let error = push(&store, &name, &flags, &[]).unwrap_err();
    assert!(error.contains("it refuses the certificate of this client"), "{error}");
    write(&directory.join("client.key"), &known.signing_key.serialize_pem());
    let error = push(&store, &name, &flags, &[]).unwrap_err();
    assert!(error.contains("client.key: not the key of"), "{error}");
    write(&directory.join("client.cert"), &known.cert.pem());
    push(&store, &name, &flags, &[]).unwrap();
    // Like Docker, find the certificates in a directory for the registry.
    let host = store.root().join("home/.config/containers/certs.d").join(&registry.host);
    fs::create_dir_all(host.parent().unwrap()).unwrap();
    fs::rename(&directory, &host).unwrap();
    push(&store, &name, &[], &[]).unwrap();
}
