//! A control structure as a [`Backend`].

use ipc::state::{Activity, Segment};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr2, Cr4};
use x86_64::registers::debug::Dr6;

use super::super::allow::{cr0, efer, rflags};
use super::super::guest::Common;
use super::super::registers::{Backend, Reg, Seg};
use super::super::tag::Tag;
use super::super::{Outcome, Page, Platform};
use super::vmcs::{self, blocking, entry, field, processor, secondary};
use super::{Caps, Cpu, SYSCALL, enter, instr};
use crate::arch::layout::{in_window, window};
use crate::arch::{descriptors, msr, tsc};
use crate::num::{low8, low16, low32, u64_of};

/// CR4: machine checks are on, whatever the guest thinks, or one would stop the machine.
const CR4_MCE: u64 = 1 << 6;
/// DR6: breakpoints that were hit.
const DR6_BREAKPOINTS: u64 = 0xf;
/// Pending debug exceptions: a single step ended.
const PENDING_STEP: u64 = 1 << 14;

/// A control register of which some bits are not the guest's.
#[derive(Clone, Copy, Debug)]
struct Shared {
    /// Bits whose value the guest reads from the shadow; writing another one exits.
    owned: u64,
    /// Those of them that are one in the processor.
    ones: u64,
    /// Those of them that the guest may change as far as it can tell.
    pretended: u64,
}

/// A vCPU on VT-x.
///
/// Until it is first attached there is no control structure: its page holds an image of one, field
/// by field, so that any CPU can set it up and no CPU has to be told when it goes.
pub(in super::super) struct Vcpu {
    page: Page,
    pub(super) caps: &'static Caps,
    pub(super) tag: Tag,
    /// Bits that differ from the processor's only in CR0 and CR4.
    shared: [Shared; 2],
    /// State that the control structure has no place for, while it is not in the CPU.
    cr2: u64,
    cr8: u64,
    dr6: u64,
    syscall: [u64; 5],
    /// What the control structure holds as the host's CR3.
    host_cr3: u64,
    /// And as primary controls.
    controls: u32,
    /// There is a control structure.
    loaded: bool,
    /// It has run since it was last cleared.
    pub(super) launched: bool,
}

impl Vcpu {
    /// A vCPU with all of its controls and none of its state set.
    ///
    /// # Safety
    /// The page is the vCPU's until it is dropped; `nested_root` is that of a nested page table.
    pub(in super::super) unsafe fn new(
        platform: &'static Platform,
        page: Page,
        nested_root: u64,
    ) -> Self {
        /// Four levels, in write-back memory.
        const EPT: u64 = 3 << 3 | 6;
        let caps = &platform.vmx;
        let [cr0_ones, cr4_ones] = caps.ones;
        let cr0_owned = cr0_ones | cr0::CD | cr0::NW;
        let mce = platform.limits.cr4 & CR4_MCE;
        let mut vcpu = Self {
            page,
            caps,
            tag: Tag::default(),
            shared: [
                // Caching is the host's.
                Shared { owned: cr0_owned, ones: cr0_ones, pretended: cr0_owned },
                Shared {
                    owned: !platform.limits.cr4 | cr4_ones | mce,
                    ones: cr4_ones | mce,
                    pretended: mce,
                },
            ],
            cr2: 0,
            cr8: 0,
            dr6: 0,
            syscall: [0; 5],
            host_cr3: 0,
            controls: caps.processor,
            loaded: false,
            launched: false,
        };
        let [cr0, cr4] = vcpu.shared;
        for (field, value) in [
            (field::LINK, u64::MAX),
            (field::IO_BITMAP_A, platform.io),
            (field::IO_BITMAP_B, platform.io + 4096),
            (field::MSR_BITMAP, platform.msr),
            (field::EPT_POINTER, nested_root | EPT),
            (field::ENCLS_BITMAP, u64::MAX),
            (field::PIN, caps.pin.into()),
            (field::PROCESSOR, caps.processor.into()),
            (field::SECONDARY, caps.secondary.into()),
            (field::EXCEPTIONS, vmcs::EXCEPTIONS.into()),
            (field::EXIT, caps.exit.into()),
            (field::ENTRY, caps.entry.into()),
            (field::CR0_MASK, cr0.owned),
            (field::CR4_MASK, cr4.owned),
        ] {
            vcpu.write(field, value);
        }
        vcpu
    }

