use alloc::vec;

use super::{Ram, Step};
use crate::memory::Span;

fn lent_to(holders: &[usize]) -> Ram {
    let mut ram = Ram::default();
    ram.prepare(vec![Span { base: 2 << 20, size: 2 << 20 }]);
    ram.cleared();
    ram.begin();
    for &holder in holders {
        ram.lend(holder);
    }
    ram
}

#[test]
fn lives_are_odd_while_the_memory_is_there() {
    let mut ram = lent_to(&[]);
    assert_eq!((ram.life().0, ram.life().is_mapped()), (1, true));
    assert_eq!(ram.step(0, |_, _| true), Step::Rest);
    ram.end(100);
    assert_eq!((ram.life().0, ram.life().is_mapped()), (2, false));
    assert_eq!(ram.step(0, |_, _| false), Step::TakeBack, "nobody else had it");
    assert_eq!(ram.take().len(), 1);
    assert_eq!(ram.step(0, |_, _| false), Step::Rest);
    ram.begin();
    assert_eq!(ram.life().0, 3);
}

#[test]
fn memory_is_taken_when_the_last_holder_lets_go() {
    let mut ram = lent_to(&[1, 4, 4]);
    ram.end(100);
    let life = ram.life();
    assert_eq!(ram.step(10, |_, _| false), Step::Wait(100));
    assert_eq!(ram.step(10, |holder, l| l == life && holder == 1), Step::Wait(100));
    assert_eq!(ram.step(10, |_, l| l == life), Step::TakeBack);
}

#[test]
fn an_answer_for_an_earlier_life_does_not_count() {
    let mut ram = lent_to(&[1]);
    ram.end(100);
    let first = ram.life();
    ram.take();
    ram.begin();
    ram.lend(1);
    ram.end(200);
    assert_eq!(ram.step(10, |_, l| l == first), Step::Wait(200));
}

#[test]
fn whoever_takes_too_long_is_ended() {
    let mut ram = lent_to(&[1, 2, 3]);
    ram.end(100);
    assert_eq!(ram.step(100, |holder, _| holder == 2), Step::Evict(vec![1, 3]));
    ram.forget(1);
    ram.forget(3);
    assert_eq!(ram.step(100, |holder, _| holder == 2), Step::TakeBack);
}

#[test]
fn a_holder_that_died_needs_no_answer() {
    let mut ram = lent_to(&[1]);
    ram.end(100);
    ram.forget(1);
    assert!(!ram.is_lent_to(1) && ram.is_leaving());
    assert_eq!(ram.step(0, |_, _| false), Step::TakeBack);
}

#[test]
fn a_vm_ends_once() {
    let mut ram = lent_to(&[1]);
    ram.end(100);
    ram.end(900);
    assert_eq!(ram.step(0, |_, _| false), Step::Wait(100));
    let mut none = Ram::default();
    none.end(100);
    assert_eq!((none.life().0, none.step(200, |_, _| false)), (0, Step::Rest));
}

#[test]
fn memory_is_cleared_span_by_span_before_a_life() {
    let spans = vec![Span { base: 4096, size: 4096 }, Span { base: 1 << 20, size: 8192 }];
    let mut ram = Ram::default();
    assert!(!ram.is_ready() && ram.dirty().is_none());
    ram.prepare(spans.clone());
    for span in &spans {
        assert!(!ram.is_ready());
        assert_eq!(ram.dirty(), Some(*span));
        ram.cleared();
    }
    assert!(ram.is_ready() && ram.dirty().is_none());
    ram.begin();
    assert!(ram.life().is_mapped());
    ram.prepare(spans);
    ram.take();
    assert!(!ram.is_ready() && ram.dirty().is_none());
}

#[test]
fn time_that_nobody_had_does_not_count() {
    let mut ram = lent_to(&[1]);
    ram.excuse(50);
    ram.end(100);
    ram.excuse(50);
    assert_eq!(ram.step(149, |_, _| false), Step::Wait(150));
    assert_eq!(ram.step(150, |_, _| false), Step::Evict(vec![1]));
}
