//! Reads the certificates that are trusted, and those that clients present (containers-certs.d(5);
//! docker, "Verify repository client with certificates").
//! Stage: registry. Reads files. Input: files, directories and a registry's name. Output: rustls's
//! [`ClientConfig`].

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::ResolvesClientCert;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{ClientConfig, SignatureScheme};

use super::certificate_error::CertificateError;
use super::pem_files::files_in;
use super::verifier::{Unverified, Verifier};
use crate::outgoing::RegistryName;
use crate::registry::pem::{self, PemError};

/// The files and directories with certificates. Each may be missing, except for those that the user
/// named.
#[derive(Clone, Debug, Default)]
pub struct Certificates {
    /// The directory that the user named: `*.crt` and `*.pem` are authorities, `NAME.cert` and
    /// `NAME.key` a client's certificate and its key.
    pub directory: Option<PathBuf>,
    /// Directories with a subdirectory for each registry, `HOST[:PORT]`, with the same kinds of
    /// files. The first that has the registry's subdirectory counts. They are not used if there is
    /// a `directory`.
    pub registry_directories: Vec<PathBuf>,
    /// The file of authorities that replace the compiled-in ones.
    pub authorities: Option<PathBuf>,
    /// Directories of files with further authorities.
    pub authority_directories: Vec<PathBuf>,
}

/// The certificates of a directory.
#[derive(Default)]
struct Found {
    authorities: Vec<CertificateDer<'static>>,
    clients: Vec<Arc<CertifiedKey>>,
}

impl Certificates {
    /// Reads the certificates for a registry. With `verify` false, any certificate of the registry
    /// is accepted.
    ///
    /// # Errors
    /// Fails with [`CertificateError`], which names the file, if a file can't be used.
    pub fn client_config(
        &self,
        registry: &RegistryName,
        verify: bool,
    ) -> Result<ClientConfig, CertificateError> {
        let provider = Arc::new(ring::default_provider());
        let found = self.find(registry, &provider)?;
        self.check_directories()?;
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("ring knows the versions of TLS");
        let verifier: Arc<dyn tokio_rustls::rustls::client::danger::ServerCertVerifier> = if verify
        {
            let mut trusted = self.named()?;
            trusted.extend(found.authorities);
            let with_compiled_in = self.authorities.is_none();
            let directories = &self.authority_directories;
            Arc::new(Verifier::new(&provider, trusted, with_compiled_in, directories))
        } else {
            Arc::new(Unverified(provider))
        };
        let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
        let mut config =
            builder.with_client_cert_resolver(Arc::new(ClientCertificates(found.clients)));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// Returns the certificates of the directory for a registry.
    fn find(
        &self,
        registry: &RegistryName,
        provider: &CryptoProvider,
    ) -> Result<Found, CertificateError> {
        if let Some(directory) = &self.directory {
            let found = read_directory(directory, provider)?;
            if found.authorities.is_empty() && found.clients.is_empty() {
                return Err(CertificateError::new(directory, "there is no certificate in it"));
            }
            return Ok(found);
        }
        for directory in &self.registry_directories {
            let directory = directory.join(registry.as_str());
            match fs::read_dir(&directory) {
                Ok(_) => return read_directory(&directory, provider),
                // Some users may not read /etc/docker: skip it then.
                Err(error) if is_skipped(error.kind()) => {}
                Err(error) => return Err(CertificateError::new(&directory, error)),
            }
        }
        Ok(Found::default())
    }

    /// Returns the authorities of the file that the user has named for every registry.
    fn named(&self) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
        let Some(file) = &self.authorities else { return Ok(Vec::new()) };
        pem::certificates(file).map_err(|reason| {
            CertificateError::new(
                file,
                format!("{reason}; SSL_CERT_FILE or NIX_SSL_CERT_FILE names this file"),
            )
        })
    }

    /// Checks that no directory of authorities is something else, without reading its files.
    fn check_directories(&self) -> Result<(), CertificateError> {
        let is_other = |path: &&PathBuf| fs::metadata(path).is_ok_and(|found| !found.is_dir());
        match self.authority_directories.iter().find(is_other) {
            Some(path) => Err(CertificateError::new(
                path,
                "it is no directory; SSL_CERT_DIR names it, and SSL_CERT_FILE names files",
            )),
            None => Ok(()),
        }
    }
}

