use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use stowage::digest::{BlobDigest, Digest};
use stowage::error::Hint;
use stowage::oci::{Form, Image, ImageSpec};
use stowage::outgoing::{Error, RepositoryName};
use stowage::registry::storage::{BlobSource, ImageKey, ObjectStorage, StorageError, StorageKeys};
use stowage::store::StorePath;
use tokio_stream::StreamExt;

use crate::s3::{self, Mode, S3, SECRET_KEY};
use crate::support::{FakeStore, odd_tree};

/// The size in bytes of a layer that is sent in parts.
const BIG: usize = 13 << 20;

fn name(text: &str) -> RepositoryName {
    text.parse().unwrap()
}

fn key(tag: &str) -> ImageKey {
    ImageKey::new(&tag.parse().unwrap(), "")
}

/// An image of a large layer and small ones.
struct Built {
    store: FakeStore,
    spec: Arc<ImageSpec>,
    big: StorePath,
}

impl Built {
    fn new() -> Self {
        let mut store = FakeStore::new();
        store.add('1', "tree", &[], odd_tree);
        let bytes: Vec<u8> = (0..BIG as u64 / 8).flat_map(|word| word.to_le_bytes()).collect();
        let big = store.add('2', "big", &[], |path| fs::write(path, bytes).unwrap());
        store.build("{}");
        let spec = Arc::new(ImageSpec::read(&store.root().join("image.json")).unwrap());
        Self { store, spec, big }
    }

    async fn put(
        &self,
        storage: &ObjectStorage,
    ) -> Result<stowage::registry::storage::Stored, StorageError> {
        storage.put_image(&self.store.store(), &self.spec, &name("shell/git"), &key("latest")).await
    }

    /// Returns the digests of all parts of the image.
    fn blobs(&self) -> Vec<BlobDigest> {
        let image = Image::new(&self.spec);
        let layers = self.spec.layers.iter().map(|layer| layer.blob(Form::AsStored).digest);
        layers.chain([image.config.digest, image.manifest.digest]).collect()
    }

    fn big_layer(&self) -> BlobDigest {
        let layers = self.spec.layers.iter().map(|layer| layer.blob(Form::AsStored));
        layers.max_by_key(|blob| blob.size).unwrap().digest
    }

