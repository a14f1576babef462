//! Kernel memory of a protection domain: its quota, and small objects cut from its pages.
//!
//! Objects come from size classes (powers of two from 64 to 2048 bytes). A slab page starts with
//! a header that names the account and the class, so that an object is freed by its pointer
//! alone; a page whose last object goes returns to the pool at once.

use core::cell::Cell;
use core::ptr::NonNull;

use ipc::status::Status;

use super::frames::Frames;
use super::pool::{PAGE_SIZE, Page};
use crate::num::usize_of;

/// Sizes 64 << 0 to 64 << 5.
const CLASSES: usize = 6;
const MIN_SIZE: usize = 64;

/// Kernel-memory account of a protection domain, in pages.
///
/// Its address must not change while objects from [`Self::alloc`] exist. It is used under the
/// kernel lock only: everything that changes it takes `&mut Frames`, or is documented so.
#[derive(Default)]
pub struct Account {
    limit: Cell<u64>,
    used: Cell<u64>,
    /// Slab pages with a free slot, by class.
    partial: [Cell<Option<NonNull<Slab>>>; CLASSES],
}

/// Header of a slab page; takes the place of its first object or of part of it.
#[repr(C, align(64))]
struct Slab {
    account: NonNull<Account>,
    next: Cell<Option<NonNull<Self>>>,
    prev: Cell<Option<NonNull<Self>>>,
    free: Cell<Option<NonNull<FreeSlot>>>,
    /// Slots in use.
    used: Cell<u16>,
    class: u8,
}

struct FreeSlot {
    next: Option<NonNull<Self>>,
}

impl Account {
    /// An account of `limit` pages. The root account gets all free pages of the pool; others are
    /// split from an existing one.
    pub const fn new(limit: u64) -> Self {
        Self {
            limit: Cell::new(limit),
            used: Cell::new(0),
            partial: [const { Cell::new(None) }; CLASSES],
        }
    }

    /// Pages that it may use.
    pub fn limit(&self) -> u64 {
        self.limit.get()
    }

    /// Pages that it uses.
    pub fn used(&self) -> u64 {
        self.used.get()
    }

    /// Moves `pages` of the quota to another account. Caller holds the kernel lock.
    ///
    /// # Errors
    /// `Quota` where fewer are unused.
    pub fn transfer(&self, to: &Self, pages: u64) -> Result<(), Status> {
        if pages > self.unused() {
            return Err(Status::Quota);
        }
        self.limit.set(self.limit.get() - pages);
        to.limit.set(to.limit.get() + pages);
        Ok(())
    }

    /// Moves all quota that is not in use to another account: what a dying domain gives back.
    pub fn surrender(&self, to: &Self) {
        to.limit.set(to.limit.get() + self.unused());
        self.limit.set(self.used.get());
    }

    fn unused(&self) -> u64 {
        self.limit.get() - self.used.get()
    }

    /// A zeroed page.
    ///
    /// # Errors
    /// `Quota`.
    pub fn alloc_page(&self, frames: &mut Frames) -> Result<NonNull<Page>, Status> {
        self.alloc_run(frames, 0)
    }

    /// A zeroed, naturally aligned run of `2^order` pages, order at most
    /// [`super::frames::MAX_ORDER`].
    ///
    /// # Errors
    /// `Quota`, also where the pool is too fragmented.
    pub fn alloc_run(&self, frames: &mut Frames, order: u8) -> Result<NonNull<Page>, Status> {
        frames.admit()?;
        self.take(frames, order)
    }

    /// Gives a page back.
    ///
    /// # Safety
    /// The page is charged to this account and nobody uses it any more.
    pub unsafe fn free_page(&self, frames: &mut Frames, page: NonNull<Page>) {
        // SAFETY: the caller's promise, for a run of one page.
        unsafe { self.free_run(frames, page, 0) };
    }

    /// Gives a run back.
    ///
    /// # Safety
    /// The run is charged to this account and nobody uses it any more.
    pub unsafe fn free_run(&self, frames: &mut Frames, run: NonNull<Page>, order: u8) {
        // SAFETY: pages charged to an account came from `frames`; the rest is promised.
        unsafe { frames.free(run, order) };
        self.used.set(self.used.get() - (1 << order));
    }

    /// Allocates an object of at most 2048 bytes. Its address is a multiple of its size rounded
    /// up to a power of two (at least 64).
    ///
    /// # Errors
    /// `Quota`; `value` is dropped.
    pub fn alloc<T>(&self, frames: &mut Frames, value: T) -> Result<NonNull<T>, Status> {
        const {
            assert!(size_of::<T>() <= MIN_SIZE << (CLASSES - 1));
            assert!(align_of::<T>() <= MIN_SIZE << (CLASSES - 1));
        }
        frames.admit()?;
        let slot = self.slot(frames, class_of::<T>())?.cast::<T>();
        // SAFETY: the slot is free, large enough and aligned for its class.
        unsafe { slot.write(value) };
        Ok(slot)
    }

