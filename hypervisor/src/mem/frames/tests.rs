#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use proptest::prelude::*;

use super::PageList;
use crate::mem::pool::{self, Page};
use crate::mem::tests::Region;

fn is_zero(page: core::ptr::NonNull<Page>) -> bool {
    // SAFETY: callers hold the page.
    let page = unsafe { page.as_ref() };
    (0..Page::WORDS).all(|n| page.word(n).load(super::Ordering::Relaxed) == 0)
}

#[test]
fn runs_are_of_adjacent_pages() {
    let mut region = Region::new(256);
    let total = region.frames.free_pages();
    assert_eq!(total, 256);
    let single = region.frames.alloc().unwrap();
    let odd = region.frames.alloc_run(1).unwrap();
    let mut held = vec![(single, 1), (odd, 1)];
    while let Some(run) = region.frames.alloc_run(16) {
        held.push((run, 16));
    }
    assert_eq!(held.len(), 2 + 15);
    assert!(region.frames.alloc_run(15).is_none());
    assert!(region.frames.alloc_run(1 << 50).is_none());
    assert_eq!(region.frames.free_pages(), total - 2 - 15 * 16);
    while let Some(page) = region.frames.alloc() {
        held.push((page, 1));
    }
    assert_eq!(held.len(), 2 + 15 + 14);
    let mut pages: Vec<u64> = Vec::new();
    for (run, count) in held {
        for n in 0..count {
            // SAFETY: the run was just allocated.
            let page = unsafe { run.add(n) };
            assert!(is_zero(page));
            pages.push(pool::phys(page));
            // SAFETY: as above; nobody uses it.
            unsafe {
                page.write_bytes(0xff, 1);
                region.frames.free(page);
            }
        }
    }
    pages.sort_unstable();
    pages.dedup();
    assert_eq!(pages.len(), 256);
    assert_eq!(region.frames.free_pages(), total);
    assert!(is_zero(region.frames.alloc().unwrap()), "used before");
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
    assert!(is_zero(page));
    // SAFETY: popped pages are ours.
    unsafe {
        root.free_page(frames, page);
        list.free(frames);
    }
    assert_eq!((root.used(), frames.free_pages()), (0, free));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Nothing is handed out twice, and the count of free pages is right.
    #[test]
    fn random_use(steps in prop::collection::vec((any::<bool>(), 1..5_usize, any::<usize>()), 1..200)) {
        let mut region = Region::new(128);
        let total = region.frames.free_pages();
        let mut held: Vec<core::ptr::NonNull<Page>> = Vec::new();
        for (take, count, pick) in steps {
            if take {
                let run = match count {
                    1 => region.frames.alloc(),
                    _ => region.frames.alloc_run(count),
                };
                let Some(run) = run else { continue };
                for n in 0..count {
                    // SAFETY: part of the run.
                    let page = unsafe { run.add(n) };
                    prop_assert!(is_zero(page) && !held.contains(&page));
                    held.push(page);
                }
            } else if !held.is_empty() {
                let page = held.swap_remove(pick % held.len());
                // SAFETY: the page was allocated and is forgotten.
                unsafe {
                    page.write_bytes(0xff, 1);
                    region.frames.free(page);
                }
            }
            prop_assert_eq!(region.frames.free_pages(), total - held.len() as u64);
        }
    }
}
