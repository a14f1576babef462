//! Names for places in the kernel: a panic tells them as addresses, the kernel's ELF file knows the
//! rest.

use std::path::{Path, PathBuf};

use addr2line::Loader;

/// A place, and what stands before it in a line: of a return address, what matters is the call
/// before it.
const MARKS: [(&str, u64); 2] = [("  at 0x", 1), ("  rip 0x", 0)];
/// A longer line is none of the kernel's.
const LINE_MAX: usize = 200;

/// Puts names to the kernel's addresses in what a machine says.
#[derive(Debug, Default)]
pub struct Symbols {
    file: PathBuf,
    line: Vec<u8>,
}

impl Symbols {
    /// Names from this ELF file, which is read when a place is to be named.
    #[must_use]
    pub fn new(file: &Path) -> Self {
        Self { file: file.to_path_buf(), line: Vec::new() }
    }

    /// What the machine said, with the name of a place behind each.
    pub fn annotate(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len());
        for &byte in bytes {
            if byte == b'\r' || byte == b'\n' {
                if let Some(name) = place(&self.line).and_then(|at| self.name(at)) {
                    out.extend_from_slice(format!(" {name}").as_bytes());
                }
                self.line.clear();
            } else if self.line.len() < LINE_MAX {
                self.line.push(byte);
            }
            out.push(byte);
        }
        out
    }

    /// The functions at an address, what is inlined first, and the line of the innermost.
    fn name(&self, address: u64) -> Option<String> {
        let loader = Loader::new(&self.file).ok()?;
        let mut frames = loader.find_frames(address).ok()?;
        let mut names = Vec::new();
        let mut location = None;
        while let Ok(Some(frame)) = frames.next() {
            if location.is_none() {
                location = frame.location.and_then(|l| Some(format!("{}:{}", l.file?, l.line?)));
            }
            if let Some(name) = frame.function.as_ref().and_then(|f| f.demangle().ok()) {
                names.push(name.into_owned());
            }
        }
        if names.is_empty() {
            let mangled = loader.find_symbol(address)?;
            names.push(addr2line::demangle_auto(mangled.into(), None).into_owned());
        }
        let location = location.map_or(String::new(), |l| format!(" ({l})"));
        Some(names.join(" < ") + &location)
    }
}

/// The address that a line of the kernel's ends with or names.
fn place(line: &[u8]) -> Option<u64> {
    let line = std::str::from_utf8(line).ok()?;
    let (digits, back) =
        MARKS.iter().find_map(|(mark, back)| Some((line.split_once(mark)?.1, back)))?;
    let digits = digits.get(..16)?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    (address >> 31 == u64::MAX >> 31).then(|| address - back)
}

#[cfg(test)]
mod tests {
    use super::{Symbols, place};

    #[test]
    fn places_are_found_in_lines_of_the_kernel_only() {
        assert_eq!(place(b"[    1.000]   at 0xffffffff80001234"), Some(0xffff_ffff_8000_1233));
        let rip = b"[    1.000]   rip 0xffffffff80001234 cs 0x8 rflags 0x2";
        assert_eq!(place(rip), Some(0xffff_ffff_8000_1234));
        for other in ["  at 0xffff", "  at 0x0000000000401000", "at 0xffffffff80001234", ""] {
            assert_eq!(place(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn a_function_is_named_behind_its_address() {
        // This program names its own function, where it is linked that high; elsewhere nothing is
        // changed.
        let mut symbols = Symbols::new(&std::env::current_exe().unwrap());
        let text = b"\xff[    1.000]   at 0xffffffff80001234\r\nmore";
        assert_eq!(symbols.annotate(text), text);
        let address = place as *const () as usize as u64;
        let linked = address - text_offset();
        assert!(symbols.name(linked).unwrap().contains("symbols::place"));
    }

    /// By how much this program is loaded above where it is linked.
    fn text_offset() -> u64 {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        u64::from_str_radix(maps.split('-').next().unwrap(), 16).unwrap()
    }
}
