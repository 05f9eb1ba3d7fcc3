//! Checks out the files of a git repository: of a branch, a tag, or a commit that one of these
//! contains.
//! Stage: registry. Input: a repository and a revision. Output: a directory with the files.
//!
//! Branches and tags are only those under `refs/heads` and `refs/tags`. Other refs of a host, such
//! as `refs/pull/1/head`, may come from any user.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::processes::{Ended, RunningBuilds, command};
use super::request::is_commit;
use crate::digest::Digest;
use crate::foreign::with_public_urls;

/// The program that is run.
pub const GIT: &str = "git";

/// Says why the files could not be checked out.
#[derive(Debug)]
pub enum GitError {
    /// The repository has no such branch, tag or commit.
    NoRevision,
    /// git failed, with this output.
    Failed(String),
    /// git can't be run, or the files can't be written.
    Io(io::Error),
}

impl From<io::Error> for GitError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A repository, and its clone on disk.
pub struct GitSource<'a> {
    /// The address of the repository, as git accepts it.
    pub repository: &'a str,
    /// The directory for clones.
    pub clones: &'a Path,
    /// The programs that are running.
    pub running: &'a RunningBuilds,
}

impl GitSource<'_> {
    /// Writes the files of a branch, a tag or a commit into a directory, which must not exist.
    ///
    /// # Errors
    /// Fails with [`GitError`] if there is no such revision, or git or the disk fails.
    pub async fn check_out(&self, revision: &str, target: &Path) -> Result<(), GitError> {
        let commits = is_commit(revision);
        // For a commit, a clone of all branches shows which of them contain it. Branches and tags
        // need no history.
        let kind = if commits { "all" } else { "shallow" };
        let name = Digest::of(format!("{kind}\n{}", self.repository).as_bytes()).hex();
        let clone = self.clones.join(&name[..32]);
        fs::create_dir_all(&clone)?;
        let _lock = lock(clone.with_extension("lock")).await?;
        if !clone.join("HEAD").exists() {
            self.git(&clone, &["init", "--quiet", "--bare", "--template="]).await?;
        }
        let commit = if commits {
            self.fetch_commit(&clone, revision).await?
        } else {
            self.fetch_ref(&clone, revision).await?
        };
        let index = target.with_extension("index");
        let mut checkout = self.command(&clone);
        fs::create_dir(target)?;
        checkout.arg("--work-tree").arg(target).args(["-c", "core.bare=false"]);
        checkout.args(["checkout", "--force", "--quiet", &commit, "--", "."]);
        // Other checkouts of the clone have an index of their own too.
        checkout.env("GIT_INDEX_FILE", &index);
        let ended = self.running.run(checkout).await;
        let _ = fs::remove_file(index);
        succeeded(ended?)?;
        Ok(())
    }

    /// Fetches a branch or a tag, and returns its commit.
    async fn fetch_ref(&self, clone: &Path, revision: &str) -> Result<String, GitError> {
        let names = match revision {
            "HEAD" => vec![revision.to_owned()],
            full if full.starts_with("refs/") => vec![full.to_owned()],
            name => vec![format!("refs/heads/{name}"), format!("refs/tags/{name}")],
        };
        let mut list = vec!["ls-remote", "--quiet", "--", self.repository];
        list.extend(names.iter().map(String::as_str));
        let listed = self.git(clone, &list).await?;
        let found = |name: &&String| listed.lines().any(|line| names_ref(line, name));
        let name = names.iter().find(found).ok_or(GitError::NoRevision)?;
        let fetched = "refs/stowage/fetched";
        let refspec = format!("+{name}:{fetched}");
        let fetch = ["fetch", "--quiet", "--force", "--no-tags", "--depth=1", "--"];
        let fetch = [&fetch[..], &[self.repository, &refspec]].concat();
        if let Err(error) = self.git(clone, &fetch).await {
            // Servers without a git program of their own only offer whole histories.
            if !matches!(&error, GitError::Failed(said) if said.contains("shallow")) {
                return Err(error);
            }
            let whole: Vec<_> = fetch.into_iter().filter(|word| *word != "--depth=1").collect();
            self.git(clone, &whole).await?;
        }
        let commit = format!("{fetched}^{{commit}}");
        Ok(self.git(clone, &["rev-parse", "--verify", &commit]).await?.trim().to_owned())
    }

    /// Fetches all branches and tags, and checks that one of them contains a commit.
    async fn fetch_commit(&self, clone: &Path, commit: &str) -> Result<String, GitError> {
        let branches = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"];
        let fetch = ["fetch", "--quiet", "--force", "--prune", "--no-tags", "--"];
        let fetch = [&fetch[..], &[self.repository], &branches[..]].concat();
        self.git(clone, &fetch).await?;
        let contains = format!("--contains={commit}");
        let refs = ["for-each-ref", "--count=1", &contains, "refs/heads", "refs/tags"];
        match self.git(clone, &refs).await {
            Ok(refs) if !refs.trim().is_empty() => Ok(commit.to_owned()),
            // The commit is in no branch and no tag, or does not exist, or is not a commit.
            Ok(_) | Err(GitError::Failed(_)) => Err(GitError::NoRevision),
            Err(error) => Err(error),
        }
    }

    fn command(&self, clone: &Path) -> tokio::process::Command {
        let mut git = command(GIT);
        git.arg("--git-dir").arg(clone);
        // Code of a repository is never run.
        git.args(["-c", "core.hooksPath=/dev/null", "-c", "gc.autoDetach=false"]);
        git
    }

    async fn git(&self, clone: &Path, arguments: &[&str]) -> Result<String, GitError> {
        let mut git = self.command(clone);
        git.args(arguments);
        succeeded(self.running.run(git).await?)
    }
}