    /// Drops an object from [`Self::alloc`] and returns its memory, whichever account it is
    /// charged to.
    ///
    /// # Safety
    /// `object` came from [`Self::alloc`], its account still exists, and nobody uses the object
    /// any more.
    pub unsafe fn free<T>(frames: &mut Frames, object: NonNull<T>) {
        // SAFETY: the object is valid and this is its last use; its page is a slab page, whose
        // header and account are valid.
        let (slab, account) = unsafe {
            object.drop_in_place();
            let slab = slab_of(object);
            (slab, slab.as_ref().account.as_ref())
        };
        account.put(frames, slab, object.cast());
    }

    fn take(&self, frames: &mut Frames, order: u8) -> Result<NonNull<Page>, Status> {
        if 1 << order > self.unused() {
            return Err(Status::Quota);
        }
        let run = frames.alloc(order).ok_or(Status::Quota)?;
        self.used.set(self.used.get() + (1 << order));
        Ok(run)
    }

    fn slot(&self, frames: &mut Frames, class: u8) -> Result<NonNull<FreeSlot>, Status> {
        let page = match self.list(class).get() {
            Some(page) => page,
            None => self.grow(frames, class)?,
        };
        // SAFETY: pages in the list are slab pages of this account.
        let slab = unsafe { page.as_ref() };
        // Pages without a free slot are not in the list.
        let slot = slab.free.get().ok_or(Status::Quota)?;
        // SAFETY: a free slot holds its link.
        slab.free.set(unsafe { slot.as_ref() }.next);
        slab.used.set(slab.used.get() + 1);
        if slab.free.get().is_none() {
            self.unlink(page);
        }
        Ok(slot)
    }

    fn put(&self, frames: &mut Frames, page: NonNull<Slab>, slot: NonNull<FreeSlot>) {
        // SAFETY: the caller found the header from an object of this account.
        let slab = unsafe { page.as_ref() };
        let next = slab.free.replace(Some(slot));
        // SAFETY: the slot's object is gone; every slot has room for the link.
        unsafe { slot.write(FreeSlot { next }) };
        if next.is_none() {
            self.link(page);
        }
        slab.used.set(slab.used.get() - 1);
        if slab.used.get() == 0 {
            self.unlink(page);
            // SAFETY: no object is left in the page, and it is in no list.
            unsafe { self.free_page(frames, page.cast()) };
        }
    }

    /// Adds a slab page without objects.
    fn grow(&self, frames: &mut Frames, class: u8) -> Result<NonNull<Slab>, Status> {
        let page = self.take(frames, 0)?.cast::<Slab>();
        let mut free = None;
        // The header takes the first slot, of whatever size.
        for slot in (1..usize_of(PAGE_SIZE) / size_of_class(class)).rev() {
            // SAFETY: slots lie in the page, which nobody else uses, and have room for the link.
            free = Some(unsafe {
                let slot = page.byte_add(slot * size_of_class(class)).cast();
                slot.write(FreeSlot { next: free });
                slot
            });
        }
        let slab = Slab {
            account: NonNull::from(self),
            next: Cell::new(None),
            prev: Cell::new(None),
            free: Cell::new(free),
            used: Cell::new(0),
            class,
        };
        // SAFETY: the page is fresh and larger than the header.
        unsafe { page.write(slab) };
        self.link(page);
        Ok(page)
    }

    fn list(&self, class: u8) -> &Cell<Option<NonNull<Slab>>> {
        let index = usize::from(class).min(CLASSES - 1);
        // SAFETY: the index was limited to the length.
        unsafe { self.partial.get_unchecked(index) }
    }

    fn link(&self, page: NonNull<Slab>) {
        // SAFETY: slab pages of this account are valid, here and for `next`.
        let slab = unsafe { page.as_ref() };
        let list = self.list(slab.class);
        let next = list.replace(Some(page));
        slab.next.set(next);
        slab.prev.set(None);
        if let Some(next) = next {
            // SAFETY: see above.
            unsafe { next.as_ref() }.prev.set(Some(page));
        }
    }

    fn unlink(&self, page: NonNull<Slab>) {
        // SAFETY: slab pages of this account are valid, here and for the neighbours.
        let slab = unsafe { page.as_ref() };
        let (next, prev) = (slab.next.get(), slab.prev.get());
        if let Some(next) = next {
            // SAFETY: see above.
            unsafe { next.as_ref() }.prev.set(prev);
        }
        match prev {
            // SAFETY: see above.
            Some(prev) => unsafe { prev.as_ref() }.next.set(next),
            None => self.list(slab.class).set(next),
        }
    }
}

/// Header of the slab page that an object is in.
fn slab_of<T>(object: NonNull<T>) -> NonNull<Slab> {
    let page = object.addr().get() & !(usize_of(PAGE_SIZE) - 1);
    let header = object.as_ptr().with_addr(page).cast();
    // SAFETY: no slab page is at address 0.
    unsafe { NonNull::new_unchecked(header) }
}

const fn class_of<T>() -> u8 {
    let size = if size_of::<T>() > align_of::<T>() { size_of::<T>() } else { align_of::<T>() };
    let mut class = 0;
    while MIN_SIZE << class < size {
        class += 1;
    }
    class
}

const fn size_of_class(class: u8) -> usize {
    MIN_SIZE << class
}

const _: () = assert!(size_of::<Slab>() <= MIN_SIZE);

#[cfg(test)]
mod tests;
