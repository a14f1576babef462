//! Entry paths from user mode and back.
//!
//! Every path saves the user registers into the [`Regs`] of the current execution context, whose
//! end is in TSS.RSP0, continues on the kernel stack of the CPU, calls one Rust function and ends
//! in `resume`, which restores whatever execution context is current by then.
//!
//! Kernel mode itself is interrupted only in [`interrupt_window`]: the stub notes the vector in
//! per-CPU storage and returns with interrupts off, so Rust code never nests.

use core::arch::{asm, naked_asm};
use core::mem::offset_of;

use ipc::syscall::Call;

use super::layout::window;
use super::percpu::PerCpu;
use super::regs::{FRAME_END, Pair, Regs, flag};

/// Distance below RSP0 of a field of [`Regs`].
macro_rules! below {
    ($field:ident) => {
        FRAME_END - offset_of!(Regs, $field)
    };
}

/// Pushes all registers but RSP, so that they lie as in [`Regs`].
macro_rules! push_registers {
    () => {
        ".irp r, rax, rbx, rcx, rdx, rsi, rdi, rbp, r8, r9, r10, r11, r12, r13, r14, r15
        push \\r
        .endr"
    };
}

unsafe extern "sysv64" {
    /// System calls, see `syscall.rs`. The first two return `rdi` and `rsi` of whoever is current
    /// by then, where that is all there is to restore besides the preserved registers.
    fn portico_call(rdi: u64, rsi: u64) -> Pair;
    fn portico_reply(rdi: u64, rsi: u64) -> Pair;
    /// Whether it was a short call, and what goes to `rax` and `rsi`.
    fn portico_short(rdi: u64, rsi: u64, number: u64) -> Pair;
    /// Decodes and executes a system call in every case.
    fn portico_syscall(rdi: u64, rsi: u64, rdx: u64, r10: u64, r8: u64, number: u64) -> !;
    /// Handles an interrupt or exception that arrived in user mode.
    fn portico_trap();
    /// Makes the current execution context one that can return to user mode.
    fn portico_settle();
    /// Reports an exception in kernel mode and stops the machine.
    fn portico_kernel_fault(frame: *const KernelFrame) -> !;
}

/// What an exception in kernel mode leaves on the stack.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
#[expect(missing_docs, reason = "registers are named as in the manuals")]
pub struct KernelFrame {
    /// As [`KernelFrame::NAMES`] names them.
    pub registers: [u64; 15],
    pub vector: u64,
    pub error: u64,
    pub rip: u64,
    pub cs: u64,
    pub rflags: u64,
    pub rsp: u64,
    pub ss: u64,
}

impl KernelFrame {
    /// What is in `registers`.
    pub const NAMES: [&str; 15] = [
        "r15", "r14", "r13", "r12", "r11", "r10", "r9", "r8", "rbp", "rdi", "rsi", "rdx", "rcx",
        "rbx", "rax",
    ];

    /// RBP.
    pub const fn rbp(&self) -> u64 {
        self.registers[8]
    }
}

/// Saves what the fast way back restores, into the [`Regs`] that end at `r9`; `$rsp` has the user's
/// stack pointer.
macro_rules! save {
    ($rsp:literal) => {
        concat!(
            "mov [r9 - {rip}], rcx;",
            "mov [r9 - {rflags}], r11;",
            "mov [r9 - {rsp_}], ",
            $rsp,
            ";",
            "mov [r9 - {rbx}], rbx;",
            "mov [r9 - {rbp}], rbp;",
            "mov [r9 - {r12}], r12;",
            "mov [r9 - {r13}], r13;",
            "mov [r9 - {r14}], r14;",
            "mov [r9 - {r15}], r15",
        )
    };
}

