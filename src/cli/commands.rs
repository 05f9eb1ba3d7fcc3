//! Runs the commands: calls the stages in order.

use std::fs;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use indicatif::ProgressBar;

use super::Failure;
use super::arguments::{
    BuildArguments, CompressArgument, FlattenArguments, IndexArguments, MergeArguments,
    PlanArguments, PopularityArguments, StreamArguments,
};
use super::interrupt;
use super::output::{print_json, say};
use super::progress::{Bytes, StreamBar, bar};
use super::watching::Watching;
use crate::closure::Closure;
use crate::layer::{LayerPlan, PlanOptions, Popularity};
use crate::oci::base::BaseName;
use crate::oci::{
    self, Annotations, Architecture, BuildOptions, Built, Compression, Compressor, ImageSpec,
    IndexEntry, IndexSpec, check_annotation,
};
use crate::outgoing::{self, CheckedBy};
use crate::sink::{Plain, Spliced};
#[cfg(feature = "report")]
use crate::small_file;
use crate::store::Store;
use crate::system;
use crate::target::{self, Archive};

pub fn build(store: &Store, arguments: &BuildArguments) -> Result<(), Failure> {
    let closure = Closure::read(&arguments.closure)?;
    let options = match &arguments.options {
        Some(file) => read_options(file)?,
        None => serde_json::from_str("{}").expect("everything has a default"),
    };
    let total = closure.infos().iter().map(|info| info.nar_size).sum();
    let bar = bar("hashing", total);
    let spec = build_spec(store, closure, options, &bar)?;
    write_file(&arguments.output, 0o644, |out| spec.write_json(out))
}

fn read_options(file: &Path) -> Result<BuildOptions, oci::Error> {
    let bytes =
        fs::read(file).map_err(|source| oci::Error::Read { file: file.to_owned(), source })?;
    let mut options: BuildOptions = serde_json::from_slice(&bytes).map_err(|source| {
        oci::Error::Json { file: file.to_owned(), what: "build options", source }
    })?;
    // The image spec names these files, and may later be read in another directory.
    let absolute = |file: &Path| std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    for file in &mut options.tars {
        *file = absolute(file);
    }
    if let Some(base) = &mut options.from_image {
        let name = BaseName::parse(base);
        *base = name.with_path(&absolute(&name.path));
    }
    Ok(options)
}

/// Builds the image spec, and prints the time and the size.
pub fn build_spec(
    store: &Store,
    closure: Closure,
    options: BuildOptions,
    bar: &ProgressBar,
) -> Result<ImageSpec, Failure> {
    let start = Instant::now();
    let built = oci::build_image(store, closure, options, |layer| bar.inc(layer.size))?;
    bar.finish_and_clear();
    let spec = with_warnings(built);
    say(format_args!(
        "{} store paths in {}, {} in {:.1} s",
        spec.sources.len(),
        layers(spec.layers.len()),
        Bytes(spec.size()),
        start.elapsed().as_secs_f64(),
    ));
    Ok(spec)
}

/// Prints the warnings of a result.
pub fn with_warnings<T>(built: Built<T>) -> T {
    for warning in built.warnings {
        say(format_args!("warning: {warning}"));
    }
    built.made
}

pub fn plan(arguments: &PlanArguments) -> Result<(), Failure> {
    let closure = Closure::read(&arguments.closure)?;
    let previous = arguments.previous.as_deref().map(oci::read_previous_plan).transpose()?;
    let popularity = arguments.popularity.as_deref().map(oci::read_popularity).transpose()?;
    let hints = arguments.hints.as_deref().map(oci::read_layering_hints).transpose()?;
    let (popularity, hints) = (popularity.unwrap_or_default(), hints.unwrap_or_default());
    let options = PlanOptions { hints, popularity, previous, ..arguments.layering.clone().into() };
    let plan = LayerPlan::new(&closure, arguments.max_layers, options)?;
    print_json(&plan)
}

pub fn popularity(arguments: &PopularityArguments) -> Result<(), Failure> {
    let closures: Result<Vec<_>, _> =
        arguments.closures.iter().map(|file| Closure::read(file)).collect();
    let closures = closures?;
    let packages = closures.iter().flat_map(Closure::tops).cloned().collect();
    print_json(&Popularity::of(&Closure::union(closures)?, &packages))
}

