//! The boot information of a Multiboot2 loader (specification 2.0, section 3.6).

use super::Result;
use super::bytes::{Physical, long, text, word};
use super::memory::Range;
use crate::num::usize_of;
use heapless::Vec;
use ipc::info::{MAX_MODULES, Module};

/// Boot information longer than this is taken for garbage.
const MAX_SIZE: u32 = 1 << 20;
const HEADER: usize = 8;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_RSDP_OLD: u32 = 14;
const TAG_RSDP_NEW: u32 = 15;

/// What the loader says.
#[derive(Clone, Debug)]
pub struct BootInfo<'a> {
    /// Size of all that in bytes.
    pub size: usize,
    /// The kernel's command line.
    pub command_line: &'a str,
    /// Modules; the name is what of the command line fits.
    pub modules: Vec<Module, MAX_MODULES>,
    /// Copy of the ACPI root pointer, and its offset from the start of the boot information.
    pub rsdp: Option<(&'a [u8], usize)>,
    memory_map: &'a [u8],
    entry_size: usize,
}

impl<'a> BootInfo<'a> {
    /// Reads the boot information at a physical address.
    ///
    /// # Errors
    /// Says what is damaged.
    pub fn read(memory: &'a impl Physical, address: u64) -> Result<Self> {
        let size = memory.bytes(address, 8).and_then(|bytes| word(bytes, 0));
        let size = size.filter(|&size| size <= MAX_SIZE);
        let bytes = size.and_then(|size| memory.bytes(address, size.into()));
        Self::parse(bytes.ok_or("boot information cannot be read")?)
    }

    /// Takes boot information apart.
    ///
    /// # Errors
    /// Says what is damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut info = Self {
            size: bytes.len(),
            command_line: "",
            modules: Vec::new(),
            rsdp: None,
            memory_map: &[],
            entry_size: 24,
        };
        let mut at = HEADER;
        loop {
            let kind = word(bytes, at).ok_or("boot information has no end tag")?;
            let tag = || {
                let end = at.checked_add(usize_of(word(bytes, at + 4)?.into()))?;
                Some((bytes.get(at + HEADER..end)?, end))
            };
            let (body, end) = tag().ok_or("boot information: a tag reaches beyond the end")?;
            if kind == TAG_END {
                return Ok(info);
            }
            if info.modules.is_full() && kind == TAG_MODULE {
                return Err("too many boot modules");
            }
            info.take(kind, body, at + HEADER).ok_or("boot information: a tag is too short")?;
            at = end.next_multiple_of(8);
        }
    }

    /// Notes what a tag says; `None` where it is too short.
    fn take(&mut self, kind: u32, body: &'a [u8], offset: usize) -> Option<()> {
        match kind {
            TAG_COMMAND_LINE => self.command_line = text(body),
            TAG_MODULE => {
                let (base, end) = (u64::from(word(body, 0)?), u64::from(word(body, 4)?));
                let name = text(body.get(8..)?).as_bytes();
                let name = core::array::from_fn(|at| name.get(at).copied().unwrap_or_default());
                self.modules.push(Module { base, size: end.saturating_sub(base), name }).ok()?;
            }
            TAG_MEMORY_MAP => {
                self.entry_size = usize_of(word(body, 0)?.into());
                self.memory_map = body.get(8..).filter(|_| self.entry_size >= 20)?;
            }
            // The newer of two copies is the longer one.
            TAG_RSDP_OLD | TAG_RSDP_NEW
                if self.rsdp.is_none_or(|(old, _)| old.len() < body.len()) =>
            {
                self.rsdp = Some((body, offset));
            }
            _ => {}
        }
        Some(())
    }

    /// The memory map: ranges and their kind, which is 1 for available, 3 for ACPI tables, 4 for
    /// ACPI non-volatile, 5 for defective; everything else is reserved.
    pub fn memory_map(&self) -> impl Iterator<Item = (Range, u32)> + Clone {
        self.memory_map.chunks_exact(self.entry_size).filter_map(|entry| {
            Some((Range::new(long(entry, 0)?, long(entry, 8)?), word(entry, 16)?))
        })
    }
}

#[cfg(test)]
mod tests;
