//! Runs `explain` and `diff`: prints tables for people and JSON for programs.

use std::io::Write;
use std::path::Path;

use super::Failure;
use super::arguments::{DiffArguments, ExplainArguments};
use super::commands::{layers, write_file};
use super::output::{print, print_json};
use super::progress::Bytes;
use crate::oci::ImageSpec;
use crate::outgoing::ImageReference;
use crate::report::{self, Diff, Explanation, PieceCost};
use crate::store::{self, Store, StorePath};

/// The number of store paths that are listed one by one.
const LARGEST: usize = 10;
/// The number of names that are shown for a layer's contents.
const NAMES: usize = 4;

pub fn explain(store: &Store, arguments: &ExplainArguments) -> Result<(), Failure> {
    let spec = ImageSpec::read(&arguments.image)?;
    let mut explanation = report::explain(&spec);
    if arguments.pieces {
        explanation.rebuild = Some(report::rebuild_cost(store, &spec)?);
    }
    if let Some(wanted) = &arguments.why {
        let chains = explanation.why(wanted);
        if chains.is_empty() {
            return Err(Failure::NoSuchPath(wanted.clone()));
        }
        let store = Store::default();
        let step = |(depth, path): (usize, &&report::ExplainedPath)| match depth {
            0 => store.print(&path.path),
            _ => format!("{}└ {}", "  ".repeat(depth - 1), store.display(&path.path)),
        };
        let chain =
            |chain: &Vec<_>| chain.iter().enumerate().map(step).collect::<Vec<_>>().join("\n");
        return print(&chains.iter().map(chain).collect::<Vec<_>>().join("\n\n"));
    }
    if let Some(file) = &arguments.html {
        let name = shown_name(arguments.name.as_ref(), &arguments.image);
        return write_page(file, &explanation.to_html(&name, None));
    }
    if arguments.json {
        return print_json(&explanation);
    }
    print(&table(&explanation))
}

/// Returns the name of the image on a page: as it was given, or by the file's name.
fn shown_name(name: Option<&ImageReference>, file: &Path) -> String {
    if let Some(name) = name {
        return name.to_string();
    }
    // Through a link such as `result`, to the output of a derivation, which is named by the image.
    let real = file.canonicalize().unwrap_or_else(|_| file.to_owned());
    match Store::default().parse(&real.to_string_lossy()) {
        Ok(path) => path.name().strip_suffix("-image.json").unwrap_or(path.name()).to_owned(),
        Err(_) => file.file_name().unwrap_or_default().to_string_lossy().into_owned(),
    }
}

fn write_page(file: &Path, page: &str) -> Result<(), Failure> {
    write_file(file, 0o644, |out| out.write_all(page.as_bytes()))
}

fn table(explanation: &Explanation) -> String {
    let count = explanation.paths.len();
    let mut lines = vec![
        format!(
            "{}, {count} store paths, {}",
            layers(explanation.layers.len()),
            Bytes(explanation.size)
        ),
        String::new(),
        format!(
            "{:>5}  {:>9}  {:>5}  {:>12}  {:<15}  contents",
            "layer", "size", "paths", "changes with", "why together"
        ),
    ];
    for layer in &explanation.layers {
        lines.push(format!(
            "{:>5}  {:>9}  {:>5}  {:>12}  {:<15}  {}",
            layer.number,
            Bytes(layer.size).to_string(),
            layer.members.len(),
            format!("{} of {count}", layer.changes_with),
            layer.why,
            some(&layer.members),
        ));
    }
    if let Some(cost) = explanation.rebuild {
        lines.extend([
            String::new(),
            "update in which every store path has another hash".to_owned(),
        ]);
        lines.extend(by_pieces(&cost).map(|line| format!("  {line}")));
    }
    lines.extend([String::new(), "largest store paths".to_owned()]);
    for path in explanation.paths.iter().take(LARGEST) {
        lines.push(format!(
            "{:>5}  {:>9}  {}",
            path.layer,
            Bytes(path.size).to_string(),
            Store::default().display(&path.path)
        ));
    }
    lines.join("\n")
}

/// Returns the first few of many names, for messages.
fn some(paths: &[StorePath]) -> String {
    let names: Vec<_> = paths.iter().map(StorePath::name).collect();
    let mut text = names[..names.len().min(NAMES)].join(", ");
    if names.len() > NAMES {
        text += &format!(" and {} more", names.len() - NAMES);
    }
    text
}

pub fn diff(store: &Store, arguments: &DiffArguments) -> Result<(), Failure> {
    if let Some(file) = &arguments.html {
        let old = ImageSpec::read_outline(&arguments.old)?;
        let new = ImageSpec::read(&arguments.new)?;
        let pieces = arguments.pieces.then(|| report::piece_cost(store, &old, &new)).transpose()?;
        let update = Diff { pieces, ..report::diff(&old, &new) };
        let name = shown_name(arguments.name.as_ref(), &arguments.new);
        return write_page(file, &report::explain(&new).to_html(&name, Some(&update)));
    }
    if arguments.pieces {
        let (old, new) = (ImageSpec::read(&arguments.old)?, ImageSpec::read(&arguments.new)?);
        let pieces = Some(report::piece_cost(store, &old, &new)?);
        return print_diff(&Diff { pieces, ..report::diff(&old, &new) }, arguments.json);
    }
    // The two images have most store paths in common.
    let diff = store::sharing(|| -> Result<_, Failure> {
        let old = ImageSpec::read_outline(&arguments.old)?;
        Ok(report::diff(&old, &ImageSpec::read_outline(&arguments.new)?))
    })?;
    print_diff(&diff, arguments.json)
}

fn print_diff(diff: &Diff, as_json: bool) -> Result<(), Failure> {
    if as_json { print_json(diff) } else { print(&cost(diff)) }
}

/// Returns the lines that say what an update costs by layers and by pieces.
fn by_pieces(cost: &PieceCost) -> [String; 2] {
    let PieceCost { bytes_by_layers, bytes_by_pieces, layers_with_table } = *cost;
    [
        format!("compressed, by layers: {}", Bytes(bytes_by_layers)),
        format!(
            "compressed, by pieces, of {} with a table of contents: {}",
            layers(layers_with_table),
            Bytes(bytes_by_pieces)
        ),
    ]
}

fn cost(diff: &Diff) -> String {
    let mut lines = vec![
        format!("kept: {} ({})", layers(diff.layers_kept), Bytes(diff.bytes_kept)),
        format!("new: {} ({})", layers(diff.layers_new.len()), Bytes(diff.bytes_new)),
        format!(
            "to a Docker daemon, which keys a layer by all below it: {}",
            Bytes(diff.bytes_to_docker)
        ),
    ];
    lines.extend(diff.pieces.iter().flat_map(by_pieces));
    for layer in &diff.layers_new {
        lines.extend([String::new(), format!("layer {} ({})", layer.number, Bytes(layer.size))]);
        lines.extend(layer.caused_by.iter().map(|path| format!("  new    {path}")));
        lines.extend(layer.moved.iter().map(|path| format!("  again  {path}")));
    }
    if !diff.paths_gone.is_empty() {
        lines.extend([String::new(), "no longer in the image".to_owned()]);
        lines.extend(diff.paths_gone.iter().map(|path| format!("  {path}")));
    }
    lines.join("\n")
}
