//! Tests the cache, also with several writers.

use std::io::Read;
use std::os::unix::fs::FileExt;
use std::time::Duration;

use super::*;
use crate::digest::Digest;

fn put(cache: &Arc<Cache>, text: &str) -> BlobDigest {
    let digest = BlobDigest::new(Digest::of(text.as_bytes()));
    let mut entry = begin(cache, digest, text.len() as u64).unwrap();
    entry.write(text.as_bytes());
    entry.keep();
    digest
}

fn begin(cache: &Arc<Cache>, digest: BlobDigest, size: u64) -> Option<NewEntry> {
    match cache.place(digest, size) {
        CachePlace::Begun(entry) => Some(entry),
        CachePlace::Kept(_) | CachePlace::Followed(_) | CachePlace::Nowhere => None,
    }
}

fn follow(cache: &Arc<Cache>, digest: BlobDigest, size: u64) -> Option<Follower> {
    match cache.place(digest, size) {
        CachePlace::Followed(follower) => Some(follower),
        CachePlace::Kept(_) | CachePlace::Begun(_) | CachePlace::Nowhere => None,
    }
}

fn names(directory: &Path) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap();
    names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_kept_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(&directory.path().join("a/b"), 100).unwrap();
    let digest = put(&cache, "text");
    let mut text = String::new();
    // Another process finds the blob as well.
    let other = Cache::open(&directory.path().join("a/b"), 100).unwrap();
    other.get(&digest, 4).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "text");
    assert!(cache.get(&BlobDigest::new(Digest::of(b"other")), 5).is_none());
}

#[test]
fn what_is_not_whole_is_not_there() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = BlobDigest::new(Digest::of(b"text"));
    let mut entry = begin(&cache, digest, 4).unwrap();
    entry.write(b"te");
    assert!(cache.get(&digest, 4).is_none());
    assert!(begin(&cache, digest, 4).is_none());
    // A file that is being written has no name: a killed process leaves nothing.
    assert_eq!(names(directory.path()), [""; 0]);
    drop(entry);
    assert_eq!(names(directory.path()), [""; 0]);
    assert!(begin(&cache, digest, 4).is_some());
}

#[tokio::test]
async fn what_is_being_written_is_followed() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = BlobDigest::new(Digest::of(b"text"));
    let mut entry = begin(&cache, digest, 4).unwrap();
    assert!(!entry.is_followed());
    let mut follower = follow(&cache, digest, 4).unwrap();
    assert!(entry.is_followed());
    entry.write(b"te");
    assert_eq!(follower.grown(0).await, Growth::Written(2));
    entry.write(b"xt");
    assert_eq!(follower.grown(2).await, Growth::Written(4));
    entry.keep();
    assert_eq!(follower.grown(4).await, Growth::Whole);
    assert!(matches!(cache.place(digest, 4), CachePlace::Kept(_)));
    // The follower can read, even if the file was removed to make room.
    fs::remove_file(cache.path(&digest)).unwrap();
    let mut bytes = [0; 2];
    follower.read(&mut bytes, 1).unwrap();
    assert_eq!(&bytes, b"ex");

    // The next request begins again, in both cases.
    for (failed, growth) in [(false, Growth::Abandoned), (true, Growth::Failed)] {
        let mut entry = begin(&cache, digest, 4).unwrap();
        entry.write(b"te");
        let mut follower = follow(&cache, digest, 4).unwrap();
        if failed {
            entry.fail();
        } else {
            drop(entry);
        }
        assert_eq!(follower.grown(0).await, growth);
    }
    assert!(begin(&cache, digest, 4).is_some());
}

#[test]
fn what_was_written_is_read_whatever_becomes_of_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = BlobDigest::new(Digest::of(b"text"));
    let mut entry = begin(&cache, digest, 4).unwrap();
    entry.write(b"text");
    let file = entry.keep().unwrap();
    fs::remove_file(cache.path(&digest)).unwrap();
    let mut bytes = [0; 4];
    file.read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"text");
    // The blob is made again.
    assert!(cache.get(&digest, 4).is_none());
    assert!(begin(&cache, digest, 4).is_some());

    // In a directory that does not exist any more, no room can be made.
    let mut entry = begin(&cache, digest, 4).unwrap();
    entry.write(b"text");
    directory.close().unwrap();
    entry.keep().unwrap().read_exact_at(&mut bytes, 0).unwrap();
    assert_eq!(&bytes, b"text");
}

