//! An image is taken only if every field of it holds.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use super::*;

/// Where the note is in the file below.
const NOTE_AT: usize = 0x1000;

/// An ELF file with one code segment and one data segment, two pages each, and the note.
fn file() -> std::vec::Vec<u8> {
    let mut f = std::vec![0u8; 4 * 4096];
    f[..16].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    put(&mut f, 16, &2u16.to_le_bytes());
    put(&mut f, 18, &62u16.to_le_bytes());
    put(&mut f, 20, &1u32.to_le_bytes());
    put(&mut f, 24, &(LOWEST + 0x100).to_le_bytes());
    put(&mut f, 32, &64u64.to_le_bytes());
    put(&mut f, 52, &64u16.to_le_bytes());
    put(&mut f, 54, &56u16.to_le_bytes());
    put(&mut f, 56, &3u16.to_le_bytes());
    for (n, word) in NOTE.into_iter().enumerate() {
        put(&mut f, NOTE_AT + 4 * n, &word.to_le_bytes());
    }
    header(&mut f, 2, PF_R, 0x1000, LOWEST + 0x1000, 24, 24);
    put(&mut f, 64 + 56 * 2, &PT_NOTE.to_le_bytes());
    header(&mut f, 0, PF_R | PF_X, 0, LOWEST, 0x2000, 0x2000);
    header(&mut f, 1, PF_R | PF_W, 0x2000, LOWEST + 0x2000, 0x1800, 0x1800);
    f
}

fn put(f: &mut [u8], at: usize, bytes: &[u8]) {
    f[at..at + bytes.len()].copy_from_slice(bytes);
}

fn header(f: &mut [u8], n: usize, flags: u32, offset: u64, va: u64, size: u64, memory: u64) {
    let at = 64 + 56 * n;
    put(f, at, &PT_LOAD.to_le_bytes());
    put(f, at + 4, &flags.to_le_bytes());
    put(f, at + 8, &offset.to_le_bytes());
    put(f, at + 16, &va.to_le_bytes());
    put(f, at + 24, &va.to_le_bytes());
    put(f, at + 32, &size.to_le_bytes());
    put(f, at + 40, &memory.to_le_bytes());
}

#[test]
fn good_image() {
    let image = parse(&file()).unwrap();
    assert_eq!(image.entry, LOWEST + 0x100);
    assert_eq!(image.segments.len(), 2);
    assert_eq!(image.segments[1].bytes, 0x1800);
    assert_eq!(image.segments[1].rights, MemRights::RW);
}

#[test]
fn every_truncation_is_an_error_or_the_whole_image() {
    let file = file();
    for len in 0..file.len() {
        if let Ok(image) = parse(&file[..len]) {
            let end = image.segments.iter().map(|s| s.offset + s.bytes).max().unwrap();
            assert!(end <= len as u64);
        }
    }
}

#[test]
fn lies_are_named() {
    type Spoil<'a> = &'a dyn Fn(&mut [u8]);
    let cases: [(Spoil<'_>, &str); 11] = [
        (&|f| f[0] = 0, MALFORMED),
        (&|f| put(f, 18, &3u16.to_le_bytes()), "not a static"),
        (&|f| put(f, 16, &3u16.to_le_bytes()), "not a static"),
        (&|f| header(f, 1, PF_R, 0x2000, 0x1000, 0x1000, 0x1000), "outside"),
        (&|f| header(f, 1, PF_R, 0x2000, LOWEST + 0x2000, 0x9000, 0x9000), "beyond the end"),
        (&|f| header(f, 1, PF_R, 0x2000, LOWEST + 0x2000, 0x1000, 0x2000), "beyond the end"),
        (&|f| header(f, 1, PF_R, u64::MAX, LOWEST + 0x2000, 0x1000, 0x1000), "beyond the end"),
        (&|f| put(f, NOTE_AT + 20, &(ipc::ABI_VERSION + 1).to_le_bytes()), "this version"),
        (&|f| put(f, NOTE_AT + 12, b"another"), "this version"),
        (&|f| header(f, 2, PF_R, 0x1000, LOWEST + 0x1000, 20, 20), "this version"),
        (&|f| put(f, 64 + 56 * 2 + 8, &u64::MAX.to_le_bytes()), "this version"),
    ];
    for (n, (spoil, expected)) in cases.into_iter().enumerate() {
        let mut f = file();
        spoil(&mut f);
        assert!(parse(&f).unwrap_err().contains(expected), "case {n}");
    }
}
