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
const LEVEL: u32 = 1 << 15;
const ACTIVE_LOW: u32 = 1 << 13;

/// An I/O APIC as ACPI describes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Description {
    /// Physical address of its registers.
    pub base: u64,
    /// First global system interrupt.
    pub gsi: u32,
}

/// Where an interrupt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// Vector.
    pub vector: u8,
    /// Local APIC of the CPU.
    pub apic_id: u8,
    /// Level-triggered, otherwise edge.
    pub level: bool,
    /// Active low, otherwise high.
    pub active_low: bool,
}

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

/// Routes a GSI, masked or not. A GSI that no I/O APIC has never interrupts.
pub fn route(gsi: u32, route: Route, masked: bool) {
    with_pin(gsi, |ioapic, entry| {
        let low = u32::from(route.vector)
            | if route.level { LEVEL } else { 0 }
            | if route.active_low { ACTIVE_LOW } else { 0 };
        // Masked while the two halves disagree.
        ioapic.write(entry, low | MASKED);
        ioapic.write(entry + 1, u32::from(route.apic_id) << 24);
        if !masked {
            ioapic.write(entry, low);
        }
    });
}

/// Masks or unmasks a GSI.
pub fn set_masked(gsi: u32, masked: bool) {
    with_pin(gsi, |ioapic, entry| {
        let low = ioapic.read(entry) & !MASKED;
        ioapic.write(entry, if masked { low | MASKED } else { low });
    });
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