pub fn stream(store: &Store, arguments: &StreamArguments) -> Result<(), Failure> {
    let spec = ImageSpec::read_outline(&arguments.image)?;
    let stdout = binary_stdout()?;
    let references = match (&arguments.repo_tags[..], &arguments.default_repo_tag) {
        ([], Some(default)) => std::slice::from_ref(default),
        (given, _) => given,
    };
    let checked_by = if arguments.unchecked { CheckedBy::Receiver } else { CheckedBy::Sender };
    let watch = StreamBar::new("streaming", spec.size());
    let form = Archive::FORM;
    let archive =
        Archive { store, spec: &spec, form, references, skip: 0, checked_by, watch: &watch };
    match arguments.compress.into() {
        Compression::None => {
            target::write_archive(&archive, Spliced::new(stdout))?;
        }
        compression => {
            let mut compressor = Compressor::new(compression, Spliced::new(stdout));
            target::write_archive(&archive, Plain(&mut compressor))?;
            compressor.finish().map_err(Failure::Stdout)?;
        }
    }
    watch.end();
    Ok(())
}

impl From<CompressArgument> for Compression {
    fn from(argument: CompressArgument) -> Self {
        match argument {
            CompressArgument::None => Self::None,
            CompressArgument::Gzip => Self::Gzip,
            CompressArgument::Zstd => Self::Zstd,
        }
    }
}

/// Returns standard output for bytes that are not text.
pub fn binary_stdout() -> Result<fs::File, Failure> {
    let stdout = system::stdout().map_err(Failure::Stdout)?;
    if stdout.is_terminal() {
        return Err(Failure::Terminal);
    }
    // `Stdout`'s own buffer would search all bytes for newlines.
    let stdout = fs::File::from(stdout.as_fd().try_clone_to_owned().map_err(Failure::Stdout)?);
    system::widen_pipe(&stdout);
    Ok(stdout)
}

pub fn flatten(store: &Store, arguments: &FlattenArguments) -> Result<(), Failure> {
    let FlattenArguments { image, output, arch } = arguments;
    let arch = arch.clone().unwrap_or_else(Architecture::of_this_machine);
    let watch = Watching::new("reading", None, false);
    target::write_root_archive(store, image, &arch, output, &watch)?;
    watch.end();
    Ok(())
}

pub fn merge(store: &Store, arguments: &MergeArguments) -> Result<(), Failure> {
    let watch = Watching::new("reading", None, false);
    target::merge_archives(store, &arguments.archives, &arguments.output, &watch)?;
    watch.end();
    Ok(())
}

pub fn index(store: &Store, arguments: &IndexArguments) -> Result<(), Failure> {
    let images = arguments.images.iter().map(|image| {
        let mut parts = image.split(',');
        let file = Path::new(parts.next().unwrap_or_default());
        // The index spec may later be read in another directory.
        let spec = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        Ok(IndexEntry { spec, annotations: annotations(parts)? })
    });
    let images = images.collect::<Result<Vec<_>, Failure>>()?;
    let index = annotations(arguments.annotations.iter().map(String::as_str))?;
    let spec = IndexSpec::new(index, images);
    // If an image can't be copied, write no index either.
    spec.clone().load(store)?;
    write_file(&arguments.output, 0o644, |out| out.write_all(&spec.to_json()))
}

fn annotations<'a>(pairs: impl Iterator<Item = &'a str>) -> Result<Annotations, Failure> {
    let pair = |pair: &str| {
        let split = pair.split_once('=').ok_or_else(|| Failure::Annotation(pair.to_owned()));
        let (key, value) = split?;
        check_annotation(key, value).map_err(Failure::AnnotationText)?;
        Ok((key.to_owned(), value.to_owned()))
    };
    pairs.map(pair).collect()
}

pub fn layers(count: usize) -> String {
    if count == 1 { "1 layer".to_owned() } else { format!("{count} layers") }
}

/// Reads a small file that an option names.
#[cfg(feature = "report")]
pub fn read_file(file: &Path) -> Result<Vec<u8>, Failure> {
    small_file::read(file).map_err(|source| Failure::Input { file: file.to_owned(), source })
}

/// Writes a file so that its name never stands for an incomplete one. A path that is not a file,
/// such as a pipe, is written to directly.
pub fn write_file(
    file: &Path,
    mode: u32,
    write: impl FnOnce(&mut BufWriter<&fs::File>) -> io::Result<()>,
) -> Result<(), Failure> {
    // `/dev/stdout` may lead to a file, but must not be replaced, least of all by root.
    let is_stream = file.parent() == Some(Path::new("/dev"))
        || fs::metadata(file).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    let write_to = |out: &fs::File| {
        let mut out = BufWriter::with_capacity(64 << 10, out);
        write(&mut out)?;
        out.flush()
    };
    let replace = || -> io::Result<()> {
        if is_stream {
            return write_to(&fs::File::options().write(true).open(file)?);
        }
        // A signal would otherwise leave the temporary file behind. `write` is short enough to
        // delay the signal.
        interrupt::hold();
        let new = outgoing::UnnamedFile::beside(file, outgoing::MODE)?;
        write_to(new.as_file())?;
        new.set_permissions(fs::Permissions::from_mode(mode))?;
        new.persist(file)
    };
    replace().map_err(|source| Failure::Output { file: file.to_owned(), source })
}
