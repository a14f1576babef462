//! The image for a USB stick, looked at as firmware does.

use anyhow::{Context as _, Result, ensure};

use super::{Context, Job};
use crate::iso::Medium;
use crate::system;

const SECTOR: usize = 512;
/// Type of an EFI system partition, as it stands in a partition entry (UEFI 2.10, table 5.7).
const ESP: [u8; 16] = 0x3bc9_3ec9_a000_4bba_11d2_f81f_c12a_7328_u128.to_le_bytes();

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    vec![Job::case("system/stick-image-is-partitioned", partitioned)]
}

fn partitioned(context: &Context) -> Result<String> {
    let compiled = system::check(&context.repo, &context.repo.config("conformance"), 1, 1 << 30)?;
    let image = context.scratch("stick.img")?;
    system::assemble(&context.repo, context.images()?, &compiled)?
        .pack_for(Medium::Stick, &image)?;
    let bytes = std::fs::read(&image)?;
    std::fs::remove_file(&image)?;
    check(&bytes).map(|()| String::new())
}

/// Whether old firmware finds an active partition, and new firmware its own.
fn check(image: &[u8]) -> Result<()> {
    ensure!(image.get(510..512) == Some(&[0x55, 0xaa]), "no boot sector");
    let mut entries = image.get(446..510).unwrap_or(&[]).chunks(16);
    ensure!(entries.any(|e| e.first() == Some(&0x80)), "no active partition");

    let primary = header(image, SECTOR).context("no GUID partition table")?;
    let backup = usize::try_from(primary.other)? * SECTOR;
    ensure!(backup + SECTOR == image.len(), "its copy is not in the last sector");
    ensure!(header(image, backup).is_some(), "no copy of it at the end");
    let table = image.get(usize::try_from(primary.entries)? * SECTOR..).unwrap_or(&[]);
    ensure!(table.chunks(128).take(128).any(|e| e.starts_with(&ESP)), "no EFI system partition");
    Ok(())
}

/// What is of interest in a header (UEFI 2.10, table 5.5).
struct Header {
    /// Sector of the other copy.
    other: u64,
    /// First sector of the entries.
    entries: u64,
}

fn header(image: &[u8], at: usize) -> Option<Header> {
    let header = image.get(at..at + SECTOR)?;
    let word = |at: usize| header.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    header
        .starts_with(b"EFI PART")
        .then(|| Some(Header { other: word(32)?, entries: word(72)? }))
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::{ESP, SECTOR, check};

    fn image() -> Vec<u8> {
        let mut image = vec![0; 8 * SECTOR];
        image[510..512].copy_from_slice(&[0x55, 0xaa]);
        image[462] = 0x80;
        for (at, other, entries) in [(1, 7_u8, 2), (7, 1, 5)] {
            let at = at * SECTOR;
            image[at..at + 8].copy_from_slice(b"EFI PART");
            image[at + 32] = other;
            image[at + 72] = entries;
        }
        image[2 * SECTOR + 128..][..16].copy_from_slice(&ESP);
        image
    }

    #[test]
    fn what_firmware_needs_is_looked_for() {
        assert!(check(&image()).is_ok());
        for broken in [510, 462, SECTOR, SECTOR + 32, 7 * SECTOR, 2 * SECTOR + 130] {
            let mut image = image();
            image[broken] ^= 0x7f;
            assert!(check(&image).is_err(), "byte {broken}");
        }
        assert!(check(&[]).is_err());
    }
}
