//! A control block as a [`Backend`].

use core::ptr::NonNull;

use ipc::state::{Activity, Segment};

use super::super::guest::Common;
use super::super::registers::{Backend, Reg, Seg};
use super::super::tag::Tag;
use super::super::{Outcome, Page, Platform};
use super::vmcb::{Vmcb, clean, intercept, pack, unpack, vintr};
use super::{Cpu, EFER_SVME, enter};
use crate::num::low32;

/// Whether the guest handles an NMI. Without support by the processor, the end of the handler is
/// noticed by intercepting IRET.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nmi {
    /// It can take one.
    Open,
    /// It is in the handler; IRET is intercepted.
    Blocked,
    /// It is about to execute the IRET at [`Vcpu::resume`].
    Returning,
}

/// A vCPU on SVM.
pub(in super::super) struct Vcpu {
    vmcb: NonNull<Vmcb>,
    page: Page,
    pub(super) tag: Tag,
    pub(super) nmi: Nmi,
    /// An exit is requested when the guest can take an interrupt.
    pub(super) window: bool,
    /// One instruction is to run alone; the value is the guest's own TF.
    pub(super) step: Option<u64>,
    /// RIP when `step` or [`Nmi::Returning`] began.
    pub(super) resume: u64,
}

impl Vcpu {
    /// A vCPU with all of its controls and none of its state set.
    ///
    /// # Safety
    /// The page is the vCPU's until it is dropped; `nested_root` is that of a nested page table.
    pub(in super::super) unsafe fn new(platform: &Platform, page: Page, nested_root: u64) -> Self {
        let mut vcpu = Self {
            vmcb: page.ptr().cast(),
            page,
            tag: Tag::default(),
            nmi: Nmi::Open,
            window: false,
            step: None,
            resume: 0,
        };
        let vmcb = vcpu.vmcb_mut();
        vmcb.debug_access = intercept::DEBUG;
        vmcb.exceptions = intercept::EXCEPTIONS;
        vmcb.misc1 = intercept::MISC1;
        vmcb.misc2 = intercept::MISC2;
        vmcb.misc3 = intercept::MISC3;
        vmcb.io_bitmap = platform.io;
        vmcb.msr_bitmap = platform.msr;
        vmcb.virtual_interrupt = vintr::MASKING | vintr::ALWAYS;
        vmcb.nested_control = 1;
        vmcb.nested_root = nested_root;
        vcpu
    }

    #[inline(always)]
    pub(super) const fn vmcb(&self) -> &Vmcb {
        // SAFETY: the page is the vCPU's, every bit pattern is a `Vmcb`, and the processor writes
        // it only inside `enter`, while no reference exists.
        unsafe { self.vmcb.as_ref() }
    }

    #[inline(always)]
    pub(super) const fn vmcb_mut(&mut self) -> &mut Vmcb {
        // SAFETY: as in `vmcb`; `&mut self` makes the reference the only one.
        unsafe { self.vmcb.as_mut() }
    }

    /// Physical address of the control block.
    #[inline(always)]
    pub(super) const fn physical(&self) -> u64 {
        self.page.phys()
    }

    /// Switches bits of the first word of intercepts.
    pub(super) fn intercept(&mut self, bits: u32, on: bool) {
        let vmcb = self.vmcb_mut();
        let wanted = if on { vmcb.misc1 | bits } else { vmcb.misc1 & !bits };
        if wanted != vmcb.misc1 {
            vmcb.misc1 = wanted;
            vmcb.clean &= !clean::INTERCEPTS;
        }
    }

    /// Changes what is known about NMIs.
    pub(super) fn set_nmi(&mut self, nmi: Nmi) {
        self.nmi = nmi;
        self.intercept(intercept::IRET, nmi == Nmi::Blocked);
    }
}

/// The segment `$seg` of a control block, as `$by` reference.
macro_rules! segment {
    ($vmcb:expr, $seg:expr, $($by:tt)+) => {
        match $seg {
            Seg::Cs => $($by)+ $vmcb.cs,
            Seg::Ss => $($by)+ $vmcb.ss,
            Seg::Ds => $($by)+ $vmcb.ds,
            Seg::Es => $($by)+ $vmcb.es,
            Seg::Fs => $($by)+ $vmcb.fs,
            Seg::Gs => $($by)+ $vmcb.gs,
            Seg::Tr => $($by)+ $vmcb.tr,
            Seg::Ldtr => $($by)+ $vmcb.ldtr,
            Seg::Gdtr => $($by)+ $vmcb.gdtr,
            Seg::Idtr => $($by)+ $vmcb.idtr,
        }
    };
}

