//! Event numbers: which portal an event goes to, as an offset from the event base.
//!
//! An execution context has an event base, a selector in the object space of its protection
//! domain. An exception of a host execution context is a call to the portal at event base +
//! vector; an exit of a vCPU is a call to the portal at event base + [`Exit`] number. The id of
//! the portal and its MTD are its creator's choice.

/// Selectors that a host execution context reserves at its event base.
pub const HOST_EVENTS: u64 = 32;

/// Event number of a recalled host execution context (no exception has this vector).
pub const HOST_RECALL: u8 = 31;

/// Selectors that a vCPU reserves at its event base.
pub const VCPU_EVENTS: u64 = 32;

numbered! {
    /// Why a vCPU stopped. The qualification in the UTCB is described in [`crate::exit`].
    pub enum Exit: u8 {
        /// An exit that has no neutral form; the qualification holds the raw vendor code.
        Unknown = 0,
        /// The state was not accepted; nothing of the guest ran. Where it was the processor that
        /// refused it, the state is now that after reset.
        EntryFailed = 1,
        /// The guest shut down (triple fault).
        Shutdown = 2,
        /// Somebody recalled the vCPU.
        Recall = 3,
        /// The deadline in the state has passed.
        Deadline = 4,
        /// The guest can take an interrupt now.
        InterruptWindow = 5,
        /// The guest can take an NMI now.
        NmiWindow = 6,
        /// An intercepted exception; the qualification holds vector and error code.
        Exception = 7,
        /// CPUID.
        Cpuid = 8,
        /// HLT.
        Hlt = 9,
        /// IN, OUT, INS or OUTS.
        Io = 10,
        /// RDMSR.
        MsrRead = 11,
        /// WRMSR.
        MsrWrite = 12,
        /// Access to guest-physical memory that is not mapped, or not with that right.
        Memory = 13,
        /// MOV to or from a control register that is intercepted.
        ControlRegister = 14,
        /// VMMCALL or VMCALL.
        Hypercall = 15,
        /// XSETBV.
        Xsetbv = 16,
        /// INVD or WBINVD.
        CacheControl = 17,
        /// An instruction of the virtualization extension, or one that the guest's CPU lacks:
        /// the VMM injects #UD.
        InvalidOpcode = 18,
        /// RDPMC.
        Rdpmc = 19,
        /// MONITOR or MWAIT.
        Monitor = 20,
        /// A task switch.
        TaskSwitch = 21,
        /// The vCPU runs for the first time; the VMM supplies its state.
        Startup = 22,
    }
}
