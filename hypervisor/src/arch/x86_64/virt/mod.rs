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

pub use guest::Guest;

/// A page of kernel memory, or the first of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    ptr: NonNull<u8>,
    phys: u64,
}

impl Page {
    /// A page at `ptr` whose physical address is `phys`.
    ///
    /// # Safety
    /// Both are of the same page-aligned, zeroed memory, which whoever takes the page may use.
    #[must_use]
    pub const unsafe fn new(ptr: NonNull<u8>, phys: u64) -> Self {
        Self { ptr, phys }
    }

    /// Where it is mapped.
    #[must_use]
    pub const fn ptr(self) -> NonNull<u8> {
        self.ptr
    }

    /// Its physical address.
    #[must_use]
    pub const fn phys(self) -> u64 {
        self.phys
    }
}

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

/// The virtualization extension of this processor, if guests can run on it.
///
/// # Errors
/// The reason why they cannot.
pub fn detect() -> Result<Vendor, Unavailable> {
    if svm::is_present() {
        svm::detect().map(|()| Vendor::Svm)
    } else if vmx::is_present() {
        vmx::Caps::detect().map(|_| Vendor::Vmx)
    } else {
        Err("the processor has neither AMD SVM nor Intel VT-x")
    }
}

/// What all CPUs and all guests share.
pub struct Platform {
    vendor: Vendor,
    /// What VT-x can do, if it is that.
    vmx: vmx::Caps,
    limits: allow::Limits,
    /// Family, model and stepping, which a processor has in RDX after RESET.
    signature: u64,
    /// Physical address of the bitmap of ports that exit.
    io: u64,
    /// Physical address of the bitmap of MSRs that exit.
    msr: u64,
    /// Pages of 1 GiB can be mapped.
    huge: bool,
}

impl Platform {
    /// Size of the run for the port bitmap: 2^2 pages.
    pub const IO_ORDER: u8 = 2;
    /// Size of the run for the MSR bitmap: 2^1 pages.
    pub const MSR_ORDER: u8 = 1;

    /// Fills the bitmaps. [`crate::arch::fpu::detect`] has been called.
    ///
    /// # Safety
    /// The pages begin zeroed runs of those sizes and belong to the platform for ever.
    #[must_use]
    pub unsafe fn new(vendor: Vendor, io: Page, msr: Page) -> Self {
        let caps = match vendor {
            Vendor::Svm => vmx::Caps::default(),
            Vendor::Vmx => vmx::Caps::detect().unwrap_or_default(),
        };
        // SAFETY: the caller gives the runs.
        unsafe { Self::with(vendor, caps, io, msr) }
    }

    /// # Safety
    /// As [`Self::new`].
    unsafe fn with(vendor: Vendor, vmx: vmx::Caps, io: Page, msr: Page) -> Self {
        let (place, huge): (bitmaps::Place, _) = match vendor {
            Vendor::Svm => (svm::msr_bits, cpuid!(0x8000_0001u32).edx >> 26 & 1 != 0),
            Vendor::Vmx => (vmx::msr_bits, vmx.huge),
        };
        // SAFETY: the caller gives the runs.
        unsafe { bitmaps::fill(io, msr, place) };
        Self {
            vendor,
            vmx,
            limits: allow::Limits::detect(),
            signature: u64::from(cpuid!(1u32).eax),
            io: io.phys(),
            msr: msr.phys(),
            huge,
        }
    }

    /// Format of nested page tables, and the largest leaf that they may have.
    #[must_use]
    pub const fn nested(&self) -> (Format, LeafSize) {
        let format = match self.vendor {
            Vendor::Svm => Format::Npt,
            Vendor::Vmx => Format::Ept,
        };
        (format, if self.huge { LeafSize::Huge } else { LeafSize::Large })
    }
}

/// The virtualization extension of one CPU, switched on.
pub struct Cpu {
    backend: CpuBackend,
}

enum CpuBackend {
    Svm(svm::Cpu),
    Vmx(vmx::Cpu),
}

impl Cpu {
    /// Zeroed pool pages that a CPU needs.
    pub const PAGES: usize = 2;

    /// Switches the extension on.
    ///
    /// # Errors
    /// The reason why this CPU cannot run guests.
    ///
    /// # Safety
    /// Runs on the CPU in question, whose descriptor tables, TR and GS base are set; the pages
    /// belong to the result for ever.
    pub unsafe fn enable(platform: &Platform, pages: [Page; 2]) -> Result<Self, Unavailable> {
        // SAFETY: the caller keeps the contract.
        let backend = unsafe {
            match platform.vendor {
                Vendor::Svm => CpuBackend::Svm(svm::Cpu::enable(pages)?),
                Vendor::Vmx => CpuBackend::Vmx(vmx::Cpu::enable(platform, pages)?),
            }
        };
        Ok(Self { backend })
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
