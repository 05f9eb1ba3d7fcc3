//! Finds out whether an image passes its tests, by its files and its configuration. Nothing is run.
//! Stage: report. Input: [`Tests`], and an image's files. Output: [`TestOutcome`]s.

use std::collections::BTreeMap;

use serde_json::Value;

use super::document::{
    ContentTest, ExecutableBy, ExistenceTest, Expected, LicenceTest, MetadataTest, Tests,
};
use super::outcome::{TestKind, TestOutcome};
use crate::layer::Pattern;
use crate::oci::ImageSpec;
use crate::report::image_files::{
    Absent, FileKind, FilesError, Found, ImageFile, ImageFiles, Last, SpecialKind,
};

/// The largest file whose text is read.
const LARGEST: u64 = 64 << 20;
/// The number of bytes after which a quoted value is cut off.
const QUOTED: usize = 200;
/// The directory in which Debian has the licences of each package.
const LICENCES: &str = "/usr/share/doc";
/// The words that no licence may have, and the packages that may (container-structure-test,
/// `pkg/types/v2/licenses.go`).
const REFUSED: [&str; 2] = ["AGPL", "WTFPL"];
const ACCEPTED: [&str; 1] = ["libgnutls30"];

/// An image that is tested.
pub struct TestedImage<'i> {
    /// The files of the image.
    pub files: &'i ImageFiles<'i>,
    /// The configuration of the image.
    pub spec: &'i ImageSpec,
}

