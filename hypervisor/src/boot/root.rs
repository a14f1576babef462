//! The root task's image: an ELF executable, checked before anything of it is used.
//!
//! Its pages are not copied: the root task runs on the boot module itself, which is why every
//! segment has to lie page by page in the file as it does in memory, zeroes included.

use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use heapless::Vec;
use ipc::cap::MemRights;
use ipc::proto::start::NOTE;

use super::Result;
use crate::num::u64_of;

/// Loadable segments that an image may have.
pub const MAX_SEGMENTS: usize = 8;

const PAGE: u64 = 4096;
const MALFORMED: &str = "root task: not an ELF file, or truncated";
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
    /// Bytes from `address` on.
    pub bytes: u64,
    /// Rights of the mapping.
    pub rights: MemRights,
}

/// A checked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Where the root task starts.
    pub entry: u64,
    /// Its segments. Where they overlap, the second cannot be mapped.
    pub segments: Vec<Segment, MAX_SEGMENTS>,
}

/// Checks an image.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(file: &[u8]) -> Result<Image> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| MALFORMED)?;
    if elf.ehdr.e_machine != EM_X86_64 || elf.ehdr.e_type != ET_EXEC {
        return Err("root task: not a static x86-64 executable");
    }
    let headers = elf.segments().ok_or(MALFORMED)?;
    let mut notes = headers.iter().filter(|header| header.p_type == PT_NOTE);
    let ours = || NOTE.iter().flat_map(|word| word.to_le_bytes());
    if !notes.any(|note| elf.segment_data(&note).is_ok_and(|note| note.iter().copied().eq(ours())))
    {
        return Err("root task: no note that it was built for this version of the ABI");
    }
    let mut segments: Vec<Segment, MAX_SEGMENTS> = Vec::new();
    for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
        let segment = segment(&header, u64_of(file.len()))?;
        segments.push(segment).map_err(|_| "root task: too many loadable segments")?;
    }
    Ok(Image { entry: elf.ehdr.e_entry, segments })
}

fn segment(header: &ProgramHeader, file_len: u64) -> Result<Segment> {
    let slack = header.p_vaddr % PAGE;
    let in_file = header.p_offset.checked_add(header.p_filesz).is_some_and(|end| end <= file_len);
    if !in_file || header.p_offset % PAGE != slack || header.p_filesz != header.p_memsz {
        return Err("root task: segment beyond the end of the file or misaligned in it");
    }
    let end = header.p_vaddr.checked_add(header.p_memsz);
    if header.p_vaddr < LOWEST || end.is_none_or(|end| end > HIGHEST) {
        return Err("root task: segment outside the addresses for images");
    }
    let mut rights = MemRights::empty();
    rights.set(MemRights::READ, header.p_flags & PF_R != 0);
    rights.set(MemRights::WRITE, header.p_flags & PF_W != 0);
    rights.set(MemRights::EXECUTE, header.p_flags & PF_X != 0);
    Ok(Segment {
        address: header.p_vaddr - slack,
        offset: header.p_offset - slack,
        bytes: header.p_memsz + slack,
        rights,
    })
}

#[cfg(test)]
mod tests;