/// Returns whether a directory that can't be read is skipped, as by Docker and podman.
fn is_skipped(error: io::ErrorKind) -> bool {
    matches!(error, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    pem::certificates(file).map_err(|reason| CertificateError::new(file, reason))
}

/// Presents the first certificate of an authority that the registry names, or else the first that the
/// registry can verify.
#[derive(Debug)]
struct ClientCertificates(Vec<Arc<CertifiedKey>>);

impl ResolvesClientCert for ClientCertificates {
    fn resolve(
        &self,
        authorities: &[&[u8]],
        schemes: &[SignatureScheme],
    ) -> Option<Arc<CertifiedKey>> {
        let mut usable = self.0.iter().filter(|pair| pair.key.choose_scheme(schemes).is_some());
        let is_wanted = |pair: &&Arc<CertifiedKey>| {
            let names = |certificate| authorities.iter().any(|name| holds(certificate, name));
            pair.cert.iter().any(names)
        };
        usable.clone().find(is_wanted).or_else(|| usable.next()).cloned()
    }

    fn has_certs(&self) -> bool {
        !self.0.is_empty()
    }
}

/// Reads the certificates of a directory, by the extensions of its files.
fn read_directory(directory: &Path, provider: &CryptoProvider) -> Result<Found, CertificateError> {
    let files = files_in(directory).map_err(|source| CertificateError::new(directory, source))?;
    let (mut found, mut unused) = (Found::default(), None);
    for file in &files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => found.authorities.extend(certificates(file)?),
            // The file may hold a key, which other programs use.
            Some("pem") => match certificates(file) {
                Ok(authorities) => found.authorities.extend(authorities),
                Err(error) => unused = unused.or(Some(error)),
            },
            Some("cert") => found.clients.push(Arc::new(read_pair(file, provider)?)),
            Some("key") if !files.contains(&file.with_extension("cert")) => {
                return Err(CertificateError::new(
                    file,
                    "the certificate of this key is missing: its name must end in `.cert`",
                ));
            }
            _ => {}
        }
    }
    match unused {
        Some(error) if found.authorities.is_empty() && found.clients.is_empty() => Err(error),
        _ => Ok(found),
    }
}

/// Reads a client's certificate, and the key beside it.
fn read_pair(file: &Path, provider: &CryptoProvider) -> Result<CertifiedKey, CertificateError> {
    let chain = certificates(file)?;
    let key_file = file.with_extension("key");
    let key = pem::key(&key_file).map_err(|source| match source {
        PemError::Read(source) if source.kind() == io::ErrorKind::NotFound => CertificateError::new(
            file,
            format!(
                "its key, {}, is missing; the name of an authority's certificate must end in `.crt`",
                key_file.display()
            ),
        ),
        source => CertificateError::new(&key_file, source),
    })?;
    let key = provider
        .key_provider
        .load_private_key(key)
        .map_err(|source| CertificateError::new(&key_file, source))?;
    // rustls's own comparison takes no certificates of version 1, which `openssl x509 -req` makes.
    let is_its_key = key.public_key().is_none_or(|public| holds(&chain[0], &public));
    if !is_its_key {
        let reason = format!("not the key of {}", file.display());
        return Err(CertificateError::new(&key_file, reason));
    }
    Ok(CertifiedKey::new(chain, key))
}

