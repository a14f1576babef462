//! As much of ELF as the tool looks at (System V ABI, chapters 4 and 5).

/// Flag of a section that holds instructions.
const EXECUTABLE: u64 = 4;

/// Bytes of the sections that hold instructions; `None` where the file is not a 64-bit
/// little-endian ELF file.
#[must_use]
pub fn code_bytes(file: &[u8]) -> Option<u64> {
    if file.get(..6)? != b"\x7fELF\x02\x01" {
        return None;
    }
    let start = usize::try_from(word(file, 0x28, 8)?).ok()?;
    let size = usize::try_from(word(file, 0x3a, 2)?).ok()?;
    let count = usize::try_from(word(file, 0x3c, 2)?).ok()?;
    let mut bytes = 0;
    for n in 0..count {
        let header = n.checked_mul(size)?.checked_add(start)?;
        if word(file, header + 8, 8)? & EXECUTABLE != 0 {
            bytes += word(file, header + 0x20, 8)?;
        }
    }
    Some(bytes)
}

fn word(file: &[u8], at: usize, bytes: usize) -> Option<u64> {
    let field = file.get(at..at.checked_add(bytes)?)?;
    Some(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::code_bytes;

    #[test]
    fn sections_with_instructions_are_added_up() {
        let mut file = vec![0; 0x40 + 3 * 0x40];
        file[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (file[0x28], file[0x3a], file[0x3c]) = (0x40, 0x40, 3);
        for (n, flags, size) in [(0, 6, 0x10), (1, 3, 0x20), (2, 6, 0x40)] {
            file[0x40 + n * 0x40 + 8] = flags;
            file[0x40 + n * 0x40 + 0x20] = size;
        }
        assert_eq!(code_bytes(&file), Some(0x50));
        assert_eq!(code_bytes(&file[..0xe4]), None);
        assert_eq!(code_bytes(b"MZ"), None);
    }
}
