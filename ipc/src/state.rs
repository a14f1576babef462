//! Architectural state in the UTCB, in groups that an MTD selects.

use bitflags::bitflags;

bitflags! {
    /// Message transfer descriptor: which groups of [`State`] an event message carries.
    ///
    /// A portal's MTD says what the kernel writes into the UTCB; the MTD of the reply says what
    /// it takes back.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Mtd: u64 {
        /// `rax`, `rcx`, `rdx`, `rbx`.
        const GPR_ACDB = 1 << 0;
        /// `rsp`, `rbp`, `rsi`, `rdi`.
        const GPR_BSD = 1 << 1;
        /// `r8` to `r15`.
        const GPR_R8 = 1 << 2;
        /// `rip`, `rflags`, and (read only) the instruction length.
        const RIP = 1 << 3;
        /// Code and stack segment. vCPU only.
        const CS_SS = 1 << 4;
        /// Data segments `ds`, `es`, `fs`, `gs`. vCPU only.
        const DATA_SEG = 1 << 5;
        /// `tr`, `ldtr`, `gdtr`, `idtr`. vCPU only.
        const SYS_SEG = 1 << 6;
        /// `cr0`, `cr2`, `cr3`, `cr4`. vCPU; `cr2` also for host page faults, read only.
        const CR = 1 << 7;
        /// `cr8`. vCPU only.
        const CR8 = 1 << 8;
        /// `dr` (DR0 to DR3), `dr6`, `dr7`. vCPU only.
        const DR = 1 << 9;
        /// `EFER` and `PAT`. vCPU only.
        const EFER_PAT = 1 << 10;
        /// `STAR`, `LSTAR`, `CSTAR`, `FMASK`, `KERNEL_GS_BASE`. vCPU only.
        const SYSCALL_MSR = 1 << 11;
        /// `SYSENTER_CS`, `SYSENTER_ESP`, `SYSENTER_EIP`. vCPU only.
        const SYSENTER_MSR = 1 << 12;
        /// `XCR0` and `XSS`. vCPU only.
        const XSTATE = 1 << 13;
        /// Qualification of the event (read only).
        const QUAL = 1 << 14;
        /// Event injection and window requests. vCPU only.
        const INJECT = 1 << 15;
        /// Interruptibility and activity. vCPU only.
        const ACTIVITY = 1 << 16;
        /// TSC offset and `TSC_AUX`. vCPU only.
        const TSC = 1 << 17;
        /// Deadline after which the vCPU exits with [`crate::event::Exit::Deadline`]. vCPU only.
        const DEADLINE = 1 << 18;
    }
}

impl Mtd {
    /// Everything a host execution context has.
    pub const HOST: Self = Self::GPR_ACDB
        .union(Self::GPR_BSD)
        .union(Self::GPR_R8)
        .union(Self::RIP)
        .union(Self::QUAL)
        .union(Self::CR);
}

/// A segment register with its hidden part.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// Attributes in the layout of descriptor bits 40..56: type 0..4, S 4, DPL 5..7, P 7,
    /// AVL 12, L 13, D/B 14, G 15 (bits 8..12 are zero); bit 16 does not exist, an unusable
    /// segment has P clear.
    pub attributes: u16,
    /// Limit in bytes, expanded.
    pub limit: u32,
    /// Linear base address.
    pub base: u64,
}

/// Injection word: what to deliver on entry.
///
/// | bits | field |
/// |---|---|
/// | 0..8 | vector |
/// | 8..11 | [`InjectKind`] |
/// | 11 | deliver the error code |
/// | 12 | request an exit when an interrupt can be taken |
/// | 13 | request an exit when an NMI can be taken |
/// | 31 | valid: an event is to be injected (on exit: its delivery was cut short by the exit) |
/// | 32..64 | error code |
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct Inject(pub u64);

numbered! {
    /// Kind of event to inject.
    pub enum InjectKind: u8 {
        /// External interrupt.
        Interrupt = 0,
        /// NMI.
        Nmi = 2,
        /// Hardware exception.
        Exception = 3,
        /// Software interrupt (INT n).
        SoftwareInterrupt = 4,
    }
}

impl Inject {
    /// Nothing to inject, no window requested.
    pub const NONE: Self = Self(0);
    /// The valid bit.
    pub const VALID: u64 = 1 << 31;
    const ERROR: u64 = 1 << 11;
    const INTERRUPT_WINDOW: u64 = 1 << 12;
    const NMI_WINDOW: u64 = 1 << 13;

    /// An external interrupt.
    #[inline]
    #[must_use]
    pub const fn interrupt(vector: u8) -> Self {
        Self(vector as u64 | Self::VALID)
    }

    /// An NMI.
    #[inline]
    #[must_use]
    pub const fn nmi() -> Self {
        Self(2 | (InjectKind::Nmi as u64) << 8 | Self::VALID)
    }

    /// An exception, with its error code where it has one.
    #[inline]
    #[must_use]
    pub const fn exception(vector: u8, error: Option<u32>) -> Self {
        let base = vector as u64 | (InjectKind::Exception as u64) << 8 | Self::VALID;
        match error {
            Some(code) => Self(base | Self::ERROR | (code as u64) << 32),
            None => Self(base),
        }
    }