/// Returns whether a line of `git ls-remote` is about a ref: the list also has refs that only end
/// with the name.
fn names_ref(line: &str, name: &str) -> bool {
    line.split_once('\t').is_some_and(|(_, found)| found == name)
}

fn succeeded(ended: Ended) -> Result<String, GitError> {
    if ended.succeeded {
        return Ok(ended.stdout);
    }
    tracing::warn!(output = with_public_urls(&ended.stderr), "git failed");
    Err(GitError::Failed(ended.stderr))
}

/// Locks a clone against other servers until the file is closed.
async fn lock(path: PathBuf) -> io::Result<File> {
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).append(true).open(path)?;
        file.lock()?;
        Ok(file)
    });
    locked.await?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_branches_and_tags_have_is_checked_out() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let running = RunningBuilds::default();
        let repository = path("repository");
        fs::create_dir(&repository).unwrap();
        let git = async |arguments: &[&str]| {
            let mut git = command(GIT);
            git.current_dir(&repository).args(["-c", "user.name=a", "-c", "user.email=a@b"]);
            git.args(["-c", "tag.gpgSign=false", "-c", "commit.gpgSign=false"]).args(arguments);
            let ended = running.run(git).await.unwrap();
            assert!(ended.succeeded, "{}", ended.stderr);
            ended.stdout.trim().to_owned()
        };
        git(&["init", "--quiet", "--initial-branch=main"]).await;
        let commit = async |text: &str| {
            fs::write(repository.join("file"), text).unwrap();
            git(&["add", "."]).await;
            git(&["commit", "--quiet", "--message=x"]).await;
            git(&["rev-parse", "HEAD"]).await
        };
        let first = commit("first").await;
        let second = commit("second").await;
        git(&["tag", "--annotate", "v1", "--message=x", &first]).await;
        let tag_object = git(&["rev-parse", "v1"]).await;
        let strangers = commit("a stranger's").await;
        git(&["update-ref", "refs/pull/1/head", &strangers]).await;
        git(&["update-ref", "refs/remotes/refs/heads/odd", &strangers]).await;
        git(&["reset", "--quiet", "--hard", &second]).await;

        let url = format!("file://{}", repository.display());
        let source = GitSource { repository: &url, clones: &path("clones"), running: &running };
        let none = "0".repeat(40);
        for (number, (revision, expected)) in [
            ("main", Some("second")),
            ("HEAD", Some("second")),
            ("v1", Some("first")),
            (&*first, Some("first")),
            (&*second, Some("second")),
            (&*strangers, None),
            (&*tag_object, Some("first")),
            (&*none, None),
            ("odd", None),
            ("pull/1/head", None),
            (&strangers[..12], None),
            ("main^", None),
        ]
        .into_iter()
        .enumerate()
        {
            let target = path(&format!("target{number}"));
            let done = source.check_out(revision, &target).await;
            match expected {
                Some(text) => {
                    done.unwrap();
                    assert_eq!(fs::read_to_string(target.join("file")).unwrap(), text);
                    assert_eq!(fs::read_dir(&target).unwrap().count(), 1);
                }
                None => assert!(matches!(done, Err(GitError::NoRevision)), "{revision}: {done:?}"),
            }
        }
        // A branch that was rewritten does not contain its old commits any more.
        git(&["reset", "--quiet", "--hard", &first]).await;
        let done = source.check_out(&second, &path("again")).await;
        assert!(matches!(done, Err(GitError::NoRevision)), "{done:?}");
    }

    #[test]
    fn refs_are_told_apart() {
        let line = "0123\trefs/remotes/refs/heads/x";
        assert!(names_ref(line, "refs/remotes/refs/heads/x") && !names_ref(line, "refs/heads/x"));
    }
}
