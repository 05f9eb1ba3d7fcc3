//! Reads environment variables: names of places, and the encoding of texts.

use std::env;
use std::ffi::OsString;
#[cfg(feature = "registry")]
use std::path::PathBuf;

/// Returns an environment variable that is set and not empty.
pub fn variable(name: &str) -> Option<OsString> {
    env::var_os(name).filter(|value| !value.is_empty())
}

/// Returns whether the terminal takes UTF-8, by the variables that name the locale (locale(7)).
pub fn is_utf8() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    let locale = locale.unwrap_or_default().to_string_lossy().to_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

/// Returns the user's cache directory (XDG Base Directory Specification), or `None` if neither
/// variable for it is set.
#[cfg(feature = "registry")]
pub fn cache_directory() -> Option<PathBuf> {
    let in_home = || variable("HOME").map(|home| PathBuf::from(home).join(".cache"));
    variable("XDG_CACHE_HOME").map(PathBuf::from).or_else(in_home)
}
