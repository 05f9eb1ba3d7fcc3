//! A finding of the lint: the check, how sure it is, and the file.
//! Stage: report. Vocabulary of the lint.

use std::fmt;
use std::str::FromStr;

use serde::Serialize;

/// A likely mistake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// The check that found it.
    pub check: Check,
    /// The certainty that something fails.
    pub level: Level,
    /// The number of the file's layer, from 1 at the bottom.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer: Option<usize>,
    /// The file in the image that has the mistake.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// The description of the mistake.
    pub message: String,
    /// The number of further files that show the same mistake.
    #[serde(skip_serializing_if = "is_zero")]
    pub more: usize,
}

impl Finding {
    /// Makes a finding of a path.
    pub fn of_path(check: Check, level: Level, path: &str, message: String) -> Self {
        Self { check, level, layer: None, path: Some(path.to_owned()), message, more: 0 }
    }

    /// Makes a finding of the config alone.
    pub fn of_config(check: Check, level: Level, message: String) -> Self {
        Self { check, level, layer: None, path: None, message, more: 0 }
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The certainty that something fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// An error: the container does not start, or a part of it surely fails.
    Error,
    /// A warning: the finding is most likely a mistake.
    Warning,
    /// A note: the finding may be intended, and matters in some environments only.
    Note,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// The checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// The image has more layers than some engines take.
    Layers,
    /// The config names a file that the image lacks.
    MissingFile,
    /// A program that the config names can't be executed by the user.
    NotExecutable,
    /// The interpreter of a script is missing, or its first line is wrong.
    Interpreter,
    /// The dynamic loader of a program is missing.
    Loader,
    /// A library of a program is missing.
    Library,
    /// The config names a user or group that the image lacks.
    MissingUser,
    /// Kubernetes can't tell whether the user is root.
    RunAsNonRoot,
    /// The working directory can't be entered.
    WorkingDir,
    /// A volume is in the place of a file.
    Volume,
    /// The directory for temporary files is missing, or not every user may write to it.
    Tmp,
    /// A link that is copied to `/` leads nowhere.
    DanglingLink,
    /// A directory in which Docker makes files is a link, which Docker removes.
    LinkedDirectory,
    /// A name leads out of the image, or a layer has it twice.
    Name,
    /// A program is for another machine.
    Machine,
    /// A program runs with the rights of its owner or group for every user.
    SetId,
    /// A file has an owner that containers without root can't have.
    Owner,
}

impl Check {
    /// The checks, in the order of messages.
    pub const ALL: [Self; 17] = [
        Self::Layers,
        Self::MissingFile,
        Self::NotExecutable,
        Self::Interpreter,
        Self::Loader,
        Self::Library,
        Self::MissingUser,
        Self::RunAsNonRoot,
        Self::WorkingDir,
        Self::Volume,
        Self::Tmp,
        Self::DanglingLink,
        Self::LinkedDirectory,
        Self::Name,
        Self::Machine,
        Self::SetId,
        Self::Owner,
    ];

    /// Returns the name, as in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Self::Layers => "layers",
            Self::MissingFile => "missing-file",
            Self::NotExecutable => "not-executable",
            Self::Interpreter => "interpreter",
            Self::Loader => "loader",
            Self::Library => "library",
            Self::MissingUser => "missing-user",
            Self::RunAsNonRoot => "run-as-non-root",
            Self::WorkingDir => "working-dir",
            Self::Volume => "volume",
            Self::Tmp => "tmp",
            Self::DanglingLink => "dangling-link",
            Self::LinkedDirectory => "linked-directory",
            Self::Name => "name",
            Self::Machine => "machine",
            Self::SetId => "set-id",
            Self::Owner => "owner",
        }
    }
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|check| check.name() == text).ok_or_else(|| {
            let names: Vec<_> = Self::ALL.into_iter().map(Self::name).collect();
            format!("there is no check `{text}`; checks are {}", names.join(", "))
        })
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(layer) = self.layer {
            write!(f, "layer {layer}: ")?;
        }
        if let Some(path) = &self.path {
            write!(f, "{}: ", path.escape_debug())?;
        }
        f.write_str(&self.message)?;
        if self.more > 0 {
            write!(f, " (and {} more)", self.more)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_have_one_name() {
        for check in Check::ALL {
            assert_eq!(serde_json::to_value(check).unwrap(), check.name());
            assert_eq!(check.name().parse(), Ok(check));
        }
        let error = "tpm".parse::<Check>().unwrap_err();
        assert!(error.starts_with("there is no check `tpm`; checks are layers, "), "{error}");
    }
}