/// The reverse, from the [`Regs`] that end at `rsp`, and the way to user mode. Whatever is not
/// restored is cleared, so that nothing of the kernel leaks.
macro_rules! leave {
    () => {
        concat!(
            "mov rcx, [rsp - {rip}];",
            "mov r11, [rsp - {rflags}];",
            "mov rbx, [rsp - {rbx}];",
            "mov rbp, [rsp - {rbp}];",
            "mov r12, [rsp - {r12}];",
            "mov r13, [rsp - {r13}];",
            "mov r14, [rsp - {r14}];",
            "mov r15, [rsp - {r15}];",
            "xor r8d, r8d;",
            "xor r9d, r9d;",
            "xor r10d, r10d;",
            "mov rsp, [rsp - {rsp_}];",
            "swapgs;",
            "sysretq",
        )
    };
}

/// Target of the `syscall` instruction (LSTAR); interrupts are masked by FMASK.
///
/// # Safety
/// Only the processor may jump here.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn syscall_entry() {
    naked_asm!(
        "swapgs",
        "cmp al, {reply}",
        "ja 3f",
        // Messages. The flags of the comparison last.
        "mov r9, gs:[{rsp0}]",
        save!("rsp"),
        "mov rsp, gs:[{stack}]",
        "jb 2f",
        "call {portico_reply}",
        "jmp 5f",
        "2:",
        "call {portico_call}",
        "5:",
        "mov rsp, gs:[{rsp0}]",
        "mov rdi, rax",
        "mov rsi, rdx",
        "xor eax, eax",
        "xor edx, edx",
        leave!(),
        // A short call ends on the spot, so the preserved registers need not be saved.
        "3:",
        "mov r9, rsp",
        "mov rsp, gs:[{stack}]",
        ".irp r, r8, r10, rdx, rsi, rdi, rax, r9, r11, rcx, rcx",
        "push \\r",
        ".endr",
        "mov rdx, rax",
        "call {short}",
        ".irp r, rcx, rcx, r11, r9",
        "pop \\r",
        ".endr",
        "test eax, eax",
        "js 4f",
        "mov rsp, r9",
        "mov rsi, rdx",
        ".irp r, edi, edx, r8d, r9d, r10d",
        "xor \\r, \\r",
        ".endr",
        "swapgs",
        "sysretq",
        // Any other call.
        "4:",
        "mov r8, r9",
        "mov r9, gs:[{rsp0}]",
        save!("r8"),
        ".irp r, r9, rdi, rsi, rdx, rcx, r8",
        "pop \\r",
        ".endr",
        "call {syscall}",
        reply = const Call::Reply as u8,
        rsp0 = const PerCpu::RSP0,
        stack = const offset_of!(PerCpu, stack_top),
        rip = const below!(rip),
        rflags = const below!(rflags),
        rsp_ = const below!(rsp),
        rbx = const below!(rbx),
        rbp = const below!(rbp),
        r12 = const below!(r12),
        r13 = const below!(r13),
        r14 = const below!(r14),
        r15 = const below!(r15),
        portico_call = sym portico_call,
        portico_reply = sym portico_reply,
        short = sym portico_short,
        syscall = sym portico_syscall,
    )
}

