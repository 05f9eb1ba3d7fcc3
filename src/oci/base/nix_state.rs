//! Copies the database of the Nix in a base image, and its accounts.
//! Stage: oci. Input: [`BaseImage`]. Output: copies of these files.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::Path;

use super::image::BaseImage;
use crate::image_path::ImagePath;
use crate::layer::{self, Attributes, DATABASE, DatabaseError};
use crate::oci::layer_reader::read_tar;
use crate::oci::unpack::{TarError, TarReader};
use crate::store::Store;

/// The largest file that is copied. The database of a million store paths has a quarter of this
/// size.
const LARGEST: u64 = 2 << 30;
/// The largest file of accounts.
const LARGEST_ACCOUNTS: u64 = 16 << 20;

impl BaseImage {
    /// Returns whether the base image has a Nix database.
    pub fn has_nix_database(&self) -> bool {
        self.state.iter().any(|file| file.name == DATABASE)
    }

    /// Copies the files of the database to a directory.
    ///
    /// # Errors
    /// Fails if a layer can't be read, or one of them is no regular file.
    pub fn copy_nix_database(&self, store: &Store, to: &Path) -> Result<(), DatabaseError> {
        for file in &self.state {
            let layer = &self.layers[file.layer];
            let copied = read_tar(store, layer, |tar| copy(tar, &file.path, &to.join(file.name)));
            copied.map_err(io::Error::other)?.map_err(io::Error::other)?;
        }
        Ok(())
    }

    /// Returns the bytes of a file of accounts, and its mode and owner.
    ///
    /// # Errors
    /// Fails if the layer can't be read, or the file is no regular one.
    pub fn read_account_file(
        &self,
        store: &Store,
        name: &str,
    ) -> Result<(Vec<u8>, Attributes), layer::Error> {
        let failed = |error| layer::Error::Write(io::Error::other(error));
        let missing = || layer::Error::Write(io::ErrorKind::NotFound.into());
        let file = self.accounts.iter().find(|file| file.name == name).ok_or_else(missing)?;
        read_tar(store, &self.layers[file.layer], |tar| read(tar, &file.path))?.map_err(failed)
    }
}

/// Reads the file of that name: the last one, should there be more.
fn read(tar: impl io::Read, name: &ImagePath) -> Result<(Vec<u8>, Attributes), TarError> {
    let mut found = None;
    let mut tar = TarReader::new(tar);
    while let Some(mut entry) = tar.next_member()? {
        if ImagePath::normal(entry.path()) != *name {
            continue;
        }
        found = None;
        if entry.kind().is_file() && entry.size() <= LARGEST_ACCOUNTS {
            let header = entry.header();
            let (mode, uid, gid) = (header.mode()? & 0o7777, header.uid()?, header.gid()?);
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            found = Some((bytes, Attributes { mode, uid, gid }));
        }
    }
    let reason = format!("{name} is no regular file of up to {} MiB", LARGEST_ACCOUNTS >> 20);
    found.ok_or_else(|| io::Error::other(reason).into())
}

/// Copies the file with a name. If the archive has several, the last one counts.
fn copy(tar: impl io::Read, name: &ImagePath, to: &Path) -> Result<(), TarError> {
    let mut found = false;
    let mut tar = TarReader::new(tar);
    while let Some(mut entry) = tar.next_member()? {
        if ImagePath::normal(entry.path()) != *name {
            continue;
        }
        let kind = entry.kind();
        found = kind.is_file() && entry.size() <= LARGEST;
        if found {
            io::copy(&mut entry, &mut File::create(to)?)?;
        } else if to.exists() {
            fs::remove_file(to)?;
        }
    }
    if found {
        return Ok(());
    }
    let reason = format!("{name} is no regular file of up to {} GiB", LARGEST >> 30);
    Err(io::Error::other(reason).into())
}
