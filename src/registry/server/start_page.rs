//! Writes the page that people see who open the server's address in a browser.
//! Stage: registry (pure). Input: repositories. Output: HTML.

use std::fmt::Write;

use super::route::MAP;
use crate::oci::Platform;
use crate::outgoing::RepositoryName;
use crate::registry::catalog::Repository;

const HEAD: &str = include_str!("start_page.html");
const PACKAGES: &str = include_str!("../on_demand/start_page.html");
/// The most images that the page lists: a browser has to show them.
const MOST: usize = 1000;

/// The things that the server offers beside images.
#[derive(Clone, Copy)]
pub struct Offers {
    /// True if it builds images by the names of packages.
    pub packages: bool,
    /// True if it has pages with the contents of images.
    pub maps: bool,
}

/// Returns the page. `host` is the server's name for clients.
pub fn start_page<'r>(
    host: &str,
    has: Offers,
    repositories: impl Iterator<Item = (&'r RepositoryName, &'r Repository)>,
) -> String {
    let images = repositories
        .flat_map(|(name, repository)| repository.tags().map(move |tag| (name, tag, repository)));
    let mut rows = String::new();
    let mut count = 0_usize;
    for (name, tag, repository) in images {
        count += 1;
        if count <= MOST {
            // Names and tags have no characters with a meaning in HTML.
            let _ = write!(rows, "<tr><td><code>docker pull {host}/{name}:{tag}</code>");
            let artifact = repository.artifact(tag);
            let platforms: Vec<_> =
                artifact.into_iter().flat_map(|artifact| artifact.platforms()).collect();
            let text = |of: &dyn Fn(&(Platform, u64)) -> String| {
                platforms.iter().map(of).collect::<Vec<_>>().join("<br>")
            };
            let (kinds, sizes) = (text(&|it| it.0.to_string()), text(&|it| megabytes(it.1)));
            let _ = write!(rows, "<td>{kinds}<td class=\"size\">{sizes}");
            if has.maps && artifact.is_some_and(|artifact| artifact.file().is_some()) {
                let link = |(platform, _): &(Platform, u64)| {
                    let platform = platform.to_string();
                    let kind = platform.trim_start_matches("linux/");
                    // A name may hold no character that has a meaning in an address.
                    format!("<a href=\"{MAP}{name}:{tag}?{kind}\">contents</a>")
                };
                let _ = write!(rows, "<td>{}", text(&link));
            }
            rows.push('\n');
        }
    }
    let mut page = HEAD.to_owned();
    if count > 0 {
        page += "<h1>Images</h1>\n<table>\n<tr><th>Image<th>Platform<th>Size\n";
        page += &rows;
        page += "</table>\n";
        if count > MOST {
            let more = count - MOST;
            let _ = writeln!(page, "<p>There are {more} more: <code>/v2/_catalog</code></p>");
        }
    } else if !has.packages {
        page += "<h1>Images</h1>\n<p>This registry has no images yet.</p>\n";
    }
    if has.packages {
        page += &PACKAGES.replace("HOST", host);
    }
    page + "</html>\n"
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_the_server_can_do() {
        let none = || std::iter::empty();
        let offers = |packages| Offers { packages, maps: true };
        let empty = start_page("h:1", offers(false), none());
        assert!(empty.contains("no images yet") && !empty.contains("packages"), "{empty}");
        let packages = start_page("h:1", offers(true), none());
        assert!(packages.contains("docker run -it --rm h:1/shell/git"), "{packages}");
        assert!(!packages.contains("no images yet") && !packages.contains("HOST"), "{packages}");
        assert_eq!(megabytes(12_345_678), "12.3 MB");
        assert_eq!(megabytes(50_000), "0.0 MB");
    }
}
