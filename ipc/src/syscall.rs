//! System call numbers and the register convention.
//!
//! A component executes `syscall` with
//!
//! | register | in | out |
//! |---|---|---|
//! | `rax` | bits 0..8 [`Call`], 8..16 flags, 16..32 CPU number, 32..64 a second selector | [`crate::status::Status`] |
//! | `rdi` | first argument: usually the selector the call is about | first result after a message: see the call |
//! | `rsi` | second argument | first result |
//! | `rdx` | third argument | second result |
//! | `r10` | fourth argument | undefined |
//! | `r8` | fifth argument | undefined |
//! | `rbx`, `rbp`, `rsp`, `r12`–`r15` | preserved | preserved |
//! | `rcx`, `r9`, `r11` | destroyed | undefined |
//!
//! A portal handler starts at the portal's entry with `rdi` = portal id, `rsi` = message
//! descriptor (a [`crate::utcb::Message`], or an [`crate::state::Mtd`] for an event), `rsp`, `rbx`,
//! `rbp` and `r12`–`r15` as they were at the last `Reply` of its execution context, and the other
//! registers zero, except `rcx` and `r11`, which `sysret` uses.

numbered! {
    /// The system calls. Behind each capability stands the right that it needs.
    pub enum Call: u8 {
        /// Call a portal: `rdi` portal (`PT_CALL`), `rsi` message. Out: `rsi` message of the
        /// reply.
        Call = 0,
        /// Reply to the current caller and wait for the next call: `rsi` message or MTD, `rsp` the
        /// stack for the next call. Does not return.
        Reply = 1,
        /// Wait on a semaphore: `rdi` semaphore (`SM_DOWN`), `rsi` absolute TSC deadline (0: none).
        /// Flag [`DOWN_ZERO`] sets the counter to zero instead of decrementing it. Out: `rsi` the
        /// badges that came in since the last `Down`.
        Down = 2,
        /// Signal a semaphore: `rdi` semaphore (`SM_UP`). The capability's badge is added to the
        /// pending word.
        Up = 3,
        /// Create a protection domain: `rdi` destination, `rsi` PD that gives the quota
        /// (`PD_CREATE`), `rdx` quota in pages, `r10` highest priority of scheduling contexts in
        /// it, `r8` semaphore of its supervisor (`SM_UP`; 0: that of the PD in `rsi`).
        CreatePd = 4,
        /// Create an execution context: `rdi` destination, `rsi` PD (`PD_CREATE`), `rdx` UTCB
        /// address, `r10` stack pointer, `r8` entry point (global only); CPU number; second
        /// selector: event base. Flag [`EC_GLOBAL`] makes it one that gets a scheduling context of
        /// its own, otherwise it serves portals; flag [`EC_FPU`] lets it use the FPU.
        CreateEc = 5,
        /// Create a vCPU: `rdi` destination, `rsi` PD (`PD_CREATE`), `rdx` guest space
        /// (`GUEST_BIND`); CPU number; second selector: event base.
        CreateVcpu = 6,
        /// Create a scheduling context: `rdi` destination, `rsi` PD (`PD_CREATE`), `rdx` EC or
        /// vCPU (`EC_BIND_SC`), `r10` priority (0 to 127), `r8` budget in TSC ticks. The EC
        /// becomes runnable.
        CreateSc = 7,
        /// Create a portal: `rdi` destination, `rsi` PD (`PD_CREATE`), `rdx` EC that handles it
        /// (`EC_BIND_PT`), `r10` entry point, `r8` id. Its MTD is empty.
        CreatePt = 8,
        /// Create a semaphore: `rdi` destination, `rsi` PD (`PD_CREATE`), `rdx` initial count.
        CreateSm = 9,
        /// Create a guest space: `rdi` destination, `rsi` PD (`PD_CREATE`).
        CreateGuest = 10,
        /// Delegate capabilities: `rdi` destination PD (`PD_DELEGATE`) or, for memory, guest space
        /// (`GUEST_MAP`), `rsi` [`crate::cap::Range`], `rdx` first unit in the caller's space,
        /// `r10` first unit in the destination, `r8` badge for a semaphore capability.
        Delegate = 11,
        /// Revoke what was delegated from a range of the caller's space: `rdi`
        /// [`crate::cap::Range`] whose rights are taken away, `rsi` first unit.
        Revoke = 12,
        /// Ask what the caller holds: `rdi` [`crate::cap::Range`] (space only), `rsi` unit. Out:
        /// `rsi` [`crate::cap::Held`], `rdx` first unit of the range (badge for a semaphore).
        Query = 13,
        /// Control an EC or vCPU: `rdi` EC (`EC_CTRL`), operation in flags ([`EcOp`]).
        CtrlEc = 14,
        /// Read a scheduling context's consumed time: `rdi` SC (`SC_CTRL`). Out: `rsi` TSC ticks.
        CtrlSc = 15,
        /// Set id and MTD of a portal: `rdi` portal (`PT_CTRL`), `rsi` id, `rdx` MTD.
        CtrlPt = 16,
        /// Account of a PD: `rdi` PD (`PD_CTRL`), `rsi` pages to move to it, `rdx` PD they come
        /// from (`PD_CREATE`; 0: none, only read). Out: `rsi` pages in use, `rdx` limit.
        CtrlPd = 17,
        /// Interrupt: `rdi` interrupt (`INT_ACK` to acknowledge, else `INT_BIND`), operation in
        /// flags ([`InterruptOp`]); bind: CPU number, `rsi` semaphore (`SM_BIND`), `rdx` badge,
        /// `r10` trigger ([`TRIGGER_LEVEL`], [`POLARITY_LOW`],
        /// [`MESSAGE_SIGNALLED`]). Out for message-signalled: `rsi` address, `rdx` data.
        CtrlInterrupt = 18,
    }
}

