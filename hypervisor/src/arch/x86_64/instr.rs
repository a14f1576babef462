//! Single instructions that have no better home.

pub use core::hint::spin_loop as pause;
use x86_64::instructions::port::Port;

/// The time-stamp counter.
pub fn rdtsc() -> u64 {
    // SAFETY: reads a counter; the kernel leaves CR4.TSD clear.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Stops this CPU for good; NMI and machine check still come through.
pub fn halt_forever() -> ! {
    loop {
        x86_64::instructions::interrupts::disable();
        x86_64::instructions::hlt();
    }
}

/// Reads a byte from a port.
///
/// # Safety
/// The device behind the port is the caller's to read.
pub unsafe fn inb(port: u16) -> u8 {
    // SAFETY: the caller owns the port.
    unsafe { Port::new(port).read() }
}

/// Writes a byte to a port.
///
/// # Safety
/// The device behind the port is the caller's to write, and the write harms no memory.
pub unsafe fn outb(port: u16, value: u8) {
    // SAFETY: the caller owns the port.
    unsafe { Port::new(port).write(value) }
}

/// Everything before is done, in program order and for every observer, before anything after:
/// also where an MSR write stands for a memory write.
pub fn fence() {
    // SAFETY: two fences change no state.
    unsafe { core::arch::asm!("mfence", "lfence", options(nostack, preserves_flags)) }
}

/// Copies words: few one by one, many with the instruction for it.
///
/// # Safety
/// Both are valid for so many words and do not overlap; others may write to them meanwhile.
#[inline(always)]
pub unsafe fn copy(from: *const u64, to: *mut u64, words: usize) {
    // SAFETY: as promised.
    let word = |n: usize| unsafe { to.add(n).write_volatile(from.add(n).read_volatile()) };
    match words {
        4 => (0..4).for_each(word),
        1..8 => (0..words).for_each(word),
        // SAFETY: as promised; the direction flag is clear.
        _ => unsafe {
            core::arch::asm!("rep movsq", inout("rcx") words => _, inout("rsi") from => _,
                inout("rdi") to => _, options(nostack, preserves_flags));
        },
    }
}
