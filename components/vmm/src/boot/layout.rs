//! Where things lie in guest-physical memory when a guest starts.

/// The GDT that the boot protocol asks for.
pub const GDT: u64 = 0x1000;
/// The zero page (`struct boot_params`).
pub const ZERO_PAGE: u64 = 0x7000;
/// Page tables of the identity map: PML4, PDPT, one page directory per GiB.
pub const PAGE_TABLES: u64 = 0x9000;
/// GiB that the identity map covers.
pub const IDENTITY_GIB: u64 = 4;
/// Command line.
pub const COMMAND_LINE: u64 = 0x2_0000;
/// Longest command line with its terminating zero.
pub const COMMAND_LINE_SIZE: u64 = 0x1_0000;
/// End of conventional memory: the extended BIOS data area would start here.
pub const LOW_END: u64 = 0x9_fc00;
/// ACPI tables, in the area that firmware would occupy.
pub const ACPI: u64 = 0xe_0000;
/// End of the area for ACPI tables.
pub const ACPI_END: u64 = FIRMWARE;
/// Where a BIOS would be: empty but for the reset vector.
pub const FIRMWARE: u64 = 0xf_0000;
/// First instruction after a reset, as a guest that restarts itself by jumping there knows it.
pub const RESET_VECTOR: u64 = 0xf_fff0;
/// Start of extended memory.
pub const HIGH_START: u64 = 0x10_0000;
/// Least RAM of a guest.
pub const MIN_RAM: u64 = 0x100_0000;
/// Register pages of virtio devices, one after the other.
pub const VIRTIO: u64 = 0xd000_0000;
/// Register page of the I/O APIC.
pub const IOAPIC: u64 = 0xfec0_0000;
/// Register page of the local APIC in xAPIC mode.
pub const LAPIC: u64 = 0xfee0_0000;

const _: () = assert!(PAGE_TABLES + (2 + IDENTITY_GIB) * 0x1000 <= COMMAND_LINE);
const _: () = assert!(COMMAND_LINE + COMMAND_LINE_SIZE <= LOW_END);
