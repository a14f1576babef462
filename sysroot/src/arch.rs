//! Everything that is written in assembly: system calls, entry points, port I/O.

use core::arch::{asm, naked_asm};

use ipc::proto::start::{PARK_SELECTOR, THREAD_BLOCK};
use ipc::syscall::Call;

/// Result registers of a system call.
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// Status.
    pub rax: u64,
    /// First result.
    pub rsi: u64,
    /// Second result.
    pub rdx: u64,
}

/// A system call with all arguments.
///
/// # Safety
/// The kernel may change memory and mappings of the caller as the call says; the caller answers
/// for the effect on references it holds.
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn syscall(number: u64, rdi: u64, rsi: u64, rdx: u64, r10: u64, r8: u64) -> Out {
    let (rax, out_rsi, out_rdx);
    // SAFETY: the register convention of `ipc::syscall`; the effect is the caller's business.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => rax,
            inlateout("rdi") rdi => _,
            inlateout("rsi") rsi => out_rsi,
            inlateout("rdx") rdx => out_rdx,
            inlateout("r10") r10 => _,
            inlateout("r8") r8 => _,
            lateout("rcx") _,
            lateout("r9") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    Out { rax, rsi: out_rsi, rdx: out_rdx }
}

/// A system call with up to two arguments: fewer registers to load.
///
/// # Safety
/// As [`syscall`].
#[cfg(target_os = "none")]
#[inline(always)]
pub unsafe fn syscall2(number: u64, rdi: u64, rsi: u64) -> (u64, u64) {
    let (rax, out_rsi);
    // SAFETY: as in `syscall`.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number => rax,
            inlateout("rdi") rdi => _,
            inlateout("rsi") rsi => out_rsi,
            lateout("rdx") _,
            lateout("r10") _,
            lateout("r8") _,
            lateout("rcx") _,
            lateout("r9") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    (rax, out_rsi)
}

/// On the host there is no Portico kernel below.
///
/// # Safety
/// None needed.
#[cfg(not(target_os = "none"))]
#[expect(clippy::missing_const_for_fn, reason = "the other one is not")]
pub unsafe fn syscall(_: u64, _: u64, _: u64, _: u64, _: u64, _: u64) -> Out {
    Out { rax: ipc::status::Status::NotSupported as u64, rsi: 0, rdx: 0 }
}

/// On the host there is no Portico kernel below.
///
/// # Safety
/// None needed.
#[cfg(not(target_os = "none"))]
pub unsafe fn syscall2(_: u64, _: u64, _: u64) -> (u64, u64) {
    (ipc::status::Status::NotSupported as u64, 0)
}

/// Start of the current thread's block.
#[inline(always)]
#[must_use]
pub fn thread_block() -> u64 {
    let rsp: u64;
    // SAFETY: reads a register. Wherever in a thread that happens, the block is the same.
    unsafe { asm!("mov {}, rsp", out(reg) rsp, options(nomem, nostack, preserves_flags, pure)) };
    rsp & !(THREAD_BLOCK - 1)
}

/// Time stamp counter, read when everything before has completed.
#[inline]
#[must_use]
pub fn tsc() -> u64 {
    let (high, low): (u64, u64);
    // SAFETY: reads a counter.
    unsafe {
        asm!("lfence", "rdtsc", out("rdx") high, out("rax") low,
            options(nomem, nostack, preserves_flags));
    }
    high << 32 | low
}

/// Faults.
pub fn abort() -> ! {
    // SAFETY: raises an exception.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}

macro_rules! port_io {
    ($read:ident, $write:ident, $type:ty, $register:tt) => {
        /// Reads a port.
        ///
        /// # Safety
        /// The caller holds the port; what the device does is its business.
        #[inline]
        #[must_use]
        pub unsafe fn $read(port: u16) -> $type {
            let value: $type;
            // SAFETY: the caller's promise.
            unsafe {
                asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }

        /// Writes a port.
        ///
        /// # Safety
        /// The caller holds the port; what the device does is its business.
        #[inline]
        pub unsafe fn $write(port: u16, value: $type) {
            // SAFETY: the caller's promise.
            unsafe {
                asm!(concat!("out dx, ", $register), in("dx") port, in($register) value,
                    options(nomem, nostack, preserves_flags));
            }
        }
    };
}

port_io!(in8, out8, u8, "al");
port_io!(in16, out16, u16, "ax");
port_io!(in32, out32, u32, "eax");

/// The Rust side of a portal entry.
pub trait Entry {
    /// Takes portal id and message descriptor, returns the descriptor of the reply.
    extern "sysv64" fn enter(id: u64, descriptor: u64) -> u64;
}

/// Where a portal starts. The stack pointer is that of the last reply, so it is aligned as for a
/// call and stays where it is from call to call.
///
/// # Safety
/// Only the kernel may start it, on a handler whose thread block fits `E`.
#[unsafe(naked)]
unsafe extern "sysv64" fn portal_stub<E: Entry>() -> ! {
    naked_asm!(
        "call {enter}",
        "mov rsi, rax",
        "mov eax, {reply}",
        "syscall",
        "ud2",
        enter = sym E::enter,
        reply = const Call::Reply as u64,
    )
}

/// Entry point of a portal that is handled by `E`.
#[must_use]
pub fn portal_entry<E: Entry>() -> u64 {
    crate::num::u64_of(portal_stub::<E> as *const () as usize)
}

/// Where a thread of this component starts: on its own stack, with its UTCB in `rdi`.
///
/// # Safety
/// Only the kernel may start it.
#[unsafe(naked)]
unsafe extern "sysv64" fn thread_stub() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", "ud2", main = sym crate::thread::thread_main)
}

/// Entry point of a thread.
#[must_use]
pub fn thread_entry() -> u64 {
    crate::num::u64_of(thread_stub as *const () as usize)
}

/// Where a component starts: the root task set up the stack; `rdi` is the UTCB.
///
/// # Safety
/// Only the kernel may start it.
#[cfg(target_os = "none")]
#[unsafe(naked)]
#[unsafe(export_name = "portico_component_start")]
unsafe extern "sysv64" fn component_start() -> ! {
    naked_asm!("xor ebp, ebp", "call {main}", "ud2", main = sym crate::start::component_main)
}

/// Machine code that parks a thread for good, at any address: waits for the semaphore at
/// [`PARK_SELECTOR`] again and again.
pub const PARK_CODE: [u8; 16] = {
    let [a, b, c, d] = PARK_SELECTOR.to_le_bytes();
    [
        0xbf,
        a,
        b,
        c,
        d, // mov edi, PARK_SELECTOR
        0x31,
        0xf6, // xor esi, esi
        0xb8,
        Call::Down as u8,
        0,
        0,
        0, // mov eax, Down
        0x0f,
        0x05, // syscall
        0xeb,
        0xf0, // jmp to the start
    ]
};

#[cfg(test)]
#[allow(clippy::indexing_slicing, clippy::cast_possible_wrap, reason = "tests")]
mod tests;
