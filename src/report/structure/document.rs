//! Reads the tests of an image: container-structure-test's documents, version 2.
//! Stage: report (pure). Input: YAML or JSON. Output: [`Tests`].
//!
//! The fields and their defaults are those of container-structure-test's README. An unknown field
//! is an error: if its test were left out, it would seem to pass.

use super::error::DocumentError;
use super::node::{Value, YamlNode, of_json, of_yaml};
use crate::error::nearest_of;
use crate::layer::Pattern;

/// The version of the documents.
const VERSION: &str = "2.0.0";

/// The tests of a document.
#[derive(Debug, Default)]
pub struct Tests {
    /// The names of tests that run programs.
    pub commands: Vec<String>,
    /// The tests of the text in files.
    pub contents: Vec<ContentTest>,
    /// The tests that a file is there, or is not.
    pub existence: Vec<ExistenceTest>,
    /// The tests of licences.
    pub licences: Vec<LicenceTest>,
    /// The test of the configuration.
    pub metadata: Option<MetadataTest>,
    /// Variables that the document sets for its tests, in order.
    pub variables: Vec<(String, String)>,
}

/// A test of the text in a file.
#[derive(Debug)]
pub struct ContentTest {
    /// The name of the test.
    pub name: String,
    /// The path of the file.
    pub path: String,
    /// Patterns that the text must have.
    pub expected: Vec<Pattern>,
    /// Patterns that the text must not have.
    pub excluded: Vec<Pattern>,
}

/// A test that a file is there, or is not.
#[derive(Debug)]
pub struct ExistenceTest {
    /// The name of the test.
    pub name: String,
    /// The path of the file, which may have `$NAME` of variables in it.
    pub path: String,
    /// True if the file must be there, false if it must not.
    pub should_exist: bool,
    /// The type and permissions, such as `-rwxr-xr-x`.
    pub permissions: Option<String>,
    /// The number of the owner.
    pub uid: Option<u64>,
    /// The number of the group.
    pub gid: Option<u64>,
    /// The execute bits of which the file must have at least one.
    pub executable_by: Option<ExecutableBy>,
}

/// The execute bits of a file of which one must be set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExecutableBy {
    /// The word for these bits in the document: `owner`, `group`, `other` or `any`.
    pub name: &'static str,
    /// The bits of the file's mode.
    pub bits: u32,
}

/// A test of licences: no text may have the name of a licence that is not allowed.
#[derive(Debug)]
pub struct LicenceTest {
    /// True if the test reads the files in which Debian has the licences of packages.
    pub debian: bool,
    /// More files that the test reads.
    pub files: Vec<String>,
}

/// A test of the configuration.
#[derive(Debug, Default)]
pub struct MetadataTest {
    /// Variables that must be set.
    pub variables: Vec<(String, Expected)>,
    /// Variables that must not be set.
    pub unbound: Vec<String>,
    /// Labels that must be set.
    pub labels: Vec<(String, Expected)>,
    /// The value of `Entrypoint`.
    pub entrypoint: Option<Vec<String>>,
    /// The value of `Cmd`.
    pub cmd: Option<Vec<String>>,
    /// Ports that must be exposed.
    pub exposed: Vec<String>,
    /// Ports that must not be exposed.
    pub unexposed: Vec<String>,
    /// Directories that must be volumes.
    pub volumes: Vec<String>,
    /// Directories that must not be volumes.
    pub unmounted: Vec<String>,
    /// The value of `WorkingDir`.
    pub workdir: Option<String>,
    /// The value of `User`.
    pub user: Option<String>,
}

/// An expected value.
#[derive(Debug)]
pub enum Expected {
    /// Exactly this text.
    Text(String),
    /// A text in which the pattern is found.
    Pattern(Pattern),
}

type Result<T> = std::result::Result<T, DocumentError>;

/// A node, with the path of keys to it.
struct Item<'n> {
    node: &'n YamlNode,
    path: String,
}

/// The entries of a map, and the keys that the map may have.
struct Fields<'n> {
    item: Item<'n>,
    entries: &'n [(String, YamlNode)],
}

