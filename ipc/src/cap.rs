//! Capabilities: selectors, object types, rights and delegation descriptors.

use bitflags::bitflags;

/// Index of a capability in the object space of a protection domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Selector(pub u64);

impl Selector {
    /// Number of selectors in an object space.
    pub const COUNT: u64 = 1 << 16;
    /// The selector that is always empty.
    pub const NULL: Self = Self(0);

    /// The selector `n` further on.
    #[inline]
    #[must_use]
    pub const fn offset(self, n: u64) -> Self {
        Self(self.0.wrapping_add(n))
    }
}

numbered! {
    /// What a capability in an object space names.
    pub enum ObjectType: u8 {
        /// An empty selector.
        Null = 0,
        /// Protection domain.
        Pd = 1,
        /// Execution context: a thread.
        Ec = 2,
        /// Execution context that runs a guest.
        Vcpu = 3,
        /// Scheduling context.
        Sc = 4,
        /// Portal.
        Pt = 5,
        /// Semaphore.
        Sm = 6,
        /// Guest space: the nested page table of a VM.
        Guest = 7,
        /// Interrupt: a GSI, or a vector for message-signalled interrupts.
        Interrupt = 8,
    }
}

bitflags! {
    /// Rights of an object capability. The meaning of a bit depends on the object type.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// PD: create objects in it that are charged to it, and take quota from it.
        const PD_CREATE = 1 << 0;
        /// PD: delegate capabilities into it.
        const PD_DELEGATE = 1 << 1;
        /// PD: read its account and give it quota.
        const PD_CTRL = 1 << 2;
        /// EC, vCPU: recall it, read and write its state.
        const EC_CTRL = 1 << 0;
        /// EC, vCPU: bind a scheduling context to it.
        const EC_BIND_SC = 1 << 1;
        /// EC: bind a portal to it.
        const EC_BIND_PT = 1 << 2;
        /// SC: read the time it consumed.
        const SC_CTRL = 1 << 0;
        /// PT: call it.
        const PT_CALL = 1 << 0;
        /// PT: change its id and MTD.
        const PT_CTRL = 1 << 1;
        /// PT: let events of an execution context be delivered through it.
        const PT_EVENT = 1 << 2;
        /// SM: signal it.
        const SM_UP = 1 << 0;
        /// SM: wait on it.
        const SM_DOWN = 1 << 1;
        /// SM: bind an interrupt to it.
        const SM_BIND = 1 << 2;
        /// Guest space: delegate memory into it.
        const GUEST_MAP = 1 << 0;
        /// Guest space: bind a vCPU to it.
        const GUEST_BIND = 1 << 1;
        /// Interrupt: bind it to a semaphore and configure it.
        const INT_BIND = 1 << 0;
        /// Interrupt: acknowledge it.
        const INT_ACK = 1 << 1;
    }
}

impl Rights {
    /// Every right there is.
    pub const FULL: Self = Self::from_bits_retain(0x1f);
}

bitflags! {
    /// Rights of a memory capability.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MemRights: u8 {
        /// Read.
        const READ = 1 << 0;
        /// Write.
        const WRITE = 1 << 1;
        /// Execute.
        const EXECUTE = 1 << 2;
    }
}

impl MemRights {
    /// Read and write.
    pub const RW: Self = Self::READ.union(Self::WRITE);
}

numbered! {
    /// The three spaces of a protection domain.
    pub enum Space: u8 {
        /// Object capabilities by selector.
        Object = 0,
        /// Memory by page number.
        Memory = 1,
        /// Ports by port number; the only right is access (bit 0).
        Port = 2,
    }
}

/// A range of capabilities and what to do with it, packed into one word.
///
/// | bits | field |
/// |---|---|
/// | 0..2 | [`Space`] |
/// | 2..8 | order: the range holds `2^order` units and is naturally aligned |
/// | 8..16 | rights mask |
/// | 16 | translate: do not delegate, name what the receiver already owns |
/// | 17 | include self: `Revoke` also takes the holder's own capability |
/// | 18 | write-combining: map device memory so instead of uncached |
///
/// Units are selectors, pages of 4096 bytes, or ports. Object ranges have order 0.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(transparent)]
pub struct Range(pub u64);

