//! Prints results on standard output, and messages on standard error.

use std::fmt::Display;
use std::io::{self, BufWriter, Write};

use serde::Serialize;

use super::Failure;
use crate::oci;
use crate::system;

/// Prints a line on standard error. Ignores errors: a closed standard error is no reason to fail.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Prints a line on standard output.
///
/// # Errors
/// Fails with [`Failure::Stdout`].
#[cfg(feature = "report")]
pub fn print(line: &str) -> Result<(), Failure> {
    let print = || writeln!(system::stdout()?, "{line}");
    print().map_err(Failure::Stdout)
}

/// Prints a value as JSON on standard output.
///
/// # Errors
/// Fails with [`Failure::Stdout`].
pub fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let mut stdout = BufWriter::new(system::stdout().map_err(Failure::Stdout)?);
    oci::write_json(value, &mut stdout).and_then(|()| stdout.flush()).map_err(Failure::Stdout)
}
