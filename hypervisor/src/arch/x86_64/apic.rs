//! The local APIC of each CPU, in x2APIC mode where the machine has it.

use super::layout::LAPIC_BASE;
use super::{cpu, instr, msr, tsc};
use crate::interrupt::{APIC_ERROR, SPURIOUS, TIMER};
use crate::num::{low32, usize_of};
use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{AtomicU64, Ordering};

/// Registers by their offset in the xAPIC page; the x2APIC number is a sixteenth of it.
mod register {
    pub(super) const ID: u32 = 0x20;
    pub(super) const TASK_PRIORITY: u32 = 0x80;
    pub(super) const EOI: u32 = 0xb0;
    pub(super) const SPURIOUS: u32 = 0xf0;
    pub(super) const ERROR_STATUS: u32 = 0x280;
    pub(super) const COMMAND: u32 = 0x300;
    pub(super) const COMMAND_HIGH: u32 = 0x310;
    pub(super) const LVT_TIMER: u32 = 0x320;
    pub(super) const LVT_LINT0: u32 = 0x350;
    pub(super) const LVT_LINT1: u32 = 0x360;
    pub(super) const LVT_ERROR: u32 = 0x370;
    pub(super) const INITIAL_COUNT: u32 = 0x380;
    pub(super) const CURRENT_COUNT: u32 = 0x390;
    pub(super) const DIVIDE: u32 = 0x3e0;
}

const BASE_X2APIC: u64 = 1 << 10;
const BASE_ENABLED: u64 = 1 << 11;
const BASE_ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const SOFTWARE_ENABLED: u32 = 1 << 8;
const MASKED: u32 = 1 << 16;
const TIMER_DEADLINE: u32 = 2 << 17;
const DIVIDE_BY_1: u32 = 0xb;

const COMMAND_PENDING: u32 = 1 << 12;
const COMMAND_ASSERT: u32 = 1 << 14;
const COMMAND_INIT: u32 = 5 << 8;
const COMMAND_STARTUP: u32 = 6 << 8;

/// Timer ticks per TSC tick, times 2^32; without TSC-deadline mode. Relaxed, as everything here:
/// [`init`] runs on the boot CPU before others start.
static RATIO: AtomicU64 = AtomicU64::new(0);

/// Physical address of the registers.
pub fn base() -> u64 {
    // SAFETY: every CPU with long mode has the register.
    unsafe { msr::read(msr::APIC_BASE) & BASE_ADDRESS }
}

/// Sets up the boot CPU's APIC and measures its timer where that is needed.
///
/// # Safety
/// Called once, on the boot CPU, with the registers mapped at [`LAPIC_BASE`], interrupts off and
/// the TSC frequency known.
pub unsafe fn init() {
    // SAFETY: passed on from the caller.
    unsafe { init_cpu() };
    if !cpu::features().tsc_deadline {
        // Whatever comes in between makes the timer seem slow, and so fire early: see `arm`.
        let start = instr::rdtsc();
        write(register::INITIAL_COUNT, u32::MAX);
        tsc::wait_us(10_000, || false);
        let count = u64::from(u32::MAX - read(register::CURRENT_COUNT));
        RATIO.store((count << 32) / (instr::rdtsc() - start), Ordering::Relaxed);
        write(register::INITIAL_COUNT, 0);
    }
}

/// Sets up the local APIC of this CPU: enabled, timer unmasked but not armed, pins masked: NMIs
/// carry nothing for the kernel.
///
/// # Safety
/// As for [`init`], which was called before; interrupts are off.
pub unsafe fn init_cpu() {
    // SAFETY: enabling the APIC in the mode chosen is the purpose; the order disabled, xAPIC,
    // x2APIC is the one allowed (SDM 3A, 11.12.5).
    unsafe {
        let base = msr::read(msr::APIC_BASE) | BASE_ENABLED;
        msr::write(msr::APIC_BASE, base);
        if cpu::features().x2apic {
            msr::write(msr::APIC_BASE, base | BASE_X2APIC);
        }
    }
    // The spurious vector's bits 0 to 3 are ones, as old APICs insist.
    write(register::SPURIOUS, SOFTWARE_ENABLED | u32::from(SPURIOUS));
    write(register::TASK_PRIORITY, 0);
    write(register::LVT_LINT0, MASKED);
    write(register::LVT_LINT1, MASKED);
    write(register::ERROR_STATUS, 0);
    write(register::LVT_ERROR, APIC_ERROR.into());
    write(register::DIVIDE, DIVIDE_BY_1);
    let mode = if cpu::features().tsc_deadline { TIMER_DEADLINE } else { 0 };
    write(register::LVT_TIMER, u32::from(TIMER) | mode);
    // A memory-mapped write of the mode must not be overtaken by a deadline (SDM 3A, 11.5.4.1).
    instr::fence();
}

