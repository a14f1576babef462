//! Storage of each CPU, reached through the GS base.

use core::arch::asm;
use core::cell::Cell;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU64, Ordering};

use super::descriptors::{IO_BITMAP_NONE, IO_BITMAP_OFFSET, PERCPU_TO_RSP0};
use super::layout::{PAGE, in_window, window};
use super::regs::{FRAME_END, Regs, flag};
use ipc::trace::Ring;

use crate::num::{low8, u64_of, usize_of};
use x86_64::structures::tss::TaskStateSegment;

/// What a CPU keeps for itself, in its page of the per-CPU window; the page after it holds the
/// TSS. Only its own CPU touches it; what is shared is in [`crate::sched::Remote`].
#[repr(C)]
pub struct PerCpu {
    /// Address of this structure.
    pub self_pointer: *const PerCpu,
    /// Top of the kernel stack.
    pub stack_top: u64,
    /// Vector noted by an interrupt in kernel mode; 0 for none.
    pub pending_vector: Cell<u64>,
    /// Registers of nobody: RSP0 points here while there is no current execution context.
    pub nobody: Regs,
    /// The CPU's scheduling state.
    pub sched: crate::sched::Cpu,
}

const _: () = assert!(size_of::<PerCpu>() <= 4096);

/// Offset of the TSS field that says where the I/O bitmap is.
const IOMAP: u64 = window::TSS - window::PERCPU + u64_of(offset_of!(TaskStateSegment, iomap_base));

impl PerCpu {
    /// Offset of TSS.RSP0 from the GS base.
    pub const RSP0: u64 = PERCPU_TO_RSP0;

    /// The storage of CPU `id`, to be written to its page.
    pub fn new(id: u16) -> Self {
        let at = |offset| in_window(id.into(), offset);
        let nobody = Regs::default();
        nobody.set(flag::DEAD);
        Self {
            self_pointer: core::ptr::with_exposed_provenance(usize_of(at(window::PERCPU))),
            stack_top: at(window::STACK_TOP),
            pending_vector: Cell::new(0),
            nobody,
            sched: crate::sched::Cpu::new(id),
        }
    }

    /// Sets where the entry paths save user registers: the end of the current [`Regs`].
    #[inline(always)]
    pub fn set_rsp0(&self, end: u64) {
        // SAFETY: GS points to this CPU's window, whose next page is the TSS; the word is RSP0.
        unsafe {
            asm!("mov gs:[{}], {}", const PERCPU_TO_RSP0, in(reg) end,
                options(nostack, preserves_flags));
        }
    }

    /// Puts the I/O bitmap that is mapped within or beyond the reach of user code.
    #[inline(always)]
    pub fn set_ports(&self, within: bool) {
        let offset = if within { IO_BITMAP_OFFSET } else { IO_BITMAP_NONE };
        // SAFETY: as in `set_rsp0`; the processor reads the field on each I/O instruction of user
        // code, so nothing has to be reloaded.
        unsafe {
            asm!("mov gs:[{}], {:x}", const IOMAP, in(reg) offset,
                options(nostack, preserves_flags));
        }
    }

    /// Makes nobody the current execution context.
    pub fn set_nobody(&self) {
        self.nobody.set(flag::DEAD);
        self.sched.current.set(None);
        self.set_rsp0(u64_of((&raw const self.nobody).addr() + FRAME_END));
    }

    /// Whether somebody wants records in the trace.
    #[inline(always)]
    pub fn is_traced(&self) -> bool {
        // SAFETY: the control page of the trace is mapped there for good; whoever else writes it
        // uses atomics, or gets what the last of them left.
        unsafe { (*self.in_window::<AtomicU64>(window::TRACE)).load(Ordering::Relaxed) != 0 }
    }

    /// This CPU's part of the trace.
    #[inline(always)]
    pub fn ring(&self) -> &Ring {
        // SAFETY: the ring is mapped there for good, and consists of atomics.
        unsafe { &*self.in_window::<Ring>(window::TRACE + PAGE) }
    }

    #[inline(always)]
    fn in_window<T>(&self, offset: u64) -> *const T {
        let own = core::ptr::from_ref(self).addr();
        core::ptr::with_exposed_provenance(own + usize_of(offset - window::PERCPU))
    }

    /// Takes the noted vector.
    pub(super) fn take_pending(&self) -> Option<u8> {
        match self.pending_vector.replace(0) {
            0 => None,
            vector => Some(low8(vector)),
        }
    }
}

/// The storage of this CPU.
#[inline(always)]
pub fn this() -> &'static PerCpu {
    let base: *const PerCpu;
    // SAFETY: in the kernel the GS base points to this CPU's `PerCpu`, which lives for ever and
    // holds its own address; kernel code does not migrate.
    unsafe {
        asm!("mov {}, gs:[{}]", out(reg) base, const offset_of!(PerCpu, self_pointer),
            options(nostack, preserves_flags, pure, readonly));
        &*base
    }
}
