//! A control block as a [`Backend`].

use core::ptr::NonNull;

use ipc::event::Exit;
use ipc::state::{Activity, Segment};

use super::super::guest::Common;
use super::super::registers::{Backend, Reg, Seg, places};
use super::super::tag::Tag;
use super::super::{Outcome, Platform};
use super::vmcb::{clean, field, intercept, pack, unpack, vintr};
use super::{Cpu, EFER_SVME, enter, exit};
use crate::mem::pool::Page;
use crate::num::{low16, low32};

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
    pub(in super::super) page: NonNull<Page>,
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
    pub(in super::super) unsafe fn new(
        platform: &Platform,
        page: NonNull<Page>,
        nested_root: u64,
    ) -> Self {
        let mut vcpu = Self {
            page,
            tag: Tag::default(),
            nmi: Nmi::Open,
            window: false,
            step: None,
            resume: 0,
        };
        for (field, value) in [
            (field::REGISTERS, intercept::DEBUG),
            (field::INTERCEPTS, intercept::ALWAYS),
            (field::MORE_INTERCEPTS, intercept::MORE),
            (field::IO_BITMAP, platform.page(0)),
            (field::MSR_BITMAP, platform.page(Platform::MSRS)),
            (field::VIRTUAL_INTERRUPT, vintr::ALWAYS),
            (field::NESTED_CONTROL, 1),
            (field::NESTED_ROOT, nested_root),
        ] {
            vcpu.write(field, value);
        }
        vcpu
    }

    /// Reads a word.
    #[inline(always)]
    pub(super) const fn read(&self, field: u32) -> u64 {
        // SAFETY: offsets are inside the page, which is the vCPU's.
        unsafe { self.page.cast::<u8>().add(field as usize).cast::<u64>().read() }
    }

    /// Writes a word that the processor does not cache.
    #[inline(always)]
    pub(super) const fn put(&mut self, field: u32, value: u64) {
        // SAFETY: as in `read`; the processor uses the page only inside `enter`.
        unsafe { self.page.cast::<u8>().add(field as usize).cast::<u64>().write(value) }
    }

    /// Writes a word.
    #[inline(always)]
    pub(super) const fn write(&mut self, field: u32, value: u64) {
        self.put(field, value);
        self.put(field::CLEAN, self.read(field::CLEAN) & !clean(field));
    }

    /// Switches bits of a word.
    pub(super) const fn switch(&mut self, field: u32, bits: u64, on: bool) {
        let old = self.read(field);
        let wanted = if on { old | bits } else { old & !bits };
        if wanted != old {
            self.write(field, wanted);
        }
    }

    /// Changes what is known about NMIs.
    pub(super) fn set_nmi(&mut self, nmi: Nmi) {
        self.nmi = nmi;
        self.switch(field::INTERCEPTS, intercept::IRET, nmi == Nmi::Blocked);
    }

    /// Offset of a register.
    #[inline(always)]
    const fn place(reg: Reg) -> u32 {
        places! { reg:
            Rip 0x578 Rsp 0x5d8 Rflags 0x570 Cr0 0x558 Cr2 0x640 Cr3 0x550 Cr4 0x548 Cr8 0x60 Dr6 0x568
            Dr7 0x560 Efer 0x4d0 Pat 0x668 Star 0x600 Lstar 0x608 Cstar 0x610 Fmask 0x618
            KernelGsBase 0x620 SysenterCs 0x628 SysenterEsp 0x630 SysenterEip 0x638 TscOffset 0x50
        }
    }

    /// Offset of a segment: in the VMCB's order, LDTR comes after GDTR and TR last.
    #[inline(always)]
    const fn segment_place(seg: Seg) -> u32 {
        field::SEGMENTS + 16 * (low32(0x86_9754_3210 >> (4 * seg as u32)) & 0xf)
    }
}

/// Attribute bits in the form of the ABI.
const GRANULAR: u16 = 1 << 15;
const DPL: u16 = 3 << 5;

impl Backend for Vcpu {
    type Cpu = Cpu;

    #[inline(always)]
    fn get(&self, reg: Reg) -> u64 {
        let value = self.read(Self::place(reg));
        match reg {
            Reg::Cr8 => value & vintr::TPR,
            Reg::Efer => value & !EFER_SVME,
            _ => value,
        }
    }

