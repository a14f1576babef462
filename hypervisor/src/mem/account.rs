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
use crate::linked;
use crate::num::usize_of;
use crate::shared::{Link, List, Obj};

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
    partial: [List<Slab, Self>; CLASSES],
}

/// Header of a slab page; takes the place of its first object or of part of it.
#[repr(C, align(64))]
struct Slab {
    account: NonNull<Account>,
    link: Link<Self>,
    free: Cell<Option<NonNull<FreeSlot>>>,
    /// Slots in use.
    used: Cell<u16>,
    class: u8,
}

struct FreeSlot {
    next: Option<NonNull<Self>>,
}

linked! { Account => Slab, link; }

impl Account {
    /// An account of `limit` pages. The root account gets all free pages of the pool; others are
    /// split from an existing one.
    pub fn new(limit: u64) -> Self {
        Self { limit: Cell::new(limit), ..Self::default() }
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
        frames.admit()?;
        self.take(frames)
    }

    /// Gives a page back.
    ///
    /// # Safety
    /// The page is charged to this account and nobody uses it any more.
    pub unsafe fn free_page(&self, frames: &mut Frames, page: NonNull<Page>) {
        // SAFETY: pages charged to an account came from `frames`; the rest is promised.
        unsafe { frames.free(page) };
        self.used.set(self.used.get() - 1);
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
        unsafe {
            object.drop_in_place();
            let slab = Obj::new(slab_of(object));
            slab.account.as_ref().put(frames, slab, object.cast());
        }
    }

    fn take(&self, frames: &mut Frames) -> Result<NonNull<Page>, Status> {
        if self.unused() == 0 {
            return Err(Status::Quota);
        }
        let page = frames.alloc().ok_or(Status::Quota)?;
        self.used.set(self.used.get() + 1);
        Ok(page)
    }

    fn slot(&self, frames: &mut Frames, class: u8) -> Result<NonNull<FreeSlot>, Status> {
        let slab = match self.list(class).first() {
            Some(slab) => slab,
            None => self.grow(frames, class)?,
        };
        // Pages without a free slot are not in the list.
        let slot = slab.free.get().ok_or(Status::Quota)?;
        // SAFETY: a free slot holds its link.
        slab.free.set(unsafe { slot.as_ref() }.next);
        slab.used.set(slab.used.get() + 1);
        if slab.free.get().is_none() {
            self.list(class).remove(slab);
        }
        Ok(slot)
    }

    fn put(&self, frames: &mut Frames, slab: Obj<Slab>, slot: NonNull<FreeSlot>) {
        let next = slab.free.replace(Some(slot));
        // SAFETY: the slot's object is gone; every slot has room for the link.
        unsafe { slot.write(FreeSlot { next }) };
        if next.is_none() {
            self.list(slab.class).push_front(slab);
        }
        slab.used.set(slab.used.get() - 1);
        if slab.used.get() == 0 {
            self.list(slab.class).remove(slab);
            // SAFETY: no object is left in the page, and it is in no list.
            unsafe { self.free_page(frames, slab.pointer().cast()) };
        }
    }

    /// Adds a slab page without objects.
    fn grow(&self, frames: &mut Frames, class: u8) -> Result<Obj<Slab>, Status> {
        let page = self.take(frames)?.cast::<Slab>();
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
        let (account, link, used) = (NonNull::from(self), Link::default(), Cell::new(0));
        // SAFETY: the page is fresh and larger than the header; it stays while it has objects.
        let slab = unsafe {
            page.write(Slab { account, link, free: Cell::new(free), used, class });
            Obj::new(page)
        };
        self.list(class).push_front(slab);
        Ok(slab)
    }

    fn list(&self, class: u8) -> &List<Slab, Self> {
        let index = usize::from(class).min(CLASSES - 1);
        // SAFETY: the index was limited to the length.
        unsafe { self.partial.get_unchecked(index) }
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