impl Range {
    const TRANSLATE: u64 = 1 << 16;
    const SELF: u64 = 1 << 17;
    const WRITE_COMBINING: u64 = 1 << 18;
    /// Bits with a meaning.
    pub const VALID: u64 = (1 << 19) - 1;

    /// `2^order` units of a space, with rights to be read as [`Rights`] or [`MemRights`].
    #[inline]
    #[must_use]
    pub const fn new(space: Space, order: u8, rights: u8) -> Self {
        Self(space as u64 | ((order as u64 & 0x3f) << 2) | ((rights as u64) << 8))
    }

    /// One object capability.
    #[inline]
    #[must_use]
    pub const fn object(rights: Rights) -> Self {
        Self::new(Space::Object, 0, rights.bits())
    }

    /// `2^order` pages of memory.
    #[inline]
    #[must_use]
    pub const fn memory(order: u8, rights: MemRights) -> Self {
        Self::new(Space::Memory, order, rights.bits())
    }

    /// `2^order` ports.
    #[inline]
    #[must_use]
    pub const fn port(order: u8) -> Self {
        Self::new(Space::Port, order, 1)
    }

    /// The same range, to be translated instead of delegated.
    #[inline]
    #[must_use]
    pub const fn translate(self) -> Self {
        Self(self.0 | Self::TRANSLATE)
    }

    /// The same range, the holder's own capability included.
    #[inline]
    #[must_use]
    pub const fn include_self(self) -> Self {
        Self(self.0 | Self::SELF)
    }

    /// The same range, mapped write-combining where it is device memory.
    #[inline]
    #[must_use]
    pub const fn write_combining(self) -> Self {
        Self(self.0 | Self::WRITE_COMBINING)
    }

    /// The space; `None` where the field has no meaning.
    #[inline]
    #[must_use]
    pub const fn space(self) -> Option<Space> {
        Space::from_number((self.0 & 3) as u8)
    }

    /// log2 of the number of units.
    #[inline]
    #[must_use]
    pub const fn order(self) -> u8 {
        (self.0 >> 2 & 0x3f) as u8
    }

    /// The rights mask, to be read as [`Rights`] or [`MemRights`].
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 8..16")]
    pub const fn rights(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Whether the item is to be translated.
    #[inline]
    #[must_use]
    pub const fn is_translate(self) -> bool {
        self.0 & Self::TRANSLATE != 0
    }

    /// Whether the holder's own capability is included.
    #[inline]
    #[must_use]
    pub const fn is_include_self(self) -> bool {
        self.0 & Self::SELF != 0
    }

    /// Whether write-combining was asked for.
    #[inline]
    #[must_use]
    pub const fn is_write_combining(self) -> bool {
        self.0 & Self::WRITE_COMBINING != 0
    }
}

impl core::fmt::Debug for Range {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Range")
            .field("space", &self.space())
            .field("order", &self.order())
            .field("rights", &self.rights())
            .field("flags", &(self.0 >> 16))
            .finish()
    }
}

/// Flags of the description word that `Query` returns: `type | rights << 8 | order << 16`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held(pub u64);

impl Held {
    /// Packs a description.
    #[inline]
    #[must_use]
    pub const fn new(object: ObjectType, rights: u8, order: u8) -> Self {
        Self(object as u64 | (rights as u64) << 8 | (order as u64) << 16)
    }

    /// Object type; for memory and ports [`ObjectType::Null`] where nothing is held.
    #[inline]
    #[must_use]
    pub const fn object(self) -> Option<ObjectType> {
        ObjectType::from_number((self.0 & 0xff) as u8)
    }

    /// Rights held.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 8..16")]
    pub const fn rights(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Order of the range that the capability covers.
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "the field is bits 16..24")]
    pub const fn order(self) -> u8 {
        (self.0 >> 16) as u8
    }
}