impl TestedImage<'_> {
    /// Returns the result of each test of a document. Tests that run programs are skipped.
    ///
    /// # Errors
    /// Fails if a layer of the image can't be read.
    pub fn decide(&self, tests: &Tests) -> Result<Vec<TestOutcome>, FilesError> {
        self.load(tests)?;
        let variables = self.variables_with(&tests.variables);
        let mut outcomes = Vec::new();
        for name in &tests.commands {
            let reason = "it runs a program of the image".to_owned();
            outcomes.push(TestOutcome::skipped(TestKind::Command, name, reason));
        }
        for test in &tests.contents {
            outcomes.push(TestOutcome::new(TestKind::Content, &test.name, self.content(test)?));
        }
        for test in &tests.existence {
            let path = expanded(&test.path, &variables);
            outcomes.push(TestOutcome::new(
                TestKind::Existence,
                &test.name,
                self.existence(test, &path)?,
            ));
        }
        for test in &tests.licences {
            outcomes.push(TestOutcome::new(TestKind::Licence, "", self.licence(test)?));
        }
        if let Some(test) = &tests.metadata {
            outcomes.push(TestOutcome::new(TestKind::Metadata, "", self.metadata(test)));
        }
        Ok(outcomes)
    }

    /// Reads, from the layers of a base image, the files that the tests need. Each layer is read
    /// once.
    fn load(&self, tests: &Tests) -> Result<(), FilesError> {
        let mut files = Vec::new();
        let of_licences = tests.licences.iter().flat_map(|test| &test.files);
        for path in tests.contents.iter().map(|test| &test.path).chain(of_licences) {
            if let Found::Here(file, _) = self.files.find(path, Last::Followed)? {
                files.push(file);
            }
        }
        self.files.load(&files)
    }

    /// Returns the reasons why a test of a file's text fails; none if it passes.
    fn content(&self, test: &ContentTest) -> Result<Vec<String>, FilesError> {
        let text = match self.text(&test.path)? {
            Ok(text) => text,
            Err(reason) => return Ok(vec![reason]),
        };
        let expected = test.expected.iter().filter(|pattern| !pattern.finds(text.as_bytes()));
        let excluded = test.excluded.iter().filter(|pattern| pattern.finds(text.as_bytes()));
        let path = &test.path;
        let missing =
            expected.map(|pattern| format!("`{}` is not found in {path}", pattern.as_str()));
        let found = excluded.map(|pattern| format!("`{}` is found in {path}", pattern.as_str()));
        Ok(missing.chain(found).collect())
    }

    /// Returns the text of a file, or the reason why there is none. Bytes that are not UTF-8 are
    /// replaced, as Go does.
    fn text(&self, path: &str) -> Result<Result<String, String>, FilesError> {
        let file = match self.files.find(path, Last::Followed)? {
            Found::Here(file, _) => file,
            Found::Nowhere(absent) => return Ok(Err(missing(path, &absent))),
            Found::Unknown => return Ok(Err(format!("{path} is in a layer that was not read"))),
        };
        match self.files.bytes(&file, LARGEST) {
            Ok(Some(bytes)) => Ok(Ok(String::from_utf8_lossy(&bytes).into_owned())),
            Ok(None) => Ok(Err(format!("{path} is {}, and no file", kind_name(&file.kind)))),
            Err(error @ FilesError::Large { .. }) => Ok(Err(format!("{path} {error}"))),
            Err(error) => Err(error),
        }
    }

    fn existence(&self, test: &ExistenceTest, path: &str) -> Result<Vec<String>, FilesError> {
        // If the path ends in a link, the test is about the link and not about its target.
        let file = match self.files.find(path, Last::Itself)? {
            Found::Here(file, _) => file,
            _ if !test.should_exist => return Ok(Vec::new()),
            Found::Nowhere(absent) => return Ok(vec![missing(path, &absent)]),
            Found::Unknown => return Ok(vec![format!("{path} is in a layer that was not read")]),
        };
        if !test.should_exist {
            return Ok(vec![format!("{path} is in the image: {}", kind_name(&file.kind))]);
        }
        let mut reasons = Vec::new();
        let end = match &file.kind {
            FileKind::Symlink(_) => match self.files.find(path, Last::Followed)? {
                Found::Here(end, _) => Some(end),
                Found::Nowhere(_) | Found::Unknown => None,
            },
            _ => Some(file.clone()),
        };
        let attributes = file.attributes;
        let found = permissions(&file);
        if let Some(expected) = test.permissions.as_ref()
            && ![&found, &listed(&file)].contains(&expected)
        {
            let leads = match (&file.kind, &end) {
                (FileKind::Symlink(_), Some(end)) => {
                    format!(", as a link; it leads to {}, with {}", end.path, permissions(end))
                }
                _ => String::new(),
            };
            reasons.push(format!("{path} has {found}, not {expected}{leads}"));
        }
        for (what, expected, found) in
            [("owner", test.uid, attributes.uid), ("group", test.gid, attributes.gid)]
        {
            if let Some(expected) = expected.filter(|expected| *expected != found) {
                reasons.push(format!("the {what} of {path} is {found}, not {expected}"));
            }
        }
        if let Some(ExecutableBy { name, bits }) = test.executable_by {
            match &end {
                Some(end) if end.attributes.mode & bits != 0 => {}
                Some(end) => reasons.push(format!(
                    "{path} is not executable by {name}: it has {}",
                    permissions(end)
                )),
                None => reasons.push(format!("{path} is a link that leads nowhere")),
            }
        }
        Ok(reasons)
    }

    fn licence(&self, test: &LicenceTest) -> Result<Vec<String>, FilesError> {
        let mut paths = Vec::new();
        let mut reasons = Vec::new();
        if test.debian {
            match self.files.find(LICENCES, Last::Followed)? {
                Found::Here(directory, _) => {
                    for name in self.files.names_in(&directory)? {
                        let name = String::from_utf8_lossy(&name).into_owned();
                        let path = format!("{LICENCES}/{name}");
                        let is_directory = match self.files.find(&path, Last::Itself)? {
                            Found::Here(file, _) => file.kind == FileKind::Directory,
                            Found::Nowhere(_) | Found::Unknown => false,
                        };
                        if is_directory && !ACCEPTED.contains(&&*name) {
                            paths.push(format!("{path}/copyright"));
                        }
                    }
                }
                _ => reasons.push(format!("{LICENCES} is not in the image")),
            }
        }
        let mut files = Vec::new();
        for path in &paths {
            if let Found::Here(file, _) = self.files.find(path, Last::Followed)? {
                files.push(file);
            }
        }
        self.files.load(&files)?;
        paths.extend(test.files.iter().cloned());
        for path in paths {
            match self.text(&path)? {
                Err(reason) => reasons.push(reason),
                Ok(text) => {
                    let text = text.to_uppercase();
                    let refused = REFUSED.iter().find(|word| text.contains(*word));
                    reasons.extend(refused.map(|word| format!("{path} has {word}")));
                }
            }
        }
        Ok(reasons)
    }

    fn metadata(&self, test: &MetadataTest) -> Vec<String> {
        let mut reasons = Vec::new();
        let variables = self.variables();
        let labels = self.value("Labels").and_then(Value::as_object);
        let label = |key: &str| labels?.get(key)?.as_str();
        for (key, expected) in &test.variables {
            let found = variables.get(key).map(String::as_str);
            reasons.extend(differs(&format!("the variable {key}"), found, expected));
        }
        for key in test.unbound.iter().filter(|key| variables.contains_key(*key)) {
            reasons.push(format!("the variable {key} is set: {}", quoted(&variables[key])));
        }
        for (key, expected) in &test.labels {
            reasons.extend(differs(&format!("the label {key}"), label(key), expected));
        }
        for (key, expected) in [("Entrypoint", &test.entrypoint), ("Cmd", &test.cmd)] {
            let found = self.list(key);
            if let Some(expected) = expected.as_ref().filter(|expected| **expected != found) {
                reasons.push(format!("`{key}` is {}, not {}", array(&found), array(expected)));
            }
        }
        for (key, expected) in [("WorkingDir", &test.workdir), ("User", &test.user)] {
            let found = self.value(key).and_then(Value::as_str).unwrap_or_default();
            if let Some(expected) = expected.as_deref().filter(|expected| *expected != found) {
                reasons.push(format!("`{key}` is {}, not {}", quoted(found), quoted(expected)));
            }
        }
        let ports = self.keys("ExposedPorts");
        let is_exposed = |port: &String| {
            ports.iter().any(|found| found == port || found.split('/').next() == Some(port))
        };
        let volumes = self.keys("Volumes");
        let is_volume = |volume: &String| volumes.contains(volume);
        let lacking = |what: &str, name: &String| format!("{name} is no {what}");
        let having = |what: &str, name: &String| format!("{name} is {what}");
        let ports_missing = test.exposed.iter().filter(|port| !is_exposed(port));
        let ports_found = test.unexposed.iter().filter(|port| is_exposed(port));
        let volumes_missing = test.volumes.iter().filter(|volume| !is_volume(volume));
        let volumes_found = test.unmounted.iter().filter(|volume| is_volume(volume));
        reasons.extend(ports_missing.map(|port| lacking("exposed port", port)));
        reasons.extend(ports_found.map(|port| having("an exposed port", port)));
        reasons.extend(volumes_missing.map(|volume| lacking("volume", volume)));
        reasons.extend(volumes_found.map(|volume| having("a volume", volume)));
        reasons
    }

    fn value(&self, key: &str) -> Option<&Value> {
        self.spec.config.as_map().get(key)
    }

    fn list(&self, key: &str) -> Vec<String> {
        let list = self.value(key).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn keys(&self, key: &str) -> Vec<String> {
        let map = self.value(key).and_then(Value::as_object);
        map.into_iter().flat_map(|map| map.keys().cloned()).collect()
    }

    fn variables(&self) -> BTreeMap<String, String> {
        let list = self.list("Env");
        let pair = |pair: &String| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            (key.to_owned(), value.to_owned())
        };
        list.iter().map(pair).collect()
    }

    /// Returns the image's variables, together with those that a document adds. `$NAME` in an added
    /// value stands for a variable of the image.
    fn variables_with(&self, more: &[(String, String)]) -> BTreeMap<String, String> {
        let own = self.variables();
        let mut all = own.clone();
        all.extend(more.iter().map(|(key, value)| (key.clone(), expanded(value, &own))));
        all
    }
}