    /// Address of a field in the image.
    const fn image(&self, field: u32) -> *mut u64 {
        // SAFETY: there are as many slots as words in the page.
        unsafe { self.page.ptr().cast::<u64>().as_ptr().add(vmcs::slot(field)) }
    }

    /// Reads a field.
    #[inline(always)]
    pub(super) fn read(&self, field: u32) -> u64 {
        // SAFETY: a control structure exists only in VMX operation, and it is current: callers of
        // `Backend` have selected it. Otherwise the page is an image, which is the vCPU's.
        unsafe { if self.loaded { instr::vmread(field) } else { self.image(field).read() } }
    }

    /// Writes a field.
    #[inline(always)]
    pub(super) fn write(&mut self, field: u32, value: u64) {
        // SAFETY: as in `read`; fields of the host are written with the host's values only.
        unsafe {
            if self.loaded {
                instr::vmwrite(field, value);
            } else {
                self.image(field).write(value);
            }
        }
    }

    /// Makes a control structure out of the image.
    #[cold]
    fn load(&mut self, cpu: &Cpu) {
        // Nobody is attached, so the CPU's page is free to keep the image meanwhile.
        let copy = cpu.apic.ptr().cast::<[u64; vmcs::SLOTS]>();
        let page = self.page.ptr().cast::<[u64; vmcs::SLOTS]>();
        // SAFETY: both pages are ours; `Cpu` exists only in VMX operation.
        let image = unsafe {
            copy.copy_from_nonoverlapping(page, 1);
            page.write_bytes(0, 1);
            page.cast::<u32>().write(self.caps.revision);
            self.loaded = instr::vmclear(self.page.phys()) && instr::vmptrld(self.page.phys());
            &*copy.as_ptr()
        };
        // Every field that there can be, as the processor leaves them undefined.
        for (slot, &value) in image.iter().enumerate() {
            self.write(vmcs::field_of(slot), value);
        }
        // SAFETY: the page is ours, and the reference above is not used any more.
        unsafe { copy.write_bytes(0, 1) };
        // SAFETY: every 64-bit processor has the registers.
        let (pat, efer) = unsafe { (msr::read(msr::PAT), msr::read(msr::EFER)) };
        for (field, value) in [
            (field::VIRTUAL_APIC, cpu.apic.phys()),
            // A millisecond, from each entry on. Interrupts end guest mode by themselves, but Bochs
            // forgets that for a guest that it enters with interrupts off.
            (field::TIMER, tsc::khz() >> self.caps.timer_shift),
            (field::HOST_CS, descriptors::KERNEL_CODE.into()),
            (field::HOST_SS, descriptors::KERNEL_DATA.into()),
            (field::HOST_TR, descriptors::TASK_STATE.into()),
            (field::HOST_PAT, pat),
            (field::HOST_EFER, efer),
            // The FPU is the guest's whenever it runs.
            (field::HOST_CR0, Cr0::read_raw()),
            (field::HOST_CR4, Cr4::read_raw()),
            (field::HOST_GS_BASE, in_window(cpu.number, window::PERCPU)),
            (field::HOST_TR_BASE, in_window(cpu.number, window::TSS)),
            (field::HOST_GDTR_BASE, sgdt().base.as_u64()),
            (field::HOST_IDTR_BASE, sidt().base.as_u64()),
            (field::HOST_RIP, u64_of(enter::exited as *const () as usize)),
        ] {
            self.write(field, value);
        }
    }

    /// Before each entry: the host's address space may be another one than before.
    #[inline]
    pub(super) fn update_host(&mut self) {
        let cr3 = instr::cr3();
        if cr3 != self.host_cr3 {
            self.host_cr3 = cr3;
            self.write(field::HOST_CR3, cr3);
        }
    }

