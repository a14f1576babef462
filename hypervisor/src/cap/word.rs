//! An object capability in one word.

use core::ptr::NonNull;

use ipc::cap::{ObjectType, Rights};

use crate::num::{low16, usize_of};

/// Rights in bits 0..8, type in 8..16, the low 48 bits of the pointer in 16..64: one arithmetic
/// shift gives the pointer. Zero is an empty selector.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(transparent)]
pub(super) struct CapWord(pub(super) u64);

const TYPE: u32 = 8;
const POINTER: u32 = 16;

impl CapWord {
    /// A capability for the object at an address whose provenance is exposed.
    pub(super) fn new(object: u64, ty: ObjectType, rights: Rights) -> Self {
        Self(object << POINTER | (ty as u64) << TYPE | u64::from(rights.bits()))
    }

    /// The object, where the capability is for one of type `ty` and has all of `rights`.
    #[inline(always)]
    pub(super) fn select(self, ty: ObjectType, rights: Rights) -> Option<NonNull<()>> {
        let rights = u16::from(rights.bits());
        if low16(self.0) & (0xff00 | rights) != (ty as u16) << TYPE | rights {
            return None;
        }
        // Kernel addresses are sign extended from bit 47.
        let addr = usize_of((self.0.cast_signed() >> POINTER).cast_unsigned());
        // SAFETY: a word with a type other than `Null` was made from a pointer; for `Null` nobody
        // asks.
        Some(unsafe { NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut(addr)) })
    }
}
