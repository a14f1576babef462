//! Object spaces: from a selector to an object in a few instructions, without a lock.
//!
//! A page of 512 pointers leads to leaf pages of 128 slots. Where there is no leaf, the pointer
//! leads to one static empty leaf, so a lookup has no special case.

use core::cell::Cell;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use ipc::cap::{ObjectType, Rights, Selector};
use ipc::status::Status;

use super::header::Object;
use super::node::Handle;
use super::word::CapWord;
use crate::mem::account::Account;
use crate::mem::frames::{Frames, PageList};
use crate::num::usize_of;

const LEAF_SHIFT: u32 = 7;
const LEAF_SLOTS: usize = 1 << LEAF_SHIFT;
const ROOT_ENTRIES: usize = 512;

const _: () = assert!(Selector::COUNT == (ROOT_ENTRIES * LEAF_SLOTS) as u64);
const _: () = assert!(size_of::<Leaf>() == 4096 && size_of::<Root>() == 4096);

/// A selector. `cap` and `badge` are read without a lock; the rest is under the kernel lock.
#[repr(C)]
pub(super) struct Slot {
    cap: AtomicU64,
    badge: AtomicU64,
    node: Cell<Option<Handle>>,
    /// In the first slot of a leaf: how many are in use.
    used: Cell<u32>,
    /// Left to [`PageList`].
    spare: AtomicU64,
}

#[repr(C, align(4096))]
struct Leaf([Slot; LEAF_SLOTS]);

#[repr(C, align(4096))]
struct Root([AtomicPtr<Leaf>; ROOT_ENTRIES]);

// SAFETY: the cells of a leaf are used under the kernel lock only, those of `EMPTY` never change.
unsafe impl Sync for Leaf {}

/// Stands in for every leaf that does not exist. Never written.
// SAFETY: zeroes are a value of every field, that of an empty selector, as in a fresh page.
static EMPTY: Leaf = unsafe { core::mem::zeroed() };

/// The object space of a protection domain.
pub struct ObjectSpace {
    root: NonNull<Root>,
}

impl ObjectSpace {
    /// An empty space.
    ///
    /// # Errors
    /// `Quota`.
    pub fn new(frames: &mut Frames, account: &Account) -> Result<Self, Status> {
        let space = Self { root: account.alloc_page(frames)?.cast() };
        for entry in space.entries() {
            entry.store((&raw const EMPTY).cast_mut(), Ordering::Relaxed);
        }
        Ok(space)
    }

    #[inline(always)]
    fn slot(&self, selector: u64) -> Option<&Slot> {
        // Acquire: a new leaf is seen empty or later.
        let leaf = self.entry(selector)?.load(Ordering::Acquire);
        // SAFETY: no entry is null; a leaf, once unlinked, stays allocated until all CPUs have
        // left the kernel.
        let leaf = unsafe {
            core::hint::assert_unchecked(!leaf.is_null());
            &*leaf
        };
        leaf.0.get(usize_of(selector) & (LEAF_SLOTS - 1))
    }

    /// The object at a selector, and its slot.
    #[inline(always)]
    fn find<T: Object>(&self, selector: u64, rights: Rights) -> Result<(&T, &Slot), Status> {
        let slot = self.slot(selector);
        // Acquire: pairs with the release in `insert`; the object is seen initialised.
        let word = CapWord(slot.map_or(0, |slot| slot.cap.load(Ordering::Acquire)));
        if let Some(slot) = slot
            && let Some(object) = word.select(T::TYPE, rights)
        {
            // SAFETY: the type was compared, so this is a `T` (see `Object`); it is valid as
            // long as `lookup` says, and nobody holds `self` for longer.
            return Ok((unsafe { object.cast().as_ref() }, slot));
        }
        Err(refusal(word, T::TYPE))
    }

    /// The object at a selector. It stays valid until the CPU leaves the kernel (or, under the
    /// kernel lock, until the lock is released).
    ///
    /// # Errors
    /// `BadCap` where the selector is empty, out of range or names something else, `BadRight`.
    #[inline(always)]
    pub fn lookup<T: Object>(&self, selector: u64, rights: Rights) -> Result<&T, Status> {
        self.find(selector, rights).map(|(object, _)| object)
    }

    /// The object at a selector and the badge of the capability.
    ///
    /// # Errors
    /// As [`Self::lookup`].
    #[inline(always)]
    pub fn lookup_badged<T: Object>(
        &self,
        selector: u64,
        rights: Rights,
    ) -> Result<(&T, u64), Status> {
        let (object, slot) = self.find(selector, rights)?;
        Ok((object, slot.badge.load(Ordering::Relaxed)))
    }