impl Tests {
    /// Reads a document. Text that begins as JSON does is JSON, and any other is YAML.
    ///
    /// # Errors
    /// Fails with [`DocumentError`], which names the place.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let is_json = text.trim_start().starts_with('{');
        let node = match is_json.then(|| of_json(text)) {
            Some(Ok(node)) => node,
            // YAML's short maps begin with a brace too.
            Some(Err(error)) => of_yaml(text).map_err(|_| error)?,
            None => of_yaml(text)?,
        };
        Self::of(&node)
    }

    fn of(node: &YamlNode) -> Result<Self> {
        const KINDS: [&str; 8] = [
            "schemaVersion",
            "globalEnvVars",
            "commandTests",
            "fileExistenceTests",
            "fileContentTests",
            "metadataTest",
            "licenseTests",
            "containerRunOptions",
        ];
        let document = Item { node, path: String::new() };
        let fields = document.fields(&KINDS)?;
        match fields.text("schemaVersion")?.as_deref() {
            Some(VERSION) => {}
            None | Some("") => {
                return Err(document.error(&format!("`schemaVersion: \"{VERSION}\"` is missing")));
            }
            Some(other) => {
                let reason = format!("version {other} is not known: `{VERSION}` is");
                return Err(fields.error_at("schemaVersion", &reason));
            }
        }
        if let Some(options) = fields.get("containerRunOptions") {
            options.fields(&[
                "user",
                "privileged",
                "allocateTty",
                "envFile",
                "envVars",
                "capabilities",
                "bindMounts",
            ])?;
        }
        let mut names = Vec::new();
        for command in fields.list("commandTests")? {
            names.push(command_name(&command)?);
        }
        let variables = fields.list("globalEnvVars")?;
        let variables: Result<Vec<_>> = variables.iter().map(variable).collect();
        Ok(Self {
            commands: names,
            contents: each(&fields, "fileContentTests", content)?,
            existence: each(&fields, "fileExistenceTests", existence)?,
            licences: each(&fields, "licenseTests", licence)?,
            metadata: fields.get("metadataTest").map(|item| metadata(&item)).transpose()?,
            variables: variables?,
        })
    }
}

fn each<T>(fields: &Fields, key: &str, read: fn(&Item) -> Result<T>) -> Result<Vec<T>> {
    fields.list(key)?.iter().map(read).collect()
}

fn command_name(item: &Item) -> Result<String> {
    let fields = item.fields(&[
        "name",
        "setup",
        "teardown",
        "envVars",
        "exitCode",
        "command",
        "args",
        "expectedOutput",
        "excludedOutput",
        "expectedError",
        "excludedError",
    ])?;
    fields.required("command")?;
    fields.required("name")
}

fn variable(item: &Item) -> Result<(String, String)> {
    let fields = item.fields(&["key", "value", "isRegex"])?;
    Ok((fields.required("key")?, fields.text("value")?.unwrap_or_default()))
}

fn content(item: &Item) -> Result<ContentTest> {
    let fields = item.fields(&["name", "path", "expectedContents", "excludedContents"])?;
    Ok(ContentTest {
        name: fields.required("name")?,
        path: fields.required("path")?,
        expected: fields.patterns("expectedContents")?,
        excluded: fields.patterns("excludedContents")?,
    })
}

fn existence(item: &Item) -> Result<ExistenceTest> {
    let fields = item.fields(&[
        "name",
        "path",
        "shouldExist",
        "permissions",
        "uid",
        "gid",
        "isExecutableBy",
    ])?;
    let permissions = fields.text("permissions")?.filter(|text| !text.is_empty());
    if permissions.as_deref().is_some_and(|text| !is_permissions(text)) {
        let reason = "must be a type and permissions, such as `-rwxr-xr-x` or `drwxr-xr-x`";
        return Err(fields.error_at("permissions", reason));
    }
    Ok(ExistenceTest {
        name: fields.required("name")?,
        path: fields.required("path")?,
        should_exist: fields.boolean("shouldExist")?.unwrap_or(true),
        permissions,
        uid: fields.number("uid")?,
        gid: fields.number("gid")?,
        executable_by: fields.executable_by()?,
    })
}

/// Returns whether a text ends in nine permissions, after at least one letter or `-`.
fn is_permissions(text: &str) -> bool {
    let bytes = text.as_bytes();
    let Some(split) = bytes.len().checked_sub(9).filter(|split| *split > 0) else { return false };
    let (kind, permissions) = bytes.split_at(split);
    let is_right = |(index, byte): (usize, &u8)| match index % 3 {
        0 => b"r-".contains(byte),
        1 => b"w-".contains(byte),
        _ => b"x-sStT".contains(byte),
    };
    kind.iter().all(|byte| b"-dalTLDpSugct?bs".contains(byte))
        && permissions.iter().enumerate().all(is_right)
}