    fn change_big(&self) {
        let file = self.store.store().physical(&self.big);
        let mut bytes = fs::read(&file).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(file, bytes).unwrap();
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_io()
        .enable_time()
        .build()
        .unwrap();
    runtime.block_on(work)
}

async fn open(s3: &S3) -> ObjectStorage {
    ObjectStorage::open_in(&s3.url(), s3.environment()).await.unwrap()
}

fn name_of(digest: &BlobDigest) -> String {
    format!("blobs/sha256/{}", digest.digest().hex())
}

/// Reads a blob as a client does, which knows nothing of the storage.
async fn fetch(
    storage: &ObjectStorage,
    digest: &BlobDigest,
    range: Option<Range<u64>>,
) -> Option<Vec<u8>> {
    let source = storage.blob(digest, range.clone()).await.unwrap()?;
    let size = source.size();
    match source {
        BlobSource::Url { url, .. } => {
            let mut request = ureq::get(url.as_str());
            if let Some(Range { start, end }) = range {
                request = request.header("Range", format!("bytes={start}-{}", end - 1));
            }
            let get = move || {
                request.call().unwrap().body_mut().with_config().limit(1 << 30).read_to_vec()
            };
            let bytes = tokio::task::spawn_blocking(get).await.unwrap().unwrap();
            assert!(bytes.len() as u64 <= size);
            Some(bytes)
        }
        BlobSource::Stream { mut body, range, .. } => {
            let mut bytes = Vec::new();
            while let Some(chunk) = body.next().await {
                bytes.extend_from_slice(&chunk.unwrap());
            }
            assert_eq!(bytes.len() as u64, range.end - range.start);
            Some(bytes)
        }
    }
}

/// Checks the properties of every storage.
async fn stores_an_image(storage: &ObjectStorage) {
    let built = Built::new();
    let image = Image::new(&built.spec);
    assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
    assert_eq!(fetch(storage, &built.big_layer(), None).await, None);

    let stored = built.put(storage).await.unwrap();
    assert_eq!(stored.manifest, image.manifest.digest);
    assert_eq!((stored.layers_sent, stored.layers_skipped), (built.spec.layers.len(), 0));
    let mut sent = 0;
    for digest in built.blobs() {
        let bytes = fetch(storage, &digest, None).await.unwrap();
        assert_eq!(Digest::of(&bytes), *digest.digest());
        sent += bytes.len() as u64;
        let end = bytes.len() as u64;
        for Range { start, end } in [0..1, 1..end, end / 2..end - 1] {
            let part = fetch(storage, &digest, Some(start..end)).await.unwrap();
            assert_eq!(part, bytes[start as usize..end as usize]);
        }
    }
    assert_eq!(stored.bytes_sent, sent);

    let found = storage.image(&name("shell/git"), &key("latest")).await.unwrap().unwrap();
    assert_eq!(found.digest, image.manifest.digest);
    assert_eq!(found.bytes, image.manifest.bytes);
    assert_eq!(found.media_type, image.descriptor().media_type().to_string());
    let age = time::OffsetDateTime::now_utc() - found.stored;
    assert!(age.abs() < Duration::from_secs(60), "{age}");
    let manifest = storage.document(&found.digest).await.unwrap().unwrap();
    assert_eq!((manifest.bytes, manifest.media_type), (found.bytes, Some(found.media_type)));
    let config = storage.document(&image.config.digest).await.unwrap().unwrap();
    assert_eq!((&*config.bytes, config.media_type), (&*image.config.bytes, None));
    // A layer is not a document.
    assert_eq!(storage.document(&built.big_layer()).await.unwrap(), None);
    for (other, tag) in [("shell/git", "v1"), ("shell", "git"), ("shell/git/latest", "latest")] {
        let found = storage.image(&name(other), &key(tag)).await.unwrap();
        assert_eq!(found, None, "{other} {tag}");
    }
    // A name may begin with another name.
    storage
        .put_image(&built.store.store(), &built.spec, &name("shell"), &key("git"))
        .await
        .unwrap();
    assert!(storage.image(&name("shell"), &key("git")).await.unwrap().is_some());
}

#[test]
fn an_image_is_stored_in_a_bucket() {
    let s3 = S3::start();
    block_on(async { stores_an_image(&open(&s3).await).await });
    assert_eq!(s3.unfinished(), 0);
}

#[test]
fn an_image_is_stored_in_a_directory() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    block_on(async { stores_an_image(&ObjectStorage::open(&url).await.unwrap()).await });
}

#[test]
fn what_is_there_is_not_sent_again() {
    let (s3, built) = (S3::start(), Built::new());
    block_on(async {
        built.put(&open(&s3).await).await.unwrap();
        // Another server opens the same storage.
        let storage = open(&s3).await;
        s3.requests();
        let stored = built.put(&storage).await.unwrap();
        assert_eq!((stored.layers_sent, stored.bytes_sent), (0, 0));
        assert_eq!(stored.layers_skipped, built.spec.layers.len());
        let written = s3.requests().into_iter().filter(|request| !request.starts_with("GET"));
        let written: Vec<_> = written.filter(|request| !request.starts_with("HEAD")).collect();
        // Only two pointers are written again: the one that lists the manifest, and the one of the
        // tag.
        let digest = stored.manifest.digest().hex();
        let listed = format!("PUT /images/a/prefix/images/shell/git/_manifests/{digest}");
        assert_eq!(
            written,
            [&*listed, "PUT /images/a/prefix/images/shell/git/_keys/latest-e3b0c44298fc1c14"]
        );
    });
}

