//! A control structure as a [`Backend`].

use core::ptr::NonNull;

use ipc::event::Exit;
use ipc::state::{Activity, Segment};
use x86_64::instructions::tables::{sgdt, sidt};
use x86_64::registers::control::{Cr0, Cr2, Cr3, Cr4};
use x86_64::registers::debug::Dr6;

use super::super::allow::{Limits, cr0, efer, rflags};
use super::super::guest::Common;
use super::super::registers::{Backend, Reg, Seg, places};
use super::super::tag::Tag;
use super::super::{Outcome, Platform};
use super::vmcs::{self, blocking, entry, field, processor, secondary};
use super::{ATTACHED, Caps, Cpu, SWITCHED, enter, exit, instr};
use crate::arch::layout::window;
use crate::arch::{descriptors, msr, percpu, tsc};
use crate::mem::pool::{self, Page};
use crate::num::{low8, low16, low32, u64_of};

/// CR4: machine checks are on, whatever the guest thinks, or one would stop the machine.
const CR4_MCE: u64 = 1 << 6;
/// DR6: breakpoints that were hit.
const DR6_BREAKPOINTS: u64 = 0xf;
/// DR6: a protected register was touched, a single step ended.
const DR6_CAUSE: u64 = 3 << 13;
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
    pub(in super::super) page: NonNull<Page>,
    pub(super) caps: &'static Caps,
    pub(super) tag: Tag,
    cr0: Shared,
    cr4: Shared,
    /// Registers that the control structure has no place for: those of [`SWITCHED`], and, while they
    /// are not in the CPU, those of [`ATTACHED`], CR2, CR8, DR6.
    own: [u64; 8],
    pub(super) limits: &'static Limits,
    /// What the control structure holds as the host's CR3.
    host_cr3: u64,
    /// And as primary controls.
    pub(super) controls: u64,
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
        page: NonNull<Page>,
        nested_root: u64,
    ) -> Self {
        /// Four levels, in write-back memory.
        const EPT: u64 = 3 << 3 | 6;
        let caps = &platform.vmx;
        let [zero, four] = caps.ones;
        // Caching is the host's.
        let owned = zero | cr0::CD | cr0::NW;
        let mce = platform.limits.cr4 & CR4_MCE;
        let owned4 = !platform.limits.cr4 | four | mce;
        let mut vcpu = Self {
            page,
            caps,
            tag: Tag::default(),
            cr0: Shared { owned, ones: zero, pretended: owned },
            cr4: Shared { owned: owned4, ones: four | mce, pretended: mce },
            own: [0; 8],
            limits: &platform.limits,
            host_cr3: 0,
            controls: caps.processor,
            loaded: false,
            launched: false,
        };
        for (field, value) in [
            (field::LINK, u64::MAX),
            (field::IO_BITMAP_A, platform.page(0)),
            (field::IO_BITMAP_B, platform.page(1)),
            (field::MSR_BITMAP, platform.page(Platform::MSRS)),
            (field::EPT_POINTER, nested_root | EPT),
            (field::ENCLS_BITMAP, u64::MAX),
            (field::PIN, caps.pin),
            (field::PROCESSOR, caps.processor),
            (field::SECONDARY, caps.secondary),
            (field::EXCEPTIONS, vmcs::EXCEPTIONS),
            (field::EXIT, caps.exit),
            (field::ENTRY, caps.entry),
            (field::CR0_MASK, vcpu.cr0.owned),
            (field::CR4_MASK, vcpu.cr4.owned),
        ] {
            vcpu.write(field, value);
        }
        vcpu
    }

    /// Address of a field in the image.
    const fn image(&self, field: u32) -> *mut u64 {
        // SAFETY: there are as many slots as words in the page.
        unsafe { self.page.cast::<u64>().as_ptr().add(vmcs::slot(field)) }
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
        let copy = cpu.apic.cast::<[u64; vmcs::SLOTS]>();
        let page = self.page.cast::<[u64; vmcs::SLOTS]>();
        // SAFETY: both pages are ours; `Cpu` exists only in VMX operation.
        let image = unsafe {
            copy.copy_from_nonoverlapping(page, 1);
            page.write_bytes(0, 1);
            page.cast::<u32>().write(self.caps.revision);
            self.loaded = instr::vmclear(pool::phys(self.page));
            &*copy.as_ptr()
        };
        self.select();
        // Every field that there can be, as the processor leaves them undefined.
        for (slot, &value) in image.iter().enumerate() {
            self.write(vmcs::field_of(slot), value);
        }
        // SAFETY: the page is ours, and the reference above is not used any more.
        unsafe { copy.write_bytes(0, 1) };
        // SAFETY: every 64-bit processor has the registers.
        let (pat, efer) = unsafe { (msr::read(msr::PAT), msr::read(msr::EFER)) };
        let base = u64_of(core::ptr::from_ref(percpu::this()).addr());
        for (field, value) in [
            (field::VIRTUAL_APIC, pool::phys(cpu.apic)),
            // A millisecond, from each entry on. Interrupts end guest mode by themselves, but Bochs
            // forgets that for a guest that it enters with interrupts off.
            (field::TIMER, tsc::khz() >> self.caps.timer_shift),
            (field::HOST_CS, descriptors::KERNEL_CODE.into()),
            (field::HOST_SS, descriptors::KERNEL_DATA.into()),
            (field::HOST_TR, descriptors::TASK_STATE.into()),
            (field::HOST_PAT, pat),
            (field::HOST_EFER, efer),
            // With TS set: what is in the FPU is the guest's.
            (field::HOST_CR0, Cr0::read_raw()),
            (field::HOST_CR4, Cr4::read_raw()),
            (field::HOST_GS_BASE, base),
            (field::HOST_TR_BASE, base + (window::TSS - window::PERCPU)),
            (field::HOST_GDTR_BASE, sgdt().base.as_u64()),
            (field::HOST_IDTR_BASE, sidt().base.as_u64()),
            (field::HOST_RIP, u64_of(enter::exited as *const () as usize)),
        ] {
            self.write(field, value);
        }
    }

    /// Before each entry: the host's address space may be another one than before.
    pub(super) fn update_host(&mut self) {
        let (root, low) = Cr3::read_raw();
        let cr3 = root.start_address().as_u64() | u64::from(low);
        if cr3 != self.host_cr3 {
            self.host_cr3 = cr3;
            self.write(field::HOST_CR3, cr3);
        }
    }

    /// Switches primary controls.
    pub(super) fn control(&mut self, bits: u64, on: bool) {
        let wanted = if on { self.controls | bits } else { self.controls & !bits };
        if wanted != self.controls {
            self.controls = wanted;
            self.write(field::PROCESSOR, wanted);
        }
    }

    /// Forgets what the CPU knows of the guest's memory and gives the guest its current tag.
    #[cold]
    pub(super) fn forget(&mut self, cpu: &mut Cpu) {
        let kind = if cpu.tags.flush { 2 } else { self.caps.invept };
        // SAFETY: a `Cpu` exists only in VMX operation; the kind is one that the processor has.
        unsafe { instr::invept(kind, self.read(field::EPT_POINTER)) };
        cpu.tags.flush = false;
        if self.caps.secondary & secondary::VPID != 0 {
            self.write(field::VPID, self.tag.value.into());
        }
    }

    /// The shadow of CR0 or CR4, and whose its bits are.
    #[inline(always)]
    const fn shared(&self, field: u32) -> (u32, Shared) {
        match field {
            field::CR0 => (field::CR0_SHADOW, self.cr0),
            _ => (field::CR4_SHADOW, self.cr4),
        }
    }

    /// The guest wants to change bits of a control register that are not its own. They go to the
    /// shadow, after which the processor executes the instruction: it only exits where a bit
    /// differs from there. Returns whether the guest may do so.
    pub(super) fn take_owned(&mut self, register: u64, value: u64) -> bool {
        let field = if register == 0 { field::CR0 } else { field::CR4 };
        let (shadow, Shared { owned, pretended, .. }) = self.shared(field);
        let legal = value & owned & !pretended == 0;
        if legal {
            self.write(shadow, value);
        }
        legal
    }

    /// A debug exception was intercepted: what the processor would have put into DR6.
    pub(super) fn note_debug(&mut self, pending: u64) {
        self.save_dr6();
        let [.., dr6] = &mut self.own;
        *dr6 = *dr6 & !DR6_BREAKPOINTS | pending & (DR6_BREAKPOINTS | DR6_CAUSE);
        self.load_dr6();
        self.settle_step();
    }

    /// Puts DR6 into the CPU where the guest can see it.
    pub(super) fn load_dr6(&self) {
        if self.controls & processor::DEBUG == 0 {
            let [.., dr6] = self.own;
            instr::set_dr6(dr6);
        }
    }

    /// The registers of [`ATTACHED`] and their places.
    fn attached(&mut self) -> impl Iterator<Item = (u32, &mut u64)> {
        ATTACHED.into_iter().zip(self.own.iter_mut().skip(SWITCHED.len()))
    }

    fn save_dr6(&mut self) {
        if self.controls & processor::DEBUG == 0 {
            let [.., dr6] = &mut self.own;
            *dr6 = Dr6::read_raw();
        }
    }

    /// In a shadow, the processor insists that a single step that is under way is pending.
    fn settle_step(&mut self) {
        let shadow = self.read(field::INTERRUPTIBILITY) & blocking::SHADOW != 0;
        let step = shadow && self.get(Reg::Rflags) & rflags::TF != 0;
        self.write(field::PENDING_DEBUG, if step { PENDING_STEP } else { 0 });
    }
}

