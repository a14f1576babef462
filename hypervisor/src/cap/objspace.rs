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
static EMPTY: Leaf = Leaf(
    [const {
        Slot {
            cap: AtomicU64::new(0),
            badge: AtomicU64::new(0),
            node: Cell::new(None),
            used: Cell::new(0),
            spare: AtomicU64::new(0),
        }
    }; LEAF_SLOTS],
);

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
        let root = account.alloc_page(frames)?.cast::<Root>();
        // SAFETY: a fresh zeroed page is a root of null pointers.
        for entry in unsafe { &root.as_ref().0 } {
            entry.store((&raw const EMPTY).cast_mut(), Ordering::Relaxed);
        }
        Ok(Self { root })
    }

    #[inline(always)]
    fn slot(&self, selector: u64) -> Option<&Slot> {
        if selector >= Selector::COUNT {
            return None;
        }
        // SAFETY: the root lives as long as the space, and no entry is null; a leaf, once
        // unlinked, stays allocated until all CPUs have left the kernel.
        let leaf = unsafe {
            let entry = self.root.as_ref().0.get(usize_of(selector >> LEAF_SHIFT))?;
            // Acquire: a new leaf is seen empty or later.
            let leaf = entry.load(Ordering::Acquire);
            core::hint::assert_unchecked(!leaf.is_null());
            &*leaf
        };
        leaf.0.get(usize_of(selector) & (LEAF_SLOTS - 1))
    }

    /// The object at a selector, where it is of type `ty` and all of `rights` are held.
    ///
    /// The object stays valid until the CPU leaves the kernel (or, under the kernel lock, until
    /// the lock is released).
    #[inline(always)]
    #[must_use]
    pub fn lookup_raw(&self, selector: u64, ty: ObjectType, rights: Rights) -> Option<NonNull<()>> {
        // Acquire: pairs with the release in `insert`; the object is seen initialised.
        CapWord(self.slot(selector)?.cap.load(Ordering::Acquire)).select(ty, rights)
    }

    /// The object at a selector.
    ///
    /// # Errors
    /// `BadCap` where the selector is empty, out of range or names something else, `BadRight`.
    #[inline(always)]
    pub fn lookup<T: Object>(&self, selector: u64, rights: Rights) -> Result<&T, Status> {
        match self.lookup_raw(selector, T::TYPE, rights) {
            // SAFETY: the type was compared, so this is a `T` (see `Object`); it is valid as
            // long as `lookup_raw` says, and nobody holds `self` for longer.
            Some(object) => Ok(unsafe { object.cast().as_ref() }),
            None => Err(self.refusal(selector, T::TYPE)),
        }
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
        if let Some(slot) = self.slot(selector) {
            let word = CapWord(slot.cap.load(Ordering::Acquire));
            if let Some(object) = word.select(T::TYPE, rights) {
                // SAFETY: as in `lookup`.
                return Ok((unsafe { object.cast().as_ref() }, slot.badge.load(Ordering::Relaxed)));
            }
        }
        Err(self.refusal(selector, T::TYPE))
    }

    /// Capability and badge at a selector; empty where it is out of range.
    #[must_use]
    pub fn get(&self, selector: u64) -> (CapWord, u64) {
        self.slot(selector).map_or((CapWord::EMPTY, 0), |slot| {
            (CapWord(slot.cap.load(Ordering::Acquire)), slot.badge.load(Ordering::Relaxed))
        })
    }

    /// Why a lookup failed.
    #[cold]
    fn refusal(&self, selector: u64, ty: ObjectType) -> Status {
        match self.lookup_raw(selector, ty, Rights::empty()) {
            Some(_) => Status::BadRight,
            None => Status::BadCap,
        }
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
        let leaf = self.leaf_for(frames, account, node.base)?;
        let index = usize_of(node.base) & (LEAF_SLOTS - 1);
        if let (Some(slot), Some(first)) = (leaf.0.get(index), leaf.0.first()) {
            first.used.set(first.used.get() + 1);
            slot.node.set(Some(node));
            slot.badge.store(node.badge(), Ordering::Relaxed);
            // Release: whoever finds the word finds badge and object.
            slot.cap.store(node.word().0, Ordering::Release);
        }
        Ok(())
    }

    /// Writes the word of a node anew, after its rights have changed.
    pub(super) fn update(&self, node: Handle) {
        if let Some(slot) = self.slot(node.base) {
            slot.cap.store(node.word().0, Ordering::Release);
        }
    }

    /// Empties a slot that is in use. Its leaf goes to `out` where it was the last one.
    pub(super) fn remove(&self, account: &Account, selector: u64, out: &mut PageList) {
        let Some(slot) = self.slot(selector) else {
            return;
        };
        slot.cap.store(0, Ordering::Release);
        slot.badge.store(0, Ordering::Relaxed);
        slot.node.set(None);
        let Some(entry) = self.entry(selector) else {
            return;
        };
        // SAFETY: pointers in the root lead to leaves.
        let leaf = unsafe { &*entry.load(Ordering::Relaxed) };
        let Some(first) = leaf.0.first() else { return };
        first.used.set(first.used.get() - 1);
        if first.used.get() == 0 {
            entry.store((&raw const EMPTY).cast_mut(), Ordering::Release);
            out.push(NonNull::from(leaf).cast(), account);
        }
    }

    /// Every node at or after a selector, in order.
    pub(super) fn nodes(&self, from: u64) -> impl Iterator<Item = Handle> {
        let leaves = (from >> LEAF_SHIFT)..(Selector::COUNT >> LEAF_SHIFT);
        let present = leaves.filter(|leaf| {
            let entry = self.entry(leaf << LEAF_SHIFT);
            entry.is_some_and(|e| !core::ptr::eq(e.load(Ordering::Relaxed), &raw const EMPTY))
        });
        present
            .flat_map(|leaf| (leaf << LEAF_SHIFT)..(leaf + 1) << LEAF_SHIFT)
            .filter(move |&selector| selector >= from)
            .filter_map(|selector| self.node(selector))
    }

    fn entry(&self, selector: u64) -> Option<&AtomicPtr<Leaf>> {
        // SAFETY: the root lives as long as the space.
        unsafe { self.root.as_ref() }.0.get(usize_of(selector >> LEAF_SHIFT))
    }

    fn leaf_for(
        &self,
        frames: &mut Frames,
        account: &Account,
        selector: u64,
    ) -> Result<&Leaf, Status> {
        let entry = self.entry(selector).ok_or(Status::BadCap)?;
        let mut leaf = entry.load(Ordering::Relaxed);
        if core::ptr::eq(leaf, &raw const EMPTY) {
            leaf = account.alloc_page(frames)?.cast::<Leaf>().as_ptr();
            // Release: the page is seen zeroed.
            entry.store(leaf, Ordering::Release);
        }
        // SAFETY: pointers in the root lead to leaves; a zeroed page is an empty one.
        Ok(unsafe { &*leaf })
    }

    /// Checks that slots and nodes agree and leaves are counted.
    ///
    /// # Errors
    /// What is wrong.
    pub(super) fn check(&self) -> Result<(), &'static str> {
        for first in (0..Selector::COUNT).step_by(LEAF_SLOTS) {
            let entry = self.entry(first).map(|e| e.load(Ordering::Relaxed).cast_const());
            if entry == Some(&raw const EMPTY) {
                continue;
            }
            let mut used = 0;
            for selector in first..first + (LEAF_SLOTS as u64) {
                let Some(slot) = self.slot(selector) else {
                    continue;
                };
                let (word, badge) = self.get(selector);
                match slot.node.get() {
                    Some(node) if node.base != selector => return Err("slot of another selector"),
                    Some(node) if node.word() != word || node.badge() != badge => {
                        return Err("slot differs from its node");
                    }
                    Some(_) => used += 1,
                    None if !word.is_empty() => return Err("capability without a node"),
                    None => {}
                }
            }
            let counted = self.slot(first).map_or(0, |slot| slot.used.get());
            if counted != used || used == 0 {
                return Err("leaf with a wrong count");
            }
        }
        Ok(())
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
