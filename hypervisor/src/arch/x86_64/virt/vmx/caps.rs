//! What a processor's VT-x can do (SDM volume 3, appendix A), and the controls that follow.

use raw_cpuid::cpuid;

use super::super::Unavailable;
use super::super::allow::cr0;
use super::vmcs::{entry, exit, pin, processor, secondary};
use crate::arch::msr;
use crate::num::low32;

/// Whether and where VMXON is allowed.
pub(super) const FEATURE_CONTROL: u32 = 0x3a;
pub(super) const FEATURE_LOCKED: u64 = 1 << 0;
pub(super) const FEATURE_VMX: u64 = 1 << 2;

const BASIC: u32 = 0x480;
const MISC: u32 = 0x485;
const CR0_ONES: u32 = 0x486;
const CR4_ONES: u32 = 0x488;
const SECONDARY: u32 = 0x48b;
const EPT_VPID: u32 = 0x48c;
const PIN: u32 = 0x48d;
const PROCESSOR: u32 = 0x48e;
const EXIT: u32 = 0x48f;
const ENTRY: u32 = 0x490;

/// BASIC: the registers from `PIN` on tell which reserved controls can be zero.
const BASIC_TRUE: u64 = 1 << 55;
/// EPT of four levels in write-back memory, 2 MiB pages, INVEPT for all contexts.
const EPT_NEEDED: u64 = 1 << 6 | 1 << 14 | 1 << 16 | 1 << 20 | 1 << 26;
const EPT_HUGE: u64 = 1 << 17;
const EPT_SINGLE: u64 = 1 << 25;

/// The controls that every guest runs with, and what else is to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in super::super) struct Caps {
    /// First word of every control structure.
    pub(super) revision: u32,
    pub(super) pin: u32,
    /// Without the controls that come and go, as `entry`.
    pub(super) processor: u32,
    pub(super) secondary: u32,
    pub(super) exit: u32,
    pub(super) entry: u32,
    /// Bits of CR0 and CR4 that have to be one while a guest runs.
    pub(super) ones: [u64; 2],
    /// EPT has pages of 1 GiB.
    pub(in super::super) huge: bool,
    /// Which INVEPT forgets one context: its own kind, or that for all.
    pub(super) invept: u64,
    /// The preemption timer counts when this bit of the TSC changes.
    pub(super) timer_shift: u32,
}

impl Caps {
    /// Those of this processor, if guests can run on it.
    pub(in super::super) fn detect() -> Result<Self, Unavailable> {
        if cpuid!(1u32).ecx & 1 << 5 == 0 {
            return Err(Unavailable::Missing);
        }
        // SAFETY: a processor with VT-x has the registers; those that depend on a capability are
        // read only after it.
        let read = |register| unsafe { msr::read(register) };
        if read(FEATURE_CONTROL) & (FEATURE_LOCKED | FEATURE_VMX) == FEATURE_LOCKED {
            return Err(Unavailable::Disabled);
        }
        Self::derive(read)
    }

    /// Those that the capability registers tell.
    pub(super) fn derive(read: impl Fn(u32) -> u64) -> Result<Self, Unavailable> {
        let basic = read(BASIC);
        if basic & BASIC_TRUE == 0 {
            return Err(Unavailable::Lacks("optional CR3 exits"));
        }
        let controls = |register, needed: u32, welcome: u32, reserved: u32, name| {
            let (ones, allowed) = (low32(read(register)), low32(read(register) >> 32));
            // What cannot be had, and what cannot be avoided.
            if needed & !allowed != 0 || ones & !(needed | welcome | reserved) != 0 {
                return Err(Unavailable::Lacks(name));
            }
            Ok((needed | welcome) & allowed | ones)
        };
        let windows = processor::INTERRUPT_WINDOW | processor::NMI_WINDOW;
        let caps = Self {
            revision: low32(basic) & 0x7fff_ffff,
            pin: controls(PIN, pin::NEEDED, pin::TIMER, pin::RESERVED, "virtual NMIs")?,
            processor: controls(
                PROCESSOR,
                processor::NEEDED,
                0,
                processor::RESERVED,
                "a TPR shadow, bitmaps, or secondary controls",
            )? & !windows,
            secondary: controls(
                SECONDARY,
                secondary::NEEDED,
                secondary::WELCOME,
                0,
                "EPT or unrestricted guests",
            )?,
            exit: controls(EXIT, exit::NEEDED, 0, exit::RESERVED, "PAT and EFER at exits")?,
            entry: controls(ENTRY, entry::NEEDED, 0, entry::RESERVED, "PAT and EFER at entries")?
                & !entry::LONG,
            ones: [read(CR0_ONES) & !(cr0::PE | cr0::PG), read(CR4_ONES)],
            huge: false,
            invept: 0,
            timer_shift: low32(read(MISC)) & 0x1f,
        };
        let ept = read(EPT_VPID);
        if ept & EPT_NEEDED != EPT_NEEDED {
            return Err(Unavailable::NoNestedPaging);
        }
        let invept = if ept & EPT_SINGLE != 0 { 1 } else { 2 };
        Ok(Self { huge: ept & EPT_HUGE != 0, invept, ..caps })
    }
}