/// Returns whether a certificate has these bytes of DER, such as a public key or the name of an
/// authority: one of version 1 can't be parsed here.
fn holds(certificate: &CertificateDer, part: &[u8]) -> bool {
    // A registry may send a name of no bytes.
    !part.is_empty() && certificate.windows(part.len()).any(|bytes| bytes == part)
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::PrivateKeyDer;

    use super::*;
    use crate::registry::client::connect::pem_files::certificates_of;

    fn read(directory: &Path) -> Result<(usize, usize), String> {
        let certificates =
            Certificates { directory: Some(directory.to_owned()), ..Certificates::default() };
        let found = certificates.find(&"reg".parse().unwrap(), &ring::default_provider());
        let found = found.map_err(|error| error.to_string())?;
        Ok((found.authorities.len(), found.clients.len()))
    }

    #[test]
    fn certificates_are_found_and_missed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        let missing = |path: &Path, expected: &str| {
            let error = read(path).unwrap_err();
            assert!(error.contains(expected), "{expected}: {error}");
        };
        missing(path, "there is no certificate in it");
        missing(Path::new("/nonexistent"), "/nonexistent: ");
        let [one, other] = ["one", "other"]
            .map(|name| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap());
        fs::write(path.join("ca.crt"), one.cert.pem()).unwrap();
        fs::write(path.join("notes.txt"), "-----BEGIN CERTIFICATE-----").unwrap();
        fs::create_dir(path.join("old.crt")).unwrap();
        assert_eq!(read(path), Ok((1, 0)));
        fs::write(path.join("more.pem"), one.cert.pem() + &other.cert.pem()).unwrap();
        assert_eq!(read(path), Ok((3, 0)));
        // Check a certificate and its key, and each without the other.
        fs::write(path.join("client.cert"), one.cert.pem()).unwrap();
        missing(path, "client.key, is missing");
        fs::write(path.join("client.key"), "").unwrap();
        missing(path, "client.key: there is no key in it");
        fs::write(path.join("client.key"), other.signing_key.serialize_pem()).unwrap();
        missing(path, "client.key: not the key of");
        fs::write(path.join("client.key"), one.signing_key.serialize_pem()).unwrap();
        assert_eq!(read(path), Ok((3, 1)));
        fs::remove_file(path.join("client.cert")).unwrap();
        missing(path, "the certificate of this key is missing");
        fs::remove_file(path.join("client.key")).unwrap();
        // What can't be read is not passed over.
        std::os::unix::fs::symlink("/nonexistent", path.join("link.crt")).unwrap();
        missing(path, "link.crt: No such file");
        fs::remove_file(path.join("link.crt")).unwrap();
        nix::unistd::mkfifo(&path.join("fifo.crt"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        missing(path, "fifo.crt: it is no regular file");
        fs::remove_file(path.join("fifo.crt")).unwrap();
        // A file whose name is that of an authority has to be one.
        fs::write(path.join("der.crt"), one.cert.der()).unwrap();
        missing(path, "der.crt: it is DER, and has to be PEM");
        fs::remove_file(path.join("der.crt")).unwrap();
        fs::write(path.join("mine.pem"), one.signing_key.serialize_pem()).unwrap();
        assert_eq!(read(path), Ok((3, 0)));
        for name in ["ca.crt", "more.pem"] {
            fs::remove_file(path.join(name)).unwrap();
        }
        missing(path, "mine.pem: there is no certificate in it, but `PRIVATE KEY`");
    }

    /// A certificate of version 1, by `openssl x509 -req`, and its key.
    const VERSION_1: [&str; 2] = [
        "-----BEGIN CERTIFICATE-----
MIIBFDCBuwIUdm3S1PvtPt61cdk9FtAxDTtWb5owCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwHhcNMjYxMTI5MDkxOTQyWhcNMzYxMTI2MDkxOTQyWjANMQswCQYD
VQQDDAJ2MTBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABN8laff35agmkNX+XNpT
AAFZ6+wxnY3k7kfZHEODN15mZ8Bwb43mLeM7T/kUwtDxnsVy7TrS6KHH/+2PY1ns
WFAwCgYIKoZIzj0EAwIDSAAwRQIhAL/tUP/fkYB5o1DG4ae6mbm5ZA2y5oYizvuc
cZWPA824AiBNigAjPjPmyJ+2s448QTlrOtgJMBSHXNbb8zO3bWlIHw==
-----END CERTIFICATE-----
",
        "-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgyyVpltgon2bXGDxc
OpU+Ua9o8RLDRxsSu+Ba64OGZPChRANCAATfJWn39+WoJpDV/lzaUwABWevsMZ2N
5O5H2RxDgzdeZmfAcG+N5i3jO0/5FMLQ8Z7Fcu060uihx//tj2NZ7FhQ
-----END PRIVATE KEY-----
",
    ];

    /// Returns a certificate and its key that `name` signed itself.
    fn signed_by(name: &str) -> Arc<CertifiedKey> {
        let mut parameters = rcgen::CertificateParams::default();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = parameters.self_signed(&key).unwrap();
        let signing =
            ring::sign::any_supported_type(&PrivateKeyDer::try_from(key.serialize_der()).unwrap());
        Arc::new(CertifiedKey::new(vec![certificate.der().clone()], signing.unwrap()))
    }

    /// Returns a distinguished name of one common name, in DER (RFC 5280, section 4.1.2.4).
    fn distinguished_name(name: &str) -> Vec<u8> {
        let length = u8::try_from(name.len()).unwrap();
        let oid = [0x06, 3, 0x55, 4, 3];
        let head = [0x30, length + 11, 0x31, length + 9, 0x30, length + 7];
        [&head[..], &oid, &[0x0c, length], name.as_bytes()].concat()
    }

    /// Checks that the certificate is one that the registry asks for, if there is one.
    #[test]
    fn a_registry_names_its_authorities() {
        let certificates = ClientCertificates(["one", "two", "three"].map(signed_by).to_vec());
        let all = [SignatureScheme::ECDSA_NISTP256_SHA256];
        assert!(certificates.resolve(&[b""], &all).is_some());
        for (wanted, expected) in [
            (&[][..], Some(0)),
            (&["two"], Some(1)),
            (&["four", "three", "two"], Some(1)),
            (&["four"], Some(0)),
        ] {
            let names: Vec<_> = wanted.iter().map(|name| distinguished_name(name)).collect();
            let names: Vec<_> = names.iter().map(Vec::as_slice).collect();
            let found = certificates.resolve(&names, &all);
            let found = found
                .and_then(|found| certificates.0.iter().position(|pair| Arc::ptr_eq(pair, &found)));
            assert_eq!(found, expected, "{wanted:?}");
        }
        assert!(certificates.resolve(&[], &[SignatureScheme::ED25519]).is_none());
    }

    #[test]
    fn certificates_of_version_1_are_presented() {
        let directory = tempfile::tempdir().unwrap();
        let [cert, key] = ["client.cert", "client.key"].map(|name| directory.path().join(name));
        fs::write(cert, VERSION_1[0]).unwrap();
        fs::write(&key, VERSION_1[1]).unwrap();
        assert_eq!(read(directory.path()), Ok((0, 1)));
        let other = rcgen::generate_simple_self_signed(["other".to_owned()]).unwrap();
        fs::write(&key, other.signing_key.serialize_pem()).unwrap();
        assert!(read(directory.path()).unwrap_err().contains("client.key: not the key of"));
    }

    #[test]
    fn the_first_directory_of_a_registry_counts() {
        let root = tempfile::tempdir().unwrap();
        let directories = ["a", "b", "c"].map(|name| root.path().join(name));
        let one = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        for (directory, host, count) in
            [(1, "reg:5000", 1), (2, "reg:5000", 2), (2, "reg", 1), (2, "[::1]:5000", 3)]
        {
            let directory = directories[directory].join(host);
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join("ca.crt"), one.cert.pem().repeat(count)).unwrap();
        }
        let certificates =
            Certificates { registry_directories: directories.to_vec(), ..Certificates::default() };
        for (host, count) in [("reg:5000", 1), ("reg", 1), ("[::1]:5000", 3), ("reg:5001", 0)] {
            let found = certificates.find(&host.parse().unwrap(), &ring::default_provider());
            assert_eq!(found.ok().unwrap().authorities.len(), count, "{host}");
        }
    }

    #[test]
    fn authorities_of_the_system_are_read() {
        let root = tempfile::tempdir().unwrap();
        let one = rcgen::generate_simple_self_signed(["one".to_owned()]).unwrap();
        fs::write(root.path().join("1234abcd.0"), one.cert.pem()).unwrap();
        fs::write(root.path().join("README"), "none").unwrap();
        let directories = vec![root.path().to_owned(), "/nonexistent".into()];
        let certificates =
            Certificates { authority_directories: directories, ..Certificates::default() };
        // openssl gives each file a second name.
        std::os::unix::fs::symlink("1234abcd.0", root.path().join("one.pem")).unwrap();
        assert_eq!(certificates_of(&certificates.authority_directories).len(), 1);
        let empty = Certificates {
            authorities: Some(root.path().join("README")),
            ..Certificates::default()
        };
        let error = empty.named().err().unwrap().to_string();
        assert!(error.contains("README: there is no certificate in it; SSL_CERT_FILE"), "{error}");
    }

    /// Checks what a variable may name by mistake: the error comes before any connection.
    #[test]
    fn what_is_no_file_or_no_directory_is_told() {
        let root = tempfile::tempdir().unwrap();
        let (fifo, file) = (root.path().join("fifo"), root.path().join("file"));
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(&file, "").unwrap();
        let of_file = |path: &Path| Certificates {
            authorities: Some(path.to_owned()),
            ..Certificates::default()
        };
        let of_directory = |path: &Path| Certificates {
            authority_directories: vec!["/nonexistent".into(), path.to_owned()],
            ..Certificates::default()
        };
        for (certificates, expected) in [
            (of_file(&fifo), "fifo: it is no regular file; SSL_CERT_FILE"),
            (of_file(root.path()), ": Is a directory (os error 21); SSL_CERT_FILE"),
            (of_directory(&fifo), "fifo: it is no directory; SSL_CERT_DIR"),
            (of_directory(&file), "file: it is no directory; SSL_CERT_DIR"),
        ] {
            let found = certificates.client_config(&"reg".parse().unwrap(), true);
            let error = found.err().unwrap().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let found = of_directory(root.path()).client_config(&"reg".parse().unwrap(), true);
        assert!(found.is_ok());
    }
}