    /// The same, and an exit as soon as an interrupt can be taken.
    #[inline]
    #[must_use]
    pub const fn with_interrupt_window(self) -> Self {
        Self(self.0 | Self::INTERRUPT_WINDOW)
    }

    /// The same, and an exit as soon as an NMI can be taken.
    #[inline]
    #[must_use]
    pub const fn with_nmi_window(self) -> Self {
        Self(self.0 | Self::NMI_WINDOW)
    }

    /// The event alone, without window requests.
    #[inline]
    #[must_use]
    pub const fn event(self) -> Self {
        Self(self.0 & !(Self::INTERRUPT_WINDOW | Self::NMI_WINDOW))
    }

    /// Whether an event is present.
    #[inline]
    #[must_use]
    pub const fn is_valid(self) -> bool {
        self.0 & Self::VALID != 0
    }

    /// Vector.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 0..8")]
    pub const fn vector(self) -> u8 {
        self.0 as u8
    }

    /// Kind; `None` for a number without meaning.
    #[inline]
    #[must_use]
    pub const fn kind(self) -> Option<InjectKind> {
        InjectKind::from_number((self.0 >> 8 & 7) as u8)
    }

    /// Error code where one is delivered.
    #[inline]
    #[must_use]
    pub const fn error(self) -> Option<u32> {
        if self.0 & Self::ERROR != 0 { Some((self.0 >> 32) as u32) } else { None }
    }

    /// Whether an exit is requested when an interrupt can be taken.
    #[inline]
    #[must_use]
    pub const fn wants_interrupt_window(self) -> bool {
        self.0 & Self::INTERRUPT_WINDOW != 0
    }

    /// Whether an exit is requested when an NMI can be taken.
    #[inline]
    #[must_use]
    pub const fn wants_nmi_window(self) -> bool {
        self.0 & Self::NMI_WINDOW != 0
    }
}

bitflags! {
    /// Interruptibility and activity of a vCPU.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Activity: u64 {
        /// The instruction after STI or MOV SS is about to run: interrupts are held off.
        const INTERRUPT_SHADOW = 1 << 0;
        /// An NMI is being handled: NMIs are held off.
        const NMI_BLOCKED = 1 << 1;
        /// Do not run the guest: wait until the vCPU is recalled or its deadline passes.
        const HALTED = 1 << 2;
    }
}

/// Architectural state of a host execution context or a vCPU.
///
/// Only the groups that an MTD names are valid; the others hold what was there before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[repr(C)]
#[expect(missing_docs, reason = "registers are named as in the manuals")]
pub struct State {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub rip: u64,
    pub rflags: u64,
    /// Length of the instruction that caused the exit in bytes; 0 where it is unknown.
    pub instruction_length: u64,
    /// Qualification of the event: see [`crate::exit`].
    pub qualification: [u64; 3],
    pub cs: Segment,
    pub ss: Segment,
    pub ds: Segment,
    pub es: Segment,
    pub fs: Segment,
    pub gs: Segment,
    pub tr: Segment,
    pub ldtr: Segment,
    pub gdtr: Segment,
    pub idtr: Segment,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub dr6: u64,
    pub dr7: u64,
    pub efer: u64,
    pub pat: u64,
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub fmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub xcr0: u64,
    pub xss: u64,
    /// See [`Inject`].
    pub inject: u64,
    /// See [`Activity`].
    pub activity: u64,
    /// Added to the host's TSC to give the guest's.
    pub tsc_offset: u64,
    pub tsc_aux: u64,
    /// Host TSC value at which the vCPU exits; 0 for none.
    pub deadline: u64,
    /// DR0 to DR3.
    pub dr: [u64; 4],
    reserved: [u64; 10],
}

const _: () = assert!(core::mem::size_of::<State>() == 80 * 8);

impl State {
    /// All zero.
    #[must_use]
    pub const fn new() -> Self {
        const S: Segment = Segment { selector: 0, attributes: 0, limit: 0, base: 0 };
        Self {
            rax: 0,
            rcx: 0,
            rdx: 0,
            rbx: 0,
            rsp: 0,
            rbp: 0,
            rsi: 0,
            rdi: 0,
            r8: 0,
            r9: 0,
            r10: 0,
            r11: 0,
            r12: 0,
            r13: 0,
            r14: 0,
            r15: 0,
            rip: 0,
            rflags: 0,
            instruction_length: 0,
            qualification: [0; 3],
            cs: S,
            ss: S,
            ds: S,
            es: S,
            fs: S,
            gs: S,
            tr: S,
            ldtr: S,
            gdtr: S,
            idtr: S,
            cr0: 0,
            cr2: 0,
            cr3: 0,
            cr4: 0,
            cr8: 0,
            dr6: 0,
            dr7: 0,
            efer: 0,
            pat: 0,
            star: 0,
            lstar: 0,
            cstar: 0,
            fmask: 0,
            kernel_gs_base: 0,
            sysenter_cs: 0,
            sysenter_esp: 0,
            sysenter_eip: 0,
            xcr0: 0,
            xss: 0,
            inject: 0,
            activity: 0,
            tsc_offset: 0,
            tsc_aux: 0,
            deadline: 0,
            dr: [0; 4],
            reserved: [0; 10],
        }
    }
}