/// Says why no file was found at a path.
fn missing(path: &str, absent: &Absent) -> String {
    match absent {
        Absent::Nothing(place)
            if place.to_string().trim_end_matches('/') != path.trim_end_matches('/') =>
        {
            format!("{path} is not in the image: {} is not there", place)
        }
        Absent::Nothing(_) => format!("{path} is not in the image"),
        Absent::NoDirectory(place) => {
            format!("{path} is not in the image: {} is no directory", place)
        }
        Absent::Circle => format!("{path} is not in the image: its links lead in a circle"),
    }
}

fn kind_name(kind: &FileKind) -> &'static str {
    match kind {
        FileKind::Directory => "a directory",
        FileKind::File(_) => "a file",
        FileKind::Symlink(_) => "a link",
        FileKind::Special(SpecialKind::Fifo) => "a FIFO",
        FileKind::Special(SpecialKind::Block | SpecialKind::Character) => "a device",
    }
}

/// Returns type and permissions as Go's `FileMode` prints them, such as `dtrwxrwxrwx` for `/tmp`.
fn permissions(file: &ImageFile) -> String {
    let mode = file.attributes.mode;
    let letters = [
        (matches!(file.kind, FileKind::Directory), 'd'),
        (matches!(file.kind, FileKind::Symlink(_)), 'L'),
        (matches!(file.kind, FileKind::Special(SpecialKind::Block | SpecialKind::Character)), 'D'),
        (file.kind == FileKind::Special(SpecialKind::Fifo), 'p'),
        (mode & 0o4000 != 0, 'u'),
        (mode & 0o2000 != 0, 'g'),
        (file.kind == FileKind::Special(SpecialKind::Character), 'c'),
        (mode & 0o1000 != 0, 't'),
    ];
    let mut text: String = letters.iter().filter(|(is, _)| *is).map(|(_, letter)| letter).collect();
    if text.is_empty() {
        text.push('-');
    }
    text + &bits(mode)
}

