//! Pointers to shared kernel structures, and lists of them.

use core::cell::Cell;
use core::iter::successors;
use core::marker::PhantomData;
use core::ops::Deref;
use core::ptr::NonNull;

/// A pointer to a kernel object, or to something else that lives in kernel memory.
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

/// Neighbours in a list.
pub struct Link<T> {
    next: Cell<Option<Obj<T>>>,
    prev: Cell<Option<Obj<T>>>,
}

impl<T> Default for Link<T> {
    fn default() -> Self {
        Self { next: Cell::new(None), prev: Cell::new(None) }
    }
}

/// Can stand in a list that an `Owner` keeps, one at a time.
pub trait Linked<Owner>: Sized {
    /// Its place there.
    fn link(&self) -> &Link<Self>;
}

/// Says which field is the [`Link`] for the list of an owner.
#[macro_export]
macro_rules! linked {
    ($($owner:ty => $item:ty, $field:ident;)+) => {$(
        impl $crate::shared::Linked<$owner> for $item {
            fn link(&self) -> &$crate::shared::Link<Self> {
                &self.$field
            }
        }
    )+};
}

/// A list of `T` that an `Owner` keeps, linked through its items.
pub struct List<T, Owner> {
    head: Cell<Option<Obj<T>>>,
    tail: Cell<Option<Obj<T>>>,
    owner: PhantomData<Owner>,
}

impl<T, Owner> Default for List<T, Owner> {
    fn default() -> Self {
        Self { head: Cell::new(None), tail: Cell::new(None), owner: PhantomData }
    }
}

impl<T: Linked<Owner>, Owner> List<T, Owner> {
    /// Whether nothing is in it.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        self.head.get().is_none()
    }

    /// The first one.
    #[inline(always)]
    pub fn first(&self) -> Option<Obj<T>> {
        self.head.get()
    }

    /// All in order. The one that came last may be removed meanwhile, but nothing else.
    pub fn iter(&self) -> impl Iterator<Item = Obj<T>> {
        successors(self.first(), |item| item.link().next.get())
    }

    /// Appends.
    pub fn push_back(&self, item: Obj<T>) {
        self.insert(item, None);
    }

    /// Prepends.
    pub fn push_front(&self, item: Obj<T>) {
        self.insert(item, self.first());
    }

    /// Puts an item before another one of the list, or at the end.
    pub fn insert(&self, item: Obj<T>, next: Option<Obj<T>>) {
        let back = next.as_ref().map_or(&self.tail, |next| &next.link().prev);
        let prev = back.replace(Some(item));
        prev.as_ref().map_or(&self.head, |prev| &prev.link().next).set(Some(item));
        item.link().next.set(next);
        item.link().prev.set(prev);
    }

    /// Takes one out that is in this list.
    pub fn remove(&self, item: Obj<T>) {
        let (next, prev) = (item.link().next.take(), item.link().prev.take());
        next.as_ref().map_or(&self.tail, |next| &next.link().prev).set(prev);
        prev.as_ref().map_or(&self.head, |prev| &prev.link().next).set(next);
    }

    /// Takes the first one out.
    pub fn pop_front(&self) -> Option<Obj<T>> {
        let item = self.first()?;
        self.remove(item);
        Some(item)
    }
}
