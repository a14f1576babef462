//! FPU and vector state: who has it in the CPU, and where it is otherwise.
//!
//! The kernel uses no vector registers. CR0.TS is set unless the state of whoever runs is in the
//! CPU, so nobody sees another's: state is loaded when its owner gets the CPU and stored when it
//! loses it, never later.

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use raw_cpuid::cpuid;
use x86_64::registers::control::{Cr0, Cr0Flags, Cr4, Cr4Flags};

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

/// How state is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum Method {
    /// FXSAVE: x87 and SSE.
    Fxsave = 0,
    /// XSAVE.
    Xsave = 1,
    /// XSAVEOPT: leaves out what did not change.
    Xsaveopt = 2,
}

// Written once by `detect` before other CPUs run; they order nothing.
static METHOD: AtomicU8 = AtomicU8::new(Method::Fxsave as u8);
static COMPONENTS: AtomicU64 = AtomicU64::new(component::X87 | component::SSE);
/// Loading state leaves the x87 instruction and data pointers of whoever was there before.
static STICKY_POINTERS: AtomicBool = AtomicBool::new(false);
/// Where such pointers lead instead.
static ANYTHING: u32 = 0;

/// Whether a value obeys the rules of XSETBV: x87 always, AVX with SSE, AVX-512 whole and with AVX.
#[must_use]
pub const fn consistent(xcr0: u64) -> bool {
    use component::{AVX, AVX512, SSE, X87};
    let wide = xcr0 & AVX512;
    xcr0 & X87 != 0
        && (xcr0 & AVX == 0 || xcr0 & SSE != 0)
        && (wide == 0 || wide == AVX512 && xcr0 & AVX != 0)
}

/// The components to switch, of those that the processor supports: all but what is obsolete (MPX)
/// or too large (AMX). `end` gives the end of a component in the save area.
fn select(supported: u64, end: impl Fn(u32) -> u32) -> u64 {
    let mut chosen = component::X87 | component::SSE;
    for group in [component::AVX, component::AVX512, component::PKRU] {
        let fits = (0..63).all(|n| group & 1 << n == 0 || end(n) <= AREA);
        if supported & group == group && fits && consistent(chosen | group) {
            chosen |= group;
        }
    }
    chosen
}

/// Whether processors of this kind load and store the x87 pointers only while an exception is
/// pending: AMD's, unless they say otherwise (APM volume 3, CPUID Fn8000_0008 EBX bit 2).
fn has_sticky_pointers() -> bool {
    let vendor = cpuid!(0u32);
    // "Auth" and "Hygo".
    let amd = matches!(vendor.ebx, 0x6874_7541 | 0x6f67_7948);
    let says = cpuid!(0x8000_0000u32).eax >= 0x8000_0008;
    amd && !(says && cpuid!(0x8000_0008u32).ebx & 1 << 2 != 0)
}

/// Chooses the method and the components. Once, on the boot CPU.
pub fn detect() {
    STICKY_POINTERS.store(has_sticky_pointers(), Relaxed);
    if cpuid!(1u32).ecx & 1 << 26 == 0 {
        return;
    }
    let leaf = cpuid!(0xdu32, 0u32);
    let supported = u64::from(leaf.edx) << 32 | u64::from(leaf.eax);
    let chosen = select(supported, |n| {
        let component = cpuid!(0xdu32, n);
        component.ebx.saturating_add(component.eax)
    });
    let optimized = cpuid!(0xdu32, 1u32).eax & 1 != 0;
    COMPONENTS.store(chosen, Relaxed);
    METHOD.store(if optimized { Method::Xsaveopt } else { Method::Xsave } as u8, Relaxed);
}

/// The components that are switched: XCR0 of the host.
#[inline]
#[must_use]
pub fn components() -> u64 {
    COMPONENTS.load(Relaxed)
}

