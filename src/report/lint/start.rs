//! Says whether a program of an image can be started, without starting it.
//! Stage: report. Input: a program's name, as in `Cmd`. Output: [`StartProblem`].
//!
//! This is what the kernel's `execve` and a dynamic loader do before the first instruction of the
//! program: find the file, check its mode, read `#!`, and load what an ELF program needs.

use std::path::Path;

use super::finding::{Check, Finding, Level};
use super::libraries::{Libraries, MissingLibrary};
use super::program::{HEAD, Machine, machine, misfit, numbers};
use super::script::{Head, START, head_of};
use super::surroundings::Surroundings;
use crate::image_path::ImagePath;
use crate::report::elf::Elf;
use crate::report::image_files::{Absent, Body, FileKind, Found, ImageFile, ReadAt, Searched};

/// The largest number of interpreters of interpreters that the kernel takes (Linux, `fs/exec.c`).
const INTERPRETERS: usize = 5;

/// Says why a program can't be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartProblem {
    /// The check that found it.
    pub check: Check,
    /// The certainty that the program fails.
    pub level: Level,
    /// The reason: a clause that begins with its subject.
    pub text: String,
}

/// The searcher of a program that is given by its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// A container engine. It takes no program from a relative directory of `PATH` (Go, `exec.LookPath`).
    Engine,
    /// A shell, or another program of the image.
    Program,
}

/// The result of a search for a program.
pub enum Program {
    /// The program's file, and the directories on the way to it.
    Here(ImageFile, Vec<Searched>),
    /// The program does not exist, for this reason.
    Nowhere(String),
    /// The program may exist in the container.
    Unknown,
}

impl StartProblem {
    /// Makes a finding of the problem of a program. `why` says what starts the program.
    pub fn finding(self, program: &str, why: &str) -> Finding {
        let Self { check, level, text } = self;
        let program = if program.is_empty() { "(an empty word)" } else { program };
        Finding::of_path(check, level, program, format!("{why} {text}"))
    }
}

