//! Qualification of a vCPU exit, the same on every vendor.
//!
//! The kernel writes the three words of [`crate::state::State::qualification`]; a VMM reads them
//! back through the types here. Words that an exit does not use are zero.
//!
//! | exit | word 0 | word 1 | word 2 |
//! |---|---|---|---|
//! | `Io` | [`Io`] | – | – |
//! | `MsrRead`, `MsrWrite` | MSR number | – | – |
//! | `Memory` | [`MemoryAccess`] flags | guest-physical address | – |
//! | `Exception` | vector, error code valid (bit 8), error code (32..64) | fault address | – |
//! | `ControlRegister` | register number, write (bit 8), GPR number (16..20) | – | – |
//! | `EntryFailed`, `Unknown` | raw vendor code | raw detail | raw detail |
//! | `EntryFailed` by the kernel | all ones | refused groups, an MTD; not zero | refused event |
//!
//! A host exception carries its vector and error code in word 0 like `Exception`, and the fault
//! address (CR2) in word 1.

use bitflags::bitflags;

/// Port access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Io {
    /// Port number.
    pub port: u16,
    /// Operand size in bytes: 1, 2 or 4.
    pub size: u8,
    /// IN or INS.
    pub input: bool,
    /// INS or OUTS.
    pub string: bool,
    /// With a REP prefix.
    pub rep: bool,
    /// Effective address size in bytes: 2, 4 or 8 (string forms); 0 where it is not known.
    pub address_size: u8,
}

impl Io {
    /// Packs: port 0..16, size 16..20, input 20, string 21, rep 22, address size 24..28.
    #[inline]
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.port)
            | u64::from(self.size & 0xf) << 16
            | u64::from(self.input) << 20
            | u64::from(self.string) << 21
            | u64::from(self.rep) << 22
            | u64::from(self.address_size & 0xf) << 24
    }

    /// The reverse of [`Self::to_word`].
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "fields are masked")]
    pub const fn from_word(word: u64) -> Self {
        Self {
            port: word as u16,
            size: (word >> 16) as u8 & 0xf,
            input: word & 1 << 20 != 0,
            string: word & 1 << 21 != 0,
            rep: word & 1 << 22 != 0,
            address_size: (word >> 24) as u8 & 0xf,
        }
    }
}

bitflags! {
    /// What a guest-physical access that exited was.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct MemoryAccess: u64 {
        /// It was a read.
        const READ = 1 << 0;
        /// It was a write.
        const WRITE = 1 << 1;
        /// It was an instruction fetch.
        const FETCH = 1 << 2;
        /// The address is mapped, but not with this right.
        const MAPPED = 1 << 3;
        /// The access was to a page table of the guest during its own walk.
        const PAGE_WALK = 1 << 4;
    }
}

/// An exception: vector and error code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exception {
    /// Vector, 0 to 31.
    pub vector: u8,
    /// Error code, where the exception has one.
    pub error: Option<u32>,
}

impl Exception {
    /// Packs: vector 0..8, error valid 8, error code 32..64.
    #[inline]
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.vector) | self.error.map_or(0, |e| 1 << 8 | u64::from(e) << 32)
    }

    /// The reverse of [`Self::to_word`].
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "fields are masked")]
    pub const fn from_word(word: u64) -> Self {
        let error = if word & 1 << 8 != 0 { Some((word >> 32) as u32) } else { None };
        Self { vector: word as u8, error }
    }
}

/// Access to a control register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRegister {
    /// 0, 2, 3, 4 or 8.
    pub register: u8,
    /// MOV to the register; otherwise from it.
    pub write: bool,
    /// General-purpose register by encoding number (rax 0 .. r15 15).
    pub gpr: u8,
}

impl ControlRegister {
    /// Packs: register 0..8, write 8, gpr 16..20.
    #[inline]
    #[must_use]
    pub fn to_word(self) -> u64 {
        u64::from(self.register) | u64::from(self.write) << 8 | u64::from(self.gpr & 0xf) << 16
    }

    /// The reverse of [`Self::to_word`].
    #[inline]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "fields are masked")]
    pub const fn from_word(word: u64) -> Self {
        Self { register: word as u8, write: word & 1 << 8 != 0, gpr: (word >> 16) as u8 & 0xf }
    }
}
