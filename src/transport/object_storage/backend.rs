//! An object storage by its address.
//! Stage: transport. Input: a URL and the environment. Output: a client.

use std::path::{Path as FilePath, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::signer::Signer;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use tokio_rustls::rustls::crypto::ring;

use super::answer::Answer;
use super::error::StorageError;

/// How long there may be no connection, and no answer to a request. A part of an upload arrives
/// in that time at 1.4 Mbit/s.
const CONNECT: Duration = Duration::from_secs(5);
const REQUEST: Duration = Duration::from_secs(30);
/// How often a request is repeated, and for how long one begins to.
const RETRIES: usize = 4;
const RETRYING: Duration = Duration::from_secs(45);
const FIRST_WAIT: Duration = Duration::from_millis(200);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// A storage, and what this program may know of it.
pub struct Backend {
    /// Its address for messages.
    pub address: String,
    /// Reads and writes.
    pub store: Arc<dyn ObjectStore>,
    /// Signs addresses of objects, if it can.
    pub signer: Option<Arc<dyn Signer>>,
    /// What the names of all objects begin with.
    pub prefix: Path,
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

impl Backend {
    /// Makes a client, and asks for nothing yet.
    pub fn new(
        url: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<Self, StorageError> {
        let address = Address::parse(url)
            .map_err(|reason| StorageError::Url { url: without_secrets(url), reason })?;
        // For who makes clients without to say which: the only one that is linked. That there is
        // one already is as good.
        let _ = ring::default_provider().install_default();
        let retry = RetryConfig {
            backoff: BackoffConfig {
                init_backoff: FIRST_WAIT,
                max_backoff: LONGEST_WAIT,
                base: 2.,
            },
            max_retries: RETRIES,
            retry_timeout: RETRYING,
        };
        let client = ClientOptions::new().with_connect_timeout(CONNECT).with_timeout(REQUEST);
        let environment = environment.into_iter().collect::<Vec<_>>();
        let built = match address {
            Address::S3 { bucket, prefix } => {
                let builder = AmazonS3Builder::new().with_client_options(client).with_retry(retry);
                let set = |builder: AmazonS3Builder, key, value| builder.with_config(key, value);
                let builder = configure(builder, &environment, "AWS_", set);
                builder.with_bucket_name(bucket).build().map(|store| Built::cloud(store, prefix))
            }
            Address::Google { bucket, prefix } => {
                let builder =
                    GoogleCloudStorageBuilder::new().with_client_options(client).with_retry(retry);
                let set = |builder: GoogleCloudStorageBuilder, key, value| {
                    builder.with_config(key, value)
                };
                let builder = configure(builder, &environment, "GOOGLE_", set);
                builder.with_bucket_name(bucket).build().map(|store| Built::cloud(store, prefix))
            }
            Address::Azure { container, prefix } => {
                let builder =
                    MicrosoftAzureBuilder::new().with_client_options(client).with_retry(retry);
                let set =
                    |builder: MicrosoftAzureBuilder, key, value| builder.with_config(key, value);
                let builder = configure(builder, &environment, "AZURE_", set);
                builder
                    .with_container_name(container)
                    .build()
                    .map(|store| Built::cloud(store, prefix))
            }
            Address::Directory(directory) => {
                if !directory.is_dir() {
                    return Err(StorageError::NoBucket { storage: url.to_owned() });
                }
                // An object has its name when its bytes are on the disk, also after a power failure.
                LocalFileSystem::new_with_prefix(directory)
                    .map(|store| Built::directory(store.with_fsync(true)))
            }
        };
        let Built { store, signer, prefix } = built.map_err(|error| StorageError::Settings {
            storage: url.to_owned(),
            reason: Answer::of(&error).reason,
        })?;
        Ok(Self { address: url.trim_end_matches('/').to_owned(), store, signer, prefix })
    }
}

struct Built {
    store: Arc<dyn ObjectStore>,
    signer: Option<Arc<dyn Signer>>,
    prefix: Path,
}

impl Built {
    fn cloud(store: impl ObjectStore + Signer, prefix: Path) -> Self {
        let store = Arc::new(store);
        Self { store: Arc::clone(&store) as _, signer: Some(store), prefix }
    }

    fn directory(store: LocalFileSystem) -> Self {
        Self { store: Arc::new(store), signer: None, prefix: Path::default() }
    }
}

/// As the crate's own `from_env`, of any environment.
fn configure<B, K: FromStr>(
    builder: B,
    environment: &[(String, String)],
    prefix: &str,
    set: impl Fn(B, K, String) -> B,
) -> B {
    let ours = environment.iter().filter(|(name, _)| name.starts_with(prefix));
    ours.fold(builder, |builder, (name, value)| match name.to_ascii_lowercase().parse() {
        Ok(key) => set(builder, key, value.clone()),
        // Others have variables of these names, too.
        Err(_) => builder,
    })
}

/// What could be a password is in front of an `@`, or behind a `?`.
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
            ("s3://bucket/a//b", "s3://bucket/a//b", "empty"),
            ("s3://key:secret@bucket", "s3://…@bucket", "credentials"),
            ("s3://bucket?sig=secret", "s3://bucket", "credentials"),
        ] {
            let error = Backend::new(url, []).err().unwrap();
            let StorageError::Url { url: found, reason } = &error else { panic!("{error}") };
            assert_eq!(found, shown);
            assert!(reason.contains(message), "{reason}");
            assert!(!error.to_string().contains("secret"));
        }
    }

    #[test]
    fn settings_come_from_the_environment() {
        let environment =
            [("AWS_ENDPOINT", "http://127.0.0.1:1"), ("AWS_UNKNOWN", "x"), ("PATH", "/")];
        let environment = environment.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let backend = Backend::new("s3://bucket/a/", environment).unwrap();
        assert_eq!(backend.address, "s3://bucket/a");
        assert_eq!(backend.prefix.as_ref(), "a");
        assert!(backend.signer.is_some());
    }
}