/// APIC id of this CPU.
pub fn id() -> u32 {
    let id = read(register::ID);
    if cpu::features().x2apic { id } else { id >> 24 }
}

/// Ends the interrupt in service.
pub fn eoi() {
    write(register::EOI, 0);
}

/// Reads and clears the error status.
pub fn take_errors() -> u32 {
    write(register::ERROR_STATUS, 0);
    read(register::ERROR_STATUS)
}

/// Sends an interrupt to a CPU. What this CPU wrote before is visible to its handler.
pub fn send_ipi(apic_id: u32, vector: u8) {
    command(apic_id, COMMAND_ASSERT | u32::from(vector));
}

/// Resets a CPU that is to be started.
///
/// # Safety
/// The CPU runs nothing of this kernel.
pub unsafe fn send_init(apic_id: u32) {
    command(apic_id, COMMAND_ASSERT | COMMAND_INIT);
}

/// Makes a CPU that waits after INIT run real-mode code at `page`.
///
/// # Safety
/// The page, below 1 MiB, holds code that may run on that CPU.
pub unsafe fn send_startup(apic_id: u32, page: u64) {
    command(apic_id, COMMAND_ASSERT | COMMAND_STARTUP | low32(page >> 12) & 0xff);
}

fn command(apic_id: u32, command: u32) {
    if cpu::features().x2apic {
        // The x2APIC command is not ordered behind stores by itself (SDM 3A, 11.12.3).
        instr::fence();
        let value = u64::from(apic_id) << 32 | u64::from(command);
        // SAFETY: the APIC is in x2APIC mode; the callers vouch for what the command does.
        unsafe { msr::write(msr::X2APIC + (register::COMMAND >> 4), value) };
    } else {
        write(register::COMMAND_HIGH, apic_id << 24);
        write(register::COMMAND, command);
        // Bounded: an APIC that never sends must not stop the kernel.
        for _ in 0..1_000_000 {
            if read(register::COMMAND) & COMMAND_PENDING == 0 {
                break;
            }
            instr::pause();
        }
    }
}

/// Arms the timer of this CPU for an absolute TSC value, or disarms it: 0. It may fire early where
/// the deadline lies beyond what the timer can count: the handler looks at the clock and arms again.
pub fn arm(deadline: u64) {
    if cpu::features().tsc_deadline {
        // SAFETY: the timer is in TSC-deadline mode.
        unsafe { msr::write(msr::TSC_DEADLINE, deadline) };
    } else if deadline == 0 {
        write(register::INITIAL_COUNT, 0);
    } else {
        let ticks = u128::from(deadline.saturating_sub(instr::rdtsc()));
        // Rounded up, so that the handler finds the deadline passed.
        let count = ((ticks * u128::from(RATIO.load(Ordering::Relaxed))) >> 32) + 1;
        write(register::INITIAL_COUNT, u32::try_from(count).unwrap_or(u32::MAX));
    }
}

fn address(register: u32) -> *mut u32 {
    with_exposed_provenance_mut(usize_of(LAPIC_BASE + u64::from(register)))
}

fn read(register: u32) -> u32 {
    // SAFETY: the mode says which of both exists; none of the registers used is changed by reading.
    unsafe {
        if cpu::features().x2apic {
            low32(msr::read(msr::X2APIC + (register >> 4)))
        } else {
            address(register).read_volatile()
        }
    }
}

fn write(register: u32, value: u32) {
    // SAFETY: the mode says which of both exists; the functions of this module write valid values.
    unsafe {
        if cpu::features().x2apic {
            msr::write(msr::X2APIC + (register >> 4), u64::from(value));
        } else {
            address(register).write_volatile(value);
        }
    }
}