    /// Switches primary controls.
    #[inline]
    pub(super) fn control(&mut self, bits: u32, on: bool) {
        let wanted = if on { self.controls | bits } else { self.controls & !bits };
        if wanted != self.controls {
            self.controls = wanted;
            self.write(field::PROCESSOR, wanted.into());
        }
    }

    /// Whether any of these primary controls is on.
    #[inline]
    pub(super) const fn has(&self, bits: u32) -> bool {
        self.controls & bits != 0
    }

    /// Forgets what the CPU knows of the guest's memory and gives the guest its current tag.
    #[cold]
    pub(super) fn forget(&mut self, cpu: &mut Cpu) {
        let kind = if cpu.tags.flush() { 2 } else { self.caps.invept };
        // SAFETY: a `Cpu` exists only in VMX operation; the kind is one that the processor has.
        unsafe { instr::invept(kind, self.read(field::EPT_POINTER)) };
        cpu.tags.flushed();
        if self.caps.secondary & secondary::VPID != 0 {
            self.write(field::VPID, self.tag.value().into());
        }
    }

    /// The guest wants to change bits of a control register that are not its own. They go to the
    /// shadow, after which the processor executes the instruction: it only exits where a bit
    /// differs from there. Returns whether the guest may do so.
    pub(super) fn take_owned(&mut self, register: u64, value: u64) -> bool {
        let [cr0, cr4] = self.shared;
        let (Shared { owned, pretended, .. }, shadow) = match register {
            0 => (cr0, field::CR0_SHADOW),
            _ => (cr4, field::CR4_SHADOW),
        };
        let legal = value & owned & !pretended == 0;
        if legal {
            self.write(shadow, value);
        }
        legal
    }

    /// A debug exception was intercepted: what the processor would have put into DR6.
    pub(super) fn note_debug(&mut self, pending: u64) {
        if !self.has(processor::DEBUG) {
            self.dr6 = Dr6::read_raw();
        }
        self.dr6 = self.dr6 & !DR6_BREAKPOINTS | pending & (DR6_BREAKPOINTS | 6 << 12);
        self.load_dr6();
        self.settle_step();
    }

    /// Puts DR6 into the CPU where the guest can see it.
    pub(super) fn load_dr6(&self) {
        if !self.has(processor::DEBUG) {
            instr::set_dr6(self.dr6);
        }
    }

    /// In a shadow, the processor insists that a single step that is under way is pending.
    fn settle_step(&mut self) {
        let shadow = self.read(field::INTERRUPTIBILITY) & blocking::SHADOW != 0;
        let step = shadow && self.read(field::GUEST_RFLAGS) & rflags::TF != 0;
        self.write(field::PENDING_DEBUG, if step { PENDING_STEP } else { 0 });
    }

    /// A control register as the guest sees it.
    #[inline(always)]
    fn shared(&self, value: u32, shadow: u32, Shared { owned, .. }: Shared) -> u64 {
        self.read(value) & !owned | self.read(shadow) & owned
    }

    /// Sets such a register.
    #[inline(always)]
    fn set_shared(&mut self, to: u32, shadow: u32, Shared { owned, ones, .. }: Shared, value: u64) {
        self.write(to, value & !owned | ones);
        self.write(shadow, value);
    }
}

/// Place of a segment among the fields.
const fn index(seg: Seg) -> u32 {
    match seg {
        Seg::Es => 0,
        Seg::Cs => 2,
        Seg::Ss => 4,
        Seg::Ds => 6,
        Seg::Fs => 8,
        Seg::Gs => 10,
        Seg::Ldtr => 12,
        Seg::Tr => 14,
        Seg::Gdtr => 16,
        Seg::Idtr => 18,
    }
}

