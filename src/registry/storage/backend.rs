//! Opens an object storage by its address.
//! Stage: registry. Input: a URL and the environment. Output: a client.

use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use axum::http::Uri;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{BackoffConfig, Certificate, ClientOptions, ObjectStore, RetryConfig};
use tokio_rustls::rustls::crypto::ring;
use webpki_root_certs::TLS_SERVER_ROOT_CERTS;

use super::answer::StorageAnswer;
use super::error::StorageError;

/// The longest time to wait for a connection.
const CONNECT: Duration = Duration::from_secs(5);
/// The number of times that a request is repeated.
const RETRIES: usize = 4;
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The time limits for a storage.
#[derive(Clone, Copy, Debug)]
pub struct BackendLimits {
    /// The limit for a request and its whole answer.
    pub request: Duration,
    /// The time after which no further attempt begins.
    pub retrying: Duration,
    /// The limit for the next bytes of a blob that is passed on. The whole blob may take any time.
    pub silence: Duration,
}

impl Default for BackendLimits {
    fn default() -> Self {
        Self {
            // At 1.4 Mbit/s, a part of an upload arrives in this time.
            request: Duration::from_secs(30),
            retrying: Duration::from_secs(45),
            silence: Duration::from_secs(30),
        }
    }
}

/// A storage, with the clients that access it.
pub struct Backend {
    /// The address, for messages.
    pub address: String,
    /// The client that reads and writes.
    pub store: Arc<dyn ObjectStore>,
    /// The client that reads blobs that are passed on, in any time: it has no limits. A read that
    /// breaks off is resumed [`RETRIES`] times.
    pub reader: Arc<dyn ObjectStore>,
    /// The limit [`BackendLimits::silence`].
    pub silence: Duration,
    /// Signs addresses of objects, if the storage supports that.
    pub signer: Option<Arc<dyn Signer>>,
    /// The prefix of the names of all objects.
    pub prefix: Path,
    /// The directory that is the storage, if it is one.
    pub directory: Option<PathBuf>,
}

/// A storage's address.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Address {
    S3 { bucket: String, prefix: Path },
    Google { bucket: String, prefix: Path },
    Azure { container: String, prefix: Path },
    Directory(PathBuf),
}

impl Address {
    fn parse(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("there is no `://` in it")?;
        if let Some(bad) = rest.chars().find(|c| matches!(c, '@' | '?' | '#')) {
            return Err(format!(
                "credentials and settings are no part of it, and it has a `{bad}`"
            ));
        }
        if scheme == "file" {
            let directory = FilePath::new(rest);
            return if directory.is_absolute() {
                Ok(Self::Directory(directory.to_owned()))
            } else {
                Err("a directory begins with `/`".to_owned())
            };
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err("it names no bucket".to_owned());
        }
        let in_names = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !bucket.chars().all(in_names) {
            return Err("a bucket's name has letters, digits, `.`, `-` and `_`".to_owned());
        }
        let (bucket, prefix) =
            (bucket.to_owned(), Path::parse(prefix).map_err(|error| error.to_string())?);
        match scheme {
            "s3" => Ok(Self::S3 { bucket, prefix }),
            "gs" => Ok(Self::Google { bucket, prefix }),
            "az" => Ok(Self::Azure { container: bucket, prefix }),
            _ => Err(format!("`{scheme}:` is not known here")),
        }
    }
}