    #[inline(always)]
    fn set(&mut self, reg: Reg, value: u64) {
        let field = Self::place(reg);
        let value = match reg {
            Reg::Cr8 => self.read(field) & !vintr::TPR | value,
            Reg::Efer => value | EFER_SVME,
            _ => value,
        };
        self.write(field, value);
    }

    #[inline(always)]
    fn segment(&self, seg: Seg) -> Segment {
        let field = Self::segment_place(seg);
        let (word, base) = (self.read(field), self.read(field + 8));
        let mut attributes = unpack(low16(word >> 16));
        let limit = low32(word >> 32);
        match seg {
            // The processor keeps the privilege level apart from SS.
            Seg::Ss => attributes = attributes & !DPL | low16(self.read(field::CPL) >> 24 & 3) << 5,
            // Some processors lose the granularity, having expanded the limit.
            Seg::Cs if limit > 0xf_ffff => attributes |= GRANULAR,
            _ => {}
        }
        Segment { selector: low16(word), attributes, limit, base }
    }

    #[inline(always)]
    fn set_segment(&mut self, seg: Seg, Segment { selector, attributes, limit, base }: Segment) {
        let field = Self::segment_place(seg);
        let attributes_word = u64::from(pack(attributes)) << 16;
        self.write(field, u64::from(selector) | attributes_word | u64::from(limit) << 32);
        self.write(field + 8, base);
        if seg == Seg::Ss {
            self.write(field::CPL, u64::from((attributes & DPL) >> 5) << 24);
        }
    }

    #[inline(always)]
    fn blocking(&self) -> Activity {
        let nmi = if self.nmi == Nmi::Open { Activity::empty() } else { Activity::NMI_BLOCKED };
        Activity::from_bits_truncate(self.read(field::SHADOW) & 1) | nmi
    }

    #[inline(always)]
    fn set_blocking(&mut self, blocking: Activity) {
        self.put(field::SHADOW, (blocking & Activity::INTERRUPT_SHADOW).bits());
        let blocked = blocking.contains(Activity::NMI_BLOCKED);
        if blocked != (self.nmi != Nmi::Open) {
            self.set_nmi(if blocked { Nmi::Blocked } else { Nmi::Open });
        }
    }

    fn intercept_debug(&mut self, on: bool) {
        self.switch(field::REGISTERS, intercept::DEBUG, on);
    }

    fn flush(&mut self) {
        self.tag = Tag::default();
    }

    fn attach(&mut self, cpu: &mut Cpu) {
        // SAFETY: a `Cpu` exists only where SVM is enabled, and the block is its own.
        unsafe { enter::vmsave(cpu.host) };
    }

    #[inline(always)]
    fn run(&mut self, common: &mut Common, cpu: &mut Cpu, space: u64) -> Outcome {
        self.enter_guest(common, cpu, space)
    }

    /// What VMRUN refuses (APM volume 2, 15.5.1).
    #[cfg(feature = "sabotage")]
    fn sabotage(&mut self, kind: u64) -> impl FnOnce(&mut Self) + use<> {
        let (field, wrong) = match kind {
            // VMRUN is not intercepted.
            1 => (field::MORE_INTERCEPTS, 1),
            2 => (field::EFER, EFER_SVME),
            3 => (field::CR4, 1 << 63),
            _ => (field::CR0, 1 << 63),
        };
        let right = self.read(field);
        self.write(field, right ^ wrong);
        move |vcpu| vcpu.write(field, right)
    }

    fn describe(&self, exit: Exit) -> [u64; 3] {
        let [code, info1, info2] = [field::CODE, field::INFO1, field::INFO2].map(|f| self.read(f));
        match exit {
            Exit::Io => [exit::io(info1).to_word(), 0, 0],
            Exit::Memory => [exit::memory(info1).bits(), info2, 0],
            _ => [code, info1, info2],
        }
    }

    fn length(&self, nominal: u64) -> u64 {
        let port = self.read(field::CODE) == exit::IOIO;
        let next = self.read(if port { field::INFO2 } else { field::NEXT_RIP });
        exit::length(self.get(Reg::Rip), next, nominal)
    }
}

const _: () = assert!(Activity::INTERRUPT_SHADOW.bits() == 1);
