//! Parses and applies the modes of `perms`: octal digits, or changes as for chmod(1).
//! Stage: layer (pure). Input: text, and a mode. Output: [`Mode`], and the changed mode.

const LARGEST: u32 = 0o7777;
const SET_ID: u32 = 0o6000;

/// A mode, or changes to one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All bits.
    Octal(u32),
    /// Changes, as they were written and one after the other.
    Symbolic(String, Vec<ModeChange>),
}

/// One change: `g=u` of `u+w,g=u`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ModeChange {
    /// The bits that the change is for.
    affected: u32,
    operator: u8,
    /// The bits to set or to clear.
    bits: u32,
    /// True if `x` is meant for directories, and for files that have `x` somewhere.
    conditional_x: bool,
    /// The position of the bits that are copied, as in `g=u`: 6 for the user, 3 for the group, 0 for others.
    copied: Option<u32>,
}

impl Mode {
    /// Parses `0755`, `g=u`, `a+rX,o-w`.
    pub fn parse(text: &str) -> Option<Self> {
        // Check the digits first: `from_str_radix` would accept a sign.
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let mode = u32::from_str_radix(text, 8).ok()?;
            return (mode <= LARGEST).then_some(Self::Octal(mode));
        }
        let mut changes = Vec::new();
        for clause in text.split(',') {
            let mut rest = clause.trim_start_matches(['u', 'g', 'o', 'a']);
            let affected = match &clause[..clause.len() - rest.len()] {
                "" => LARGEST,
                who => who.bytes().map(affected).fold(0, |all, bits| all | bits),
            };
            while let Some(operator) = rest.bytes().next() {
                if !matches!(operator, b'+' | b'-' | b'=') {
                    return None;
                }
                let end = rest[1..].find(['+', '-', '=']).map_or(rest.len(), |end| end + 1);
                changes.push(ModeChange::parse(affected, operator, &rest[1..end])?);
                rest = &rest[end..];
            }
            if clause.ends_with(['u', 'g', 'o', 'a']) && !clause.contains(['+', '-', '=']) {
                return None;
            }
        }
        (!changes.is_empty() && !text.split(',').any(str::is_empty))
            .then(|| Self::Symbolic(text.to_owned(), changes))
    }

    /// Returns the mode that takes the place of another one.
    pub fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Symbolic(_, changes) => {
                changes.iter().fold(mode, |mode, change| change.apply(mode, is_directory))
            }
        }
    }
}

impl From<Mode> for String {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Octal(mode) => format!("{mode:04o}"),
            Mode::Symbolic(text, _) => text,
        }
    }
}

fn affected(who: u8) -> u32 {
    match who {
        b'u' => 0o4700,
        b'g' => 0o2070,
        b'o' => 0o1007,
        _ => LARGEST,
    }
}

impl ModeChange {
    fn parse(affected: u32, operator: u8, permissions: &str) -> Option<Self> {
        let change = Self { affected, operator, bits: 0, conditional_x: false, copied: None };
        let copied = match permissions {
            "u" => Some(6),
            "g" => Some(3),
            "o" => Some(0),
            _ => None,
        };
        if copied.is_some() {
            return Some(Self { copied, ..change });
        }
        permissions.bytes().try_fold(change, |change, byte| {
            let bits = match byte {
                b'r' => 0o444,
                b'w' => 0o222,
                b'x' => 0o111,
                b's' => SET_ID,
                b't' => 0o1000,
                b'X' => return Some(Self { conditional_x: true, ..change }),
                _ => return None,
            };
            Some(Self { bits: change.bits | bits, ..change })
        })
    }

    fn apply(&self, mode: u32, is_directory: bool) -> u32 {
        let mut bits = self.bits;
        if let Some(place) = self.copied {
            bits |= (mode >> place & 0o7) * 0o111;
        }
        if self.conditional_x && (is_directory || mode & 0o111 != 0) {
            bits |= 0o111;
        }
        // As chmod does, `=` leaves a directory's set-ID bits if it doesn't name them.
        let kept = if is_directory { SET_ID & !self.bits } else { 0 };
        match self.operator {
            b'+' => mode | bits & self.affected,
            b'-' => mode & !(bits & self.affected),
            _ => mode & (!self.affected | kept) | bits & self.affected,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Compares with chmod of GNU coreutils 9.1.
    #[test]
    fn changes_are_those_of_chmod() {
        for (text, mode, is_directory, expected) in [
            ("0640", 0o755, false, 0o640),
            ("1777", 0o555, true, 0o1777),
            ("g=u", 0o755, true, 0o775),
            ("g=u", 0o444, false, 0o444),
            ("u+w,g=u", 0o555, false, 0o775),
            ("g+u", 0o640, false, 0o660),
            ("a+X", 0o644, false, 0o644),
            ("a+X", 0o744, false, 0o755),
            ("a+X", 0o600, true, 0o711),
            ("u=rwX,go=rX", 0o555, true, 0o755),
            ("u=rwX,go=rX", 0o444, false, 0o644),
            ("+w", 0o444, false, 0o666),
            ("o-rwx", 0o777, false, 0o770),
            ("o=", 0o777, false, 0o770),
            ("ug+s", 0o755, false, 0o6755),
            ("g+s", 0o755, true, 0o2755),
            ("+t", 0o777, true, 0o1777),
            ("a=rx", 0o6755, true, 0o6555),
            ("a=rx", 0o6755, false, 0o555),
            ("u+w-x", 0o555, false, 0o655),
        ] {
            let found = Mode::parse(text).unwrap().apply(mode, is_directory);
            assert_eq!(found, expected, "{text} of {mode:o}: {found:o}");
        }
    }

    #[test]
    fn other_text_is_no_mode() {
        for text in [
            "", "+755", "17777", "0888", "rwx", "u", "g=ug", "u+w,", ",u+w", "u+w,g", "u=q", "-",
            "a",
        ] {
            assert_eq!(Mode::parse(text).filter(|_| text != "-"), None, "{text}");
        }
    }
}