#[test]
fn what_is_broken_is_sent_again() {
    let (s3, built) = (S3::start(), Built::new());
    let image = Image::new(&built.spec);
    block_on(async {
        let storage = open(&s3).await;
        built.put(&storage).await.unwrap();
        fs::write(s3.file(&name_of(&built.big_layer())), "half").unwrap();
        fs::write(s3.file(&name_of(&image.manifest.digest)), "{}").unwrap();
        let error = storage.image(&name("shell/git"), &key("latest")).await.unwrap_err();
        assert!(matches!(error, StorageError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(&image.manifest.digest.to_string()), "{error}");
        let stored = built.put(&storage).await.unwrap();
        assert_eq!(stored.layers_sent, 1);
        for digest in built.blobs() {
            let bytes = fetch(&storage, &digest, None).await.unwrap();
            assert_eq!(Digest::of(&bytes), *digest.digest());
        }
        fs::remove_file(s3.file(&name_of(&image.manifest.digest))).unwrap();
        assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
    });
}

/// Checks that an attacker who can write to the storage but has no key can't change the meaning of
/// a name.
#[test]
fn only_what_servers_signed_is_believed() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    fs::create_dir(path("bucket")).unwrap();
    let url = format!("file://{}", path("bucket").display());
    let key_file = |name: &str, text: &str| {
        fs::write(path(name), text.repeat(32)).unwrap();
        path(name)
    };
    let (old, new) = (key_file("old", "a"), key_file("new", "b"));
    let built = Built::new();
    block_on(async {
        let open = async |files: &[&std::path::PathBuf]| {
            let files: Vec<_> = files.iter().map(|file| (*file).clone()).collect();
            ObjectStorage::open_with(&url, StorageKeys::read(&files).unwrap()).await.unwrap()
        };
        let found = async |storage: &ObjectStorage, image: &str, tag: &str| {
            storage.image(&name(image), &key(tag)).await.unwrap().is_some()
        };
        let keys = |name: &str| path("bucket/images").join(name).join("_keys");
        // An image that was stored without a key is ignored; one that was stored with it is found.
        built.put(&ObjectStorage::open(&url).await.unwrap()).await.unwrap();
        let storage = open(&[&old]).await;
        assert!(!found(&storage, "shell/git", "latest").await);
        built.put(&storage).await.unwrap();
        assert!(found(&storage, "shell/git", "latest").await);
        // The pointer of another tag or another name is ignored.
        let pointer = fs::read_to_string(keys("shell/git").join(key("latest").as_str())).unwrap();
        fs::write(keys("shell/git").join(key("v1").as_str()), &pointer).unwrap();
        fs::create_dir_all(keys("other")).unwrap();
        fs::write(keys("other").join("latest"), &pointer).unwrap();
        assert!(!found(&storage, "shell/git", "v1").await);
        assert!(!found(&storage, "other", "latest").await);
        // An older pointer is ignored after the newer one was seen.
        let begin = Instant::now();
        loop {
            built.put(&storage).await.unwrap();
            if fs::read_to_string(keys("shell/git").join(key("latest").as_str())).unwrap()
                != pointer
            {
                break;
            }
            assert!(begin.elapsed() < Duration::from_secs(60));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert!(found(&storage, "shell/git", "latest").await);
        fs::write(keys("shell/git").join(key("latest").as_str()), &pointer).unwrap();
        assert!(!found(&storage, "shell/git", "latest").await);
        // A pointer of another key is ignored, unless the old key is accepted as well.
        let next = open(&[&new]).await;
        assert!(!found(&next, "shell/git", "latest").await);
        let both = open(&[&new, &old]).await;
        assert!(found(&both, "shell/git", "latest").await);
        built.put(&both).await.unwrap();
        assert!(found(&open(&[&new]).await, "shell/git", "latest").await);
    });
}

/// Checks that blobs of one repository are not found under the name of another repository.
#[test]
fn blobs_are_those_of_their_repositories() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    let built = Built::new();
    block_on(async {
        let storage = ObjectStorage::open(&url).await.unwrap();
        let manifest = built.put(&storage).await.unwrap().manifest;
        // Another server, which has not been asked for any tag.
        let other = ObjectStorage::open(&url).await.unwrap();
        assert!(other.size().await.unwrap() > BIG as u64);
        for digest in built.blobs() {
            for storage in [&storage, &other] {
                assert!(storage.has(&name("shell/git"), &digest).await.unwrap());
                assert!(!storage.has(&name("shell"), &digest).await.unwrap());
                assert!(!storage.has(&name("shell/git/x"), &digest).await.unwrap());
            }
        }
        assert!(other.has_manifest(&name("shell/git"), &manifest).await.unwrap());
        assert!(!other.has_manifest(&name("shell"), &manifest).await.unwrap());
        assert!(!other.has_manifest(&name("shell/git"), &built.big_layer()).await.unwrap());
    });
}

