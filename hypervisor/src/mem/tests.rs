//! A pool for tests: one lazily committed allocation of the process, cut into regions.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::alloc::{Layout, alloc_zeroed};
use std::sync::{Mutex, OnceLock};

use super::account::Account;
use super::frames::Frames;
use super::pool::{self, PAGE_SIZE};

/// Fake physical base: not equal to any virtual address.
const PHYS: u64 = 0x1_4000_0000;
const PAGES: u64 = 1 << 19;
const ALIGN: usize = 1 << 21;

/// Free regions: (first page, pages).
fn regions() -> &'static Mutex<Vec<(u64, u64)>> {
    static REGIONS: OnceLock<Mutex<Vec<(u64, u64)>>> = OnceLock::new();
    REGIONS.get_or_init(|| {
        let size = usize::try_from(PAGES * PAGE_SIZE).unwrap();
        // A larger alignment would make the allocator clear all of it now.
        let layout = Layout::from_size_align(size + ALIGN, 16).unwrap();
        // SAFETY: the layout is not empty; the allocation is leaked, so it is the pool for good.
        unsafe {
            let virt = alloc_zeroed(layout);
            assert!(!virt.is_null());
            let virt = virt.expose_provenance().next_multiple_of(ALIGN);
            pool::init(PHYS, virt as u64);
        }
        Mutex::new(vec![(0, PAGES)])
    })
}

/// Pages of the pool for one test; given back when dropped.
pub(crate) struct Region {
    first: u64,
    pages: u64,
    pub(crate) frames: Frames,
    /// Account with all pages of the region.
    pub(crate) root: Account,
}

impl Region {
    pub(crate) fn new(pages: u64) -> Box<Self> {
        let pages = pages.next_multiple_of(16);
        let mut free = regions().lock().unwrap_or_else(|e| e.into_inner());
        let slot = free.iter_mut().find(|(_, n)| *n >= pages).expect("test pool exhausted");
        let first = slot.0;
        slot.0 += pages;
        slot.1 -= pages;
        // SAFETY: the region was taken from the list of free ones.
        let frames = unsafe { Frames::new(PHYS + first * PAGE_SIZE, pages) };
        let root = Account::new(frames.free_pages());
        Box::new(Self { first, pages, frames, root })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        let mut free = regions().lock().unwrap_or_else(|e| e.into_inner());
        free.push((self.first, self.pages));
        free.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for &(first, pages) in free.iter() {
            match merged.last_mut() {
                Some(last) if last.0 + last.1 == first => last.1 += pages,
                _ => merged.push((first, pages)),
            }
        }
        *free = merged;
    }
}