/// Returns to the current execution context. Entered on the kernel stack.
///
/// # Safety
/// The GS base is the kernel's and a current execution context is set.
#[unsafe(naked)]
pub unsafe extern "sysv64" fn resume() -> ! {
    naked_asm!(
        "2:",
        "mov rsp, gs:[{rsp0}]",
        "cmp qword ptr [rsp - {flags}], 0",
        "jne 3f",
        "mov rax, [rsp - {rax}]",
        "mov rdi, [rsp - {rdi}]",
        "mov rsi, [rsp - {rsi}]",
        "mov rdx, [rsp - {rdx}]",
        leave!(),
        "3:",
        "cmp qword ptr [rsp - {flags}], {full}",
        "je 4f",
        "mov rsp, gs:[{stack}]",
        "call {settle}",
        "jmp 2b",
        "4:",
        "mov qword ptr [rsp - {flags}], 0",
        "sub rsp, {r15}",
        ".irp r, r15, r14, r13, r12, r11, r10, r9, r8, rbp, rdi, rsi, rdx, rcx, rbx, rax",
        "pop \\r",
        ".endr",
        "add rsp, 16",
        "swapgs",
        "iretq",
        rsp0 = const PerCpu::RSP0,
        stack = const offset_of!(PerCpu, stack_top),
        full = const flag::FULL,
        flags = const below!(flags),
        rip = const below!(rip),
        rflags = const below!(rflags),
        rsp_ = const below!(rsp),
        rax = const below!(rax),
        rdi = const below!(rdi),
        rsi = const below!(rsi),
        rdx = const below!(rdx),
        rbx = const below!(rbx),
        rbp = const below!(rbp),
        r12 = const below!(r12),
        r13 = const below!(r13),
        r14 = const below!(r14),
        r15 = const below!(r15),
        settle = sym portico_settle,
    )
}

/// Common part of all vector stubs: vector and error code are on the stack.
#[unsafe(naked)]
unsafe extern "sysv64" fn trap() {
    naked_asm!(
        "test byte ptr [rsp + 24], 3",
        "jz 2f",
        "swapgs",
        push_registers!(),
        "or qword ptr [rsp - 8], {full}",
        "mov rax, cr2",
        "mov [rsp - 16], rax",
        "mov rsp, gs:[{stack}]",
        "cld",
        "call {trap_handler}",
        "jmp {resume}",
        // From kernel mode: exceptions are fatal, interrupts are noted.
        "2:",
        "cmp qword ptr [rsp], 32",
        "jb 3f",
        "push rax",
        "mov rax, [rsp + 8]",
        "mov gs:[{pending}], rax",
        "pop rax",
        "add rsp, 16",
        // Clear IF in the flags to be restored.
        "and qword ptr [rsp + 16], ~0x200",
        "iretq",
        "3:",
        // A debug exception can follow the guest's TF out of guest mode: nothing of the kernel's.
        "cmp qword ptr [rsp], 1",
        "jne {fatal}",
        "add rsp, 16",
        "and qword ptr [rsp + 16], ~0x100",
        "iretq",
        stack = const offset_of!(PerCpu, stack_top),
        pending = const offset_of!(PerCpu, pending_vector),
        full = const flag::FULL,
        trap_handler = sym portico_trap,
        resume = sym resume,
        fatal = sym fatal,
    )
}

const _: () = assert!(offset_of!(Regs, r15) - offset_of!(Regs, flags) == 8);
const _: () = assert!(offset_of!(Regs, r15) - offset_of!(Regs, cr2) == 16);
const _: () = assert!(offset_of!(Regs, vector) - offset_of!(Regs, r15) == 15 * 8);

/// NMIs carry nothing for the kernel: they only end `hlt` and guest mode. The stub touches no
/// register, so it may arrive anywhere, even between `syscall` and `swapgs`.
#[unsafe(naked)]
unsafe extern "sysv64" fn nmi() {
    naked_asm!("iretq")
}

/// What stops the kernel: vector and error code are on the stack, which for double fault and machine
/// check is one of their own.
#[unsafe(naked)]
unsafe extern "sysv64" fn fatal() {
    naked_asm!(
        push_registers!(),
        "mov rdi, rsp",
        "and rsp, -16",
        "call {fault}",
        fault = sym portico_kernel_fault,
    )
}

/// Bytes of one stub in the table of [`vectors`].
const STUB_SIZE: usize = 16;