impl Address {
    /// Returns the environment variables that the storage's client knows.
    fn settings(
        &self,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Vec<(String, String)>, String> {
        let is_known: fn(&str) -> bool = match self {
            Self::S3 { .. } => is_key::<AmazonS3ConfigKey>,
            Self::Google { .. } => is_key::<GoogleConfigKey>,
            Self::Azure { .. } => is_key::<AzureConfigKey>,
            Self::Directory(_) => |_| false,
        };
        let prefix = match self {
            Self::S3 { .. } => "AWS_",
            Self::Google { .. } => "GOOGLE_",
            Self::Azure { .. } => "AZURE_",
            Self::Directory(_) => "",
        };
        // Like most programs, treat an empty variable as unset.
        let settings = environment.into_iter().filter(|(name, value)| {
            name.starts_with(prefix) && !value.is_empty() && is_known(name)
        });
        settings.map(|(name, value)| check(&name, &value).map(|()| (name, value))).collect()
    }
}

fn is_key<K: FromStr>(name: &str) -> bool {
    name.to_ascii_lowercase().parse::<K>().is_ok()
}

impl Backend {
    /// Makes the clients, and sends no request yet.
    pub fn new(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
        limits: BackendLimits,
    ) -> Result<Self, StorageError> {
        let address = Address::parse(url)
            .map_err(|reason| StorageError::Url { url: without_secrets(url), reason })?;
        let storage = url.trim_end_matches('/').to_owned();
        let settings = match address.settings(environment) {
            Ok(settings) => settings,
            Err(reason) => return Err(StorageError::Settings { storage, reason }),
        };
        if matches!(&address, Address::Directory(directory) if !directory.is_dir()) {
            return Err(StorageError::NoBucket { storage });
        }
        // Choose the provider for clients that do not choose one: the only one that is linked. If
        // one was chosen before, that is fine too.
        let _ = ring::default_provider().install_default();
        let client = ClientOptions::new().with_connect_timeout(CONNECT);
        let build = |client: ClientOptions, retrying| {
            match Built::new(&address, client.clone(), retrying, &settings) {
                // A container may have no certificates, and needs none without TLS.
                Err(error) if StorageAnswer::of(&error).reason.contains("No CA certificates") => {
                    Built::new(&address, with_own_certificates(client), retrying, &settings)
                }
                built => built,
            }
        };
        let BackendLimits { request, retrying, silence } = limits;
        let built = build(client.clone().with_timeout(request), retrying).and_then(|built| {
            // The client's own limit would also count the time in which the receiver reads nothing.
            let reader = build(client.with_timeout_disabled(), Duration::MAX)?;
            Ok((built, reader.store))
        });
        match built {
            Ok((Built { store, signer, prefix }, reader)) => {
                let directory = match address {
                    Address::Directory(directory) => Some(directory),
                    _ => None,
                };
                Ok(Self { address: storage, store, reader, silence, signer, prefix, directory })
            }
            Err(error) => {
                let reason = StorageAnswer::of(&error).reason;
                Err(StorageError::Settings { storage, reason })
            }
        }
    }
}

struct Built {
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
}

impl Built {
    fn new(
        address: &Address,
        client: ClientOptions,
        retrying: Duration,
        settings: &[(String, String)],
    ) -> object_store::Result<Self> {
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: FIRST_WAIT,
                max_backoff: LONGEST_WAIT,
                base: 2.,
            },
            max_retries: RETRIES,
            retry_timeout: retrying,
        };
        match address {
            Address::S3 { bucket, prefix } => {
                let builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
                let builder = configure(builder, settings, AmazonS3Builder::with_config);
                Ok(Self::cloud(builder.with_bucket_name(bucket).build()?, prefix))
            }
            Address::Google { bucket, prefix } => {
                let builder = GoogleCloudStorageBuilder::new();
                let builder = builder.with_client_options(client).with_retry(retry);
                let set = GoogleCloudStorageBuilder::with_config;
                let builder = configure(builder, settings, set);
                Ok(Self::cloud(builder.with_bucket_name(bucket).build()?, prefix))
            }
            Address::Azure { container, prefix } => {
                let builder = MicrosoftAzureBuilder::new();
                let builder = builder.with_client_options(client).with_retry(retry);
                let set = MicrosoftAzureBuilder::with_config;
                let builder = configure(builder, settings, set);
                Ok(Self::cloud(builder.with_container_name(container).build()?, prefix))
            }
            Address::Directory(directory) => {
                let store = LocalFileSystem::new_with_prefix(directory)?;
                // An object gets its name when its bytes are on the disk, to survive a power
                // failure.
                Ok(Self::directory(store.with_fsync(true)))
            }
        }
    }

    fn cloud(store: impl ObjectStore + Signer, prefix: &Path) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as _, signer: Some(store), prefix: prefix.clone() }
    }

    fn directory(store: LocalFileSystem) -> Self {
        Self { store: Arc::new(store), signer: None, prefix: Path::default() }
    }
}

/// Trusts the compiled-in certificates, as the registry client does.
fn with_own_certificates(client: ClientOptions) -> ClientOptions {
    let certificates = TLS_SERVER_ROOT_CERTS.iter();
    let certificates = certificates.filter_map(|bytes| Certificate::from_der(bytes).ok());
    certificates.fold(client, ClientOptions::with_root_certificate)
}

/// Configures a builder like its own `from_env`, from any environment variables.
fn configure<B, K: FromStr>(
    builder: B,
    settings: &[(String, String)],
    set: impl Fn(B, K, String) -> B,
) -> B {
    settings.iter().fold(builder, |builder, (name, value)| {
        match name.to_ascii_lowercase().parse() {
            Ok(key) => set(builder, key, value.clone()),
            Err(_) => builder,
        }
    })
}

