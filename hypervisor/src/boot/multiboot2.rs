//! The boot information of a Multiboot2 loader (specification 2.0, section 3.6).

use super::bytes::{Physical, long, text, word};
use crate::num::usize_of;
use core::fmt;

/// Boot information longer than this is taken for garbage.
const MAX_SIZE: u32 = 1 << 20;
const HEADER: usize = 8;

const TAG_END: u32 = 0;
const TAG_COMMAND_LINE: u32 = 1;
const TAG_LOADER: u32 = 2;
const TAG_MODULE: u32 = 3;
const TAG_MEMORY_MAP: u32 = 6;
const TAG_RSDP_OLD: u32 = 14;
const TAG_RSDP_NEW: u32 = 15;

/// What is wrong with boot information.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It lies where the kernel cannot read it.
    Unreadable(u64),
    /// Its total size makes no sense.
    Size(u32),
    /// A tag reaches beyond the end or is shorter than its kind requires.
    Tag {
        /// Number of its kind.
        kind: u32,
        /// Where it is.
        offset: usize,
    },
    /// No end tag.
    NoEnd,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Unreadable(address) => {
                write!(f, "boot information at {address:#x} cannot be read")
            }
            Self::Size(size) => write!(f, "boot information claims a size of {size} bytes"),
            Self::Tag { kind, offset } => {
                write!(f, "boot information: tag of type {kind} at offset {offset} is damaged")
            }
            Self::NoEnd => f.write_str("boot information has no end tag"),
        }
    }
}

/// A boot module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Module<'a> {
    /// First byte.
    pub start: u64,
    /// Byte behind the last.
    pub end: u64,
    /// Its command line.
    pub name: &'a str,
}

/// A range of the memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEntry {
    /// First byte.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// 1 available, 3 ACPI tables, 4 ACPI non-volatile, 5 defective; everything else reserved.
    pub kind: u32,
}

/// A tag that the kernel reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tag<'a> {
    /// The kernel's command line.
    CommandLine(&'a str),
    /// Who loaded it.
    Loader(&'a str),
    /// A module.
    Module(Module<'a>),
    /// The memory map.
    MemoryMap(MemoryMap<'a>),
    /// Copy of the ACPI root pointer.
    Rsdp {
        /// The structure.
        bytes: &'a [u8],
        /// Its offset from the start of the boot information.
        offset: usize,
    },
}

/// The memory map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryMap<'a> {
    entries: &'a [u8],
    entry_size: usize,
}

impl MemoryMap<'_> {
    /// Its ranges.
    pub fn entries(&self) -> impl Iterator<Item = MemoryEntry> + Clone {
        self.entries.chunks_exact(self.entry_size).filter_map(|entry| {
            Some(MemoryEntry {
                base: long(entry, 0)?,
                size: long(entry, 8)?,
                kind: word(entry, 16)?,
            })
        })
    }
}

/// Boot information whose tags all lie inside it and have the size of their kind.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo<'a> {
    bytes: &'a [u8],
}

impl<'a> BootInfo<'a> {
    /// Reads the boot information at a physical address.
    ///
    /// # Errors
    /// Says what is damaged.
    pub fn read(memory: &'a impl Physical, address: u64) -> Result<Self, Error> {
        let unreadable = Error::Unreadable(address);
        let size = memory.bytes(address, 8).and_then(|b| word(b, 0)).ok_or(unreadable)?;
        if size > MAX_SIZE {
            return Err(Error::Size(size));
        }
        Self::parse(memory.bytes(address, size.into()).ok_or(unreadable)?)
    }

    /// Checks boot information.
    ///
    /// # Errors
    /// Says what is damaged.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, Error> {
        let size = word(bytes, 0).ok_or(Error::Size(0))?;
        let bytes = bytes.get(..usize_of(size.into())).ok_or(Error::Size(size))?;
        let mut at = HEADER;
        loop {
            match step(bytes, at)? {
                None => return Ok(Self { bytes }),
                Some((_, next)) => at = next,
            }
        }
    }

    /// Its tags, in order.
    pub fn tags(&self) -> impl Iterator<Item = Tag<'a>> {
        let bytes = self.bytes;
        let mut at = HEADER;
        core::iter::from_fn(move || {
            let (tag, next) = step(bytes, at).ok()??;
            at = next;
            Some(tag)
        })
        .flatten()
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> usize {
        self.bytes.len()
    }
}

/// The tag at an offset (`None` where it is of no interest) and where the next one is; `None` at
/// the end tag.
fn step(bytes: &[u8], at: usize) -> Result<Option<(Option<Tag<'_>>, usize)>, Error> {
    let kind = word(bytes, at).ok_or(Error::NoEnd)?;
    let damaged = Error::Tag { kind, offset: at };
    let size = usize_of(word(bytes, at + 4).ok_or(damaged)?.into());
    let end = at.checked_add(size).ok_or(damaged)?;
    let body = bytes.get(at + HEADER..end).ok_or(damaged)?;
    if kind == TAG_END {
        return Ok(None);
    }
    let tag = tag(kind, body, at + HEADER).ok_or(damaged)?;
    Ok(Some((tag, end.next_multiple_of(8))))
}

/// `None` where the body is too short.
fn tag(kind: u32, body: &[u8], offset: usize) -> Option<Option<Tag<'_>>> {
    Some(Some(match kind {
        TAG_COMMAND_LINE => Tag::CommandLine(text(body)),
        TAG_LOADER => Tag::Loader(text(body)),
        TAG_MODULE => Tag::Module(Module {
            start: word(body, 0)?.into(),
            end: word(body, 4)?.into(),
            name: text(body.get(8..)?),
        }),
        TAG_MEMORY_MAP => {
            let entry_size = usize_of(word(body, 0)?.into());
            let entries = body.get(8..)?;
            (entry_size >= 20).then_some(Tag::MemoryMap(MemoryMap { entries, entry_size }))?
        }
        TAG_RSDP_OLD | TAG_RSDP_NEW => Tag::Rsdp { bytes: body, offset },
        _ => return Some(None),
    }))
}

#[cfg(test)]
mod tests;
