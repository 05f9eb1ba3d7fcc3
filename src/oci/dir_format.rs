//! Names of the files in a directory of one image, as skopeo's `dir:` has them
//! (containers/image, `directory/directory_dest.go`).
//! Stage: oci (pure).

/// The file of the image's manifest.
pub const MANIFEST: &str = "manifest.json";
/// The file that says which format the directory has.
pub const VERSION: &str = "version";
/// The bytes of [`VERSION`].
pub const VERSION_TEXT: &[u8] = b"Directory Transport Version: 1.1\n";
