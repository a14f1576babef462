//! User registers of an execution context, as the entry paths save them.

use core::cell::Cell;

use ipc::status::Status;

/// Flags that make the return to user mode leave its fast path.
pub mod flag {
    /// All registers were saved by an interrupt or exception: return with IRET.
    pub const FULL: u64 = 1 << 0;
    /// The execution context runs a guest.
    pub const VCPU: u64 = 1 << 1;
    /// It was recalled.
    pub const RECALL: u64 = 1 << 2;
    /// It was killed, or stopped for want of a handler.
    pub const DEAD: u64 = 1 << 3;
    /// It waits for the reply to an event rather than to a call.
    pub const EVENT: u64 = 1 << 4;
    /// The deadline of its guest has passed.
    pub const DEADLINE: u64 = 1 << 5;
    /// An event waits until its handler is free.
    pub const PENDING: u64 = 1 << 6;
    /// It uses the FPU, which does not hold its state.
    pub const FPU: u64 = 1 << 7;
}

/// Saved registers. The processor pushes the last five words itself when an interrupt arrives in
/// user mode, because TSS.RSP0 points to the end of this structure.
#[derive(Default)]
#[repr(C, align(16))]
#[expect(missing_docs, reason = "registers are named as in the manuals")]
pub struct Regs {
    /// Fault address of the last page fault.
    pub cr2: Cell<u64>,
    /// See [`flag`]; zero on the fast path.
    pub flags: Cell<u64>,
    pub r15: Cell<u64>,
    pub r14: Cell<u64>,
    pub r13: Cell<u64>,
    pub r12: Cell<u64>,
    pub r11: Cell<u64>,
    pub r10: Cell<u64>,
    pub r9: Cell<u64>,
    pub r8: Cell<u64>,
    pub rbp: Cell<u64>,
    pub rdi: Cell<u64>,
    pub rsi: Cell<u64>,
    pub rdx: Cell<u64>,
    pub rcx: Cell<u64>,
    pub rbx: Cell<u64>,
    pub rax: Cell<u64>,
    /// Vector of the interrupt or exception.
    pub vector: Cell<u64>,
    /// Its error code, or zero.
    pub error: Cell<u64>,
    pub rip: Cell<u64>,
    pub cs: Cell<u64>,
    pub rflags: Cell<u64>,
    pub rsp: Cell<u64>,
    pub ss: Cell<u64>,
}

/// Distance from the start of [`Regs`] to where RSP0 points. The processor aligns RSP0 down to 16
/// bytes, so the structure must end on such a boundary without padding.
pub const FRAME_END: usize = core::mem::size_of::<Regs>();

const _: () =
    assert!(core::mem::offset_of!(Regs, ss) + 8 == FRAME_END && FRAME_END.is_multiple_of(16));

/// User code segment selector (index 4, RPL 3), as SYSRET loads it.
pub const USER_CS: u64 = 0x23;
/// User data segment selector (index 3, RPL 3).
pub const USER_SS: u64 = 0x1b;
/// RFLAGS of fresh user code: interrupts on.
pub const USER_RFLAGS: u64 = 0x202;
/// RFLAGS bits that a supervisor may set in a host execution context: CF PF AF ZF SF TF DF OF AC ID.
pub const USER_RFLAGS_MASK: u64 = 0x0024_0dd5;

impl Regs {
    /// Sets `bits` of the flags.
    pub fn set(&self, bits: u64) {
        self.flags.set(self.flags.get() | bits);
    }

    /// Clears `bits` of the flags.
    pub fn clear(&self, bits: u64) {
        self.flags.set(self.flags.get() & !bits);
    }

    /// Whether any of `bits` is set.
    pub fn has(&self, bits: u64) -> bool {
        self.flags.get() & bits != 0
    }

    /// Sets the result registers of a system call.
    #[inline(always)]
    pub fn set_results(&self, status: Status, first: u64, second: u64) {
        self.rax.set(u64::from(status.number()));
        self.rdi.set(0);
        self.rsi.set(first);
        self.rdx.set(second);
    }

    /// Sets the argument registers of a handler.
    #[inline(always)]
    pub fn start(&self, first: u64, second: u64) {
        self.set_results(Status::Ok, second, 0);
        self.rdi.set(first);
    }

    /// Makes the next return execute the `syscall` instruction again, with its arguments.
    #[cold]
    pub fn restart(&self, args: &Args) {
        self.rax.set(args.number);
        self.rdi.set(args.rdi);
        self.rsi.set(args.rsi);
        self.rdx.set(args.rdx);
        self.r10.set(args.r10);
        self.r8.set(args.r8);
        // The instruction is two bytes long.
        self.rip.set(self.rip.get().wrapping_sub(2));
        // Only the full path restores r10 and r8.
        self.cs.set(USER_CS);
        self.ss.set(USER_SS);
        self.set(flag::FULL);
    }
}

/// Argument registers of a system call.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "registers are named as in the manuals")]
pub struct Args {
    pub number: u64,
    pub rdi: u64,
    pub rsi: u64,
    pub rdx: u64,
    pub r10: u64,
    pub r8: u64,
}

/// Two words that a function of the entry paths returns in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Pair(pub u64, pub u64);
