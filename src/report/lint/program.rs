//! Finds out which machine a program is for, from the program's first bytes.
//! Stage: report (pure).

use oci_spec::image::Arch;

/// The number of bytes at the beginning of a program that are enough to tell its machine.
pub const HEAD: usize = 20;

/// The machine that a program is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Machine {
    /// A system with ELF programs, such as Linux, and the number of the processor (System V ABI,
    /// "ELF Header", `e_machine`).
    Elf(u16),
    /// macOS.
    MachO,
}

/// Reads the first bytes of a program or shared library. Returns `None` for any other file.
pub fn machine(head: &[u8]) -> Option<Machine> {
    match head {
        [0x7f, b'E', b'L', b'F', _, data, ..] if head.len() >= HEAD => {
            let half = |at: usize| {
                let bytes = [head[at], head[at + 1]];
                if *data == 2 { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
            };
            // Only executables and shared objects are checked: some object files are for other
            // processors on purpose.
            matches!(half(16), 2 | 3).then(|| Machine::Elf(half(18)))
        }
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xcf | 0xce, ..] => {
            Some(Machine::MachO)
        }
        _ => None,
    }
}

/// Returns the numbers of the processors whose programs run on an architecture: its own first, then
/// others that it also runs. Returns `None` for an unusual architecture.
pub fn numbers(architecture: &Arch) -> Option<&'static [u16]> {
    Some(match architecture {
        Arch::Amd64 => &[62, 3],
        Arch::i386 => &[3],
        Arch::ARM64 => &[183, 40],
        Arch::ARM => &[40],
        Arch::RISCV64 => &[243],
        Arch::s390x => &[22],
        Arch::PowerPC64 | Arch::PowerPC64le => &[21],
        Arch::LoongArch64 => &[258],
        _ => return None,
    })
}

/// Returns the name of the architecture that a processor's number stands for, for messages.
pub fn name(number: u16) -> String {
    match number {
        3 => "386".to_owned(),
        21 => "ppc64".to_owned(),
        22 => "s390x".to_owned(),
        40 => "arm".to_owned(),
        62 => "amd64".to_owned(),
        183 => "arm64".to_owned(),
        243 => "riscv64".to_owned(),
        258 => "loong64".to_owned(),
        other => format!("machine {other}"),
    }
}

/// Returns what is wrong with a program in an image for `architecture`, if anything is.
pub fn misfit(head: &[u8], architecture: &Arch) -> Option<String> {
    match machine(head)? {
        Machine::MachO => Some("is a program for macOS".to_owned()),
        // BPF programs run in the kernel.
        Machine::Elf(247) => None,
        Machine::Elf(number) => {
            let known = numbers(architecture)?;
            (!known.contains(&number)).then(|| {
                format!("is a program for {}, and the image is for {architecture}", name(number))
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elf(data: u8, kind: u16, machine: u16) -> Vec<u8> {
        let bytes =
            |number: u16| if data == 2 { number.to_be_bytes() } else { number.to_le_bytes() };
        let mut head = vec![0; HEAD];
        head[..6].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, data]);
        head[16..18].copy_from_slice(&bytes(kind));
        head[18..20].copy_from_slice(&bytes(machine));
        head
    }

    #[test]
    fn programs_are_told_apart() {
        for (head, architecture, expected) in [
            (elf(1, 2, 62), Arch::Amd64, None),
            (elf(1, 3, 3), Arch::Amd64, None),
            (
                elf(1, 2, 183),
                Arch::Amd64,
                Some("is a program for arm64, and the image is for amd64"),
            ),
            (elf(1, 1, 183), Arch::Amd64, None),
            (elf(1, 3, 247), Arch::Amd64, None),
            (elf(1, 2, 9999), Arch::ARM64, Some("is a program for machine 9999")),
            (elf(2, 2, 22), Arch::s390x, None),
            (elf(2, 2, 22), Arch::ARM64, Some("is a program for s390x")),
            (elf(1, 2, 62), Arch::Wasm, None),
            (vec![0xcf, 0xfa, 0xed, 0xfe, 0], Arch::ARM64, Some("is a program for macOS")),
            (b"#!/bin/sh".to_vec(), Arch::Amd64, None),
            (elf(1, 2, 183)[..19].to_vec(), Arch::Amd64, None),
            (Vec::new(), Arch::Amd64, None),
        ] {
            let found = misfit(&head, &architecture);
            match expected {
                None => assert_eq!(found, None, "{head:?}"),
                Some(text) => assert!(found.unwrap().starts_with(text), "{head:?}"),
            }
        }
    }
}