/// Where a control block has the register `$reg`, as `$by` reference, and the clean bit that covers
/// it.
macro_rules! register {
    ($vmcb:expr, $reg:expr, $($by:tt)+) => {
        match $reg {
            Reg::Rip => ($($by)+ $vmcb.rip, 0),
            Reg::Rflags => ($($by)+ $vmcb.rflags, 0),
            Reg::Cr0 => ($($by)+ $vmcb.cr0, clean::CONTROL),
            Reg::Cr2 => ($($by)+ $vmcb.cr2, clean::CR2),
            Reg::Cr3 => ($($by)+ $vmcb.cr3, clean::CONTROL),
            // CR8 has a field of four bits, which the callers look after.
            Reg::Cr4 | Reg::Cr8 => ($($by)+ $vmcb.cr4, clean::CONTROL),
            Reg::Dr6 => ($($by)+ $vmcb.dr6, clean::DEBUG),
            Reg::Dr7 => ($($by)+ $vmcb.dr7, clean::DEBUG),
            Reg::Efer => ($($by)+ $vmcb.efer, clean::CONTROL),
            Reg::Pat => ($($by)+ $vmcb.pat, clean::NESTED),
            Reg::Star => ($($by)+ $vmcb.star, 0),
            Reg::Lstar => ($($by)+ $vmcb.lstar, 0),
            Reg::Cstar => ($($by)+ $vmcb.cstar, 0),
            Reg::Fmask => ($($by)+ $vmcb.fmask, 0),
            Reg::KernelGsBase => ($($by)+ $vmcb.kernel_gs_base, 0),
            Reg::SysenterCs => ($($by)+ $vmcb.sysenter_cs, 0),
            Reg::SysenterEsp => ($($by)+ $vmcb.sysenter_esp, 0),
            Reg::SysenterEip => ($($by)+ $vmcb.sysenter_eip, 0),
            Reg::TscOffset => ($($by)+ $vmcb.tsc_offset, clean::INTERCEPTS),
        }
    };
}

/// Attribute bits in the form of the ABI.
const GRANULAR: u16 = 1 << 15;
const DPL: u16 = 3 << 5;

impl Backend for Vcpu {
    type Cpu = Cpu;

    #[inline(always)]
    fn get(&self, reg: Reg) -> u64 {
        let vmcb = self.vmcb();
        match reg {
            Reg::Cr8 => u64::from(vmcb.virtual_interrupt & vintr::TPR),
            Reg::Efer => vmcb.efer & !EFER_SVME,
            _ => *register!(vmcb, reg, &).0,
        }
    }

    #[inline(always)]
    fn set(&mut self, reg: Reg, value: u64) {
        let vmcb = self.vmcb_mut();
        let value = match reg {
            Reg::Cr8 => {
                let tpr = low32(value) & vintr::TPR;
                vmcb.virtual_interrupt = vmcb.virtual_interrupt & !vintr::TPR | tpr;
                vmcb.clean &= !clean::VIRTUAL_INTERRUPT;
                return;
            }
            Reg::Efer => value | EFER_SVME,
            _ => value,
        };
        let (field, dirty) = register!(vmcb, reg, &mut);
        *field = value;
        vmcb.clean &= !dirty;
    }

    #[inline(always)]
    fn segment(&self, seg: Seg) -> Segment {
        let vmcb = self.vmcb();
        let mut segment = *segment!(vmcb, seg, &);
        segment.attributes = unpack(segment.attributes);
        match seg {
            // The processor keeps the privilege level apart from SS.
            Seg::Ss => {
                segment.attributes = segment.attributes & !DPL | u16::from(vmcb.cpl & 3) << 5;
            }
            // Some processors lose the granularity, having expanded the limit.
            Seg::Cs if segment.limit > 0xf_ffff => segment.attributes |= GRANULAR,
            _ => {}
        }
        segment
    }

    #[inline(always)]
    fn set_segment(&mut self, seg: Seg, value: Segment) {
        let vmcb = self.vmcb_mut();
        *segment!(vmcb, seg, &mut) = Segment { attributes: pack(value.attributes), ..value };
        match seg {
            Seg::Ss => {
                vmcb.cpl = crate::num::low8(u64::from((value.attributes & DPL) >> 5));
                vmcb.clean &= !clean::SEGMENTS;
            }
            Seg::Cs | Seg::Ds | Seg::Es => vmcb.clean &= !clean::SEGMENTS,
            Seg::Gdtr | Seg::Idtr => vmcb.clean &= !clean::TABLES,
            Seg::Fs | Seg::Gs | Seg::Tr | Seg::Ldtr => {}
        }
    }

    #[inline(always)]
    fn blocking(&self) -> Activity {
        let nmi = if self.nmi == Nmi::Open { Activity::empty() } else { Activity::NMI_BLOCKED };
        Activity::from_bits_truncate(self.vmcb().interrupt_shadow & 1) | nmi
    }

    #[inline(always)]
    fn set_blocking(&mut self, blocking: Activity) {
        self.vmcb_mut().interrupt_shadow = (blocking & Activity::INTERRUPT_SHADOW).bits();
        if blocking.contains(Activity::NMI_BLOCKED) != (self.nmi != Nmi::Open) {
            let blocked = blocking.contains(Activity::NMI_BLOCKED);
            self.set_nmi(if blocked { Nmi::Blocked } else { Nmi::Open });
        }
    }

    fn intercept_debug(&mut self, on: bool) {
        let wanted = if on { intercept::DEBUG } else { 0 };
        let vmcb = self.vmcb_mut();
        if vmcb.debug_access != wanted {
            vmcb.debug_access = wanted;
            vmcb.clean &= !clean::INTERCEPTS;
        }
    }

    #[inline]
    fn flush(&mut self) {
        self.tag = Tag::default();
    }

    #[inline]
    fn attach(&mut self, cpu: &mut Cpu) {
        // SAFETY: a `Cpu` exists only where SVM is enabled, and the block is its own.
        unsafe { enter::vmsave(cpu.host) };
    }

    #[inline]
    fn run(&mut self, common: &mut Common, cpu: &mut Cpu, space: u64) -> Outcome {
        self.run_once(common, cpu, space)
    }

    fn page(&self) -> Page {
        self.page
    }
}

const _: () = assert!(Activity::INTERRUPT_SHADOW.bits() == 1);
