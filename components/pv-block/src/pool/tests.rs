use proptest::prelude::*;

use super::{MOST, Pool, Run};

#[test]
fn a_request_gets_what_lies_together() {
    let mut pool = Pool::new(10);
    assert_eq!(pool.take(4), Some(Run { at: 0, len: 4 }));
    assert_eq!(pool.take(2), Some(Run { at: 4, len: 2 }));
    assert_eq!(pool.take(3), Some(Run { at: 6, len: 3 }));
    pool.give(Run { at: 0, len: 4 });
    assert_eq!(pool.take(8), Some(Run { at: 0, len: 4 }), "as much as there is");
    assert_eq!(pool.take(8), Some(Run { at: 9, len: 1 }));
    assert_eq!(pool.take(1), None);
    pool.give(Run { at: 4, len: 2 });
    assert_eq!(pool.take(1), Some(Run { at: 4, len: 1 }));
}

#[test]
fn all_of_a_pool() {
    for units in [MOST, MOST + 1] {
        let mut pool = Pool::new(units);
        assert_eq!(pool.take(MOST + 1), Some(Run { at: 0, len: MOST }));
        assert_eq!(pool.take(1), None);
    }
    assert_eq!(Pool::new(0).take(1), None);
}

proptest! {
    /// No unit belongs to two at a time, and none gets lost.
    #[test]
    fn units_have_one_owner(
        units in 1u32..70,
        steps in proptest::collection::vec((any::<bool>(), 1u32..12, any::<usize>()), 1..200),
    ) {
        let mut pool = Pool::new(units);
        let units = units.min(MOST);
        let mut owned: Vec<Run> = Vec::new();
        for (take, want, which) in steps {
            if take {
                let run = pool.take(want);
                let held: u32 = owned.iter().map(|r| r.len).sum();
                prop_assert_eq!(run.is_some(), held < units);
                if let Some(run) = run {
                    prop_assert!(run.len <= want && run.at + run.len <= units);
                    let apart = |r: &Run| r.at + r.len <= run.at || run.at + run.len <= r.at;
                    prop_assert!(owned.iter().all(apart));
                    owned.push(run);
                }
            } else if !owned.is_empty() {
                pool.give(owned.swap_remove(which % owned.len()));
            }
        }
    }
}
