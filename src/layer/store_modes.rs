//! The modes that Nix gives to the files of a store.
//! Stage: layer (pure). Vocabulary of layers.

/// The mode of a link, which has no meaning.
pub const LINK_MODE: u32 = 0o777;

/// Returns the mode of a file.
pub fn file_mode(executable: bool) -> u32 {
    if executable { 0o555 } else { 0o444 }
}
