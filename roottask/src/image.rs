//! Component images: an ELF file is checked completely before anything is done with it.

use alloc::vec::Vec;

use elf::ElfBytes;
use elf::abi::{
    EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_NOTE, PT_TLS,
};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::note::Note;
use ipc::cap::MemRights;
use ipc::proto::start::{Area, NOTE_NAME, NOTE_VERSION};

use crate::memory::PAGE;

/// Most segments that an image may have.
pub const MAX_SEGMENTS: usize = 16;

/// A checked image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image<'a> {
    /// Where it starts.
    pub entry: u64,
    /// What is loaded, sorted by address.
    pub segments: Vec<Segment<'a>>,
}

/// A part of an image with one set of rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Whole pages that it takes.
    pub pages: Area,
    /// Offset of its bytes in them.
    pub offset: u64,
    /// Its bytes; zeros follow.
    pub bytes: &'a [u8],
    /// Rights.
    pub rights: MemRights,
}

/// What is wrong with an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// It is no ELF file, or headers lie outside of it.
    NotElf,
    /// It is not a static 64-bit executable for this processor.
    WrongKind,
    /// It needs a loader for shared libraries or thread-local storage.
    Dynamic,
    /// It has no segments, or too many.
    SegmentCount,
    /// Bytes of a segment lie outside of the file.
    OutsideFile,
    /// A segment is smaller in memory than in the file.
    Shrinks,
    /// A segment lies outside of the addresses for images.
    OutsideRange,
    /// Two segments share a page.
    Overlap,
    /// A segment is writable and executable, or not readable.
    Rights,
    /// The entry point is in no executable segment.
    Entry,
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotElf => "not an ELF file, or truncated",
            Self::WrongKind => "not a static 64-bit x86 executable",
            Self::Dynamic => "needs a dynamic loader",
            Self::SegmentCount => "no segments, or too many",
            Self::OutsideFile => "a segment lies outside of the file",
            Self::Shrinks => "a segment is smaller in memory than in the file",
            Self::OutsideRange => "a segment lies outside of the addresses for images",
            Self::Overlap => "two segments share a page",
            Self::Rights => "a segment is writable and executable, or not readable",
            Self::Entry => "the entry point is in no executable segment",
        })
    }
}

/// Checks an image that is to be loaded within `range`.
///
/// # Errors
/// The first thing that is wrong.
pub fn parse(file: &[u8], range: Area) -> Result<Image<'_>, Error> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| Error::NotElf)?;
    let header = &elf.ehdr;
    if header.class != Class::ELF64 || header.e_type != ET_EXEC || header.e_machine != EM_X86_64 {
        return Err(Error::WrongKind);
    }
    let mut segments = Vec::new();
    for header in elf.segments().ok_or(Error::SegmentCount)? {
        match header.p_type {
            PT_LOAD if header.p_memsz > 0 => {
                if segments.len() == MAX_SEGMENTS {
                    return Err(Error::SegmentCount);
                }
                segments.push(segment(file, &header, range)?);
            }
            PT_INTERP | PT_DYNAMIC | PT_TLS => return Err(Error::Dynamic),
            _ => {}
        }
    }
    segments.sort_by_key(|s| s.pages.base);
    let overlap =
        segments.iter().zip(segments.iter().skip(1)).any(|(a, b)| a.pages.overlaps(b.pages));
    if overlap {
        return Err(Error::Overlap);
    }
    if segments.is_empty() {
        return Err(Error::SegmentCount);
    }
    let entry = Area { base: header.e_entry, size: 1 };
    let executable =
        |s: &Segment<'_>| s.rights.contains(MemRights::EXECUTE) && s.pages.contains(entry);
    if !segments.iter().any(executable) {
        return Err(Error::Entry);
    }
    Ok(Image { entry: header.e_entry, segments })
}

/// The ABI version that an image says it was built for.
#[must_use]
pub fn version(file: &[u8]) -> Option<u32> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(file).ok()?;
    let notes = elf.segments()?.into_iter().filter(|header| header.p_type == PT_NOTE);
    let mut notes = notes.filter_map(|header| elf.segment_data_as_notes(&header).ok()).flatten();
    notes.find_map(|note| match note {
        Note::Unknown(note) if note.name == NOTE_NAME && note.n_type == NOTE_VERSION.into() => {
            note.desc.try_into().map(u32::from_le_bytes).ok()
        }
        _ => None,
    })
}

fn segment<'a>(
    file: &'a [u8],
    header: &elf::segment::ProgramHeader,
    range: Area,
) -> Result<Segment<'a>, Error> {
    let memory = Area { base: header.p_vaddr, size: header.p_memsz };
    if !range.contains(memory) {
        return Err(Error::OutsideRange);
    }
    if header.p_filesz > header.p_memsz {
        return Err(Error::Shrinks);
    }
    let rights = [(PF_R, MemRights::READ), (PF_W, MemRights::WRITE), (PF_X, MemRights::EXECUTE)]
        .into_iter()
        .filter(|(flag, _)| header.p_flags & flag != 0)
        .fold(MemRights::empty(), |all, (_, right)| all | right);
    if !rights.contains(MemRights::READ) || rights.contains(MemRights::WRITE | MemRights::EXECUTE) {
        return Err(Error::Rights);
    }
    let bytes = usize::try_from(header.p_offset)
        .ok()
        .zip(usize::try_from(header.p_filesz).ok())
        .and_then(|(start, size)| file.get(start..start.checked_add(size)?))
        .ok_or(Error::OutsideFile)?;
    let base = memory.base & !(PAGE - 1);
    // The range was checked, so rounding its end up does not wrap.
    let end = memory.end().next_multiple_of(PAGE);
    Ok(Segment {
        pages: Area { base, size: end - base },
        offset: memory.base - base,
        bytes,
        rights,
    })
}

#[cfg(test)]
mod tests;