/// Finds values for which the clients have no error: they panic, or report a wrong signature. The
/// message does not have the value, which may be a secret.
fn check(name: &str, value: &str) -> Result<(), String> {
    // Only these variables may have several lines.
    let is_line = !name.starts_with("GOOGLE_") && !name.contains("CERTIFICATE");
    if is_line && value.contains(char::is_control) {
        return Err(format!("{name} has a line break in it, or another control character"));
    }
    let is_host = name.contains("REGION") || name.contains("ACCOUNT_NAME");
    if is_host && !value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
        return Err(format!("{name} has other characters than letters, digits and `-`"));
    }
    let is_url = name.contains("ENDPOINT") && !name.contains("USE_");
    let parsed = value.parse::<Uri>();
    let good = parsed.is_ok_and(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
    });
    if is_url && !good {
        return Err(format!("{name} is no address, such as `https://storage.example.org`"));
    }
    Ok(())
}

/// Removes from an address what may be a password: the text before an `@` and after a `?`.
fn without_secrets(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://…@{rest}"),
        (None, Some((_, rest))) => format!("…@{rest}"),
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let (bucket, prefix) = ("b".to_owned(), Path::from("p/q"));
        for (url, expected) in [
            ("s3://b/p/q", Address::S3 { bucket: bucket.clone(), prefix: prefix.clone() }),
            ("s3://b/p/q/", Address::S3 { bucket: bucket.clone(), prefix: prefix.clone() }),
            ("s3://b", Address::S3 { bucket: bucket.clone(), prefix: Path::default() }),
            ("gs://b/p/q", Address::Google { bucket: bucket.clone(), prefix: prefix.clone() }),
            ("az://b/p/q", Address::Azure { container: bucket, prefix }),
            ("file:///p/q", Address::Directory("/p/q".into())),
        ] {
            assert_eq!(Address::parse(url), Ok(expected), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_is_told() {
        for (url, shown, message) in [
            ("bucket", "bucket", "://"),
            ("ftp://bucket", "ftp://bucket", "ftp:"),
            ("s3:///prefix", "s3:///prefix", "no bucket"),
            ("file://directory", "file://directory", "begins with `/`"),
            ("s3://a bucket", "s3://a bucket", "letters"),
            ("s3://bucket/a//b", "s3://bucket/a//b", "empty"),
            ("s3://key:secret@bucket", "s3://…@bucket", "credentials"),
            ("s3://bucket?sig=secret", "s3://bucket", "credentials"),
        ] {
            let error = Backend::new(url, [], BackendLimits::default()).err().unwrap();
            let StorageError::Url { url: found, reason } = &error else { panic!("{error}") };
            assert_eq!(found, shown);
            assert!(reason.contains(message), "{reason}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    fn environment(variables: &[(&str, &str)]) -> Vec<(String, String)> {
        variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn settings_come_from_the_environment() {
        let new = |url, variables| Backend::new(url, variables, BackendLimits::default());
        for (url, variables) in [
            (
                "s3://bucket/a/",
                &[
                    ("AWS_ENDPOINT", "http://127.0.0.1:1"),
                    ("AWS_REGION", ""),
                    ("AWS_S3_US_EAST_1_REGIONAL_ENDPOINT", "legacy"),
                    ("AZURE_STORAGE_ENDPOINT", "what?"),
                    ("PATH", "/"),
                ][..],
            ),
            (
                "az://bucket/a",
                &[
                    ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
                    ("AZURE_STORAGE_ACCOUNT_KEY", "c2VjcmV0"),
                ],
            ),
            ("gs://bucket/a", &[("GOOGLE_SKIP_SIGNATURE", "true")]),
        ] {
            let backend = new(url, environment(variables)).unwrap();
            assert_eq!(backend.address, url.trim_end_matches('/'));
            assert_eq!(backend.prefix.as_ref(), "a");
            assert!(backend.signer.is_some());
        }
        let variables = environment(&[("AWS_ENDPOINT", "what?")]);
        let error = new("s3://bucket", variables.clone()).err().unwrap();
        assert!(matches!(&error, StorageError::Settings { .. }), "{error}");
        assert!(error.to_string().contains("AWS_ENDPOINT"), "{error}");
        new("file:///", variables).unwrap();
    }

    #[test]
    fn settings_are_checked() {
        for (name, value, good) in [
            ("AWS_ENDPOINT", "http://127.0.0.1:9000", true),
            ("AWS_ENDPOINT_URL_S3", "https://storage.example.org/a", true),
            ("AWS_ENDPOINT", "storage.example.org", false),
            ("AWS_ENDPOINT", "what?", false),
            ("AWS_SECRET_ACCESS_KEY", "secret", true),
            ("AWS_SECRET_ACCESS_KEY", "secret\n", false),
            ("AWS_REGION", "eu-central-1", true),
            ("AWS_REGION", "eu/secret", false),
            ("AZURE_USE_FABRIC_ENDPOINT", "true", true),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "{\n}", true),
        ] {
            let checked = check(name, value);
            assert_eq!(checked.is_ok(), good, "{name}={value}");
            let message = checked.err().unwrap_or_default();
            assert!(!message.contains("secret"), "{message}");
        }
    }
}
