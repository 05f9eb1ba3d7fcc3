//! The place of the table of contents in a blob, and the annotations that tell readers of it.
//! Stage: oci (pure).

use serde::{Deserialize, Serialize};

use super::FOOTER_MAGIC;
use crate::digest::Digest;

const CHECKSUM: &str = "io.github.containers.zstd-chunked.manifest-checksum";
const POSITION: &str = "io.github.containers.zstd-chunked.manifest-position";
const TAR_SPLIT_POSITION: &str = "io.github.containers.zstd-chunked.tarsplit-position";
/// The only type of a table that readers know.
const TYPE: u64 = 1;

/// The place of the table of contents and of the tar-split in a `zstd:chunked` blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TocPlace {
    /// The digest of the compressed table of contents.
    pub digest: Digest,
    /// The offset of the compressed table in the blob.
    pub offset: u64,
    /// The number of bytes of the compressed table.
    pub size: u64,
    /// The number of bytes of the table before compression.
    pub raw_size: u64,
    /// The offset of the compressed tar-split in the blob.
    pub tar_split_offset: u64,
    /// The number of bytes of the compressed tar-split.
    pub tar_split_size: u64,
    /// The number of bytes of the tar-split before compression.
    pub tar_split_raw_size: u64,
}

impl TocPlace {
    /// Returns the annotations of the blob's descriptor. Readers trust the table by its digest there.
    pub fn annotations(&self) -> [(&'static str, String); 3] {
        let Self { digest, offset, size, raw_size, .. } = self;
        let Self { tar_split_offset, tar_split_size, tar_split_raw_size, .. } = self;
        [
            (CHECKSUM, digest.to_string()),
            (POSITION, format!("{offset}:{size}:{raw_size}:{TYPE}")),
            (
                TAR_SPLIT_POSITION,
                format!("{tar_split_offset}:{tar_split_size}:{tar_split_raw_size}"),
            ),
        ]
    }

    /// Reads the annotations of a descriptor. Returns `None` if it lacks some of them, or if they are
    /// of another type.
    pub fn of_annotations<'a>(get: impl Fn(&str) -> Option<&'a str>) -> Option<Self> {
        fn numbers<const N: usize>(text: &str) -> Option<[u64; N]> {
            let numbers: Option<Vec<_>> = text.split(':').map(|text| text.parse().ok()).collect();
            numbers?.try_into().ok()
        }
        let [offset, size, raw_size, r#type] = numbers(get(POSITION)?)?;
        let [tar_split_offset, tar_split_size, tar_split_raw_size] =
            numbers(get(TAR_SPLIT_POSITION)?)?;
        let digest = get(CHECKSUM)?.parse().ok()?;
        (r#type == TYPE).then_some(Self {
            digest,
            offset,
            size,
            raw_size,
            tar_split_offset,
            tar_split_size,
            tar_split_raw_size,
        })
    }

    /// Returns whether both documents are within a blob of `blob` bytes.
    pub fn is_within(&self, blob: u64) -> bool {
        let ends = |offset: u64, size| offset.checked_add(size).is_some_and(|end| end <= blob);
        ends(self.offset, self.size) && ends(self.tar_split_offset, self.tar_split_size)
    }

    /// Returns the last bytes of the blob, by which programs find the table without annotations.
    pub(super) fn footer(&self) -> Vec<u8> {
        let numbers = [
            self.offset,
            self.size,
            self.raw_size,
            TYPE,
            self.tar_split_offset,
            self.tar_split_size,
            self.tar_split_raw_size,
        ];
        let mut footer: Vec<u8> = numbers.into_iter().flat_map(u64::to_le_bytes).collect();
        footer.extend_from_slice(FOOTER_MAGIC);
        footer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_are_read_as_they_are_written() {
        let place = TocPlace {
            digest: Digest::of(b""),
            offset: 1,
            size: 2,
            raw_size: 3,
            tar_split_offset: 4,
            tar_split_size: 5,
            tar_split_raw_size: 6,
        };
        let annotations = place.annotations();
        let get = |key: &str| {
            annotations.iter().find(|(name, _)| *name == key).map(|(_, value)| &**value)
        };
        assert_eq!(get(POSITION), Some("1:2:3:1"));
        assert_eq!(get(TAR_SPLIT_POSITION), Some("4:5:6"));
        assert_eq!(TocPlace::of_annotations(get), Some(place));
        assert!(place.is_within(9) && !place.is_within(8));
        assert!(!TocPlace { offset: u64::MAX, ..place }.is_within(u64::MAX));
        for (key, value) in [
            (POSITION, None),
            (POSITION, Some("1:2:3:2")),
            (POSITION, Some("1:2:3")),
            (POSITION, Some("-1:2:3:1")),
            (TAR_SPLIT_POSITION, Some("4:5:6:7")),
            (CHECKSUM, Some("sha256:0")),
        ] {
            let changed = |name: &str| if name == key { value } else { get(name) };
            assert_eq!(TocPlace::of_annotations(changed), None, "{key} {value:?}");
        }
    }
}
