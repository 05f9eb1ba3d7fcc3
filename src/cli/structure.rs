//! Runs `stowage test`: reads documents of tests, and prints a line for each test.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::Failure;
use super::arguments::TestArguments;
use super::commands::write_file;
use super::output::{print, print_json};
use crate::oci::{self, Architecture};
use crate::report::structure::{Tests, decide};
use crate::store::Store;

/// The largest document of tests.
const LARGEST: u64 = 4 << 20;

pub fn test(store: &Store, arguments: &TestArguments) -> Result<(), Failure> {
    let mut documents = Vec::new();
    for file in &arguments.tests {
        let tests = read(&store.locate(file), file)?;
        if !tests.commands.is_empty() && !arguments.skip_commands {
            return Err(Failure::CommandTests { file: file.clone(), count: tests.commands.len() });
        }
        documents.push((file.display().to_string(), tests));
    }
    let arch = arguments.arch.clone().unwrap_or_else(Architecture::of_this_machine);
    let spec = oci::image_of(store, &arguments.image, &arch)?;
    let report = decide(store, &spec, &documents).map_err(|source| Failure::TestedImage {
        file: arguments.image.clone(),
        source: source.into(),
    })?;
    if let Some(file) = &arguments.junit {
        write_file(file, 0o644, |out| out.write_all(report.to_junit().as_bytes()))?;
    }
    if arguments.json {
        print_json(&report)?;
    } else {
        for outcome in &report.files {
            if report.files.len() > 1 {
                print(&format!("{}:", outcome.file))?;
            }
            outcome.tests.iter().try_for_each(|test| print(&test.to_string()))?;
        }
        let skipped = match report.skipped {
            0 => String::new(),
            skipped => format!(", {skipped} skipped"),
        };
        print(&format!("{} passed, {} failed{skipped}", report.passed, report.failed))?;
    }
    match (report.failed, report.passed) {
        (0, 0) => Err(Failure::NoTests),
        (0, _) => Ok(()),
        (failed, passed) => Err(Failure::Tests { failed, decided: failed + passed }),
    }
}

fn read(place: &Path, file: &Path) -> Result<Tests, Failure> {
    let input_error = |source| Failure::Input { file: file.to_owned(), source };
    let mut bytes = Vec::new();
    let open = File::open(place).map_err(input_error)?;
    open.take(LARGEST + 1).read_to_end(&mut bytes).map_err(input_error)?;
    if bytes.len() as u64 > LARGEST {
        let reason = format!("a document of tests has at most {LARGEST} bytes");
        return Err(input_error(io::Error::new(io::ErrorKind::InvalidData, reason)));
    }
    let text = String::from_utf8(bytes)
        .map_err(|_| input_error(io::Error::new(io::ErrorKind::InvalidData, "it is not UTF-8")))?;
    Tests::parse(&text)
        .map_err(|source| Failure::TestDocument { file: file.to_owned(), source: source.into() })
}