/// Returns type and permissions as `ls -l` prints them, such as `drwxrwxrwt` for `/tmp`.
fn listed(file: &ImageFile) -> String {
    let mode = file.attributes.mode;
    let kind = match file.kind {
        FileKind::Directory => 'd',
        FileKind::Symlink(_) => 'l',
        FileKind::Special(SpecialKind::Fifo) => 'p',
        FileKind::Special(SpecialKind::Block) => 'b',
        FileKind::Special(SpecialKind::Character) => 'c',
        FileKind::File(_) => '-',
    };
    let mut letters: Vec<char> = bits(mode).chars().collect();
    for (bit, place, with, without) in
        [(0o4000, 2, 's', 'S'), (0o2000, 5, 's', 'S'), (0o1000, 8, 't', 'T')]
    {
        if mode & bit != 0 {
            letters[place] = if letters[place] == 'x' { with } else { without };
        }
    }
    std::iter::once(kind).chain(letters).collect()
}

fn bits(mode: u32) -> String {
    let letters = "rwxrwxrwx".chars().enumerate();
    letters.map(|(index, letter)| if mode >> (8 - index) & 1 != 0 { letter } else { '-' }).collect()
}

/// Returns how a value differs from the expected one, if it does.
fn differs(what: &str, found: Option<&str>, expected: &Expected) -> Option<String> {
    let Some(found) = found else { return Some(format!("{what} is not set")) };
    match expected {
        Expected::Text(expected) if expected == found => None,
        Expected::Text(expected) => {
            Some(format!("{what} is {}, not {}", quoted(found), quoted(expected)))
        }
        Expected::Pattern(pattern) if pattern.finds(found.as_bytes()) => None,
        Expected::Pattern(pattern) => Some(unmatched(what, found, pattern)),
    }
}

fn unmatched(what: &str, found: &str, pattern: &Pattern) -> String {
    format!("{what} is {}, in which `{}` is not found", quoted(found), pattern.as_str())
}

/// Quotes a value, or the beginning of a long one.
fn quoted(text: &str) -> String {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= QUOTED).last();
    let end = if text.len() <= QUOTED { text.len() } else { end.unwrap_or(0) };
    let more = if end < text.len() { "…" } else { "" };
    format!("`{}{more}`", text[..end].escape_debug())
}

fn array(list: &[String]) -> String {
    let texts: Vec<_> = list.iter().map(|text| format!("{text:?}")).collect();
    format!("[{}]", texts.join(", "))
}

/// Replaces `$NAME` and `${NAME}` by the variable's value, as Go's `os.Expand` does. A variable
/// that is not set is empty.
fn expanded(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(dollar) = rest.find('$') {
        result += &rest[..dollar];
        let after = &rest[dollar + 1..];
        let (name, left) = if let Some(braced) = after.strip_prefix('{') {
            match braced.split_once('}') {
                Some((name, left)) => (name, left),
                // The syntax is wrong: the characters are left out.
                None => ("", braced),
            }
        } else {
            let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
            let end = after.find(|c| !is_name(c)).unwrap_or(after.len());
            if end == 0 {
                result.push('$');
            }
            (&after[..end], &after[end..])
        };
        result += variables.get(name).map_or("", String::as_str);
        rest = left;
    }
    result + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let variables =
            BTreeMap::from([("A".to_owned(), "a".to_owned()), ("A_B".to_owned(), "ab".to_owned())]);
        for (text, expected) in [
            ("/x", "/x"),
            ("$A/x", "a/x"),
            ("/${A}x", "/ax"),
            ("$A_B", "ab"),
            ("$C", ""),
            ("a$", "a$"),
            ("$/x", "$/x"),
            ("${A", "A"),
        ] {
            assert_eq!(expanded(text, &variables), expected, "{text}");
        }
    }
}
