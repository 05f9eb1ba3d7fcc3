//! The `stowage` program: everything is in [`stowage::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    stowage::cli::main()
}