/// Switches the FPU of this CPU on, owned by nobody.
///
/// # Safety
/// Runs once on each CPU, after [`detect`]; no state in the FPU is needed.
pub unsafe fn enable() {
    let xsave = METHOD.load(Relaxed) != Method::Fxsave as u8;
    let mut cr4 = Cr4Flags::OSFXSR | Cr4Flags::OSXMMEXCPT_ENABLE;
    cr4.set(Cr4Flags::OSXSAVE, xsave);
    // SAFETY: every processor with long mode has SSE; OSXSAVE only where there is XSAVE.
    unsafe { Cr4::update(|flags| flags.insert(cr4)) };
    if xsave {
        // SAFETY: `select` chose what the processor supports.
        unsafe { set_xcr0(components()) };
    }
    // SAFETY: the kernel does not use the FPU; with TS set, nobody does by mistake.
    unsafe {
        Cr0::update(|flags| {
            flags.remove(Cr0Flags::EMULATE_COPROCESSOR);
            flags.insert(Cr0Flags::MONITOR_COPROCESSOR | Cr0Flags::NUMERIC_ERROR);
            flags.insert(Cr0Flags::TASK_SWITCHED);
        });
    }
}

/// Writes XCR0. Without XSAVE nothing happens, since there is only one value then.
///
/// # Safety
/// The value is one that XSETBV accepts; whoever uses the FPU next expects it.
#[inline]
pub unsafe fn set_xcr0(value: u64) {
    if METHOD.load(Relaxed) == Method::Fxsave as u8 {
        return;
    }
    // SAFETY: OSXSAVE is set, and the caller vouches for the value.
    unsafe {
        asm!("xsetbv", in("ecx") 0, in("eax") crate::num::low32(value),
            in("edx") crate::num::low32(value >> 32), options(nomem, nostack, preserves_flags));
    }
}

/// Somebody's FPU state.
pub struct Fpu {
    page: NonNull<u8>,
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
    #[must_use]
    pub unsafe fn new(page: NonNull<u8>) -> Self {
        // SAFETY: both offsets are inside the page and aligned.
        unsafe {
            page.add(FCW.0).cast::<u16>().write(FCW.1);
            page.add(MXCSR.0).cast::<u32>().write(MXCSR.1);
        }
        Self { page }
    }

    /// The page.
    #[must_use]
    pub const fn page(&self) -> NonNull<u8> {
        self.page
    }

    /// Loads the state; CR0.TS is clear from then on.
    ///
    /// # Safety
    /// XCR0 is the host's, and whoever had the FPU has saved it.
    #[inline]
    pub unsafe fn restore(&self) {
        let (area, components) = (self.page.as_ptr(), components());
        let (low, high) = (crate::num::low32(components), crate::num::low32(components >> 32));
        // SAFETY: the page holds state that `new` or `save` wrote, so nothing in it is illegal.
        unsafe {
            asm!("clts", options(nomem, nostack, preserves_flags));
            if STICKY_POINTERS.load(Relaxed) {
                // A load of our own replaces them.
                asm!("fnclex", "emms", "fild dword ptr [{}]", in(reg) &raw const ANYTHING,
                    options(nostack, preserves_flags));
            }
            if METHOD.load(Relaxed) == Method::Fxsave as u8 {
                asm!("fxrstor64 [{}]", in(reg) area, options(nostack, preserves_flags));
            } else {
                asm!("xrstor64 [{}]", in(reg) area, in("eax") low, in("edx") high,
                    options(nostack, preserves_flags));
            }
        }
    }

    /// Stores the state and sets CR0.TS.
    ///
    /// # Safety
    /// XCR0 is the host's, and the state is in the FPU.
    #[inline]
    pub unsafe fn save(&self) {
        let (area, components) = (self.page.as_ptr(), components());
        let (low, high) = (crate::num::low32(components), crate::num::low32(components >> 32));
        let method = METHOD.load(Relaxed);
        // SAFETY: the page is large enough for the components.
        unsafe {
            if method == Method::Xsaveopt as u8 {
                asm!("xsaveopt64 [{}]", in(reg) area, in("eax") low, in("edx") high,
                    options(nostack, preserves_flags));
            } else if method == Method::Xsave as u8 {
                asm!("xsave64 [{}]", in(reg) area, in("eax") low, in("edx") high,
                    options(nostack, preserves_flags));
            } else {
                asm!("fxsave64 [{}]", in(reg) area, options(nostack, preserves_flags));
            }
            let cr0 = Cr0::read_raw() | Cr0Flags::TASK_SWITCHED.bits();
            asm!("mov cr0, {}", in(reg) cr0, options(nomem, nostack, preserves_flags));
        }
    }
}

#[cfg(test)]
mod tests;
