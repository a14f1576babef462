//! FPU and vector state: who has it in the CPU, and where it is otherwise.
//!
//! The kernel uses no vector registers. CR0.TS is set unless the state of the host execution context
//! that runs is in the CPU, so nobody sees another's: state is loaded when its owner gets the CPU and
//! stored when it loses it, never later. A guest's stays while its own VMM handles an exit.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use raw_cpuid::cpuid;
use x86_64::registers::control::{Cr0, Cr0Flags};

use crate::num::low32;

/// State components (XCR0).
mod component {
    pub(super) const X87: u64 = 1 << 0;
    pub(super) const SSE: u64 = 1 << 1;
    pub(super) const AVX: u64 = 1 << 2;
    pub(super) const AVX512: u64 = 7 << 5;
    pub(super) const PKRU: u64 = 1 << 9;
}

/// Bytes of a save area.
const AREA: u32 = 4096;

// Written once by `detect` before other CPUs run; they order nothing.
/// XSAVEOPT, which leaves out what did not change, takes the place of XSAVE.
static XSAVEOPT: AtomicBool = AtomicBool::new(false);
static COMPONENTS: AtomicU64 = AtomicU64::new(component::X87 | component::SSE);
/// Where x87 pointers lead before state is loaded.
static ANYTHING: u32 = 0;

/// Whether a value obeys the rules of XSETBV: x87 always, AVX with SSE, AVX-512 whole and with AVX.
pub const fn consistent(xcr0: u64) -> bool {
    use component::{AVX, AVX512, SSE, X87};
    let wide = xcr0 & AVX512;
    xcr0 & X87 != 0
        && (xcr0 & AVX == 0 || xcr0 & SSE != 0)
        && (wide == 0 || wide == AVX512 && xcr0 & AVX != 0)
}

/// The components to switch, of those that the processor supports: all but what is obsolete (MPX)
/// or too large (AMX).
const fn select(supported: u64) -> u64 {
    use component::{AVX, AVX512, PKRU, SSE, X87};
    let all = X87 | SSE | supported & (AVX | AVX512 | PKRU);
    if consistent(all) { all } else { all & !AVX512 }
}

/// Chooses the method and the components; `false` where there is no XSAVE. Once, on the boot CPU.
pub fn detect() -> bool {
    let leaf = cpuid!(0xdu32, 0u32);
    let chosen = select(u64::from(leaf.edx) << 32 | u64::from(leaf.eax));
    let fits = |n: u32| {
        let component = cpuid!(0xdu32, n);
        component.ebx.saturating_add(component.eax) <= AREA
    };
    if (2..63).all(|n| chosen & 1 << n == 0 || fits(n)) {
        COMPONENTS.store(chosen, Relaxed);
    }
    XSAVEOPT.store(cpuid!(0xdu32, 1u32).eax & 1 != 0, Relaxed);
    cpuid!(1u32).ecx & 1 << 26 != 0
}

/// The components that are switched: XCR0 of the host.
pub fn components() -> u64 {
    COMPONENTS.load(Relaxed)
}

/// Writes XCR0; [`components`] is what each CPU begins with.
///
/// # Safety
/// The value is one that XSETBV accepts; whoever uses the FPU next expects it.
pub unsafe fn set_xcr0(value: u64) {
    // SAFETY: OSXSAVE is set, and the caller vouches for the value.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") low32(value),
            in("edx") low32(value >> 32), options(nomem, nostack, preserves_flags));
    }
}

/// Somebody's FPU state.
pub struct Fpu {
    /// Where it is while it is not in the FPU.
    pub page: NonNull<u8>,
}

/// Offset and initial value of the x87 control word (SDM volume 1, 13.6).
const FCW: (usize, u16) = (0, 0x37f);
/// Offset and initial value of MXCSR.
const MXCSR: (usize, u32) = (24, 0x1f80);

impl Fpu {
    /// Initial state in a zeroed page.
    ///
    /// # Safety
    /// The page is the state's alone.
    pub unsafe fn new(page: NonNull<u8>) -> Self {
        // SAFETY: both offsets are inside the page and aligned.
        unsafe {
            page.add(FCW.0).cast::<u16>().write(FCW.1);
            page.add(MXCSR.0).cast::<u32>().write(MXCSR.1);
        }
        Self { page }
    }

    /// Loads the state; CR0.TS is clear.
    ///
    /// # Safety
    /// XCR0 is the host's, and whoever had the FPU has saved it.
    pub unsafe fn restore(&self) {
        let (area, components) = (self.page.as_ptr(), components());
        let (low, high) = (low32(components), low32(components >> 32));
        // SAFETY: the page holds state that `new` or `save` wrote, so nothing in it is illegal.
        unsafe {
            asm!("clts", options(nomem, nostack, preserves_flags));
            // AMD's processors load the x87 pointers only while an exception is pending (APM volume
            // 3, CPUID Fn8000_0008 EBX bit 2): a load of our own replaces those of whoever was here.
            asm!("fnclex", "emms", "fild dword ptr [{}]", in(reg) &raw const ANYTHING,
                options(nostack, preserves_flags));
            asm!("xrstor64 [{}]", in(reg) area, in("eax") low, in("edx") high,
                options(nostack, preserves_flags));
        }
    }

    /// Stores the state; CR0.TS is set.
    ///
    /// # Safety
    /// XCR0 is the host's, and the state is in the FPU.
    pub unsafe fn save(&self) {
        let (area, components) = (self.page.as_ptr(), components());
        let (low, high) = (low32(components), low32(components >> 32));
        // SAFETY: the page is large enough for the components.
        unsafe {
            asm!("clts", options(nomem, nostack, preserves_flags));
            if XSAVEOPT.load(Relaxed) {
                asm!("xsaveopt64 [{}]", in(reg) area, in("eax") low, in("edx") high,
                    options(nostack, preserves_flags));
            } else {
                asm!("xsave64 [{}]", in(reg) area, in("eax") low, in("edx") high,
                    options(nostack, preserves_flags));
            }
        }
        deny();
    }
}

/// Sets CR0.TS: user code cannot use the FPU. For a guest its own CR0 counts.
pub fn deny() {
    let cr0 = Cr0::read_raw() | Cr0Flags::TASK_SWITCHED.bits();
    // SAFETY: the kernel uses no FPU.
    unsafe { asm!("mov cr0, {}", in(reg) cr0, options(nomem, nostack, preserves_flags)) };
}

#[cfg(test)]
mod tests;
