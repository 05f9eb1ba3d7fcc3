//! The names of the files in a directory of one image, in the format of skopeo's `dir:`
//! (containers/image, `directory/directory_dest.go`).
//! Stage: oci (pure).

/// The file of the image's manifest.
pub const MANIFEST: &str = "manifest.json";
/// The file with the version of the directory's format.
pub const VERSION: &str = "version";
/// The bytes of [`VERSION`].
pub const VERSION_TEXT: &[u8] = b"Directory Transport Version: 1.1\n";