#[test]
fn a_blob_is_for_its_owner_alone() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = put(&cache, "text");
    let mode = fs::metadata(cache.path(&digest)).unwrap().mode();
    assert_eq!(mode & 0o7777, 0o600);
}

#[test]
fn what_was_removed_before_it_was_locked_is_noticed() {
    let directory = tempfile::tempdir().unwrap();
    let file = UnnamedFile::with_name(&directory.path().join("blob"), MODE).unwrap();
    assert!(has_its_name(&file).unwrap());
    let path = file.temporary_path().unwrap();
    fs::remove_file(path).unwrap();
    assert!(!has_its_name(&file).unwrap());
    fs::write(path, "another one's").unwrap();
    assert!(!has_its_name(&file).unwrap());
}

/// Uses temporary names, as in file systems that have no files without names.
#[test]
fn another_file_is_made_for_one_that_was_taken_for_left() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let mut times = 0;
    let file = cache.temporary_with(UnnamedFile::with_name, || {
        times += 1;
        if times < 3 {
            cache.make_room(0).unwrap();
        }
    });
    let file = file.unwrap();
    assert!(file.temporary_path().unwrap().exists());
    assert_eq!(times, 3);
    // Another process leaves a file alone that is being written.
    Cache::open(directory.path(), 100).unwrap();
    assert!(file.temporary_path().unwrap().exists());
}

#[test]
fn what_has_another_size_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = put(&cache, "text");
    fs::write(cache.path(&digest), "tex").unwrap();
    assert!(cache.get(&digest, 4).is_none());
    put(&cache, "text");
    assert!(cache.get(&digest, 4).is_some());
}

#[test]
fn what_has_other_bytes_is_made_again() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = put(&cache, "text");
    let alter = || {
        let file = File::options().write(true).open(cache.path(&digest)).unwrap();
        file.write_all_at(b"T", 0).unwrap();
    };
    let found = |cache: &Arc<Cache>| cache.get(&digest, 4).is_some();
    assert!(found(&cache));
    // Alter the file while this process uses it, and before another process does.
    alter();
    assert!(!found(&cache));
    assert_eq!(names(directory.path()), [""; 0]);
    put(&cache, "text");
    assert!(found(&cache));
    alter();
    let other = Cache::open(directory.path(), 100).unwrap();
    assert!(matches!(other.place(digest, 4), CachePlace::Begun(_)));
}

#[test]
fn what_is_no_file_is_not_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    let digest = BlobDigest::new(Digest::of(b"text"));
    nix::unistd::mkfifo(&cache.path(&digest), nix::sys::stat::Mode::S_IRUSR).unwrap();
    assert!(cache.get(&digest, 4).is_none());
    assert!(begin(&cache, digest, 4).is_some());
}

#[test]
fn a_directory_in_the_place_of_a_blob_is_removed_if_it_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let digest = BlobDigest::new(Digest::of(b"text"));
    let place = Cache::open(directory.path(), 100).unwrap().path(&digest);
    fs::create_dir_all(place.join("somebody's")).unwrap();
    // A limit of no bytes removes files alone.
    Cache::open(directory.path(), 0).unwrap();
    let cache = Cache::open(directory.path(), 100).unwrap();
    assert!(matches!(cache.place(digest, 4), CachePlace::Nowhere));
    fs::remove_dir(place.join("somebody's")).unwrap();
    put(&cache, "text");
    assert!(cache.get(&digest, 4).is_some());
}

#[test]
fn what_was_not_used_for_longest_goes_first() {
    let directory = tempfile::tempdir().unwrap();
    let cache = Cache::open(directory.path(), 10).unwrap();
    let (one, two) = (put(&cache, "one1"), put(&cache, "two2"));
    let old = SystemTime::now() - Duration::from_secs(100);
    for (digest, age) in [(one, 0), (two, 50)] {
        let file = File::open(cache.path(&digest)).unwrap();
        file.set_modified(old + Duration::from_secs(age)).unwrap();
    }
    cache.get(&one, 4).unwrap();
    let three = put(&cache, "three");
    let there = |digest, size| cache.get(digest, size).is_some();
    assert_eq!((there(&one, 4), there(&two, 4), there(&three, 5)), (true, false, true));
    assert!(begin(&cache, BlobDigest::new(Digest::of(b"big")), 11).is_none());
}

#[test]
fn what_a_killed_process_left_is_removed() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join(".stowage-x.part"), "text").unwrap();
    fs::write(directory.path().join("other"), "somebody's").unwrap();
    Cache::open(directory.path(), 0).unwrap();
    assert_eq!(names(directory.path()), ["other"]);
}
