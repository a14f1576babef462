//! Kernel objects, one file each.
//!
//! Objects live in slab memory charged to a protection domain and are shared through [`Obj`].
//! Who may touch which field is stated at the field: most belong to the CPU that the object is
//! bound to, some to the holder of the kernel lock or of the object's own lock.

pub mod create;
pub mod ec;
pub mod interrupt;
pub mod pd;
pub mod pt;
pub mod sc;
pub mod sm;
pub mod vcpu;

use core::ops::Deref;
use core::ptr::NonNull;

/// A pointer to a kernel object.
///
/// It stays valid while the CPU remains in the kernel, because memory of destroyed objects is
/// freed only after every CPU has left it (see [`crate::sync::rendezvous`]); and it stays valid
/// across kernel exits while the object's `uses` count accounts for it or the object is unlinked
/// from where the pointer is kept before it is destroyed.
pub struct Obj<T>(NonNull<T>);

impl<T> Obj<T> {
    /// Wraps a pointer.
    ///
    /// # Safety
    /// The rules above hold for wherever the value is kept.
    #[inline(always)]
    pub const unsafe fn new(pointer: NonNull<T>) -> Self {
        Self(pointer)
    }

    /// From a reference that was found by a capability lookup.
    #[inline(always)]
    pub const fn of(object: &T) -> Self {
        Self(NonNull::from_ref(object))
    }

    /// The pointer.
    #[inline(always)]
    pub const fn pointer(self) -> NonNull<T> {
        self.0
    }
}

impl<T> Clone for Obj<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Obj<T> {}

impl<T> PartialEq for Obj<T> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Obj<T> {}

impl<T> Deref for Obj<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: the contract of `Obj::new` says that the object is alive.
        unsafe { self.0.as_ref() }
    }
}

impl<T> core::fmt::Debug for Obj<T> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:p}", self.0)
    }
}
