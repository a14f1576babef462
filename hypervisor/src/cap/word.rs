//! An object capability in one word.

use core::ptr::NonNull;

use ipc::cap::{ObjectType, Rights};

use crate::num::{low8, low16, u64_of, usize_of};

/// Rights in bits 0..8, type in 8..16, the low 48 bits of the pointer in 16..64: one arithmetic
/// shift gives the pointer. Zero is an empty selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub struct CapWord(pub(super) u64);

const TYPE: u32 = 8;
const POINTER: u32 = 16;

impl CapWord {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// A capability for an object.
    #[must_use]
    pub fn new(object: NonNull<()>, ty: ObjectType, rights: Rights) -> Self {
        let addr = u64_of(object.as_ptr().expose_provenance());
        Self(addr << POINTER | (ty as u64) << TYPE | u64::from(rights.bits()))
    }

    /// Whether the selector is empty.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The type of the object.
    #[inline]
    #[must_use]
    pub const fn object_type(self) -> ObjectType {
        match ObjectType::from_number(low8(self.0 >> TYPE)) {
            Some(ty) => ty,
            None => ObjectType::Null,
        }
    }

    /// The rights.
    #[inline]
    #[must_use]
    pub const fn rights(self) -> Rights {
        Rights::from_bits_retain(low8(self.0))
    }

    /// The object, where there is one.
    #[inline]
    #[must_use]
    pub fn object(self) -> Option<NonNull<()>> {
        NonNull::new(self.pointer())
    }

    /// The object, where the capability is for one of type `ty` and has all of `rights`.
    #[inline(always)]
    #[must_use]
    pub fn select(self, ty: ObjectType, rights: Rights) -> Option<NonNull<()>> {
        let rights = u16::from(rights.bits());
        if low16(self.0) & (0xff00 | rights) != (ty as u16) << TYPE | rights {
            return None;
        }
        // SAFETY: a word with a type other than `Null` was made from a pointer by `new`; for
        // `Null` nobody asks.
        Some(unsafe { NonNull::new_unchecked(self.pointer()) })
    }

    #[inline(always)]
    fn pointer(self) -> *mut () {
        // Kernel addresses are sign extended from bit 47.
        let addr = (self.0.cast_signed() >> POINTER).cast_unsigned();
        core::ptr::with_exposed_provenance_mut(usize_of(addr))
    }
}