impl Surroundings<'_> {
    /// Returns the reason why a program can't be started, if there is one.
    pub fn problem(&self, program: &str, by: By) -> Option<StartProblem> {
        self.start(program, by, "it", 0)
    }

    /// Starts a program by its name or path. `subject` names it in the sentence.
    fn start(&self, program: &str, by: By, subject: &str, depth: usize) -> Option<StartProblem> {
        let error = |check, text: String| Some(StartProblem { check, level: Level::Error, text });
        match self.find(program, by) {
            Program::Unknown => None,
            Program::Nowhere(reason) => error(Check::MissingFile, format!("{subject} {reason}")),
            Program::Here(file, searched) => {
                if let Some(denied) = self.denied(&searched) {
                    return error(Check::NotExecutable, format!("{subject} is in {denied}"));
                }
                self.execute(&file, subject, depth)
            }
        }
    }

    /// Finds a program, in `PATH` if its name has no slash.
    pub fn find(&self, program: &str, by: By) -> Program {
        if program.is_empty() {
            return Program::Nowhere("has no name".to_owned());
        }
        if program.contains('/') {
            return match self.look_up(self.absolute(program)) {
                Found::Here(file, searched) => Program::Here(file, searched),
                Found::Unknown => Program::Unknown,
                Found::Nowhere(absent) => {
                    Program::Nowhere(reason(&absent, &self.absolute(program)))
                }
            };
        }
        let (mut unknown, mut passed) = (false, None);
        // An empty `PATH` has no directory for an engine. Others search the working directory then.
        let has_none = self.path.is_empty() && by == By::Engine;
        for directory in self.path.split(':').filter(|_| !has_none) {
            let path = self.absolute(&format!("{directory}/{program}"));
            let path = if directory.is_empty() { self.absolute(program) } else { path };
            match self.look_up(path) {
                Found::Here(file, searched) => {
                    // A file that can't be executed is ignored, and the search goes on.
                    if self.may_execute(&file) {
                        if by == By::Engine && !directory.starts_with('/') && !unknown {
                            return Program::Nowhere(format!(
                                "is found by the entry `{directory}` of `PATH`, which is relative: engines start no program by it"
                            ));
                        }
                        return Program::Here(file, searched);
                    }
                    passed.get_or_insert(file);
                }
                Found::Nowhere(_) => {}
                Found::Unknown => unknown = true,
            }
        }
        match passed {
            _ if unknown => Program::Unknown,
            Some(file) => Program::Nowhere(format!(
                "is in no directory of `PATH`, except for {}, which can't be executed",
                file.path
            )),
            None => Program::Nowhere(format!(
                "is not in the image: it is in no directory of `PATH` ({})",
                self.path
            )),
        }
    }

    fn execute(&self, file: &ImageFile, subject: &str, depth: usize) -> Option<StartProblem> {
        let error = |check, text: &str| {
            Some(StartProblem { check, level: Level::Error, text: format!("{subject} {text}") })
        };
        match &file.kind {
            FileKind::Directory => return error(Check::NotExecutable, "is a directory"),
            FileKind::Special(_) | FileKind::Symlink(_) => {
                return error(Check::NotExecutable, "is no regular file");
            }
            FileKind::File(_) => {}
        }
        if !self.may_execute(file) {
            let mode = file.attributes.mode;
            return match &self.identity {
                Some(identity) if mode & 0o111 != 0 => error(
                    Check::NotExecutable,
                    &format!("may not be executed by {identity} (mode {mode:04o})"),
                ),
                _ => error(Check::NotExecutable, &format!("is not executable (mode {mode:04o})")),
            };
        }
        let body = self.files.open(file).ok()??;
        let length = START.min(usize::try_from(body.size()).unwrap_or(START));
        let start = body.bytes_at(0, length)?;
        match head_of(&start) {
            Head::Script { interpreter, argument } => {
                if depth >= INTERPRETERS {
                    return error(
                        Check::Interpreter,
                        "is a script, and so are its interpreters, one after the other: the kernel takes 5",
                    );
                }
                let problem = self.interpret(&interpreter, &argument, subject, depth);
                // The interpreter opens the script as the user, who must be allowed to read it.
                let unread =
                    self.identity.as_ref().filter(|it| !it.may_read(file.attributes)).map(|it| {
                        let mode = file.attributes.mode;
                        format!("is a script that {it} may not read (mode {mode:04o})")
                    });
                problem.or_else(|| error(Check::NotExecutable, &unread?))
            }
            Head::Problem(text) => error(Check::Interpreter, text),
            Head::Program => self.load(file, &body, subject),
            // Engines on unusual architectures have loaders of their own.
            Head::Other => {
                numbers(&self.architecture)?;
                error(
                    Check::Interpreter,
                    "is neither a program nor a script with `#!` in its first line",
                )
            }
        }
    }

    /// Checks the interpreter that a script names.
    fn interpret(
        &self,
        interpreter: &[u8],
        argument: &[u8],
        subject: &str,
        depth: usize,
    ) -> Option<StartProblem> {
        let owner = if subject == "it" { "its".to_owned() } else { format!("{subject} has an") };
        let name = interpreter.escape_ascii().to_string();
        let Ok(path) = std::str::from_utf8(interpreter) else { return None };
        // The kernel does not search `PATH`.
        let absolute = self.absolute(path);
        let found = self.look_up(&absolute);
        let (file, searched) = match found {
            Found::Here(file, searched) => (file, searched),
            Found::Unknown => return None,
            Found::Nowhere(absent) => {
                let text = if interpreter.ends_with(b"\r") {
                    crlf(subject, &name)
                } else {
                    format!("{owner} interpreter {name} {}", reason(&absent, &absolute))
                };
                return Some(StartProblem { check: Check::Interpreter, level: Level::Error, text });
            }
        };
        let its = format!("{owner} interpreter {name}");
        if let Some(denied) = self.denied(&searched) {
            let text = format!("{its} is in {denied}");
            return Some(StartProblem { check: Check::NotExecutable, level: Level::Error, text });
        }
        if let Some(problem) = self.execute(&file, &its, depth + 1) {
            return Some(problem);
        }
        let is_env = Path::new(path).file_name().is_some_and(|name| name == "env");
        if is_env {
            return self.by_env(argument, subject, depth);
        }
        if argument.ends_with(b"\r") {
            let text = crlf(subject, &format!("{name} {}", argument.escape_ascii()));
            return Some(StartProblem { check: Check::Interpreter, level: Level::Error, text });
        }
        None
    }

    /// Checks the program that `env` starts, in `#!/usr/bin/env PROGRAM`.
    fn by_env(&self, argument: &[u8], subject: &str, depth: usize) -> Option<StartProblem> {
        let argument = std::str::from_utf8(argument).ok()?;
        let program = match argument.strip_prefix("-S").or(argument.strip_prefix("--split-string="))
        {
            // `env -S` has quotes and escapes. A word with these is not checked.
            Some(words) => {
                let mut words = words.split([' ', '\t']).filter(|word| !word.is_empty());
                let first = words.find(|word| !word.contains('='))?;
                first.chars().all(is_plain).then_some(first)?
            }
            None if argument.is_empty() || argument.starts_with('-') => return None,
            None if argument.contains('=') => return None,
            // The kernel passes all words as one argument.
            None => argument,
        };
        let name = format!("`{}`", program.escape_debug());
        let problem = self.start(program, By::Program, &name, depth + 1)?;
        let text = match (problem.check, program.ends_with('\r')) {
            (Check::MissingFile, true) => crlf(subject, &format!("env {}", program.escape_debug())),
            (Check::MissingFile, false) if program.contains([' ', '\t']) => format!(
                "the interpreter `env` is to start is `{program}`, since the kernel splits no arguments: `env -S` does"
            ),
            _ => format!("the interpreter that `env` is to start, {}", problem.text),
        };
        Some(StartProblem { check: Check::Interpreter, text, ..problem })
    }

    /// Checks what an ELF program needs.
    fn load(&self, file: &ImageFile, body: &Body, subject: &str) -> Option<StartProblem> {
        let error = |check, text: String| {
            Some(StartProblem { check, level: Level::Error, text: format!("{subject} {text}") })
        };
        let head = body.bytes_at(0, HEAD)?;
        if let Some(text) = misfit(&head, &self.architecture) {
            return error(Check::Machine, text);
        }
        let elf = Elf::read(body)?;
        // Without a loader it is linked statically.
        let interpreter = elf.interpreter.as_ref()?;
        let text = std::str::from_utf8(interpreter).ok()?;
        let absolute = self.absolute(text);
        let name = interpreter.escape_ascii();
        let loader = match self.look_up(&absolute) {
            Found::Unknown => return None,
            Found::Here(loader, _) => loader,
            Found::Nowhere(absent) => {
                let foreign = if text.starts_with("/nix/store/") {
                    ""
                } else {
                    ": it was not built for Nix (`autoPatchelfHook` mends it)"
                };
                return error(
                    Check::Loader,
                    format!(
                        "needs the loader {name}, which {}{foreign}",
                        reason(&absent, &absolute)
                    ),
                );
            }
        };
        if !self.may_execute(&loader) {
            let mode = loader.attributes.mode;
            return error(
                Check::Loader,
                format!("needs the loader {name}, which can't be executed (mode {mode:04o})"),
            );
        }
        let loader_body = self.files.open(&loader).ok()??;
        let fits = match loader_body.bytes_at(0, HEAD).as_deref().and_then(machine) {
            Some(Machine::Elf(number)) => number == elf.machine,
            _ => false,
        };
        if !fits {
            return error(
                Check::Loader,
                format!("needs the loader {name}, which is for another machine"),
            );
        }
        let libraries = Libraries::new(self, text, &loader);
        let MissingLibrary { library, by, looked_in } = libraries.first_missing(file, elf)?;
        let needs = match by {
            None => format!("needs {library}"),
            Some(by) => format!("needs {by}, which needs {library}"),
        };
        // On a machine with the driver, the engine adds the driver's libraries to the container.
        let is_driver = ["libcuda.", "libnvidia-", "libnvcuvid."];
        let level = match is_driver.iter().any(|driver| library.starts_with(driver)) {
            true => Level::Note,
            false => Level::Error,
        };
        let text = format!(
            "{subject} {needs}, which is in no directory that its loader searches ({looked_in})"
        );
        Some(StartProblem { check: Check::Library, level, text })
    }
}

fn is_plain(c: char) -> bool {
    c.is_ascii_alphanumeric() || "/._+-".contains(c)
}

fn crlf(subject: &str, first_line: &str) -> String {
    let owner = if subject == "it" { "its".to_owned() } else { format!("of {subject} the") };
    format!("{owner} first line ends in CR LF: the kernel reads `{first_line}`")
}

/// Says why there is no file at a path. The result continues a sentence that begins with "it".
fn reason(absent: &Absent, path: &str) -> String {
    match absent {
        Absent::Circle => "is a link that leads in a circle".to_owned(),
        Absent::NoDirectory(place) => {
            format!("is not in the image: {} is no directory", place)
        }
        Absent::Nothing(place) if is_on_the_way(place, path) => "is not in the image".to_owned(),
        Absent::Nothing(place) => {
            format!("is not in the image: its links lead to {}", place)
        }
    }
}

/// Returns whether a place is the path itself or a directory above it.
fn is_on_the_way(place: &ImagePath, path: &str) -> bool {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    Path::new(path.trim_start_matches('/')).starts_with(OsStr::from_bytes(place.as_bytes()))
}
