//! The root task's image: an ELF executable, checked completely before anything of it is used.
//!
//! Its pages are not copied: the root task runs on the boot module itself, which is why every
//! segment has to lie page by page in the file as it does in memory. Memory beyond the file is
//! taken from free RAM.

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use heapless::Vec;
use ipc::cap::MemRights;

use crate::num::u64_of;

/// Loadable segments that an image may have.
pub const MAX_SEGMENTS: usize = 8;

const PAGE: u64 = 4096;
/// Addresses from here up to the end of the user half are free for images: the root task finds
/// physical memory below.
pub const LOWEST: u64 = 0x4000_0000_0000;
const HIGHEST: u64 = 0x7fff_0000_0000;

/// A page-aligned piece of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// First byte in memory; page aligned.
    pub address: u64,
    /// Offset in the file of that byte; page aligned.
    pub offset: u64,
    /// Bytes from `address` on that the file holds.
    pub file_bytes: u64,
    /// Bytes from `address` on in memory.
    pub memory_bytes: u64,
    /// Rights of the mapping.
    pub rights: MemRights,
}

impl Segment {
    /// Pages that the file backs.
    #[must_use]
    pub const fn file_pages(&self) -> u64 {
        self.file_bytes.div_ceil(PAGE)
    }

    /// Pages in memory.
    #[must_use]
    pub const fn memory_pages(&self) -> u64 {
        self.memory_bytes.div_ceil(PAGE)
    }
}

/// A checked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where the root task starts.
    pub entry: u64,
    /// Its segments, sorted by address, without overlap.
    pub segments: Vec<Segment, MAX_SEGMENTS>,
}

/// Why an image cannot be the root task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// Not an ELF file, or its headers reach beyond it.
    Malformed,
    /// Not a static x86-64 executable.
    WrongKind,
    /// More loadable segments than the kernel takes, or none.
    Segments,
    /// A segment reaches beyond the file, or its offset and address differ within the page.
    Placement,
    /// A segment lies outside the addresses for images, or overlaps another.
    Address,
    /// A segment is writable and executable.
    WritableCode,
    /// The entry is in no executable segment.
    Entry,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::Malformed => "not an ELF file, or truncated",
            Self::WrongKind => "not a static x86-64 executable",
            Self::Segments => "no loadable segment, or too many",
            Self::Placement => "segment beyond the end of the file or misaligned in it",
            Self::Address => "segment outside the addresses for images or overlapping another",
            Self::WritableCode => "segment both writable and executable",
            Self::Entry => "entry point in no executable segment",
        })
    }
}

/// Checks an image.
///
/// # Errors
/// [`Error`] says what is wrong with it.
pub fn parse(file: &[u8]) -> Result<Image, Error> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| Error::Malformed)?;
    if elf.ehdr.e_machine != EM_X86_64 || elf.ehdr.e_type != ET_EXEC {
        return Err(Error::WrongKind);
    }
    let mut segments: Vec<Segment, MAX_SEGMENTS> = Vec::new();
    for header in elf.segments().ok_or(Error::Malformed)?.iter() {
        if header.p_type != PT_LOAD || header.p_memsz == 0 {
            continue;
        }
        let segment = segment(&header, u64_of(file.len()))?;
        if segments
            .last()
            .is_some_and(|last| last.address + last.memory_pages() * PAGE > segment.address)
        {
            return Err(Error::Address);
        }
        segments.push(segment).map_err(|_| Error::Segments)?;
    }
    if segments.is_empty() {
        return Err(Error::Segments);
    }
    let entry = elf.ehdr.e_entry;
    let executable = segments.iter().any(|s| {
        s.rights.contains(MemRights::EXECUTE)
            && (s.address..s.address + s.file_bytes).contains(&entry)
    });
    if !executable {
        return Err(Error::Entry);
    }
    Ok(Image { entry, segments })
}

fn segment(header: &elf::segment::ProgramHeader, file_len: u64) -> Result<Segment, Error> {
    let slack = header.p_vaddr % PAGE;
    let end_in_file = header.p_offset.checked_add(header.p_filesz).ok_or(Error::Placement)?;
    if header.p_offset % PAGE != slack || end_in_file > file_len || header.p_filesz > header.p_memsz
    {
        return Err(Error::Placement);
    }
    let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(Error::Address)?;
    if header.p_vaddr < LOWEST || end > HIGHEST {
        return Err(Error::Address);
    }
    let mut rights = MemRights::empty();
    rights.set(MemRights::READ, header.p_flags & PF_R != 0);
    rights.set(MemRights::WRITE, header.p_flags & PF_W != 0);
    rights.set(MemRights::EXECUTE, header.p_flags & PF_X != 0);
    if rights.contains(MemRights::WRITE | MemRights::EXECUTE) {
        return Err(Error::WritableCode);
    }
    let file_bytes = if header.p_filesz == 0 { 0 } else { header.p_filesz + slack };
    if file_bytes == 0 && slack != 0 {
        return Err(Error::Placement);
    }
    Ok(Segment {
        address: header.p_vaddr - slack,
        offset: header.p_offset - slack,
        file_bytes,
        memory_bytes: header.p_memsz + slack,
        rights,
    })
}

#[cfg(test)]
mod tests;
