use proptest::prelude::*;

use super::{Epoch, Follow, Life, Seen, Step};

fn seen(life: u32, wanted: u32) -> Seen {
    Seen { life: Life(life), wanted: Epoch(wanted), broken: false }
}

fn step(follow: &mut Follow, life: u32, wanted: u32) -> Option<Step> {
    follow.step(seen(life, wanted), || true)
}

#[test]
fn an_epoch_is_entered_once_the_memory_is_there() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 0, 3), None);
    assert_eq!(step(&mut follow, 1, 3), Some(Step::Enter(Epoch(3))));
    assert!(follow.is_active());
    assert_eq!(follow.epoch(), Some(Epoch(3)));
    assert_eq!(step(&mut follow, 1, 3), None);
}

#[test]
fn a_reset_lets_go_before_it_reaches() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 1, 3), Some(Step::Enter(Epoch(3))));
    assert_eq!(step(&mut follow, 1, 4), Some(Step::Leave));
    assert!(!follow.is_active());
    assert_eq!(follow.step(seen(1, 4), || false), None, "a request is under way");
    assert_eq!(step(&mut follow, 1, 4), Some(Step::Reach(Epoch(4))));
    assert_eq!(step(&mut follow, 1, 4), None);
}

#[test]
fn a_new_set_up_without_a_reset_in_between_lets_go_as_well() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 1, 3), Some(Step::Enter(Epoch(3))));
    assert_eq!(step(&mut follow, 1, 7), Some(Step::Leave));
    assert_eq!(step(&mut follow, 1, 7), Some(Step::Enter(Epoch(7))));
}

#[test]
fn memory_is_released_after_it_was_let_go_of() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 1, 3), Some(Step::Enter(Epoch(3))));
    assert_eq!(step(&mut follow, 2, 3), Some(Step::Leave));
    assert_eq!(follow.step(seen(2, 3), || false), None);
    assert_eq!(step(&mut follow, 2, 3), Some(Step::Release(Life(2))));
    assert_eq!(step(&mut follow, 2, 3), None, "no memory, no epoch");
}

#[test]
fn the_same_number_in_another_life_is_another_epoch() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 1, 3), Some(Step::Enter(Epoch(3))));
    assert_eq!(step(&mut follow, 3, 3), Some(Step::Leave));
    assert_eq!(step(&mut follow, 3, 3), Some(Step::Enter(Epoch(3))));
}

#[test]
fn a_back_end_that_starts_without_memory_says_that_it_has_none() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 4, 3), Some(Step::Release(Life(4))));
    assert_eq!(step(&mut follow, 5, 0), Some(Step::Reach(Epoch(0))));
}

#[test]
fn a_broken_epoch_is_not_entered_again() {
    let mut follow = Follow::default();
    let broken = Seen { broken: true, ..seen(1, 3) };
    assert_eq!(follow.step(broken, || true), Some(Step::Reach(Epoch(3))));
    assert!(!follow.is_active());
    assert_eq!(step(&mut follow, 1, 4), Some(Step::Reach(Epoch(4))));
    assert_eq!(step(&mut follow, 1, 7), Some(Step::Enter(Epoch(7))));
}

#[test]
fn who_gives_up_waits_for_the_next_epoch() {
    let mut follow = Follow::default();
    assert_eq!(step(&mut follow, 1, 3), Some(Step::Enter(Epoch(3))));
    assert_eq!(follow.give_up(), Some(Step::Leave));
    assert_eq!(follow.give_up(), None);
    assert_eq!(step(&mut follow, 1, 3), None);
    assert_eq!(step(&mut follow, 1, 4), Some(Step::Reach(Epoch(4))));
}

proptest! {
    /// Whatever the others do: memory is used only while it is mapped and in the epoch that was
    /// wanted, each release is preceded by a leave, and in the end the epoch is reached.
    #[test]
    fn any_history(changes in proptest::collection::vec((0u8..4, any::<bool>()), 1..100)) {
        let mut follow = Follow::default();
        let (mut life, mut wanted) = (Life(0), Epoch(0));
        let mut using = None;
        for (change, quiet) in changes {
            match change {
                0 => life = life.next(),
                1 => wanted = wanted.next(true),
                2 => wanted = wanted.next(false),
                _ => {}
            }
            let now = Seen { life, wanted, broken: false };
            for _ in 0..4 {
                match follow.step(now, || quiet) {
                    Some(Step::Leave) => using = None,
                    Some(Step::Release(l)) => {
                        prop_assert_eq!(using, None);
                        prop_assert!(!l.is_mapped());
                    }
                    Some(Step::Enter(epoch)) => {
                        prop_assert_eq!(using, None);
                        prop_assert!(life.is_mapped() && epoch == wanted && epoch.is_active());
                        using = Some((life, epoch));
                    }
                    Some(Step::Reach(epoch)) => {
                        prop_assert_eq!(using, None);
                        prop_assert!(epoch == wanted && !epoch.is_active());
                    }
                    None => break,
                }
            }
            prop_assert_eq!(follow.is_active(), using.is_some());
            // Nothing is used any more that somebody wants back.
            prop_assert!(using.is_none_or(|u| u == (life, wanted)));
        }
        let now = Seen { life, wanted, broken: false };
        while follow.step(now, || true).is_some() {}
        prop_assert_eq!(follow.is_active(), life.is_mapped() && wanted.is_active());
    }
}
