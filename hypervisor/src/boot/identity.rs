//! Physical memory through the boot page tables, which map the first 4 GiB one to one.

use super::bytes::Physical;
use crate::arch::layout::BOOT_IDENTITY_END;
use crate::num::usize_of;
use core::ptr::with_exposed_provenance;

/// Read access for discovery.
pub struct Identity(());

impl Identity {
    /// # Safety
    /// The boot page tables are in use for as long as this lives, and nobody writes what is read.
    pub const unsafe fn new() -> Self {
        Self(())
    }
}

impl Physical for Identity {
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
        let end = address.checked_add(size)?;
        if address == 0 || end > BOOT_IDENTITY_END {
            return None;
        }
        // SAFETY: mapped (see `new`), and every byte pattern is a byte. An address that a damaged
        // table gives may be a device's; reading one at boot is harmless on a PC.
        Some(unsafe {
            core::slice::from_raw_parts(with_exposed_provenance(usize_of(address)), usize_of(size))
        })
    }
}
