//! The free pages of the pool: a buddy allocator for short naturally aligned runs.
//!
//! A free run is a link in the list of its order; the links are in its own first page. One byte
//! per page says whether a free run starts there and of what order, so that merging is O(1) per
//! order.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU8, Ordering};

use ipc::status::Status;

use super::account::Account;
use super::pool::{self, PAGE_SHIFT, PAGE_SIZE, Page};
use crate::num::{u64_of, usize_of};

/// log2 of the longest run in pages.
pub const MAX_ORDER: u8 = 4;

/// State of a page that starts no free run; otherwise the order of the run plus one.
const NOT_FREE: u8 = 0;
/// End of a list.
const NONE: u64 = u64::MAX;

/// The free pages of the pool. There is one, under the kernel lock: whoever has `&mut Frames`
/// holds the lock, which is what lets the rest of `mem` and `cap` use plain cells.
pub struct Frames {
    /// Frame number of the first page that is managed.
    first: u64,
    states: &'static [AtomicU8],
    heads: [u64; MAX_ORDER as usize + 1],
    free: u64,
    #[cfg(test)]
    pub(crate) fail_after: Option<u32>,
}

impl Frames {
    /// Manages `pages` pages from `phys` on. The first ones are kept for the state bytes.
    ///
    /// # Safety
    /// The range is page aligned, lies in the pool, and nobody else uses it.
    pub unsafe fn new(phys: u64, pages: u64) -> Self {
        let own = pages.div_ceil(PAGE_SIZE).min(pages);
        let states = pool::ptr::<AtomicU8>(phys);
        // SAFETY: `own` pages at the start of the range hold at least one byte per page, and the
        // caller gives them to us.
        let states = unsafe {
            states.write_bytes(NOT_FREE, usize_of(pages));
            core::slice::from_raw_parts(states.as_ptr(), usize_of(pages))
        };
        let mut frames = Self {
            first: phys >> PAGE_SHIFT,
            states,
            heads: [NONE; MAX_ORDER as usize + 1],
            free: 0,
            #[cfg(test)]
            fail_after: None,
        };
        let (mut frame, end) = (frames.first + own, frames.first + pages);
        while frame < end {
            let fits = |order: &u8| frame & ((1 << order) - 1) == 0 && frame + (1 << order) <= end;
            let order = (0..=MAX_ORDER).rev().find(fits).unwrap_or(0);
            frames.release(frame, order);
            frame += 1 << order;
        }
        frames
    }

    /// Number of free pages.
    pub fn free_pages(&self) -> u64 {
        self.free
    }

    /// Takes a zeroed, naturally aligned run of `2^order` pages. `None` where there is none.
    pub fn alloc(&mut self, order: u8) -> Option<NonNull<Page>> {
        let mut found = order;
        let frame = loop {
            match *self.heads.get(usize::from(found))? {
                NONE => found += 1,
                frame => break frame,
            }
        };
        self.unlink(frame, found);
        while found > order {
            found -= 1;
            self.link(frame + (1 << found), found);
        }
        self.free -= 1 << order;
        let run = pool::ptr::<Page>(frame << PAGE_SHIFT);
        // SAFETY: the run was free, so it lies in the pool and nobody has a reference into it.
        unsafe { run.write_bytes(0, 1 << order) };
        Some(run)
    }

    /// Gives a run back. A longer run may be given back in pieces.
    ///
    /// # Safety
    /// The pages came from [`Self::alloc`] of this allocator and nobody uses them any more.
    pub unsafe fn free(&mut self, run: NonNull<Page>, order: u8) {
        self.release(pool::phys(run) >> PAGE_SHIFT, order);
    }

    fn release(&mut self, mut frame: u64, mut order: u8) {
        self.free += 1 << order;
        while order < MAX_ORDER {
            let buddy = frame ^ 1 << order;
            if self.state(buddy) != order + 1 {
                break;
            }
            self.unlink(buddy, order);
            frame &= !(1 << order);
            order += 1;
        }
        self.link(frame, order);
    }

    fn state(&self, frame: u64) -> u8 {
        let state = self.states.get(usize_of(frame.wrapping_sub(self.first)));
        state.map_or(NOT_FREE, |s| s.load(Ordering::Relaxed))
    }

    fn set_state(&mut self, frame: u64, state: u8) {
        if let Some(s) = self.states.get(usize_of(frame.wrapping_sub(self.first))) {
            s.store(state, Ordering::Relaxed);
        }
    }

    fn link(&mut self, frame: u64, order: u8) {
        debug_assert_eq!(self.state(frame), NOT_FREE, "page freed twice");
        let Some(head) = self.heads.get_mut(usize::from(order)) else { return };
        let next = core::mem::replace(head, frame);
        let page = page(frame);
        page.word(0).store(next, Ordering::Relaxed);
        page.word(1).store(NONE, Ordering::Relaxed);
        if next != NONE {
            self::page(next).word(1).store(frame, Ordering::Relaxed);
        }
        self.set_state(frame, order + 1);
    }

    fn unlink(&mut self, frame: u64, order: u8) {
        let page = page(frame);
        let next = page.word(0).load(Ordering::Relaxed);
        let prev = page.word(1).load(Ordering::Relaxed);
        if next != NONE {
            self::page(next).word(1).store(prev, Ordering::Relaxed);
        }
        if prev == NONE {
            if let Some(head) = self.heads.get_mut(usize::from(order)) {
                *head = next;
            }
        } else {
            self::page(prev).word(0).store(next, Ordering::Relaxed);
        }
        self.set_state(frame, NOT_FREE);
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

fn page<'a>(frame: u64) -> &'a Page {
    // SAFETY: called for free frames only, which lie in the pool and belong to the allocator.
    unsafe { pool::ptr::<Page>(frame << PAGE_SHIFT).as_ref() }
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