fn licence(item: &Item) -> Result<LicenceTest> {
    let fields = item.fields(&["debian", "files"])?;
    Ok(LicenceTest {
        debian: fields.boolean("debian")?.unwrap_or(false),
        files: fields.texts("files")?.unwrap_or_default(),
    })
}

fn metadata(item: &Item) -> Result<MetadataTest> {
    let fields = item.fields(&[
        "envVars",
        "unboundEnvVars",
        "labels",
        "entrypoint",
        "cmd",
        "exposedPorts",
        "unexposedPorts",
        "volumes",
        "unmountedVolumes",
        "workdir",
        "user",
    ])?;
    let texts = |key: &str| Ok(fields.texts(key)?.unwrap_or_default());
    let text = |key: &str| Ok(fields.text(key)?.filter(|text| !text.is_empty()));
    let unbound: Result<Vec<_>> = fields.list("unboundEnvVars")?.iter().map(variable).collect();
    Ok(MetadataTest {
        variables: each(&fields, "envVars", expected)?,
        unbound: unbound?.into_iter().map(|(key, _)| key).collect(),
        labels: each(&fields, "labels", expected)?,
        entrypoint: fields.texts("entrypoint")?,
        cmd: fields.texts("cmd")?,
        exposed: texts("exposedPorts")?,
        unexposed: texts("unexposedPorts")?,
        volumes: texts("volumes")?,
        unmounted: texts("unmountedVolumes")?,
        workdir: text("workdir")?,
        user: text("user")?,
    })
}

fn expected(item: &Item) -> Result<(String, Expected)> {
    let fields = item.fields(&["key", "value", "isRegex"])?;
    let value = fields.text("value")?.unwrap_or_default();
    let expected = match fields.boolean("isRegex")? {
        Some(true) => Expected::Pattern(fields.pattern("value", &value)?),
        _ => Expected::Text(value),
    };
    Ok((fields.required("key")?, expected))
}

impl<'n> Item<'n> {
    fn error(&self, reason: &str) -> DocumentError {
        DocumentError::new(self.node.at, &self.path, reason)
    }

    fn wrong(&self, expected: &str) -> DocumentError {
        self.error(&format!("must be {expected}, not {}", self.node.value.type_name()))
    }

