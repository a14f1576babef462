//! Segments, task state and interrupt gates.

use super::entry;
use super::layout::{in_window, window};
use super::percpu::PerCpu;
use crate::num::{low8, low16, u64_of, usize_of};
use core::cell::UnsafeCell;
use core::mem::offset_of;
use core::ptr::with_exposed_provenance_mut;
use x86_64::VirtAddr;
use x86_64::instructions::segmentation::{CS, SS, Segment};
use x86_64::instructions::tables::{lgdt, lidt, load_tss};
use x86_64::structures::DescriptorTablePointer;
use x86_64::structures::gdt::{DescriptorFlags as Flags, SegmentSelector};
use x86_64::structures::tss::TaskStateSegment;

/// Kernel code segment.
pub const KERNEL_CODE: u16 = 0x08;
/// Kernel data segment; SYSCALL loads it into SS.
pub const KERNEL_DATA: u16 = 0x10;
/// Task state segment.
pub const TASK_STATE: u16 = 0x28;
/// The base from which SYSRET takes SS (+8) and CS (+16).
pub const STAR_SYSRET: u16 = 0x10 | 3;

/// Distance from the per-CPU structure (GS base) to `rsp0` in the TSS.
pub const PERCPU_TO_RSP0: u64 = window::TSS - window::PERCPU + TSS_RSP0;
const TSS_RSP0: u64 = u64_of(offset_of!(TaskStateSegment, privilege_stack_table));

/// From the TSS to the bitmap page behind it.
pub(super) const IO_BITMAP_OFFSET: u16 = low16(window::IO_BITMAP - window::TSS);
/// An offset beyond the limit: the processor denies every port without looking at a bitmap.
pub(super) const IO_BITMAP_NONE: u16 = u16::MAX;
/// Last byte of the segment: the one behind 8 KiB of bitmap.
const TSS_LIMIT: u64 = window::IO_BITMAP_END - window::TSS;

/// TSS and GDT of a CPU, as they lie in the page at [`window::TSS`].
#[repr(C)]
struct Descriptors {
    tss: TaskStateSegment,
    gdt: [u64; 7],
}

const TSS_AVAILABLE: u64 = 0x89 << 40;
const TSS_BUSY: u64 = 2 << 40;

impl Descriptors {
    fn new(cpu: usize) -> Self {
        let base = in_window(cpu, window::TSS);
        let stack = |end| VirtAddr::new_truncate(in_window(cpu, end));
        let mut tss = TaskStateSegment::new();
        tss.iomap_base = IO_BITMAP_NONE;
        tss.privilege_stack_table[0] = stack(window::STACK_TOP);
        let stacks = window::IST.map(|(_, end)| stack(end));
        tss.interrupt_stack_table[0] = stacks[0];
        tss.interrupt_stack_table[1] = stacks[1];
        tss.interrupt_stack_table[2] = stacks[2];
        let tss_low = TSS_LIMIT & 0xffff
            | (base & 0xff_ffff) << 16
            | TSS_AVAILABLE
            | (TSS_LIMIT >> 16 & 0xf) << 48
            | (base >> 24 & 0xff) << 56;
        let (code, data) = (Flags::KERNEL_CODE64.bits(), Flags::KERNEL_DATA.bits());
        let (user_code, user_data) = (Flags::USER_CODE64.bits(), Flags::USER_DATA.bits());
        Self { tss, gdt: [0, code, data, user_data, user_code, tss_low, base >> 32] }
    }
}

const GDT_LIMIT: u16 = low16(u64_of(size_of::<[u64; 7]>() - 1));

/// The gates of all CPUs, in read-only data.
#[repr(C, align(16))]
struct Idt(UnsafeCell<[[u64; 2]; 256]>);

// SAFETY: written once, before other CPUs start.
unsafe impl Sync for Idt {}

#[cfg_attr(target_os = "none", unsafe(link_section = ".rodata.idt"))]
static IDT: Idt = Idt(UnsafeCell::new([[0; 2]; 256]));

/// Writes the gates.
///
/// # Safety
/// Called once, on the boot page tables, which map read-only data writable.
pub unsafe fn install_vectors() {
    let gates = core::array::from_fn(|n| {
        let vector = low8(u64_of(n));
        gate(vector, entry::handler(vector))
    });
    // SAFETY: writable and nobody else's, as promised.
    unsafe { IDT.0.get().write_volatile(gates) };
}

/// An interrupt gate (IF is cleared) into kernel code.
const fn gate(vector: u8, stub: u64) -> [u64; 2] {
    // NMI, double fault and machine check each have a stack.
    let stack = match vector {
        2 => 1,
        8 => 2,
        18 => 3,
        _ => 0,
    };
    // INT3 and INTO are instructions of user code; every other vector is not for it to raise.
    let access = if matches!(vector, 3 | 4) { 0xee } else { 0x8e };
    let low = stub & 0xffff | (KERNEL_CODE as u64) << 16 | stack << 32 | access << 40;
    [low | (stub >> 16 & 0xffff) << 48, stub >> 32]
}

/// Writes TSS and GDT of a CPU and loads them together with the IDT.
///
/// # Safety
/// `cpu` is this CPU and its window is mapped; called once on it with interrupts off.
pub unsafe fn load(cpu: usize) {
    let tss = in_window(cpu, window::TSS);
    let place = with_exposed_provenance_mut::<Descriptors>(usize_of(tss));
    let gdt = tss + u64_of(offset_of!(Descriptors, gdt));
    let selector = SegmentSelector;
    // SAFETY: the page is mapped writable and nobody else's; the selectors match the new GDT; IDT
    // and GDT stay where they are for good. The start code left null data segments.
    unsafe {
        place.write(Descriptors::new(cpu));
        lgdt(&DescriptorTablePointer { base: VirtAddr::new_unsafe(gdt), limit: GDT_LIMIT });
        CS::set_reg(selector(KERNEL_CODE));
        SS::set_reg(selector(KERNEL_DATA));
        load_tss(selector(TASK_STATE));
        let base = VirtAddr::from_ptr(IDT.0.get());
        lidt(&DescriptorTablePointer { base, limit: low16(u64_of(size_of::<Idt>() - 1)) });
    }
}

/// Loads GDT and task register again after something has changed their limits.
///
/// # Safety
/// [`load`] was called on this CPU.
pub unsafe fn reload(cpu: &PerCpu) {
    let base = u64_of(core::ptr::from_ref(cpu).addr()) + (window::TSS - window::PERCPU);
    let gdt = base + u64_of(offset_of!(Descriptors, gdt));
    let task = with_exposed_provenance_mut::<u64>(usize_of(gdt + u64::from(TASK_STATE)));
    // SAFETY: the segments are those of `load`; LTR takes only a task that is not busy.
    unsafe {
        lgdt(&DescriptorTablePointer { base: VirtAddr::new_unsafe(gdt), limit: GDT_LIMIT });
        task.write(task.read() & !TSS_BUSY);
        load_tss(SegmentSelector(TASK_STATE));
    }
}

#[cfg(test)]
mod tests;
