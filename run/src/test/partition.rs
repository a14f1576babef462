//! A disk with a GUID partition table (UEFI 2.10, 5.3) around a file system.

use anyhow::{Context as _, Result};

use crate::iso::Contents;

const SECTOR: usize = 512;
/// First sector of the partition.
const FIRST: u64 = 2048;
/// Number of entries, and bytes of one.
const ENTRIES: usize = 128;
const ENTRY: usize = 128;

/// Makes what is there the first partition of a disk.
///
/// # Errors
/// The file cannot be read.
pub fn pack(contents: &mut Contents) -> Result<()> {
    let system = match contents {
        Contents::Bytes(bytes) => bytes.clone(),
        Contents::File(path) => std::fs::read(path).context("cannot read the file system")?,
    };
    let last = FIRST + u64::try_from(system.len().div_ceil(SECTOR))? - 1;
    let mut entries = vec![0; ENTRIES * ENTRY];
    // Linux data; any name.
    put(&mut entries, 0, &0x8483_4777_8e79_3d69_47d4_0fc6_3daf_u128.to_le_bytes());
    put(&mut entries, 16, &[1; 16]);
    put(&mut entries, 32, &FIRST.to_le_bytes());
    put(&mut entries, 40, &last.to_le_bytes());

    let mut header = [0; 92];
    put(&mut header, 0, b"EFI PART");
    put(&mut header, 8, &[0, 0, 1, 0, 92, 0, 0, 0]);
    put(&mut header, 24, &1u64.to_le_bytes());
    put(&mut header, 40, &34u64.to_le_bytes());
    put(&mut header, 48, &last.to_le_bytes());
    put(&mut header, 72, &2u64.to_le_bytes());
    put(&mut header, 80, &u32::try_from(ENTRIES)?.to_le_bytes());
    put(&mut header, 84, &u32::try_from(ENTRY)?.to_le_bytes());
    put(&mut header, 88, &crc32fast::hash(&entries).to_le_bytes());
    let sum = crc32fast::hash(&header);
    put(&mut header, 16, &sum.to_le_bytes());

    let mut disk = vec![0; usize::try_from(FIRST)? * SECTOR];
    put(&mut disk, SECTOR, &header);
    put(&mut disk, 2 * SECTOR, &entries);
    disk.extend(system);
    *contents = Contents::Bytes(disk);
    Ok(())
}

fn put(to: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(to) = to.get_mut(at..at + bytes.len()) {
        to.copy_from_slice(bytes);
    }
}