/// Checks a blob whose bytes were altered and whose size is right: a client never gets all of it,
/// and the image is stored again.
#[test]
fn a_damaged_blob_is_not_passed_on_and_is_stored_again() {
    let built = Built::new();
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    block_on(async {
        let storage = ObjectStorage::open(&url).await.unwrap();
        built.put(&storage).await.unwrap();
        let digest = built.big_layer();
        let file = directory.path().join(name_of(&digest));
        let mut bytes = fs::read(&file).unwrap();
        bytes[100] ^= 1;
        fs::write(&file, bytes).unwrap();
        let source = storage.blob(&digest, None).await.unwrap().unwrap();
        let size = source.size();
        let BlobSource::Stream { mut body, .. } = source else { panic!("{source:?}") };
        let (mut got, mut failed) = (0, false);
        while let Some(chunk) = body.next().await {
            match chunk {
                Ok(chunk) => got += chunk.len() as u64,
                Err(_) => failed = true,
            }
        }
        assert!(failed && got < size, "{got} of {size}");
        // The object is removed in the background.
        while file.exists() {
            tokio::task::yield_now().await;
        }
        assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
        assert_eq!(built.put(&storage).await.unwrap().layers_sent, 1);
        let bytes = fetch(&storage, &digest, None).await.unwrap();
        assert_eq!(Digest::of(&bytes), *digest.digest());
        assert!(storage.image(&name("shell/git"), &key("latest")).await.unwrap().is_some());

        // An object was removed by another program, and a client asks for a blob of the image.
        fs::remove_file(&file).unwrap();
        assert_eq!(fetch(&storage, &digest, None).await, None);
        let manifest = Image::new(&built.spec).manifest.bytes;
        storage.note_missing(&digest, std::iter::once(&manifest[..]));
        assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
        assert_eq!(built.put(&storage).await.unwrap().layers_sent, 1);
        // A missing blob that no image names has no effect.
        storage.note_missing(&BlobDigest::new(Digest::of(b"x")), std::iter::once(&manifest[..]));
        assert!(storage.image(&name("shell/git"), &key("latest")).await.unwrap().is_some());
    });
}

