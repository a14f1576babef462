//! Little-endian words out of tables that nobody has checked yet, and access to those tables.

/// Access to physical memory while the machine is being discovered.
pub trait Physical {
    /// `size` bytes at a physical address; `None` where they cannot be read.
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]>;
}

/// `N` bytes at an offset.
pub(super) fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The byte at an offset.
pub(super) fn byte(bytes: &[u8], at: usize) -> Option<u8> {
    bytes.get(at).copied()
}

/// The 16-bit word at an offset.
pub(super) fn half(bytes: &[u8], at: usize) -> Option<u16> {
    array(bytes, at).map(u16::from_le_bytes)
}

/// The 32-bit word at an offset.
pub(super) fn word(bytes: &[u8], at: usize) -> Option<u32> {
    array(bytes, at).map(u32::from_le_bytes)
}

/// The 64-bit word at an offset.
pub(super) fn long(bytes: &[u8], at: usize) -> Option<u64> {
    array(bytes, at).map(u64::from_le_bytes)
}

/// Text up to the first zero byte; empty where it is not UTF-8.
pub(super) fn text(bytes: &[u8]) -> &str {
    let end = bytes.iter().position(|&b| b == 0).unwrap_or(bytes.len());
    bytes.get(..end).and_then(|text| core::str::from_utf8(text).ok()).unwrap_or("")
}
