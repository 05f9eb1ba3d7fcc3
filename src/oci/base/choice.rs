//! Chooses, of several images, the one for a platform.
//! Stage: oci (pure). Input: the platforms of an index. Output: one entry, or an error.

use std::collections::BTreeSet;

use super::error::Problem;
use crate::oci::platform::Platform;

/// Returns the one entry for a platform. Entries with the same key count as one.
///
/// Chooses, of several variants, the one that every machine supports. For 32-bit ARM there is no
/// such variant, and none is guessed.
pub fn choose<T, K: Ord>(
    entries: Vec<(Platform, T)>,
    wanted: &Platform,
    key: impl Fn(&T) -> K,
) -> Result<T, Problem> {
    let platforms: BTreeSet<_> = entries.iter().map(|(platform, _)| platform.clone()).collect();
    let distinct = |entries: Vec<(Platform, T)>| {
        let mut seen = BTreeSet::new();
        entries.into_iter().filter(|(_, entry)| seen.insert(key(entry))).collect::<Vec<_>>()
    };
    let mut matching = distinct(entries.into_iter().filter(|(at, _)| at.is(wanted)).collect());
    if matching.len() > 1 && matching.iter().any(|(platform, _)| platform.has_common_variant()) {
        matching.retain(|(platform, _)| platform.has_common_variant());
    }
    match matching.len() {
        0 => Err(Problem::Platform { found: list(&platforms), wanted: wanted.clone() }),
        1 => Ok(matching.remove(0).1),
        count => Err(Problem::Ambiguous { count, platform: Some(wanted.clone()) }),
    }
}

fn list(platforms: &BTreeSet<Platform>) -> String {
    if platforms.is_empty() {
        return "no platform".to_owned();
    }
    platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(text: &str) -> Platform {
        let mut parts = text.split('/').map(str::to_owned);
        Platform {
            os: parts.next().unwrap(),
            architecture: parts.next().unwrap(),
            variant: parts.next(),
        }
    }

    #[test]
    fn the_one_for_the_platform_is_chosen() {
        for (there, wanted, chosen) in [
            ("linux/amd64 linux/arm64", "linux/arm64", Ok(1)),
            ("linux/amd64 windows/amd64", "linux/amd64", Ok(0)),
            ("linux/amd64/v3 linux/amd64", "linux/amd64", Ok(1)),
            ("linux/amd64/v3 linux/amd64/v1", "linux/amd64", Ok(1)),
            ("linux/arm64/v8 unknown/unknown", "linux/arm64", Ok(0)),
            ("linux/arm/v7", "linux/arm", Ok(0)),
            (
                "linux/arm/v6 linux/arm/v7",
                "linux/arm",
                Err("holds 2 images for linux/arm: which one is meant?"),
            ),
            (
                "linux/amd64 linux/amd64",
                "linux/amd64",
                Err("holds 2 images for linux/amd64: which one is meant?"),
            ),
            (
                "linux/s390x linux/arm/v7",
                "linux/amd64",
                Err("is for linux/arm/v7, linux/s390x, not for linux/amd64"),
            ),
            ("", "linux/amd64", Err("is for no platform, not for linux/amd64")),
        ] {
            let entries = there.split_whitespace().enumerate();
            let entries: Vec<_> = entries.map(|(place, text)| (platform(text), place)).collect();
            let found = choose(entries, &platform(wanted), |place| *place);
            let found = found.map_err(|problem| problem.to_string());
            assert_eq!(found, chosen.map_err(str::to_owned), "{there} for {wanted}");
        }
    }

    #[test]
    fn one_image_by_two_names_is_one() {
        let entries = vec![(platform("linux/amd64"), "a"), (platform("linux/amd64"), "a")];
        assert_eq!(choose(entries, &platform("linux/amd64"), |digest| *digest).unwrap(), "a");
    }
}