/// `Down`: set the counter to zero instead of decrementing it.
pub const DOWN_ZERO: u8 = 1;

/// `CreateEc`: the EC is global.
pub const EC_GLOBAL: u8 = 1;
/// `CreateEc`: the EC uses x87, SSE or whatever else XSAVE covers here. Its state is kept.
pub const EC_FPU: u8 = 2;

/// `CtrlInterrupt`: level-triggered, masked from delivery until acknowledged.
pub const TRIGGER_LEVEL: u64 = 1;
/// `CtrlInterrupt`: active low.
pub const POLARITY_LOW: u64 = 2;
/// `CtrlInterrupt`: message-signalled; the results are what to write into the device.
pub const MESSAGE_SIGNALLED: u64 = 4;

numbered! {
    /// Operations of `CtrlEc`.
    pub enum EcOp: u8 {
        /// Force the EC or vCPU to its recall event as soon as it would run user or guest code.
        Recall = 0,
        /// Copy the groups of MTD `rsi` of a vCPU into the caller's UTCB.
        GetState = 1,
        /// Take the groups of MTD `rsi` from the caller's UTCB into a vCPU.
        SetState = 2,
        /// How often a vCPU exited: `rsi` number of the [`crate::event::Exit`]. Out: `rsi` the
        /// count.
        Exits = 3,
    }
}

numbered! {
    /// Operations of `CtrlInterrupt`.
    pub enum InterruptOp: u8 {
        /// Bind to a semaphore and unmask.
        Bind = 0,
        /// Acknowledge: a level-triggered interrupt may come again.
        Ack = 1,
        /// Mask and unbind.
        Unbind = 2,
    }
}

/// The word that goes into `rax`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Number(pub u64);

impl Number {
    /// A call without flags.
    #[inline]
    #[must_use]
    pub const fn new(call: Call) -> Self {
        Self(call as u64)
    }

    /// With flags or an operation.
    #[inline]
    #[must_use]
    pub const fn flags(self, flags: u8) -> Self {
        Self(self.0 | (flags as u64) << 8)
    }

    /// With a CPU number.
    #[inline]
    #[must_use]
    pub const fn cpu(self, cpu: u16) -> Self {
        Self(self.0 | (cpu as u64) << 16)
    }

    /// With a second selector.
    #[inline]
    #[must_use]
    pub const fn selector(self, selector: u32) -> Self {
        Self(self.0 | (selector as u64) << 32)
    }

    /// The call; `None` where the number names none.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 0..8")]
    pub const fn call(self) -> Option<Call> {
        Call::from_number(self.0 as u8)
    }

    /// Flags.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 8..16")]
    pub const fn get_flags(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// CPU number.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 16..32")]
    pub const fn get_cpu(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Second selector.
    #[inline]
    #[must_use]
    pub const fn get_selector(self) -> u64 {
        self.0 >> 32
    }
}
