//! Segments, task state and interrupt gates.

use super::layout::{CpuWindow, window};
use crate::num::{low16, u64_of, usize_of};
use core::cell::UnsafeCell;
use core::mem::{offset_of, size_of};
use core::ptr::with_exposed_provenance_mut;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, DS, ES, FS, GS, SS, Segment};
use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::SegmentSelector;

/// Kernel code segment.
pub const KERNEL_CODE: u16 = 0x08;
/// Kernel data segment; SYSCALL loads it into SS.
pub const KERNEL_DATA: u16 = 0x10;
/// User data segment, RPL 3.
pub const USER_DATA: u16 = 0x18 | 3;
/// User code segment, RPL 3.
pub const USER_CODE: u16 = 0x20 | 3;
/// Task state segment.
pub const TASK_STATE: u16 = 0x28;
/// The base from which SYSRET takes SS (+8) and CS (+16).
pub const STAR_SYSRET: u16 = 0x10 | 3;

/// IST index of the NMI, double fault and machine check stacks.
pub const IST_NMI: u8 = 1;
/// Double fault.
pub const IST_DOUBLE_FAULT: u8 = 2;
/// Machine check.
pub const IST_MACHINE_CHECK: u8 = 3;

/// Task state segment (Intel SDM 3A, 8.7; AMD APM 2, 12.2.5).
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, packed(4))]
pub struct Tss {
    reserved0: u32,
    /// Stack pointers for entry into rings 0 to 2; only the first is used.
    pub rsp: [u64; 3],
    reserved1: u64,
    /// Interrupt stacks 1 to 7.
    pub ist: [u64; 7],
    reserved2: u64,
    reserved3: u16,
    /// Offset of the I/O permission bitmap.
    pub io_bitmap: u16,
}

/// Distance from the per-CPU structure (GS base) to the TSS.
pub const PERCPU_TO_TSS: u64 = window::TSS - window::PERCPU;
/// Distance from the per-CPU structure (GS base) to `rsp0` in the TSS.
pub const PERCPU_TO_RSP0: u64 = PERCPU_TO_TSS + TSS_RSP0;
/// Offset of `rsp0`.
pub const TSS_RSP0: u64 = 4;

const _: () = assert!(size_of::<Tss>() == 104 && offset_of!(Tss, rsp) == 4);
const _: () = assert!(offset_of!(Tss, ist) == 36 && offset_of!(Tss, io_bitmap) == 102);

/// From the TSS to the bitmap page behind it.
pub(super) const IO_BITMAP_OFFSET: u16 = low16(window::IO_BITMAP - window::TSS);
/// An offset beyond the limit: the processor denies every port without looking at a bitmap.
pub(super) const IO_BITMAP_NONE: u16 = u16::MAX;
/// Last byte of the segment: the one behind 8 KiB of bitmap.
const TSS_LIMIT: u64 = window::IO_BITMAP_END - window::TSS;

/// TSS and GDT of a CPU, as they lie in the page at [`window::TSS`].
#[repr(C)]
struct Descriptors {
    tss: Tss,
    gdt: [u64; 7],
}

/// Code: present, execute/read, accessed, long mode. Data: present, read/write, accessed.
const CODE: u64 = 0x00af_9b00_0000_ffff;
const DATA: u64 = 0x00cf_9300_0000_ffff;
const RING_3: u64 = 3 << 45;
const TSS_AVAILABLE: u64 = 0x89 << 40;

impl Descriptors {
    fn new(window: CpuWindow) -> Self {
        let base = window.tss();
        let mut tss = Tss { io_bitmap: IO_BITMAP_NONE, ..Tss::default() };
        let stacks = window::IST.map(|(_, end)| window.at(end));
        tss.rsp = [window.stack_top(), 0, 0];
        tss.ist = [stacks[0], stacks[1], stacks[2], 0, 0, 0, 0];
        let tss_low = TSS_LIMIT & 0xffff
            | (base & 0xff_ffff) << 16
            | TSS_AVAILABLE
            | (TSS_LIMIT >> 16 & 0xf) << 48
            | (base >> 24 & 0xff) << 56;
        Self { tss, gdt: [0, CODE, DATA, DATA | RING_3, CODE | RING_3, tss_low, base >> 32] }
    }
}

/// A gate of the IDT.
#[derive(Clone, Copy)]
#[repr(C)]
struct Gate {
    low: u64,
    high: u64,
}

const GATES: usize = 256;

#[repr(C, align(4096))]
struct Idt(UnsafeCell<[Gate; GATES]>);

// SAFETY: written once by `install_vectors` before any CPU loads it, read by processors after that.
unsafe impl Sync for Idt {}

static IDT: Idt = Idt(UnsafeCell::new([Gate { low: 0, high: 0 }; GATES]));

impl Gate {
    /// An interrupt gate (IF is cleared) into kernel code.
    fn new(vector: u8, stub: u64) -> Self {
        let ist = match vector {
            2 => IST_NMI,
            8 => IST_DOUBLE_FAULT,
            18 => IST_MACHINE_CHECK,
            _ => 0,
        };
        // INT3 and INTO are instructions of user code; every other vector is not for it to raise.
        let ring = if matches!(vector, 3 | 4) { 3 } else { 0 };
        let attributes = 0x8e | ring << 5;
        Self {
            low: stub & 0xffff
                | u64::from(KERNEL_CODE) << 16
                | u64::from(ist) << 32
                | attributes << 40
                | (stub >> 16 & 0xffff) << 48,
            high: stub >> 32,
        }
    }
}

/// Fills the IDT that all CPUs share; vector `n` goes to `stubs[n]`.
///
/// # Safety
/// Called once, before any CPU runs [`load`]; the stubs are interrupt entry points.
pub unsafe fn install_vectors(stubs: &[u64]) {
    // SAFETY: by contract nobody else looks at the table yet.
    let gates = unsafe { &mut *IDT.0.get() };
    for ((vector, gate), &stub) in (0..=u8::MAX).zip(gates.iter_mut()).zip(stubs) {
        *gate = Gate::new(vector, stub);
    }
}

/// Writes TSS and GDT of the CPU with this window and loads them together with the IDT.
///
/// # Safety
/// The window is mapped and this CPU's own; called once on it with interrupts off.
pub unsafe fn load(window: CpuWindow) {
    let descriptors = Descriptors::new(window);
    let place = with_exposed_provenance_mut::<Descriptors>(usize_of(window.tss()));
    let gdt = VirtAddr::new_truncate(window.tss() + u64_of(offset_of!(Descriptors, gdt)));
    let idt = VirtAddr::from_ptr(IDT.0.get());
    let selector = SegmentSelector;
    // SAFETY: the page is mapped writable and nobody else's; the selectors match the new GDT; IDT
    // and GDT stay where they are for good. Null data segments are right in long mode.
    unsafe {
        place.write(descriptors);
        lgdt(&DescriptorTablePointer {
            limit: low16(u64_of(size_of::<[u64; 7]>()) - 1),
            base: gdt,
        });
        CS::set_reg(selector(KERNEL_CODE));
        SS::set_reg(selector(KERNEL_DATA));
        DS::set_reg(selector(0));
        ES::set_reg(selector(0));
        FS::set_reg(selector(0));
        GS::set_reg(selector(0));
        load_tss(selector(TASK_STATE));
        lidt(&DescriptorTablePointer {
            limit: low16(u64_of(size_of::<[Gate; GATES]>()) - 1),
            base: idt,
        });
    }
}

#[cfg(test)]
mod tests;
