//! Initial state of vCPUs: 64-bit boot protocol, reset, and start-up IPI.

use ipc::state::{Segment, State};

use super::layout;
use crate::devices::pm;
use crate::memory::{NotRam, Ram};

/// `IA32_PAT` after reset (Intel SDM vol. 3, 13.12.4).
pub const PAT_RESET: u64 = 0x0007_0406_0007_0406;
/// `CR0` after INIT: caches off, extension type (Intel SDM vol. 3, table 10-1).
const CR0_RESET: u64 = 0x6000_0010;
/// `CR0` of a 64-bit entry: paging, protection, numeric errors, extension type.
const CR0_LONG: u64 = 0x8000_0031;
const CR4_PAE: u64 = 1 << 5;
const EFER_LONG: u64 = 1 << 8 | 1 << 10;
/// 64-bit code: execute/read, accessed; present, long, 4 KiB granular.
const CODE64: u16 = 0xa09b;
/// Data: read/write, accessed; present, 32-bit, 4 KiB granular.
const DATA32: u16 = 0xc093;
/// Real mode code and data: accessed, present.
const CODE16: u16 = 0x009b;
const DATA16: u16 = 0x0093;
const TSS_BUSY: u16 = 0x008b;
const LDT: u16 = 0x0082;
/// Selectors that the boot protocol prescribes (`__BOOT_CS`, `__BOOT_DS`), and a task.
const BOOT_CS: u16 = 0x10;
const BOOT_DS: u16 = 0x18;
const BOOT_TR: u16 = 0x20;
const GDT_ENTRIES: [u64; 6] = [
    0,
    0,
    descriptor(CODE64),
    descriptor(DATA32),
    // A 64-bit TSS at 0, 104 bytes, as `TR` says.
    0x0000_8b00_0000_0067,
    0,
];

const fn descriptor(attributes: u16) -> u64 {
    0x000f_0000_0000_ffff | (attributes as u64) << 40
}

/// Writes GDT and identity map of the 64-bit entry.
///
/// # Errors
/// RAM does not reach that far.
pub fn write_tables(ram: &Ram) -> Result<(), NotRam> {
    const PRESENT_WRITE: u64 = 0x3;
    const LARGE: u64 = 1 << 7;
    for (gpa, entry) in (layout::GDT..).step_by(8).zip(GDT_ENTRIES) {
        ram.write_word(gpa, 8, entry)?;
    }
    let pdpt = layout::PAGE_TABLES + 0x1000;
    let first_directory = layout::PAGE_TABLES + 0x2000;
    for gpa in (layout::PAGE_TABLES..first_directory).step_by(8) {
        ram.write_word(gpa, 8, 0)?;
    }
    ram.write_word(layout::PAGE_TABLES, 8, pdpt | PRESENT_WRITE)?;
    for gib in 0..layout::IDENTITY_GIB {
        let directory = first_directory + gib * 0x1000;
        ram.write_word(pdpt + gib * 8, 8, directory | PRESENT_WRITE)?;
        for entry in 0..512 {
            let page = gib << 30 | entry << 21;
            ram.write_word(directory + entry * 8, 8, page | LARGE | PRESENT_WRITE)?;
        }
    }
    Ok(())
}

/// Writes what stands for firmware: at the reset vector, code that asks for a restart. Linux jumps
/// there to restart where ACPI is hardware-reduced and there is no EFI (`reboot=bios`).
///
/// # Errors
/// RAM does not reach that far.
pub fn write_reset_vector(ram: &Ram) -> Result<(), NotRam> {
    let [low, high] = pm::RESET.to_le_bytes();
    // mov al, RESET_VALUE; mov dx, RESET; out dx, al; cli; hlt; jmp to the cli
    let code = [0xb0, pm::RESET_VALUE, 0xba, low, high, 0xee, 0xfa, 0xf4, 0xeb, 0xfc];
    ram.write(layout::RESET_VECTOR, &code)
}

/// State at the 64-bit entry of a Linux kernel (Documentation/arch/x86/boot.rst, "64-bit Boot
/// Protocol"): long mode, identity map, flat segments, interrupts off, `rsi` = zero page.
pub fn long_mode(state: &mut State, entry: u64, zero_page: u64) {
    common(state);
    state.rip = entry;
    state.rsi = zero_page;
    state.cr0 = CR0_LONG;
    state.cr3 = layout::PAGE_TABLES;
    state.cr4 = CR4_PAE;
    state.efer = EFER_LONG;
    let data = Segment { selector: BOOT_DS, attributes: DATA32, limit: u32::MAX, base: 0 };
    state.cs = Segment { selector: BOOT_CS, attributes: CODE64, limit: u32::MAX, base: 0 };
    (state.ss, state.ds, state.es, state.fs, state.gs) = (data, data, data, data, data);
    state.tr = Segment { selector: BOOT_TR, attributes: TSS_BUSY, limit: 0x67, base: 0 };
    state.gdtr = Segment { limit: 8 * 6 - 1, base: layout::GDT, ..Segment::default() };
    state.idtr = Segment::default();
}

/// State after a start-up IPI: real mode at `vector` * 4 KiB (Intel SDM vol. 3, 9.4.4).
pub fn startup_ipi(state: &mut State, vector: u8) {
    common(state);
    // Family 6, as after INIT; software does not rely on it.
    state.rdx = 0x600;
    state.cr0 = CR0_RESET;
    let data = Segment { selector: 0, attributes: DATA16, limit: 0xffff, base: 0 };
    state.cs = Segment {
        selector: u16::from(vector) << 8,
        attributes: CODE16,
        limit: 0xffff,
        base: u64::from(vector) << 12,
    };
    (state.ss, state.ds, state.es, state.fs, state.gs) = (data, data, data, data, data);
    state.tr = Segment { selector: 0, attributes: TSS_BUSY, limit: 0xffff, base: 0 };
    state.gdtr = Segment { limit: 0xffff, ..Segment::default() };
    state.idtr = Segment { limit: 0xffff, ..Segment::default() };
}

fn common(state: &mut State) {
    let qualification = state.qualification;
    *state = State::new();
    state.qualification = qualification;
    state.rflags = 2;
    state.ldtr = Segment { selector: 0, attributes: LDT, limit: 0xffff, base: 0 };
    state.dr6 = 0xffff_0ff0;
    state.dr7 = 0x400;
    state.pat = PAT_RESET;
    state.xcr0 = 1;
}