    /// Returns the fields of a map. Fails if the map has an unknown key.
    fn fields(&self, known: &[&'static str]) -> Result<Fields<'n>> {
        let entries = match &self.node.value {
            Value::Map(entries) => &entries[..],
            Value::Null if !self.path.is_empty() => &[],
            _ => return Err(self.wrong("a map")),
        };
        for (key, node) in entries {
            if known.contains(&&**key) {
                continue;
            }
            let meant = nearest_of(known.iter().copied(), key);
            let meant = match meant {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            let what = if self.path.is_empty() { "kind of test" } else { "key" };
            let at = node.at.or(self.node.at);
            let reason = format!("there is no {what} `{key}`; {meant}");
            return Err(DocumentError::new(at, &self.path, &reason));
        }
        Ok(Fields { item: Item { node: self.node, path: self.path.clone() }, entries })
    }

    fn text(&self) -> Result<Option<String>> {
        match &self.node.value {
            Value::Null => Ok(None),
            Value::Text { text, .. } => Ok(Some(text.clone())),
            Value::List(_) | Value::Map(_) => Err(self.wrong("text")),
        }
    }
}

impl<'n> Fields<'n> {
    /// Returns the value of a key, unless it is null.
    fn get(&self, key: &str) -> Option<Item<'n>> {
        let (_, node) = self.entries.iter().find(|(other, _)| other == key)?;
        let path = match &*self.item.path {
            "" => key.to_owned(),
            path => format!("{path}.{key}"),
        };
        (node.value != Value::Null).then_some(Item { node, path })
    }

    fn error_at(&self, key: &str, reason: &str) -> DocumentError {
        match self.get(key) {
            Some(item) => item.error(reason),
            None => self.item.error(reason),
        }
    }

    fn text(&self, key: &str) -> Result<Option<String>> {
        self.get(key).map_or(Ok(None), |item| item.text())
    }

    fn required(&self, key: &str) -> Result<String> {
        let text = self.text(key)?.filter(|text| !text.is_empty());
        text.ok_or_else(|| self.item.error(&format!("`{key}` is missing")))
    }

    fn list(&self, key: &str) -> Result<Vec<Item<'n>>> {
        let Some(item) = self.get(key) else { return Ok(Vec::new()) };
        let Value::List(list) = &item.node.value else { return Err(item.wrong("a list")) };
        let items = list.iter().enumerate();
        Ok(items
            .map(|(index, node)| Item { node, path: format!("{}[{index}]", item.path) })
            .collect())
    }

    fn texts(&self, key: &str) -> Result<Option<Vec<String>>> {
        if self.get(key).is_none() {
            return Ok(None);
        }
        let texts: Result<Vec<_>> =
            self.list(key)?.iter().map(|item| Ok(item.text()?.unwrap_or_default())).collect();
        texts.map(Some)
    }

    fn pattern(&self, key: &str, text: &str) -> Result<Pattern> {
        Pattern::new(text).map_err(|error| {
            let reason = error.to_string();
            let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
            self.error_at(key, &format!("`{text}` is no regular expression: {reason}"))
        })
    }

    fn patterns(&self, key: &str) -> Result<Vec<Pattern>> {
        let texts = self.texts(key)?.unwrap_or_default();
        texts.iter().map(|text| self.pattern(key, text)).collect()
    }

    fn plain(&self, key: &str, expected: &str) -> Result<Option<String>> {
        let Some(item) = self.get(key) else { return Ok(None) };
        match &item.node.value {
            Value::Text { text, is_plain: true } => Ok(Some(text.clone())),
            _ => Err(item.wrong(expected)),
        }
    }

    fn boolean(&self, key: &str) -> Result<Option<bool>> {
        const EXPECTED: &str = "true or false";
        let Some(text) = self.plain(key, EXPECTED)? else { return Ok(None) };
        match &*text.to_ascii_lowercase() {
            "true" | "yes" | "on" | "y" => Ok(Some(true)),
            "false" | "no" | "off" | "n" => Ok(Some(false)),
            _ => Err(self.error_at(key, &format!("must be {EXPECTED}, not `{text}`"))),
        }
    }

    /// Returns a number of a user or group; -1 stands for any.
    fn number(&self, key: &str) -> Result<Option<u64>> {
        const EXPECTED: &str = "a number";
        let Some(text) = self.plain(key, EXPECTED)? else { return Ok(None) };
        if text == "-1" {
            return Ok(None);
        }
        // These forms of numbers are those of YAML 1.1, which container-structure-test reads.
        let text = text.replace('_', "");
        let (digits, radix) = match text.strip_prefix('0') {
            Some(rest) if rest.starts_with(['x', 'X']) => (&rest[1..], 16),
            Some(rest) if rest.starts_with(['o', 'O']) => (&rest[1..], 8),
            Some(rest) if rest.starts_with(['b', 'B']) => (&rest[1..], 2),
            Some(rest) if !rest.is_empty() => (rest, 8),
            _ => (&*text, 10),
        };
        let is_number = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = u64::from_str_radix(digits, radix).ok().filter(|_| is_number);
        match number {
            Some(number) => Ok(Some(number)),
            None => Err(self.error_at(key, &format!("must be {EXPECTED}, not `{text}`"))),
        }
    }

    fn executable_by(&self) -> Result<Option<ExecutableBy>> {
        const KEY: &str = "isExecutableBy";
        const WHO: [ExecutableBy; 4] = [
            ExecutableBy { name: "owner", bits: 0o100 },
            ExecutableBy { name: "group", bits: 0o010 },
            ExecutableBy { name: "other", bits: 0o001 },
            ExecutableBy { name: "any", bits: 0o111 },
        ];
        let Some(text) = self.text(KEY)?.filter(|text| !text.is_empty()) else { return Ok(None) };
        let found = WHO.into_iter().find(|who| who.name == text);
        found.map(Some).ok_or_else(|| {
            let reason = format!("must be `owner`, `group`, `other` or `any`, not `{text}`");
            self.error_at(KEY, &reason)
        })
    }
}