/// Where a register is: its field, or its place in [`Vcpu::own`].
#[inline(always)]
const fn place(reg: Reg) -> u32 {
    places! { reg:
        Star 0 Lstar 1 Fmask 2 Cstar 3 KernelGsBase 4 Cr2 5 Cr8 6 Dr6 7
        Rip 0x681e Rsp 0x681c Rflags 0x6820 Cr0 0x6800 Cr3 0x6802 Cr4 0x6804 Dr7 0x681a
        Efer 0x2806 Pat 0x2804
        SysenterCs 0x482a SysenterEsp 0x6824 SysenterEip 0x6826 TscOffset 0x2010
    }
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
        if self.loaded {
            // SAFETY: a control structure exists only in VMX operation, on this CPU, and its page
            // is the processor's.
            unsafe { instr::vmptrld(pool::phys(self.page)) };
        }
    }

    #[inline(always)]
    fn get(&self, reg: Reg) -> u64 {
        match place(reg) {
            n @ 0..8 => self.own.get(n as usize).copied().unwrap_or(0),
            field @ (field::CR0 | field::CR4) => {
                let (shadow, Shared { owned, .. }) = self.shared(field);
                self.read(field) & !owned | self.read(shadow) & owned
            }
            field => self.read(field),
        }
    }

    #[inline(always)]
    fn set(&mut self, reg: Reg, value: u64) {
        match place(reg) {
            n @ 0..8 => {
                if let Some(own) = self.own.get_mut(n as usize) {
                    *own = value;
                }
            }
            field @ (field::CR0 | field::CR4) => {
                let (shadow, Shared { owned, ones, .. }) = self.shared(field);
                self.write(field, value & !owned | ones);
                self.write(shadow, value);
            }
            field => self.write(field, value),
        }
        if reg == Reg::Efer {
            let long = if value & efer::LMA != 0 { entry::LONG } else { 0 };
            self.write(field::ENTRY, self.caps.entry | long);
        }
    }

    #[inline(always)]
    fn segment(&self, seg: Seg) -> Segment {
        let n = 2 * seg as u32;
        let table = matches!(seg, Seg::Gdtr | Seg::Idtr);
        let visible = |field| if table { 0 } else { self.read(field + n) };
        Segment {
            selector: low16(visible(field::SELECTOR)),
            attributes: unpack(visible(field::RIGHTS)),
            limit: low32(self.read(field::LIMIT + n)),
            base: self.read(field::BASE + n),
        }
    }

    #[inline(always)]
    fn set_segment(&mut self, seg: Seg, value: Segment) {
        let n = 2 * seg as u32;
        self.write(field::BASE + n, value.base);
        self.write(field::LIMIT + n, value.limit.into());
        if matches!(seg, Seg::Gdtr | Seg::Idtr) {
            return;
        }
        // A task is always busy once it is loaded.
        let attributes = value.attributes | if seg == Seg::Tr { BUSY } else { 0 };
        self.write(field::SELECTOR + n, value.selector.into());
        self.write(field::RIGHTS + n, pack(attributes, value.limit));
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

    fn flush(&mut self) {
        self.tag = Tag::default();
    }

    fn attach(&mut self, cpu: &mut Cpu) {
        if !self.loaded {
            self.load(cpu);
        }
        for (register, guest) in self.attached() {
            // SAFETY: the value has been checked or is the guest's own. The kernel does not use the
            // registers, nor does user code but for GS, which its guest's VMM is welcome to see.
            unsafe { msr::write(register, *guest) };
        }
    }

    fn detach(&mut self) {
        for (register, guest) in self.attached() {
            // SAFETY: the registers exist; zero is the host's value.
            unsafe {
                *guest = msr::read(register);
                msr::write(register, 0);
            }
        }
    }

    fn resume(&mut self, cpu: &mut Cpu) {
        for ((register, guest), host) in SWITCHED.into_iter().zip(self.own).zip(cpu.switched) {
            if guest != host {
                // SAFETY: the value has been checked; the kernel leaves and enters by these
                // registers only after `park`.
                unsafe { msr::write(register, guest) };
            }
        }
        let [.., cr2, cr8, _] = self.own;
        // SAFETY: the page is the CPU's.
        unsafe { cpu.task_priority().write_volatile(low8(cr8 << 4)) };
        instr::set_cr2(cr2);
        self.load_dr6();
    }

    fn park(&mut self, cpu: &mut Cpu) {
        for ((register, guest), host) in SWITCHED.into_iter().zip(self.own).zip(cpu.switched) {
            if guest != host {
                // SAFETY: the registers exist, and get back the host's values.
                unsafe { msr::write(register, host) };
            }
        }
        let [.., cr2, cr8, _] = &mut self.own;
        *cr2 = Cr2::read_raw();
        // SAFETY: the page is the CPU's.
        *cr8 = u64::from(unsafe { cpu.task_priority().read_volatile() } >> 4);
        self.save_dr6();
        // SAFETY: this is that CPU.
        unsafe { descriptors::reload(percpu::this()) };
    }

    fn retire(&mut self) {
        if self.loaded {
            // SAFETY: there is a control structure, on this CPU.
            unsafe { instr::vmclear(pool::phys(self.page)) };
            self.launched = false;
        }
    }

    #[inline(always)]
    fn run(&mut self, common: &mut Common, cpu: &mut Cpu, space: u64) -> Outcome {
        self.enter_guest(common, cpu, space)
    }

    /// What ends with VMfail (SDM volume 3, 27.1 and 27.2).
    #[cfg(feature = "sabotage")]
    fn sabotage(&mut self, kind: u64) -> impl FnOnce(&mut Self) + use<> {
        let launched = self.launched;
        let field = if kind == 1 { field::PIN } else { field::HOST_CS };
        let right = self.read(field);
        match kind {
            // There is no current control structure.
            2 => self.retire(),
            // VMRESUME of one that was not launched, or the other way round.
            3 => self.launched = !launched,
            // No control that has to be one is; the host has no code segment.
            _ => self.write(field, 0),
        }
        move |vcpu| {
            vcpu.select();
            if kind == 3 {
                vcpu.launched = launched;
            }
            vcpu.write(field, right);
        }
    }

    fn describe(&self, exit: Exit) -> [u64; 3] {
        let (qualification, address) =
            (self.read(field::QUALIFICATION), self.read(field::PHYSICAL));
        match exit {
            Exit::Io => [exit::io(qualification, || self.read(field::INSTRUCTION)).to_word(), 0, 0],
            Exit::Memory => [exit::memory(qualification).bits(), address, 0],
            _ => [self.read(field::REASON), qualification, address],
        }
    }

    fn length(&self, _nominal: u64) -> u64 {
        self.read(field::LENGTH)
    }
}
