#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::{MAX_ORDER, PageList};
use crate::mem::pool::{self, PAGE_SIZE, Page};
use crate::mem::tests::Region;

#[test]
fn runs_are_aligned_zeroed_and_merged_again() {
    let mut region = Region::new(256);
    let total = region.frames.free_pages();
    // One page holds the state bytes.
    assert_eq!(total, 255);
    let mut runs = Vec::new();
    while let Some(run) = region.frames.alloc(MAX_ORDER) {
        assert_eq!(pool::phys(run) % (PAGE_SIZE << MAX_ORDER), 0);
        runs.push(run);
    }
    assert_eq!(runs.len(), 15);
    for run in runs {
        // SAFETY: the run was just allocated.
        unsafe {
            run.write_bytes(0xff, 16);
            // In pieces: it merges all the same.
            for i in [3, 0, 15, 1, 2, 14, 7, 8, 13, 4, 5, 6, 9, 12, 10, 11] {
                region.frames.free(run.add(i), 0);
            }
        }
    }
    assert_eq!(region.frames.free_pages(), total);
    for _ in 0..15 {
        let run = region.frames.alloc(MAX_ORDER).unwrap();
        // SAFETY: the run was just allocated.
        let page = unsafe { run.as_ref() };
        assert!(page.words().all(|w| w.load(super::Ordering::Relaxed) == 0));
    }
    assert!(region.frames.alloc(MAX_ORDER).is_none());
    assert!(region.frames.alloc(MAX_ORDER + 1).is_none());
    for _ in 0..15 {
        assert!(region.frames.alloc(0).is_some());
    }
    assert!(region.frames.alloc(0).is_none());
}

#[test]
fn page_list_returns_pages_to_their_accounts() {
    let mut region = Region::new(16);
    let Region { frames, root, .. } = &mut *region;
    let free = frames.free_pages();
    let mut list = PageList::new();
    assert!(list.is_empty());
    for _ in 0..3 {
        let page = root.alloc_page(frames).unwrap();
        list.push(page, root);
    }
    let (page, account) = list.pop().unwrap();
    assert!(core::ptr::eq(account.as_ptr(), root));
    // SAFETY: popped pages are ours.
    unsafe {
        assert!(page.as_ref().words().all(|w| w.load(super::Ordering::Relaxed) == 0));
        root.free_page(frames, page);
        list.free(frames);
    }
    assert_eq!((root.used(), frames.free_pages()), (0, free));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Runs never overlap, and the count of free pages is right.
    #[test]
    fn random_use(steps in prop::collection::vec((any::<bool>(), 0..=MAX_ORDER, any::<usize>()), 1..200)) {
        let mut region = Region::new(128);
        let total = region.frames.free_pages();
        let mut held: Vec<(core::ptr::NonNull<Page>, u8)> = Vec::new();
        for (take, order, pick) in steps {
            if take {
                if let Some(run) = region.frames.alloc(order) {
                    let first = pool::phys(run);
                    let size = PAGE_SIZE << order;
                    prop_assert_eq!(first % size, 0);
                    for &(other, order) in &held {
                        let other = pool::phys(other);
                        prop_assert!(other + (PAGE_SIZE << order) <= first || first + size <= other);
                    }
                    held.push((run, order));
                }
            } else if !held.is_empty() {
                let (run, order) = held.swap_remove(pick % held.len());
                // SAFETY: the run was allocated and is forgotten.
                unsafe { region.frames.free(run, order) };
            }
            let used: u64 = held.iter().map(|&(_, order)| 1 << order).sum();
            prop_assert_eq!(region.frames.free_pages(), total - used);
        }
    }
}
