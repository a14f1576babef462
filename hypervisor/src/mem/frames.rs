//! The free pages of the pool.
//!
//! Pages that were used before are linked through their first word; the others are still in one
//! piece, from which runs can be taken at boot.

use core::ops::Range;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::status::Status;

use super::account::Account;
use super::pool::{self, PAGE_SIZE, Page};
use crate::num::{u64_of, usize_of};

/// The free pages of the pool. There is one, under the kernel lock: whoever has `&mut Frames`
/// holds the lock, which is what lets the rest of `mem` and `cap` use plain cells.
pub struct Frames {
    /// Physical address of the first page of the list; 0 for none.
    head: u64,
    /// Physical addresses that were never handed out.
    fresh: Range<u64>,
    free: u64,
    #[cfg(test)]
    pub(crate) fail_after: Option<u32>,
}

/// Free pages, for the trace.
pub static FREE: AtomicU64 = AtomicU64::new(0);

impl Frames {
    /// Manages `pages` pages from `phys` on.
    ///
    /// # Safety
    /// The range is page aligned, lies in the pool, and nobody else uses it.
    pub unsafe fn new(phys: u64, pages: u64) -> Self {
        Self { fresh: phys..phys + pages * PAGE_SIZE, free: pages, ..Self::empty() }
    }

    /// Nothing.
    pub const fn empty() -> Self {
        Self {
            head: 0,
            fresh: 0..0,
            free: 0,
            #[cfg(test)]
            fail_after: None,
        }
    }

    /// Number of free pages.
    pub fn free_pages(&self) -> u64 {
        self.free
    }

    /// Takes a zeroed page. `None` where there is none.
    pub fn alloc(&mut self) -> Option<NonNull<Page>> {
        if self.head == 0 {
            return self.alloc_run(1);
        }
        let page = pool::ptr::<Page>(self.head);
        // SAFETY: a free page lies in the pool, and nobody has a reference into it.
        self.head = unsafe { page.as_ref() }.word(0).load(Ordering::Relaxed);
        Some(self.give(page, 1))
    }

    /// Takes a zeroed run of adjacent pages from what was never handed out.
    pub fn alloc_run(&mut self, pages: usize) -> Option<NonNull<Page>> {
        let start = self.fresh.start;
        let end = start + u64_of(pages) * PAGE_SIZE;
        if end > self.fresh.end {
            return None;
        }
        self.fresh.start = end;
        Some(self.give(pool::ptr(start), pages))
    }

    fn give(&mut self, run: NonNull<Page>, pages: usize) -> NonNull<Page> {
        self.free -= u64_of(pages);
        FREE.store(self.free, Ordering::Relaxed);
        // SAFETY: the run lies in the pool, and nobody has a reference into it.
        unsafe { run.write_bytes(0, pages) };
        run
    }

    /// Gives a page back.
    ///
    /// # Safety
    /// The page came from this allocator and nobody uses it any more.
    pub unsafe fn free(&mut self, page: NonNull<Page>) {
        // SAFETY: promised.
        unsafe { page.as_ref() }.word(0).store(self.head, Ordering::Relaxed);
        self.head = pool::phys(page);
        self.free += 1;
        FREE.store(self.free, Ordering::Relaxed);
    }

    /// Fault injection: whether the next allocation is to go on.
    pub(super) fn admit(&mut self) -> Result<(), Status> {
        #[cfg(test)]
        if let Some(left) = &mut self.fail_after {
            if *left == 0 {
                self.fail_after = None;
                return Err(Status::Quota);
            }
            *left -= 1;
        }
        Ok(())
    }
}

/// Pages that are out of use but that other CPUs may still read: free them after the flush or
/// rendezvous. Each remembers the account that it is charged to.
///
/// The links are in words 3 and 7 of the pages. As page-table entries their values are not
/// present (pointers are at least 8-aligned); in a leaf of an object space these words are spare.
#[derive(Default)]
#[must_use]
pub struct PageList {
    head: Option<NonNull<Page>>,
}

const NEXT: usize = 3;
const ACCOUNT: usize = 7;

impl PageList {
    /// Nothing.
    pub const fn new() -> Self {
        Self { head: None }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Adds a page that is charged to `account`, which must outlive the list.
    pub fn push(&mut self, page: NonNull<Page>, account: &Account) {
        let next = self.head.map_or(0, |p| u64_of(p.as_ptr().expose_provenance()));
        let account = core::ptr::from_ref(account).expose_provenance();
        // SAFETY: a page stays valid until `free` or `pop`, and is only accessed by its words.
        let words = unsafe { page.as_ref() };
        words.word(NEXT).store(next, Ordering::Relaxed);
        words.word(ACCOUNT).store(u64_of(account), Ordering::Relaxed);
        self.head = Some(page);
    }

    /// Takes a page out again, with its two link words cleared, and the account that pays for it.
    pub fn pop(&mut self) -> Option<(NonNull<Page>, NonNull<Account>)> {
        let page = self.head?;
        // SAFETY: as in `push`.
        let words = unsafe { page.as_ref() };
        let next = words.word(NEXT).swap(0, Ordering::Relaxed);
        let account = words.word(ACCOUNT).swap(0, Ordering::Relaxed);
        self.head = NonNull::new(core::ptr::with_exposed_provenance_mut(usize_of(next)));
        let account = core::ptr::with_exposed_provenance_mut(usize_of(account));
        Some((page, NonNull::new(account)?))
    }

    /// Gives all pages back to the pool and to the accounts that pay for them.
    ///
    /// # Safety
    /// No CPU, walk of the hardware included, can still read the pages.
    pub unsafe fn free(&mut self, frames: &mut Frames) {
        while let Some((page, account)) = self.pop() {
            // SAFETY: `push` took the account from a reference that outlives the list; the page
            // is charged to it and unused as the caller promises.
            unsafe { account.as_ref().free_page(frames, page) };
        }
    }
}

#[cfg(test)]
mod tests;