    /// Whether something can be placed at a selector.
    ///
    /// # Errors
    /// `BadCap` where it is out of range or the null selector, `Exists`.
    pub fn check_vacant(&self, selector: u64) -> Result<(), Status> {
        match self.slot(selector) {
            None => Err(Status::BadCap),
            Some(_) if selector == Selector::NULL.0 => Err(Status::BadCap),
            Some(slot) if slot.node.get().is_some() => Err(Status::Exists),
            Some(_) => Ok(()),
        }
    }

    /// The node of the capability at a selector.
    pub(super) fn node(&self, selector: u64) -> Option<Handle> {
        self.slot(selector)?.node.get()
    }

    /// Fills a vacant slot.
    pub(super) fn insert(
        &self,
        frames: &mut Frames,
        account: &Account,
        node: Handle,
    ) -> Result<(), Status> {
        let entry = self.entry(node.base).ok_or(Status::BadCap)?;
        if is_empty(entry.load(Ordering::Relaxed)) {
            let leaf = account.alloc_page(frames)?;
            // Release: the page, which as a leaf is an empty one, is seen zeroed.
            entry.store(leaf.cast().as_ptr(), Ordering::Release);
        }
        self.count(node.base, 1);
        if let Some(slot) = self.slot(node.base) {
            slot.node.set(Some(node));
            slot.badge.store(node.badge(), Ordering::Relaxed);
        }
        self.update(node);
        Ok(())
    }

    /// Writes the word of a node, also after its rights have changed.
    pub(super) fn update(&self, node: Handle) {
        if let Some(slot) = self.slot(node.base) {
            // Release: whoever finds the word finds badge and object.
            slot.cap.store(node.word().0, Ordering::Release);
        }
    }

    /// Empties a slot that is in use. Its leaf goes to `out` where it was the last one.
    pub(super) fn remove(&self, account: &Account, selector: u64, out: &mut PageList) {
        let (Some(slot), Some(entry)) = (self.slot(selector), self.entry(selector)) else {
            return;
        };
        slot.cap.store(0, Ordering::Release);
        slot.badge.store(0, Ordering::Relaxed);
        slot.node.set(None);
        if self.count(selector, -1) == 0 {
            let leaf = entry.swap((&raw const EMPTY).cast_mut(), Ordering::Release);
            // SAFETY: pointers in the root lead to leaves.
            out.push(NonNull::from(unsafe { &*leaf }).cast(), account);
        }
    }

    /// Counts slots in use of the leaf of a selector. Returns how many there are now.
    fn count(&self, selector: u64, more: i32) -> u32 {
        let first = self.slot(selector & !(LEAF_SLOTS as u64 - 1));
        first.map_or(0, |slot| {
            slot.used.set(slot.used.get().wrapping_add_signed(more));
            slot.used.get()
        })
    }

    /// Every node, in order.
    pub(super) fn nodes(&self) -> impl Iterator<Item = Handle> {
        let leaves = self.entries().iter().map(|entry| entry.load(Ordering::Relaxed));
        leaves
            .filter(|leaf| !is_empty(*leaf))
            // SAFETY: pointers in the root lead to leaves.
            .flat_map(|leaf| unsafe { &(*leaf).0 })
            .filter_map(|slot| slot.node.get())
    }

    #[inline(always)]
    fn entries(&self) -> &[AtomicPtr<Leaf>; ROOT_ENTRIES] {
        // SAFETY: the root lives as long as the space.
        unsafe { &self.root.as_ref().0 }
    }

    #[inline(always)]
    fn entry(&self, selector: u64) -> Option<&AtomicPtr<Leaf>> {
        self.entries().get(usize_of(selector >> LEAF_SHIFT))
    }

    /// Frees the root page.
    ///
    /// # Safety
    /// The space is empty, no CPU looks anything up in it, and it is not used again.
    pub(super) unsafe fn destroy(&self, frames: &mut Frames, account: &Account) {
        // SAFETY: the root is charged to the account and, as promised, unused.
        unsafe { account.free_page(frames, self.root.cast()) };
    }
}

/// Why a lookup that found this failed.
#[cold]
fn refusal(word: CapWord, ty: ObjectType) -> Status {
    match word.select(ty, Rights::empty()) {
        Some(_) => Status::BadRight,
        None => Status::BadCap,
    }
}

fn is_empty(leaf: *const Leaf) -> bool {
    core::ptr::eq(leaf, &raw const EMPTY)
}

#[cfg(test)]
mod tests;