/// The field of a register that has one and needs no care.
const fn place(reg: Reg) -> u32 {
    match reg {
        Reg::Rip => field::GUEST_RIP,
        Reg::Rflags => field::GUEST_RFLAGS,
        Reg::Cr3 => field::GUEST_CR3,
        Reg::Dr7 => field::GUEST_DR7,
        Reg::Efer => field::GUEST_EFER,
        Reg::Pat => field::GUEST_PAT,
        Reg::SysenterCs => field::GUEST_SYSENTER_CS,
        Reg::SysenterEsp => field::GUEST_SYSENTER_ESP,
        Reg::SysenterEip => field::GUEST_SYSENTER_EIP,
        // The others do not come here.
        _ => field::TSC_OFFSET,
    }
}

/// Place of a system call MSR.
const fn syscall(reg: Reg) -> Option<usize> {
    Some(match reg {
        Reg::Star => 0,
        Reg::Lstar => 1,
        Reg::Cstar => 2,
        Reg::Fmask => 3,
        Reg::KernelGsBase => 4,
        _ => return None,
    })
}

/// Access rights: attributes of the ABI, and whether the segment is unusable.
const UNUSABLE: u64 = 1 << 16;
const PRESENT: u16 = 1 << 7;
const GRANULAR: u16 = 1 << 15;
const BUSY: u16 = 2;

/// Attributes of the ABI in VT-x's form. The granularity follows from the limit wherever only one
/// is possible, which the processor insists on.
pub(super) const fn pack(attributes: u16, limit: u32) -> u64 {
    let rights = match limit {
        0x10_0000.. => attributes | GRANULAR,
        _ if limit & 0xfff != 0xfff => attributes & !GRANULAR,
        _ => attributes,
    };
    (rights & 0xf0ff) as u64 | if rights & PRESENT == 0 { UNUSABLE } else { 0 }
}

/// The reverse of [`pack`].
pub(super) const fn unpack(rights: u64) -> u16 {
    low16(rights) & 0xf0ff & if rights & UNUSABLE == 0 { u16::MAX } else { !PRESENT }
}

impl Backend for Vcpu {
    type Cpu = Cpu;

    #[inline(always)]
    fn select(&self) {
        // SAFETY: a control structure exists only in VMX operation, on this CPU, and its page is
        // the processor's.
        unsafe {
            if self.loaded && instr::vmptrst() != self.page.phys() {
                instr::vmptrld(self.page.phys());
            }
        }
    }

    #[inline(always)]
    fn get(&self, reg: Reg) -> u64 {
        let [cr0, cr4] = self.shared;
        match reg {
            Reg::Cr0 => self.shared(field::GUEST_CR0, field::CR0_SHADOW, cr0),
            Reg::Cr2 => self.cr2,
            Reg::Cr4 => self.shared(field::GUEST_CR4, field::CR4_SHADOW, cr4),
            Reg::Cr8 => self.cr8,
            Reg::Dr6 => self.dr6,
            _ => match syscall(reg) {
                Some(n) => self.syscall.get(n).copied().unwrap_or(0),
                None => self.read(place(reg)),
            },
        }
    }

    #[inline(always)]
    fn set(&mut self, reg: Reg, value: u64) {
        let [cr0, cr4] = self.shared;
        match reg {
            Reg::Cr0 => self.set_shared(field::GUEST_CR0, field::CR0_SHADOW, cr0, value),
            Reg::Cr2 => self.cr2 = value,
            Reg::Cr4 => self.set_shared(field::GUEST_CR4, field::CR4_SHADOW, cr4, value),
            Reg::Cr8 => self.cr8 = value,
            Reg::Dr6 => self.dr6 = value,
            _ => match syscall(reg).and_then(|n| self.syscall.get_mut(n)) {
                Some(register) => *register = value,
                None => self.write(place(reg), value),
            },
        }
        if reg == Reg::Efer {
            let long = if value & efer::LMA != 0 { entry::LONG } else { 0 };
            self.write(field::ENTRY, (self.caps.entry | long).into());
        }
    }

