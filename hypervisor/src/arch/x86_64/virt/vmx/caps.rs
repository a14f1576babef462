//! What a processor's VT-x can do (SDM volume 3, appendix A), and the controls that follow.

use super::super::allow::cr0;
use super::super::registers::fields;
use super::super::{SWITCHED_OFF, Unavailable};
use super::vmcs::{entry, exit, pin, processor, secondary};
use crate::arch::msr;
use crate::num::low32;

/// Whether and where VMXON is allowed.
pub(super) const FEATURE_CONTROL: u32 = 0x3a;
pub(super) const FEATURE_LOCKED: u64 = 1 << 0;
pub(super) const FEATURE_VMX: u64 = 1 << 2;

fields! {
    BASIC 0x480 MISC 0x485 CR0_ONES 0x486 CR4_ONES 0x488 SECONDARY 0x48b EPT_VPID 0x48c PIN 0x48d
    PROCESSOR 0x48e EXIT 0x48f ENTRY 0x490
}

/// BASIC: the registers from `PIN` on tell which reserved controls can be zero.
const BASIC_TRUE: u64 = 1 << 55;
/// EPT of four levels in write-back memory, 2 MiB pages, INVEPT for all contexts.
const EPT_NEEDED: u64 = 1 << 6 | 1 << 14 | 1 << 16 | 1 << 20 | 1 << 26;
const SWITCHING: Unavailable = "VT-x lacks switching of PAT and EFER";
const EPT_HUGE: u64 = 1 << 17;
const EPT_SINGLE: u64 = 1 << 25;

/// The controls that every guest runs with, and what else is to be known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// First word of every control structure.
    pub(super) revision: u32,
    pub(super) pin: u64,
    /// Without the controls that come and go, as `entry`.
    pub(super) processor: u64,
    pub(super) secondary: u64,
    pub(super) exit: u64,
    pub(super) entry: u64,
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
    /// Those of this processor, which has VT-x, if guests can run on it.
    pub(in super::super) fn detect() -> Result<Self, Unavailable> {
        // SAFETY: a processor with VT-x has the registers; those that depend on a capability are
        // read only after it.
        let read = |register| unsafe { msr::read(register) };
        if read(FEATURE_CONTROL) & (FEATURE_LOCKED | FEATURE_VMX) == FEATURE_LOCKED {
            return Err(SWITCHED_OFF);
        }
        Self::derive(read)
    }

    /// Those that the capability registers tell.
    pub(super) fn derive(read: impl Fn(u32) -> u64) -> Result<Self, Unavailable> {
        let basic = read(BASIC);
        if basic & BASIC_TRUE == 0 {
            return Err("VT-x lacks optional CR3 exits");
        }
        let controls = |register, needed: u64, welcome: u64, reserved: u64, lack| {
            let (ones, allowed) = (read(register) & 0xffff_ffff, read(register) >> 32);
            // What cannot be had, and what cannot be avoided.
            if needed & !allowed != 0 || ones & !(needed | welcome | reserved) != 0 {
                return Err(lack);
            }
            Ok((needed | welcome) & allowed | ones)
        };
        let windows = processor::INTERRUPT_WINDOW | processor::NMI_WINDOW;
        let caps = Self {
            revision: low32(basic) & 0x7fff_ffff,
            pin: controls(PIN, pin::NEEDED, pin::TIMER, pin::RESERVED, "VT-x lacks virtual NMIs")?,
            processor: controls(
                PROCESSOR,
                processor::NEEDED,
                0,
                processor::RESERVED,
                "VT-x lacks a TPR shadow, bitmaps, or secondary controls",
            )? & !windows,
            secondary: controls(
                SECONDARY,
                secondary::NEEDED,
                secondary::WELCOME,
                0,
                "VT-x lacks EPT or unrestricted guests",
            )?,
            exit: controls(EXIT, exit::NEEDED, 0, exit::RESERVED, SWITCHING)?,
            entry: controls(ENTRY, entry::NEEDED, 0, entry::RESERVED, SWITCHING)? & !entry::LONG,
            ones: [read(CR0_ONES) & !(cr0::PE | cr0::PG), read(CR4_ONES)],
            timer_shift: low32(read(MISC)) & 0x1f,
            ..Self::default()
        };
        let ept = read(EPT_VPID);
        if ept & EPT_NEEDED != EPT_NEEDED {
            return Err("VT-x lacks EPT with 2 MiB pages");
        }
        let invept = if ept & EPT_SINGLE != 0 { 1 } else { 2 };
        Ok(Self { huge: ept & EPT_HUGE != 0, invept, ..caps })
    }
}
