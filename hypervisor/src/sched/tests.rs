//! Run queue, timeouts and semaphore queues against naive models.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use core::ptr::NonNull;
use std::boxed::Box;
use std::vec::Vec;

use ipc::cap::ObjectType;
use ipc::status::Status;
use proptest::prelude::*;

use super::queue::RunQueue;
use super::timeout::Timeouts;
use crate::object::Obj;
use crate::object::ec::Ec;
use crate::object::pd::Pd;
use crate::object::sc::Sc;
use crate::object::sm::{MAX_COUNT, Sm};

impl<T> std::fmt::Debug for Obj<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:p}", self.pointer())
    }
}

fn pd() -> Obj<Pd> {
    // SAFETY: the tests never look at the domain.
    unsafe { Obj::new(NonNull::dangling()) }
}

fn leak<T>(object: T) -> Obj<T> {
    Obj::of(Box::leak(Box::new(object)))
}

fn ec() -> Obj<Ec> {
    leak(Ec::new(ObjectType::Ec, pd(), 0, 0, true))
}

fn sc(priority: u8) -> Obj<Sc> {
    leak(Sc::new(ec(), priority, 1))
}

#[derive(Clone, Debug)]
enum QueueOp {
    Back(usize),
    Front(usize),
    Pop,
    Remove(usize),
}

proptest! {
    #[test]
    fn run_queue(ops in prop::collection::vec(prop_oneof![
        (0..12usize).prop_map(QueueOp::Back),
        (0..12usize).prop_map(QueueOp::Front),
        Just(QueueOp::Pop),
        (0..12usize).prop_map(QueueOp::Remove),
    ], 0..200)) {
        let scs: Vec<_> = [0, 0, 1, 1, 1, 63, 64, 64, 126, 127, 127, 5].map(sc).into();
        let queue = RunQueue::default();
        // By priority, first to run first.
        let mut model: Vec<Vec<usize>> = std::vec![Vec::new(); 128];
        let queued = |model: &[Vec<usize>], n| model.iter().flatten().any(|&m| m == n);
        for op in ops {
            match op {
                QueueOp::Back(n) if !queued(&model, n) => {
                    queue.push(scs[n], false);
                    model[usize::from(scs[n].priority)].push(n);
                }
                QueueOp::Front(n) if !queued(&model, n) => {
                    queue.push(scs[n], true);
                    model[usize::from(scs[n].priority)].insert(0, n);
                }
                QueueOp::Remove(n) if queued(&model, n) => {
                    queue.remove(scs[n]);
                    model[usize::from(scs[n].priority)].retain(|&m| m != n);
                }
                QueueOp::Pop => {
                    let expected = model.iter_mut().rev().find(|l| !l.is_empty()).map(|l| l.remove(0));
                    prop_assert_eq!(queue.pop(), expected.map(|n| scs[n]));
                }
                _ => {}
            }
            prop_assert_eq!(queue.is_empty(), model.iter().all(Vec::is_empty));
        }
    }

    #[test]
    fn timeouts(ops in prop::collection::vec((0..8usize, 0..20u64), 0..200)) {
        let ecs: Vec<_> = (0..8).map(|_| ec()).collect();
        let list = Timeouts::default();
        // Deadline and who, in the order in which they end.
        let mut model: Vec<(u64, usize)> = Vec::new();
        for (n, deadline) in ops {
            match deadline {
                0 => {
                    list.remove(ecs[n]);
                    model.retain(|&(_, m)| m != n);
                }
                1..4 => {
                    let now = deadline * 5;
                    while let Some(ec) = list.pop_expired(now) {
                        let (when, m) = model.remove(0);
                        prop_assert!(when <= now);
                        prop_assert_eq!(ec, ecs[m]);
                    }
                    prop_assert!(model.first().is_none_or(|&(when, _)| when > now));
                }
                _ if !model.iter().any(|&(_, m)| m == n) => {
                    list.insert(ecs[n], deadline);
                    let at = model.partition_point(|&(when, _)| when <= deadline);
                    model.insert(at, (deadline, n));
                }
                _ => {}
            }
            prop_assert_eq!(list.first(), model.first().map(|&(when, _)| when));
        }
    }

    /// Signals and waits: nothing is lost, nobody is served twice, first come first served.
    #[test]
    fn semaphore(ops in prop::collection::vec((0..4u8, 0..6usize), 0..200), start in 0..3u64) {
        let ecs: Vec<_> = (0..6).map(|_| ec()).collect();
        let sm = Sm::new(start);
        let (mut count, mut pending) = (start, 0u64);
        let mut waiting: Vec<usize> = Vec::new();
        for (op, n) in ops {
            match op {
                0 => {
                    let badge = 1 << n;
                    match sm.up(badge).unwrap() {
                        None => {
                            prop_assert!(waiting.is_empty());
                            count += 1;
                            pending |= badge;
                        }
                        Some((ec, badges)) => {
                            prop_assert_eq!(ec, ecs[waiting.remove(0)]);
                            prop_assert_eq!(badges, pending | badge);
                            pending = 0;
                        }
                    }
                }
                1 | 2 if !waiting.contains(&n) => {
                    let taken = sm.down(ecs[n], op == 2);
                    if count > 0 {
                        count = if op == 2 { 0 } else { count - 1 };
                        prop_assert_eq!(taken, Some(pending));
                        pending = 0;
                    } else {
                        prop_assert_eq!(taken, None);
                        waiting.push(n);
                    }
                }
                3 => {
                    prop_assert_eq!(sm.cancel(ecs[n]), waiting.contains(&n));
                    waiting.retain(|&m| m != n);
                }
                _ => {}
            }
        }
        while let Some(ec) = sm.evict() {
            prop_assert_eq!(ec, ecs[waiting.remove(0)]);
        }
        prop_assert!(waiting.is_empty());
    }
}

#[test]
fn full_counter_overflows_but_keeps_the_badge() {
    let sm = Sm::new(MAX_COUNT);
    assert!(matches!(sm.up(4), Err(Status::Overflow)));
    assert_eq!(sm.down(ec(), true), Some(4));
}
