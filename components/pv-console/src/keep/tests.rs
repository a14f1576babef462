use std::cell::Cell;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use core::sync::atomic::AtomicU8;
use ipc::proto::console::LogRing;
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{Head, Keep, LOGS, Mark, OUTPUT, Source, TYPED};

thread_local! {
    /// Stores until the component dies.
    static FUSE: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Counts a store.
pub fn burn() {
    FUSE.with(|fuse| match fuse.get() {
        Some(0) => {
            fuse.set(None);
            std::panic::resume_unwind(Box::new("dies"));
        }
        left => fuse.set(left.map(|n| n - 1)),
    });
}

/// Dies at the given store within `work`, or does all of it; whether it lived.
pub fn with_fuse(stores: u32, work: impl FnOnce()) -> bool {
    FUSE.with(|fuse| fuse.set(Some(stores)));
    let outcome = catch_unwind(AssertUnwindSafe(work));
    FUSE.with(|fuse| fuse.set(None));
    outcome.is_ok()
}

/// Memory for so many logs of a size.
pub struct Memory {
    head: &'static Head,
    lines: &'static [LogRing],
    data: &'static [AtomicU8],
    logs: usize,
}

impl Memory {
    pub fn new(logs: usize, size: usize) -> Self {
        let data: Vec<AtomicU8> = (0..logs * size).map(|_| AtomicU8::new(0)).collect();
        Self {
            head: Box::leak(Box::<Head>::default()),
            lines: Box::leak(Box::new([LogRing::new()])),
            data: data.leak(),
            logs,
        }
    }

    /// A life of the component.
    pub fn open(&self) -> Keep {
        Keep::new(self.head, self.lines, self.data, self.logs)
    }
}

fn log(keep: &Keep, n: usize) -> String {
    let (begin, end) = keep.extent(n);
    let mut bytes = vec![0; (end - begin) as usize];
    assert_eq!(keep.read(n, begin, &mut bytes), bytes.len());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn output(keep: &Keep) -> Vec<u8> {
    let mut bytes = [0; OUTPUT];
    let count = keep.pending(&mut bytes);
    bytes[..count].to_vec()
}

#[test]
fn everything_stays() {
    let memory = Memory::new(4, 64);
    let keep = memory.open();
    let (one, two) = (keep.log_of("one"), keep.log_of("two"));
    keep.print(&[b"ab", b"c"], Some((one, &[b"ABC"])), Source::Own, || {});
    keep.print(&[], Some((two, &[b"second"])), Source::Own, || {});
    keep.type_to(3, b'k');
    keep.attach(7, 5);
    keep.sender().took();
    let keep = memory.open();
    assert_eq!((log(&keep, one), log(&keep, two)), ("ABC".into(), "second".into()));
    assert_eq!(output(&keep), b"bc");
    assert_eq!((keep.log_of("one"), keep.log_of("two"), keep.log_of("three")), (one, two, 2));
    assert_eq!(keep.attached(), (7, 5));
    let mut keys = [0; 4];
    assert_eq!((keep.typed(3, &mut keys), keys[0]), (1, b'k'));
    keep.taken(3, 1);
    assert_eq!(memory.open().typed(3, &mut keys), 0);
    assert_eq!(keep.last(), Some(b'c'));
}

#[test]
fn logs_keep_the_newest() {
    let keep = Memory::new(1, 10).open();
    for n in 0..100 {
        keep.print(&[], Some((0, &[format!("{n:03},").as_bytes()])), Source::Own, || {});
    }
    assert_eq!((keep.extent(0), log(&keep, 0)), ((390, 400), "7,098,099,".into()));
    assert_eq!(keep.read(0, 389, &mut [0; 4]), 0);
    keep.print(&[], Some((0, &[b"much more than fits"])), Source::Own, || {});
    assert_eq!(log(&keep, 0), " than fits");
}

#[test]
fn names_beyond_the_last_log_share_it() {
    let keep = Memory::new(3, 8).open();
    assert_eq!(["a", "b", "c", "d", "a"].map(|n| keep.log_of(n)), [0, 1, 2, 2, 0]);
    let long = "x".repeat(31) + "éé";
    let keep = Memory::new(3, 8).open();
    assert_eq!([keep.log_of(&long), keep.log_of(&long)], [0, 0]);
    assert_eq!(keep.title(0), "x".repeat(31));
}

#[test]
fn typed_characters_are_bounded() {
    let keep = Memory::new(1, 8).open();
    for _ in 0..2 * TYPED {
        keep.type_to(0, b'x');
    }
    assert_eq!(keep.typed(0, &mut [0; 2 * TYPED]), TYPED);
    keep.type_to(99, b'x');
    assert_eq!(keep.typed(99, &mut [0; 8]), 0);
}

#[test]
fn memory_of_another_kind_starts_anew() {
    let memory = Memory::new(4, 64);
    memory.open().print(&[b"old"], Some((0, &[b"old"])), Source::Own, || {});
    let keep = Keep::new(memory.head, memory.lines, memory.data, 3);
    assert_eq!((output(&keep), log(&keep, 0)), (vec![], String::new()));
}

#[test]
fn marks_are_words() {
    let mark = Mark { epoch: 0x1234, index: 0xffff, printed: 0x8000_0001 };
    assert_eq!(Mark::from_word(mark.to_word()), mark);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_a_source_has_is_printed_once_however_often_the_component_dies(
        pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 1..20),
        fuses in prop::collection::vec(0u32..60, 0..200),
    ) {
        let memory = Memory::new(2, 4096);
        // Setting up takes more stores than any of the lives that follow.
        memory.open();
        let all: Vec<u8> = pieces.concat();
        // The source: how far it was taken, in pieces as they come.
        let (taken, port) = (Cell::new(0u32), std::cell::RefCell::new(Vec::new()));
        let lengths: VecDeque<usize> = pieces.iter().map(Vec::len).collect();
        let life = || {
            let keep = memory.open();
            if let Some(source) = keep.unsettled() {
                match source {
                    Source::Terminal(5, position) => taken.set(position),
                    other => unreachable!("{other:?}"),
                }
                keep.settled();
            }
            let mut at = 0;
            for length in &lengths {
                let end = at + length;
                if taken.get() as usize >= end {
                    at = end;
                    continue;
                }
                let bytes = &all[at..end];
                let position = end as u32;
                keep.print(
                    &[bytes],
                    Some((1, &[bytes])),
                    Source::Terminal(5, position),
                    || {
                        burn();
                        taken.set(position);
                    },
                );
                at = end;
                // The port takes a byte and the note of it as one.
                let mut byte = [0];
                while keep.pending(&mut byte) > 0 {
                    keep.sender().took();
                    port.borrow_mut().push(byte[0]);
                }
            }
        };
        for fuse in fuses {
            with_fuse(fuse, life);
        }
        life();
        // What was left when everything was taken.
        let keep = memory.open();
        port.borrow_mut().extend(output(&keep));
        prop_assert_eq!(&*port.borrow(), &all);
        let mut log = vec![0; all.len() + 1];
        prop_assert_eq!(keep.read(1, 0, &mut log), all.len());
        prop_assert_eq!(&log[..all.len()], &all[..]);
    }

    #[test]
    fn memory_may_hold_anything(
        words in prop::collection::vec(any::<u64>(), 8),
        text in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let memory = Memory::new(2, 100);
        let keep = memory.open();
        let spans = [&memory.head.output, &memory.head.titles[0].span, &memory.head.typed[0]];
        for (span, pair) in spans.into_iter().zip(words.chunks(2)) {
            // What no machine reaches in its life is not an end.
            span.begin.store(pair[0], super::Ordering::Relaxed);
            span.end.store(pair[1] >> 8, super::Ordering::Relaxed);
        }
        memory.head.intent.source.store(words[6], super::Ordering::Relaxed);
        memory.head.intent.armed.store(words[7] & 1, super::Ordering::Relaxed);
        let keep = { drop(keep); memory.open() };
        keep.print(&[&text], Some((0, &[&text])), Source::Own, || {});
        keep.type_to(0, b'x');
        prop_assert!(output(&keep).ends_with(&text));
        prop_assert!(log(&keep, 0).len() <= 300);
        prop_assert!(LOGS >= keep.logs());
    }
}

mod typed;
