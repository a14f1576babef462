//! I/O APICs: which interrupt line goes to which CPU with which vector.

use super::layout::{IOAPIC_BASE, PAGE};
use crate::num::usize_of;
use core::ptr::with_exposed_provenance_mut;
use heapless::Vec;
use spin::mutex::SpinMutex;

/// I/O APICs that the kernel uses.
pub const MAX_IOAPICS: usize = 8;

const VERSION: u32 = 1;
const TABLE: u32 = 0x10;
const MASKED: u32 = 1 << 16;
const VECTOR: u32 = 0xff;

/// An I/O APIC as ACPI describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Physical address of its registers.
    pub base: u64,
    /// First global system interrupt.
    pub gsi: u32,
}

/// How a line signals, as an entry of the redirection table has it.
pub const LEVEL: u32 = 1 << 15;
/// The line is active low.
pub const ACTIVE_LOW: u32 = 1 << 13;

struct IoApic {
    registers: u64,
    gsi: u32,
    pins: u32,
}

/// The registers are reached through an index register, so one at a time.
static IOAPICS: SpinMutex<Vec<IoApic, MAX_IOAPICS>> = SpinMutex::new(Vec::new());

/// Takes the I/O APICs and masks every pin; returns the number of the highest GSI plus one.
///
/// # Safety
/// Called once at boot; the kernel page tables map each one's page, in this order.
pub unsafe fn init(descriptions: &[Description]) -> u32 {
    let mut ioapics = IOAPICS.lock();
    let mut page = IOAPIC_BASE;
    for description in descriptions {
        let mut ioapic =
            IoApic { registers: page + description.base % PAGE, gsi: description.gsi, pins: 0 };
        page += PAGE;
        ioapic.pins = (ioapic.read(VERSION) >> 16 & 0xff) + 1;
        for pin in 0..ioapic.pins {
            ioapic.write(TABLE + 2 * pin, MASKED);
        }
        // More than the list holds are not in the description either.
        let _ = ioapics.push(ioapic);
    }
    ioapics.iter().map(|ioapic| ioapic.gsi.saturating_add(ioapic.pins)).max().unwrap_or(0)
}

/// Lets a GSI raise a vector on the CPU with an APIC id; `flags` has [`LEVEL`] and [`ACTIVE_LOW`].
/// One that no I/O APIC has never interrupts.
pub fn route(gsi: u32, vector: u8, apic_id: u32, flags: u32) {
    with_pin(gsi, |ioapic, entry| {
        let low = u32::from(vector) | flags;
        // Masked while the two halves disagree.
        ioapic.write(entry, low | MASKED);
        ioapic.write(entry + 1, apic_id << 24);
        ioapic.write(entry, low);
    });
}

/// Masks or unmasks a GSI. One that [`release`] masked stays so, whoever comes too late.
pub fn set_masked(gsi: u32, masked: bool) {
    with_pin(gsi, |ioapic, entry| {
        let low = ioapic.read(entry) & !MASKED;
        let free = low & VECTOR == 0;
        ioapic.write(entry, if masked || free { low | MASKED } else { low });
    });
}

/// Masks a GSI until it is routed again.
pub fn release(gsi: u32) {
    with_pin(gsi, |ioapic, entry| ioapic.write(entry, MASKED));
}

fn with_pin(gsi: u32, work: impl FnOnce(&mut IoApic, u32)) {
    for ioapic in IOAPICS.lock().iter_mut() {
        if let Some(pin) = gsi.checked_sub(ioapic.gsi).filter(|&pin| pin < ioapic.pins) {
            return work(ioapic, TABLE + 2 * pin);
        }
    }
}

impl IoApic {
    fn select(&mut self, register: u32) -> *mut u32 {
        let select = with_exposed_provenance_mut::<u32>(usize_of(self.registers));
        // SAFETY: `init` was told that the registers are mapped; the data window is 16 bytes on.
        unsafe {
            select.write_volatile(register);
            select.add(4)
        }
    }

    fn read(&mut self, register: u32) -> u32 {
        let window = self.select(register);
        // SAFETY: as for `select`; reading has no side effect.
        unsafe { window.read_volatile() }
    }

    fn write(&mut self, register: u32, value: u32) {
        let window = self.select(register);
        // SAFETY: as for `select`; the callers write redirection entries only.
        unsafe { window.write_volatile(value) }
    }
}