/// One stub per vector, [`STUB_SIZE`] bytes apart: pushes a zero where the processor pushes no
/// error code, then the vector.
#[unsafe(naked)]
unsafe extern "sysv64" fn vectors() {
    naked_asm!(
        ".set portico_vector, 0",
        ".rept 256",
        ".balign {size}",
        // Vectors with an error code: 8, 10-14, 17, 21, 29, 30.
        ".if !((portico_vector == 8) || ((portico_vector >= 10) && (portico_vector <= 14)) \
         || (portico_vector == 17) || (portico_vector == 21) || (portico_vector == 29) \
         || (portico_vector == 30))",
        "push 0",
        ".endif",
        // PUSH imm32, written out: as an operand the symbol would be an address.
        ".byte 0x68",
        ".long portico_vector",
        // Double fault and machine check may interrupt anything.
        ".if (portico_vector == 8) || (portico_vector == 18)",
        "jmp {fatal}",
        ".else",
        "jmp {trap}",
        ".endif",
        ".set portico_vector, portico_vector + 1",
        ".endr",
        size = const STUB_SIZE,
        trap = sym trap,
        fatal = sym fatal,
    )
}

/// Address of the handler for a vector.
pub fn handler(vector: u8) -> u64 {
    let table = (vectors as *const () as usize).next_multiple_of(STUB_SIZE);
    let stub = table + usize::from(vector) * STUB_SIZE;
    crate::num::u64_of(if vector == 2 { nmi as *const () as usize } else { stub })
}

/// The caller's frame pointer.
#[inline(always)]
pub fn frame_pointer() -> u64 {
    let pointer;
    // SAFETY: reads a register.
    unsafe { asm!("mov {}, rbp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// The two words at `address`, if it is in the stack of the CPU that runs this in which `from` is.
fn stack_words(from: u64, address: u64) -> Option<[u64; 2]> {
    let window = frame_pointer() & !(window::SIZE - 1);
    let stacks = [window::STACK].into_iter().chain(window::IST);
    let mut bounds = stacks.map(|(start, end)| window + start..window + end - 8);
    let stack = bounds.find(|stack| stack.contains(&from))?;
    if !address.is_multiple_of(8) || !stack.contains(&address) {
        return None;
    }
    let words = core::ptr::with_exposed_provenance::<[u64; 2]>(crate::num::usize_of(address));
    // SAFETY: both words are in a stack, which is mapped; any content will do.
    Some(unsafe { words.read_volatile() })
}

/// Calls `visit` with the words on the stack from `from` on, `count` pairs of them at most, as far
/// as it is one of the stacks of the CPU that runs this.
pub fn stack_from(from: u64, count: u64, visit: impl Fn([u64; 2])) {
    (0..count).map_while(|n| stack_words(from, from + 16 * n)).for_each(visit);
}

/// Calls `visit` with the return addresses that the chain of frame pointers from `frame` leads to,
/// as far as it stays in one of the stacks of the CPU that runs this.
pub fn return_addresses(mut frame: u64, visit: impl Fn(u64)) {
    let first = frame;
    while let Some([next, address]) = stack_words(first, frame) {
        visit(address);
        if next <= frame {
            return;
        }
        frame = next;
    }
}

/// Lets one pending interrupt in and returns its vector, if there was one.
///
/// No reference into state that an interrupt handler changes may be held: there is none, as the
/// stub only notes the vector.
pub fn interrupt_window(cpu: &PerCpu) -> Option<u8> {
    cpu.pending_vector.set(0);
    // SAFETY: the interrupt stub for kernel mode changes nothing but `pending_vector` and returns
    // with interrupts off; the asm is a compiler barrier for memory.
    unsafe { asm!("sti", "nop", "cli") };
    cpu.take_pending()
}

/// Like [`interrupt_window`], but halts until an interrupt arrives.
pub fn wait_for_interrupt(cpu: &PerCpu) -> Option<u8> {
    cpu.pending_vector.set(0);
    // SAFETY: as in `interrupt_window`; STI delays recognition until HLT has begun, so no wake-up
    // is lost.
    unsafe { asm!("sti", "hlt", "cli") };
    cpu.take_pending()
}