/// Checks what may have the place of a blob in a directory: a blob without bytes, which counts as missing
/// and is stored again, and what is no file, which is an error that comes at once.
#[test]
fn what_is_no_blob_is_told() {
    let built = Built::new();
    let directory = tempfile::tempdir().unwrap();
    let url = format!("file://{}", directory.path().display());
    block_on(async {
        let storage = ObjectStorage::open(&url).await.unwrap();
        built.put(&storage).await.unwrap();
        let digest = built.big_layer();
        let file = directory.path().join(name_of(&digest));
        fs::write(&file, "").unwrap();
        assert_eq!(fetch(&storage, &digest, None).await, None);
        assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
        assert_eq!(built.put(&storage).await.unwrap().layers_sent, 1);
        assert!(fetch(&storage, &digest, None).await.is_some());
        let image = Image::new(&built.spec);
        for digest in [digest, image.manifest.digest] {
            let file = directory.path().join(name_of(&digest));
            for kind in ["a FIFO", "a directory"] {
                fs::remove_file(&file).unwrap();
                match kind {
                    "a FIFO" => nix::unistd::mkfifo(&file, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                    _ => fs::create_dir(&file).unwrap(),
                }
                let expected = format!(
                    "{} in {url} is damaged: expected a file, found {kind}",
                    name_of(&digest)
                );
                let error = storage.blob(&digest, None).await.err().unwrap();
                assert_eq!(error.to_string(), expected);
                let error = storage.document(&digest).await.err().unwrap();
                assert_eq!(error.to_string(), expected);
                match kind {
                    "a FIFO" => fs::remove_file(&file).unwrap(),
                    _ => fs::remove_dir(&file).unwrap(),
                }
                built.put(&storage).await.unwrap();
            }
        }
    });
}

#[test]
fn several_may_store_the_same_image() {
    let (s3, built) = (S3::start(), Built::new());
    block_on(async {
        let (one, other) = (open(&s3).await, open(&s3).await);
        s3.requests();
        let (first, second, third) =
            tokio::join!(built.put(&one), built.put(&one), built.put(&other));
        let (first, second, third) = (first.unwrap(), second.unwrap(), third.unwrap());
        // A process sends nothing twice.
        assert_eq!(first.layers_sent + second.layers_sent, built.spec.layers.len());
        assert_eq!(first.manifest, third.manifest);
        for digest in built.blobs() {
            let bytes = fetch(&other, &digest, None).await.unwrap();
            assert_eq!(Digest::of(&bytes), *digest.digest());
        }
    });
    assert_eq!(s3.unfinished(), 0);
}

#[test]
fn a_layer_that_changed_is_not_stored() {
    let (s3, directory, built) = (S3::start(), tempfile::tempdir().unwrap(), Built::new());
    built.change_big();
    let url = format!("file://{}", directory.path().display());
    block_on(async {
        for storage in [open(&s3).await, ObjectStorage::open(&url).await.unwrap()] {
            let error = built.put(&storage).await.unwrap_err();
            let StorageError::Layer(Error::LayerChanged { expected, .. }) = &error else {
                panic!("{error}");
            };
            assert_eq!(*expected, built.big_layer().to_string());
            assert!(error.hint().unwrap().contains("stowage verify"));
            assert!(storage.blob(&built.big_layer(), None).await.unwrap().is_none());
            assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
        }
    });
    for objects in [s3.objects(), s3::objects(directory.path())] {
        assert!(!objects.contains(&name_of(&built.big_layer())), "{objects:?}");
        assert!(!objects.iter().any(|object| object.starts_with("images")), "{objects:?}");
        assert!(!objects.iter().any(|object| object.contains('#')), "{objects:?}");
    }
    assert_eq!(s3.unfinished(), 0);
}

#[test]
fn wrong_credentials_are_told() {
    let s3 = S3::start();
    for (variable, value) in
        [("AWS_SECRET_ACCESS_KEY", "wrong-secret"), ("AWS_ACCESS_KEY_ID", "WRONGKEY")]
    {
        let environment = with(s3.environment(), variable, value);
        let error = block_on(ObjectStorage::open_in(&s3.url(), environment)).err().unwrap();
        assert!(matches!(error, StorageError::Denied { .. }), "{error:?}");
        assert!(error.hint().unwrap().contains("AWS_ACCESS_KEY_ID"));
        says_no_secret(&error);
        assert!(error.to_string().contains("403"), "{error}");
    }
}

#[test]
fn a_bucket_that_is_missing_is_told() {
    let s3 = S3::start();
    let error = block_on(ObjectStorage::open_in("s3://nothing/a", s3.environment())).err().unwrap();
    assert!(matches!(error, StorageError::NoBucket { .. }), "{error:?}");
    assert!(error.to_string().contains("s3://nothing/a"), "{error}");
    let error = block_on(ObjectStorage::open("file:///nowhere/at/all")).err().unwrap();
    assert!(matches!(error, StorageError::NoBucket { .. }), "{error:?}");
}

#[test]
fn a_full_bucket_is_told_and_still_read() {
    let (s3, built) = (S3::start(), Built::new());
    block_on(async {
        built.put(&open(&s3).await).await.unwrap();
        s3.set_mode(Mode::Full);
        let storage = open(&s3).await;
        let found = storage.image(&name("shell/git"), &key("latest")).await.unwrap().unwrap();
        assert!(fetch(&storage, &found.digest, None).await.is_some());
        fs::remove_file(s3.file(&name_of(&built.big_layer()))).unwrap();
        let error = built.put(&storage).await.unwrap_err();
        assert!(matches!(error, StorageError::Full { .. }), "{error:?}");
        assert!(error.to_string().contains("XMinioStorageFull"), "{error}");
        assert!(error.to_string().contains(&name_of(&built.big_layer())), "{error}");
        says_no_secret(&error);
        s3.set_mode(Mode::Well);
        assert_eq!(built.put(&storage).await.unwrap().layers_sent, 1);
    });
}

#[test]
fn nobody_at_the_other_end_is_told() {
    let begin = Instant::now();
    let environment = s3::environment(&nobody());
    let open = ObjectStorage::open_in("s3://images", environment);
    let error = block_on(open).err().unwrap();
    assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(error.hint().unwrap().contains("AWS_ENDPOINT"));
    says_no_secret(&error);
    assert!(begin.elapsed() < Duration::from_secs(30));
}

#[test]
fn a_storage_that_says_nothing_holds_nobody_up() {
    let s3 = S3::start();
    let environment = with(s3.environment(), "AWS_TIMEOUT", "500ms");
    block_on(async {
        let storage = ObjectStorage::open_in(&s3.url(), environment).await.unwrap();
        s3.set_mode(Mode::Silent);
        let begin = Instant::now();
        let error = storage.image(&name("shell/git"), &key("latest")).await.unwrap_err();
        assert!(matches!(error, StorageError::Unreachable { .. }), "{error:?}");
        assert!(begin.elapsed() < Duration::from_secs(40));
    });
}

fn with(
    mut environment: Vec<(String, String)>,
    variable: &str,
    value: &str,
) -> Vec<(String, String)> {
    environment.retain(|(name, _)| name != variable);
    environment.push((variable.to_owned(), value.to_owned()));
    environment
}

/// Returns an address at which no program listens.
fn nobody() -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn says_no_secret(error: &StorageError) {
    for text in [error.to_string(), format!("{error:?}"), error.hint().unwrap_or_default()] {
        assert!(!text.contains(SECRET_KEY) && !text.contains("wrong-secret"), "{text}");
        assert!(!text.to_lowercase().contains("x-amz-"), "{text}");
    }
}

#[test]
fn a_signed_address_is_not_printed() {
    let (s3, built) = (S3::start(), Built::new());
    block_on(async {
        let storage = open(&s3).await;
        built.put(&storage).await.unwrap();
        let source = storage.blob(&built.big_layer(), None).await.unwrap().unwrap();
        let BlobSource::Url { url, .. } = &source else { panic!("{source:?}") };
        assert!(url.as_str().contains("X-Amz-Signature"));
        assert!(!format!("{source:?}").contains("X-Amz"), "{source:?}");
        // The signature is valid for this object only.
        let other = name_of(&Image::new(&built.spec).config.digest);
        let forged = url.as_str().replace(&name_of(&built.big_layer()), &other);
        let status = tokio::task::spawn_blocking(move || ureq::get(&forged).call());
        assert!(matches!(status.await.unwrap(), Err(ureq::Error::StatusCode(403))));
    });
}

#[test]
fn missing_credentials_are_told() {
    let s3 = S3::start();
    let mut environment = with(s3.environment(), "AWS_METADATA_ENDPOINT", &nobody());
    environment.retain(|(name, _)| !name.contains("KEY"));
    let error = block_on(ObjectStorage::open_in(&s3.url(), environment)).err().unwrap();
    assert!(matches!(error, StorageError::Denied { .. }), "{error:?}");
    assert!(error.to_string().contains("no credentials in the environment"), "{error}");
}

#[test]
fn settings_that_cannot_work_are_told() {
    let s3 = S3::start();
    for (variable, value, message, hint) in [
        ("AWS_ALLOW_HTTP", "false", "scheme is not allowed", "AWS_ALLOW_HTTP"),
        ("AWS_ALLOW_HTTP", "perhaps", "perhaps", ""),
        ("AWS_ENDPOINT", "what?", "AWS_ENDPOINT", ""),
        ("AWS_SECRET_ACCESS_KEY", "wrong-secret\n", "line break", ""),
    ] {
        let environment = with(s3.environment(), variable, value);
        let error = block_on(ObjectStorage::open_in(&s3.url(), environment)).err().unwrap();
        assert!(matches!(error, StorageError::Settings { .. }), "{error:?}");
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.hint().unwrap_or_default().contains(hint), "{error}");
        says_no_secret(&error);
    }
}

#[test]
fn an_upload_that_is_given_up_is_forgotten() {
    let (s3, built) = (S3::start(), Built::new());
    block_on(async {
        let storage = open(&s3).await;
        s3.requests();
        let begun = async {
            // Wait until the second part of the large layer is being sent.
            while !s3.requests().iter().any(|request| request.contains("partNumber=2")) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(s3.unfinished(), 1);
        };
        tokio::select! {
            biased;
            () = begun => {}
            stored = built.put(&storage) => panic!("{stored:?} before it was given up"),
        }
        let begin = Instant::now();
        while s3.unfinished() > 0 && begin.elapsed() < Duration::from_secs(10) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(storage.image(&name("shell/git"), &key("latest")).await.unwrap(), None);
        assert!(storage.blob(&built.big_layer(), None).await.unwrap().is_none());
        built.put(&storage).await.unwrap();
    });
    assert_eq!(s3.unfinished(), 0);
}
