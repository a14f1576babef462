//! What the tests of this folder share: physical memory made of patches, and tables to put there.

use super::bytes::Physical;

/// Physical memory: byte strings at addresses.
#[derive(Debug)]
pub(super) struct Patches(pub(super) Vec<(u64, Vec<u8>)>);

impl Physical for Patches {
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
        self.0.iter().find_map(|(base, bytes)| {
            let start = usize::try_from(address.checked_sub(*base)?).ok()?;
            bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
        })
    }
}

/// Boot information from tags: (type, body).
pub(super) fn boot_info(tags: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0; 8];
    let end = [(0, Vec::new())];
    for (kind, body) in tags.iter().chain(&end) {
        bytes.extend(kind.to_le_bytes());
        bytes.extend(u32::try_from(body.len() + 8).unwrap().to_le_bytes());
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
    }
    let size = u32::try_from(bytes.len()).unwrap();
    bytes[..4].copy_from_slice(&size.to_le_bytes());
    bytes
}

/// Body of a memory map tag.
pub(super) fn memory_map(entries: &[(u64, u64, u32)]) -> Vec<u8> {
    let mut body = [24u32.to_le_bytes(), [0; 4]].concat();
    for (base, size, kind) in entries {
        body.extend(base.to_le_bytes());
        body.extend(size.to_le_bytes());
        body.extend(kind.to_le_bytes());
        body.extend([0; 4]);
    }
    body
}

/// Body of a module tag.
pub(super) fn module(start: u32, end: u32, name: &str) -> Vec<u8> {
    [&start.to_le_bytes(), &end.to_le_bytes(), name.as_bytes(), &[0]].concat()
}

/// Sets the byte at `at` so that all add up to zero.
pub(super) fn fix_checksum(bytes: &mut [u8], at: usize) {
    bytes[at] = 0;
    bytes[at] = bytes.iter().fold(0u8, |sum, b| sum.wrapping_sub(*b));
}

/// An ACPI table with header.
pub(super) fn table(signature: [u8; 4], body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 36];
    bytes[..4].copy_from_slice(&signature);
    bytes.extend(body);
    let length = u32::try_from(bytes.len()).unwrap();
    bytes[4..8].copy_from_slice(&length.to_le_bytes());
    fix_checksum(&mut bytes, 9);
    bytes
}

/// A root pointer; revision 0 where there is no XSDT.
pub(super) fn root_pointer(rsdt: u32, xsdt: Option<u64>) -> Vec<u8> {
    let mut bytes = b"RSD PTR \0TESTED".to_vec();
    bytes.push(if xsdt.is_some() { 2 } else { 0 });
    bytes.extend(rsdt.to_le_bytes());
    fix_checksum(&mut bytes, 8);
    if let Some(xsdt) = xsdt {
        bytes.extend(36u32.to_le_bytes());
        bytes.extend(xsdt.to_le_bytes());
        bytes.extend([0; 4]);
        fix_checksum(&mut bytes, 32);
    }
    bytes
}

/// MADT of a machine with CPUs 0, 2 and 300 (4 is disabled) and two I/O APICs.
pub(super) fn madt() -> Vec<u8> {
    let mut body = [0xfee0_0000u32.to_le_bytes(), 1u32.to_le_bytes()].concat();
    for (id, enabled) in [(0, 1), (2, 1), (4, 0)] {
        body.extend([0, 8, id, id, enabled, 0, 0, 0]);
    }
    body.extend([9, 16, 0, 0]);
    for word in [300u32, 1, 300] {
        body.extend(word.to_le_bytes());
    }
    for (id, base, gsi) in [(0, 0xfec0_0000u32, 0u32), (1, 0xfec1_0000, 24)] {
        body.extend([1, 12, id, 0]);
        body.extend(base.to_le_bytes());
        body.extend(gsi.to_le_bytes());
    }
    body.extend([2, 10, 0, 0, 2, 0, 0, 0, 0, 0]);
    body.extend([2, 10, 0, 9, 9, 0, 0, 0, 0x0f, 0]);
    body.extend([4, 6, 0xff, 0, 0, 1]);
    table(*b"APIC", &body)
}
