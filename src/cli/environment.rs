//! Reads environment variables that name places.

use std::env;
use std::ffi::OsString;
use std::path::PathBuf;

/// Returns an environment variable that is set and not empty.
pub fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns the user's cache directory (XDG Base Directory Specification), or `None` if neither
/// variable for it is set.
pub fn cache_directory() -> Option<PathBuf> {
    let in_home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(in_home)
}
