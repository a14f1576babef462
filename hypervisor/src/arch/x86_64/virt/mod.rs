//! Virtualization: the seam between vendors.
//!
//! Above this module nobody knows whether the processor has SVM or VT-x. A [`Guest`] runs until an
//! [`Outcome`]; its state travels as the ABI's groups. Here is what both vendors share:
//!
//! | module | holds |
//! |---|---|
//! | `guest` | a vCPU: run, attach, resume and the reverse, the state that has no vendor format |
//! | `gprs` | general-purpose registers |
//! | `state` | transfer of state groups to and from a message buffer |
//! | `allow` | what a VMM may set |
//! | `reset` | the state that a vCPU begins with |
//! | `tag` | TLB tags |
//! | `registers` | what a backend offers |
//! | `exit` | what exits mean and what follows from them |
//! | `bitmaps` | which ports and MSRs exit |
//! | `sabotage` | entries that fail on demand, for tests |
//! | `svm` | AMD's backend |
//! | `vmx` | Intel's backend |

mod allow;
mod bitmaps;
mod exit;
mod gprs;
mod guest;
mod registers;
mod reset;
#[cfg(feature = "sabotage")]
mod sabotage;
mod state;
mod svm;
mod tag;
#[cfg(test)]
mod tests;
mod vmx;

use core::ptr::NonNull;

use ipc::event::Exit;
use raw_cpuid::cpuid;

use crate::mem::paging::{Format, LeafSize};
use crate::mem::pool::{self, Page};
use crate::num::u64_of;

pub use guest::Guest;

/// Whose virtualization extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vendor {
    /// AMD's.
    Svm,
    /// Intel's.
    Vmx,
}

/// Why there are no guests on this machine, in words.
pub type Unavailable = &'static str;

/// Firmware has the last word.
const SWITCHED_OFF: Unavailable = "firmware has switched virtualization off";

/// The virtualization extension of this processor, if guests can run on it, and what VT-x can do
/// where it is that.
///
/// # Errors
/// The reason why they cannot.
pub fn detect() -> Result<(Vendor, vmx::Caps), Unavailable> {
    if svm::is_present() {
        svm::detect().map(|()| (Vendor::Svm, vmx::Caps::default()))
    } else if vmx::is_present() {
        vmx::Caps::detect().map(|caps| (Vendor::Vmx, caps))
    } else {
        Err("the processor has neither AMD SVM nor Intel VT-x")
    }
}

/// What all CPUs and all guests share.
pub struct Platform {
    vendor: Vendor,
    vmx: vmx::Caps,
    limits: allow::Limits,
    /// Family, model and stepping, which a processor has in RDX after RESET.
    signature: u64,
    /// Physical address of a run of pages: the bitmap of ports that exit, that of MSRs, and two for
    /// each CPU.
    run: u64,
    /// Pages of 1 GiB can be mapped.
    huge: bool,
}

impl Platform {
    /// Pages of the port bitmap, and of the MSR bitmap.
    const BITMAPS: [usize; 2] = [4, 2];

    /// Pages that the platform of a machine with so many CPUs needs, in one run.
    pub const fn pages(cpus: usize) -> usize {
        let [io, msr] = Self::BITMAPS;
        io + msr + 2 * cpus
    }

    /// Fills the bitmaps. [`crate::arch::fpu::detect`] has been called; the rest comes from
    /// [`detect`].
    ///
    /// # Safety
    /// The pages begin a zeroed run of that size in the pool, which belongs to the platform for ever.
    pub unsafe fn new(vendor: Vendor, vmx: vmx::Caps, pages: NonNull<Page>) -> Self {
        let (place, huge): (bitmaps::Place, _) = match vendor {
            Vendor::Svm => (svm::msr_bits, cpuid!(0x8000_0001u32).edx >> 26 & 1 != 0),
            Vendor::Vmx => (vmx::msr_bits, vmx.huge),
        };
        // SAFETY: the caller gives the run.
        unsafe { bitmaps::fill(pages, Self::BITMAPS, place) };
        Self {
            vendor,
            vmx,
            limits: allow::Limits::detect(),
            signature: u64::from(cpuid!(1u32).eax),
            run: pool::phys(pages),
            huge,
        }
    }

    /// Physical address of a page of the run: 0 is the first of the port bitmap, [`Self::MSRS`] that
    /// of the MSR bitmap.
    const fn page(&self, index: usize) -> u64 {
        self.run + u64_of(index) * pool::PAGE_SIZE
    }

    const MSRS: usize = Self::BITMAPS[0];

    /// Format of nested page tables, and the largest leaf that they may have.
    pub const fn nested(&self) -> (Format, LeafSize) {
        let format = match self.vendor {
            Vendor::Svm => Format::Npt,
            Vendor::Vmx => Format::Ept,
        };
        (format, if self.huge { LeafSize::Huge } else { LeafSize::Large })
    }
}

/// The virtualization extension of one CPU, switched on.
pub enum Cpu {
    /// AMD's.
    Svm(svm::Cpu),
    /// Intel's.
    Vmx(vmx::Cpu),
}

impl Cpu {
    /// Switches the extension on.
    ///
    /// # Errors
    /// The reason why this CPU cannot run guests.
    ///
    /// # Safety
    /// Runs once on the CPU with this number, whose descriptor tables, TR and GS base are set.
    pub unsafe fn enable(platform: &Platform, number: usize) -> Result<Self, Unavailable> {
        let pages = [0, 1].map(|n| pool::ptr(platform.page(Platform::pages(number) + n)));
        // SAFETY: the caller keeps the contract, and these pages of the run are this CPU's.
        unsafe {
            Ok(match platform.vendor {
                Vendor::Svm => Self::Svm(svm::Cpu::enable(pages)?),
                Vendor::Vmx => Self::Vmx(vmx::Cpu::enable(platform, pages)?),
            })
        }
    }
}

/// How a run of a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// Not for the VMM: an interrupt or NMI of the host is pending, or the kernel has handled the
    /// exit. The caller lets interrupts in and, if nothing else is to be done, runs the guest
    /// again.
    Interrupt,
    /// A machine check arrived while the guest ran. Intercepting it has consumed it.
    MachineCheck,
    /// For the VMM.
    Exit(Exit),
}