    #[inline(always)]
    fn segment(&self, seg: Seg) -> Segment {
        let n = index(seg);
        let table = matches!(seg, Seg::Gdtr | Seg::Idtr);
        let visible = |field| if table { 0 } else { self.read(field + n) };
        Segment {
            selector: low16(visible(field::GUEST_SELECTOR)),
            attributes: unpack(visible(field::GUEST_RIGHTS)),
            limit: low32(self.read(field::GUEST_LIMIT + n)),
            base: self.read(field::GUEST_BASE + n),
        }
    }

    #[inline(always)]
    fn set_segment(&mut self, seg: Seg, value: Segment) {
        let n = index(seg);
        self.write(field::GUEST_BASE + n, value.base);
        self.write(field::GUEST_LIMIT + n, value.limit.into());
        if matches!(seg, Seg::Gdtr | Seg::Idtr) {
            return;
        }
        // A task is always busy once it is loaded.
        let attributes = value.attributes | if seg == Seg::Tr { BUSY } else { 0 };
        self.write(field::GUEST_SELECTOR + n, value.selector.into());
        self.write(field::GUEST_RIGHTS + n, pack(attributes, value.limit));
    }

    #[inline(always)]
    fn blocking(&self) -> Activity {
        let state = self.read(field::INTERRUPTIBILITY);
        let mut activity = Activity::empty();
        activity.set(Activity::INTERRUPT_SHADOW, state & blocking::SHADOW != 0);
        activity.set(Activity::NMI_BLOCKED, state & blocking::NMI != 0);
        activity
    }

    #[inline(always)]
    fn set_blocking(&mut self, activity: Activity) {
        let old = self.read(field::INTERRUPTIBILITY);
        let mut new = if activity.contains(Activity::NMI_BLOCKED) { blocking::NMI } else { 0 };
        if activity.contains(Activity::INTERRUPT_SHADOW) {
            // One of the two, and that by MOV SS is legal with interrupts off, too.
            let shadow = old & blocking::SHADOW;
            new |= if shadow != 0 { shadow } else { blocking::MOV_SS };
        }
        if new != old {
            self.write(field::INTERRUPTIBILITY, new);
            self.settle_step();
        }
    }

    fn intercept_debug(&mut self, on: bool) {
        self.control(processor::DEBUG, on);
    }

    #[inline]
    fn flush(&mut self) {
        self.tag = Tag::default();
    }

    #[inline]
    fn resume(&mut self, cpu: &mut Cpu) {
        if !self.loaded {
            self.load(cpu);
        }
        for ((register, guest), host) in SYSCALL.into_iter().zip(self.syscall).zip(cpu.syscall) {
            if guest != host {
                // SAFETY: the value passed the allow-list or is the guest's own; the kernel leaves
                // and enters by these registers only after `park`.
                unsafe { msr::write(register, guest) };
            }
        }
        // SAFETY: the page is the CPU's.
        unsafe { cpu.task_priority().write_volatile(low8(self.cr8 << 4)) };
        instr::set_cr2(self.cr2);
        self.load_dr6();
    }

    #[inline]
    fn park(&mut self, cpu: &mut Cpu) {
        for ((register, guest), host) in SYSCALL.into_iter().zip(&mut self.syscall).zip(cpu.syscall)
        {
            // SAFETY: the registers exist, and get back the host's values.
            unsafe {
                *guest = msr::read(register);
                if *guest != host {
                    msr::write(register, host);
                }
            }
        }
        // SAFETY: the page is the CPU's.
        self.cr8 = u64::from(unsafe { cpu.task_priority().read_volatile() } >> 4);
        self.cr2 = Cr2::read_raw();
        if !self.has(processor::DEBUG) {
            self.dr6 = Dr6::read_raw();
        }
        // SAFETY: this is that CPU.
        unsafe { descriptors::reload(cpu.number) };
    }

    fn retire(&mut self) {
        if self.loaded {
            // SAFETY: there is a control structure, on this CPU.
            unsafe { instr::vmclear(self.page.phys()) };
            self.launched = false;
        }
    }

    #[inline]
    fn run(&mut self, common: &mut Common, cpu: &mut Cpu, space: u64) -> Outcome {
        self.run_once(common, cpu, space)
    }

    fn page(&self) -> Page {
        self.page
    }
}
