//! Handles names in a base image, as bytes.
//! Stage: layer (pure).

/// A path below the image's root: no slash at either end, no `.`, `..` or empty component.
/// The root is empty.
pub type Name = Vec<u8>;

pub fn components(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b'/').filter(|component| !component.is_empty())
}

/// Normalises a name of an archive: `./a//b/` is `a/b`.
pub fn normal(name: &[u8]) -> Name {
    let mut normal: Vec<&[u8]> = Vec::new();
    for component in components(name) {
        match component {
            b"." => {}
            b".." => drop(normal.pop()),
            component => normal.push(component),
        }
    }
    normal.join(&b'/')
}

/// Splits a name into the directory that contains it, and the last component.
pub fn split(name: &[u8]) -> (&[u8], &[u8]) {
    match name.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&name[..slash], &name[slash + 1..]),
        None => (&[], name),
    }
}

pub fn join(directory: &[u8], name: &[u8]) -> Name {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}
