#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::{Strategy, any, proptest};
use proptest::{collection, prop_assert, prop_assert_eq};

use super::{LARGE_PAGE, Memory, PAGE, Span, chunks, port_chunks};

#[test]
fn spans_are_cut_to_pages_and_joined() {
    let mut memory = Memory::new();
    memory.add(0x1001, 0x2fff);
    memory.add(0x4000, 0x1000);
    memory.add(0x10_0000, 0x800);
    assert_eq!(memory.spans(), [Span { base: 0x2000, size: 0x3000 }]);
}

#[test]
fn what_is_free_is_not_added_twice() {
    let mut memory = Memory::new();
    memory.add(0x2000, 0x1000);
    memory.add(0x4000, 0x1000);
    memory.add(0x1000, 0x6000);
    assert_eq!(memory.spans(), [Span { base: 0x1000, size: 0x6000 }]);
}

#[test]
fn alignment_is_kept() {
    let mut memory = Memory::new();
    memory.add(0x10_0000, 64 << 20);
    let span = memory.take(8 << 20, LARGE_PAGE).unwrap();
    assert_eq!(span, Span { base: LARGE_PAGE, size: 8 << 20 });
    assert_eq!(memory.total(), 56 << 20);
    memory.add(span.base, span.size);
    assert_eq!(memory.spans(), [Span { base: 0x10_0000, size: 64 << 20 }]);
}

#[test]
fn large_spans_are_as_well_aligned_as_there_is_room_for() {
    let mut memory = Memory::new();
    memory.add(1 << 20, 1 << 30);
    assert_eq!(memory.take_aligned(512 << 20, LARGE_PAGE).unwrap().base, 512 << 20);
    assert_eq!(memory.take_aligned(510 << 20, LARGE_PAGE).unwrap().base, 2 << 20);
    assert_eq!(memory.take_aligned(510 << 20, LARGE_PAGE), None);
}

#[test]
fn what_is_in_no_piece_is_in_several() {
    let mut memory = Memory::new();
    memory.add(3 << 20, 5 << 20);
    memory.add(9 << 20, 4 << 20);
    let mib = |base: u64, size: u64| Span { base: base << 20, size: size << 20 };
    // From 4 to 8 and from 10 to 13 of the 9 MiB there are.
    assert_eq!(memory.take_pieces(8 << 20, LARGE_PAGE), None);
    assert_eq!(memory.total(), 9 << 20);
    let pieces = memory.take_pieces(6 << 20, LARGE_PAGE).unwrap();
    assert_eq!(pieces, [mib(4, 4), mib(10, 2)]);
    assert_eq!(memory.spans(), [mib(3, 1), mib(9, 1), mib(12, 1)]);
    assert_eq!(memory.take_pieces(PAGE, PAGE).unwrap().len(), 1);
    for piece in pieces {
        memory.give(piece);
    }
}

#[test]
fn too_much_is_refused() {
    let mut memory = Memory::new();
    memory.add(0, 0x3000);
    assert_eq!(memory.take(0x4000, PAGE), None);
    assert_eq!(memory.take(u64::MAX, PAGE), None);
    assert_eq!(memory.take(0, PAGE), None);
    assert_eq!(memory.total(), 0x3000);
}

#[test]
fn chunks_are_aligned_on_both_sides() {
    let all: Vec<_> = chunks(0x20_0000, 0x1_0000_0000, 6 << 20).collect();
    assert_eq!(all, [(0x200, 0x10_0000, 9), (0x400, 0x10_0200, 9), (0x600, 0x10_0400, 9)]);
    let odd: Vec<_> = chunks(0x3000, 0x5000, 0x2001).collect();
    assert_eq!(odd, [(3, 5, 0), (4, 6, 1)]);
}

#[test]
fn ports() {
    assert_eq!(port_chunks(0x3f8, 8).collect::<Vec<_>>(), [(0x3f8, 3)]);
    assert_eq!(port_chunks(0x61, 3).collect::<Vec<_>>(), vec![(0x61, 0), (0x62, 1)]);
    assert_eq!(port_chunks(0xffff, 1).collect::<Vec<_>>(), [(0xffff, 0)]);
    assert_eq!(port_chunks(0, 0xffff).map(|c| 1u32 << c.1).sum::<u32>(), 0xffff);
}

proptest! {
    #[test]
    fn nothing_is_lost_or_given_twice(
        ops in collection::vec((any::<bool>(), 1u64..40, (0u32..6).prop_map(|a| PAGE << a)), 1..200)
    ) {
        let mut memory = Memory::new();
        let all = Span { base: 0x5000, size: 300 * PAGE };
        memory.add(all.base, all.size);
        let mut held: Vec<Span> = Vec::new();
        for (take, pages, align) in ops {
            if take {
                if let Some(span) = memory.take(pages * PAGE, align) {
                    prop_assert_eq!(span.base % align, 0);
                    prop_assert_eq!(span.size, pages * PAGE);
                    prop_assert!(span.base >= all.base && span.end() <= all.end());
                    prop_assert!(
                        held.iter().all(|h| h.end() <= span.base || span.end() <= h.base)
                    );
                    held.push(span);
                }
            } else if !held.is_empty() {
                let span = held.swap_remove(pages as usize % held.len());
                memory.add(span.base, span.size);
            }
            let taken: u64 = held.iter().map(|h| h.size).sum();
            prop_assert_eq!(memory.total() + taken, all.size);
            prop_assert!(memory.spans().windows(2).all(|w| w[0].end() < w[1].base));
        }
    }

    #[test]
    fn chunks_cover_exactly(from in 0u64..5000, to in 0u64..5000, pages in 1u64..3000) {
        let mut at = 0;
        for (source, target, order) in chunks(from * PAGE, to * PAGE, pages * PAGE) {
            prop_assert_eq!((source, target), (from + at, to + at));
            prop_assert_eq!(source % (1 << order), 0);
            prop_assert_eq!(target % (1 << order), 0);
            at += 1 << order;
        }
        prop_assert_eq!(at, pages);
    }
}
