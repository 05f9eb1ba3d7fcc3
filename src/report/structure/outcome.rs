//! The results of tests, for people and programs.
//! Stage: report (pure). Vocabulary of the tests.

use std::fmt;

use serde::Serialize;

/// The result of one test.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TestOutcome {
    /// The kind of the test.
    pub kind: TestKind,
    /// The name; empty for a kind whose tests have none.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The verdict.
    pub result: TestVerdict,
    /// The reasons for a failure, or for which the test was skipped.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
}

/// The kind of a test, by its key in the document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum TestKind {
    /// A test that runs a program.
    #[serde(rename = "commandTests")]
    Command,
    /// A test of the text in a file.
    #[serde(rename = "fileContentTests")]
    Content,
    /// A test that a file is there, or is not.
    #[serde(rename = "fileExistenceTests")]
    Existence,
    /// A test of licences.
    #[serde(rename = "licenseTests")]
    Licence,
    /// The test of the configuration.
    #[serde(rename = "metadataTest")]
    Metadata,
}

/// The verdict on a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum TestVerdict {
    /// The image is as the test expects.
    Pass,
    /// The image is not as the test expects.
    Fail,
    /// The test was not carried out.
    Skip,
}

/// The results of a document's tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FileOutcome {
    /// The file of the document, as it was given.
    pub file: String,
    /// The results, in the order of container-structure-test.
    pub tests: Vec<TestOutcome>,
}

/// The results of all tests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestReport {
    /// The number of tests that passed.
    pub passed: usize,
    /// The number of tests that failed.
    pub failed: usize,
    /// The number of tests that were not carried out.
    pub skipped: usize,
    /// The results of each document.
    pub files: Vec<FileOutcome>,
}

impl TestOutcome {
    /// Makes the result of a test that was carried out. It fails if there are reasons, and passes
    /// otherwise.
    pub fn new(kind: TestKind, name: &str, reasons: Vec<String>) -> Self {
        let result = if reasons.is_empty() { TestVerdict::Pass } else { TestVerdict::Fail };
        Self { kind, name: name.to_owned(), result, reasons }
    }

    /// Makes the result of a test that was not carried out.
    pub fn skipped(kind: TestKind, name: &str, reason: String) -> Self {
        Self { kind, name: name.to_owned(), result: TestVerdict::Skip, reasons: vec![reason] }
    }

    /// Returns the title, as container-structure-test prints it.
    pub fn title(&self) -> String {
        let kind = match self.kind {
            TestKind::Command => "Command Test",
            TestKind::Content => "File Content Test",
            TestKind::Existence => "File Existence Test",
            TestKind::Licence => "License Test",
            TestKind::Metadata => "Metadata Test",
        };
        if self.name.is_empty() { kind.to_owned() } else { format!("{kind}: {}", self.name) }
    }
}

impl fmt::Display for TestOutcome {
    /// Writes the result on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.result {
            TestVerdict::Pass => "PASS",
            TestVerdict::Fail => "FAIL",
            TestVerdict::Skip => "SKIP",
        })?;
        write!(f, " {}", one_line(&self.title()))?;
        for (index, reason) in self.reasons.iter().enumerate() {
            f.write_str(if index == 0 { ": " } else { "; " })?;
            f.write_str(&one_line(reason))?;
        }
        Ok(())
    }
}

/// Escapes characters that would end the line, or that terminals take for commands.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

impl TestReport {
    /// Counts the results.
    pub fn new(files: Vec<FileOutcome>) -> Self {
        let count = |verdict| {
            files.iter().flat_map(|file| &file.tests).filter(|test| test.result == verdict).count()
        };
        let (passed, failed) = (count(TestVerdict::Pass), count(TestVerdict::Fail));
        Self { passed, failed, skipped: count(TestVerdict::Skip), files }
    }

    /// Returns the results as JUnit's XML, which services for continuous integration can show.
    pub fn to_junit(&self) -> String {
        let total = self.passed + self.failed + self.skipped;
        let mut xml = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites tests=\"{total}\" failures=\"{}\" skipped=\"{}\">\n",
            self.failed, self.skipped
        );
        for FileOutcome { file, tests } in &self.files {
            let count = |verdict| tests.iter().filter(|test| test.result == verdict).count();
            xml += &format!(
                "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" skipped=\"{}\">\n",
                escaped(file),
                tests.len(),
                count(TestVerdict::Fail),
                count(TestVerdict::Skip)
            );
            for test in tests {
                let (title, reasons) = (escaped(&test.title()), escaped(&test.reasons.join("\n")));
                xml += &match test.result {
                    TestVerdict::Pass => format!("    <testcase name=\"{title}\"/>\n"),
                    TestVerdict::Fail => format!(
                        "    <testcase name=\"{title}\"><failure>{reasons}</failure></testcase>\n"
                    ),
                    TestVerdict::Skip => format!(
                        "    <testcase name=\"{title}\"><skipped message=\"{reasons}\"/></testcase>\n"
                    ),
                };
            }
            xml += "  </testsuite>\n";
        }
        xml + "</testsuites>\n"
    }
}

/// Escapes text for XML 1.0, which does not allow most control characters.
fn escaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => result += "&amp;",
            '<' => result += "&lt;",
            '>' => result += "&gt;",
            '"' => result += "&quot;",
            '\n' | '\t' => result.push(c),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => result.push('\u{fffd}'),
            c => result.push(c),
        }
    }
    result
}
