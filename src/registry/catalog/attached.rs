//! Reads the documents that are served beside an image.
//! Stage: registry. Input: a list of files. Output: [`Attached`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::prepared::PreparedArtifact;
use super::watches::Round;
use crate::proof::{AttachedFile, Attachment, Subject};
use crate::registry::fingerprint::Fingerprint;
use crate::small_file;

/// The end of the name of a list, after the name of the file with the image. No repository and no
/// tag has such a name.
pub const ENDING: &str = "@attach";
/// The largest list.
const LIST: usize = 1 << 20;

/// The documents that a list names, as they were read.
#[derive(Default)]
pub struct Attached {
    /// The image that the documents refer to.
    subject: Option<Subject>,
    /// The list and the documents.
    files: Vec<(PathBuf, Option<Fingerprint>)>,
    is_fresh: bool,
    /// The documents with their manifests.
    pub attachments: Vec<Arc<Attachment>>,
    /// The reason why the list can't be used, for people.
    pub problem: Option<String>,
}

/// Returns the path of the list for the file of an image.
pub fn list_of(image: &Path) -> PathBuf {
    let mut list = image.as_os_str().to_owned();
    list.push(ENDING);
    list.into()
}

impl Attached {
    /// Returns the documents for an image. Reads them again only if the list or a document has
    /// changed, or with `all`. If they can't be read, the old ones stay.
    pub fn again(
        self,
        list: &Path,
        image: Option<&PreparedArtifact>,
        all: bool,
        round: &mut Round,
    ) -> Self {
        let Some(image) = image else { return Self::default() };
        let subject = image.subject();
        let paths = [list.to_owned()].into_iter().chain(self.files.iter().map(|it| it.0.clone()));
        if let Some(path) = round.hanging(paths.collect()).first() {
            let problem = format!("{} does not answer", path.display());
            return Self { problem: Some(problem), ..self };
        }
        let is_same = self.subject.as_ref() == Some(&subject);
        if !all
            && is_same
            && !self.is_fresh
            && self.files.iter().all(|file| is_as_before(file, round))
        {
            return self;
        }
        let mut files = vec![look(list.to_owned(), round)];
        let read = read(list, &mut files, &subject, round);
        let now = std::time::SystemTime::now();
        let is_fresh =
            files.iter().any(|(_, found)| found.is_some_and(|found| found.is_fresh(now)));
        let (attachments, problem) = match read {
            Ok(attachments) => (attachments, None),
            Err(problem) => {
                let old = if is_same { self.attachments } else { Vec::new() };
                (old, Some(problem))
            }
        };
        Self { subject: Some(subject), files, is_fresh, attachments, problem }
    }

    /// Returns whether a document may have changed once more without a trace.
    pub fn is_fresh(&self) -> bool {
        self.is_fresh
    }
}

fn look(path: PathBuf, round: &mut Round) -> (PathBuf, Option<Fingerprint>) {
    round.watch_file(&path);
    let fingerprint = Fingerprint::of(&path);
    (path, fingerprint)
}

fn is_as_before((path, fingerprint): &(PathBuf, Option<Fingerprint>), round: &mut Round) -> bool {
    round.watch_file(path);
    Fingerprint::of(path) == *fingerprint
}

/// Reads a list and its documents: a line each, with the file and its media type. Empty lines and
/// those that begin with `#` are comments.
fn read(
    list: &Path,
    files: &mut Vec<(PathBuf, Option<Fingerprint>)>,
    subject: &Subject,
    round: &mut Round,
) -> Result<Vec<Arc<Attachment>>, String> {
    let text = read_file(list)?;
    if text.len() > LIST {
        return Err(format!("{}: it is larger than {LIST} bytes", list.display()));
    }
    let text = String::from_utf8(text).map_err(|error| format!("{}: {error}", list.display()))?;
    let mut attachments: Vec<Arc<Attachment>> = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let problem = |error: &dyn std::fmt::Display| {
            format!("{}, line {}: {error}", list.display(), number + 1)
        };
        let attached: AttachedFile = line.parse().map_err(|error| problem(&error))?;
        let path = list.parent().unwrap_or(Path::new("")).join(&attached.file);
        if round.hangs(&path) {
            return Err(problem(&format!("{} does not answer", path.display())));
        }
        files.push(look(path.clone(), round));
        let document = read_file(&path).map_err(|error| problem(&error))?;
        let attachment = Attachment::of(subject.clone(), attached.document(document));
        attachments.push(Arc::new(attachment));
    }
    Ok(attachments)
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    small_file::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}
