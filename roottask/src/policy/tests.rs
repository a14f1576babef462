#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use config::Restart;

use super::{LastVm, Life, Report, State, Verdict};

#[test]
fn reports_survive_their_word() {
    let exits = [Report::Exit(0), Report::Exit(u32::MAX)];
    let others = [Report::Fault(0), Report::Fault(14), Report::Killed, Report::Silent];
    for report in exits.into_iter().chain(others) {
        assert_ne!(report.to_word(), 0);
        assert_eq!(Report::from_word(report.to_word()), Some(report));
    }
    assert_eq!(Report::from_word(0), None);
    assert_eq!(Report::from_word(2 << 32 | 256), None);
}

#[test]
fn an_orderly_end_is_final() {
    let mut life = Life::new(Restart::OnFailure { max: 3 });
    life.started(0);
    assert_eq!(life.ended(Report::Exit(0), 0, 1), Verdict::Ended);
    assert!(life.is_over());
}

#[test]
fn failures_are_followed_by_longer_and_longer_pauses_and_an_end() {
    let mut life = Life::new(Restart::OnFailure { max: 8 });
    let mut pauses = [0; 8];
    for pause in &mut pauses {
        life.started(0);
        match life.ended(Report::Fault(14), 1000, 10) {
            Verdict::Restart(ms) => *pause = ms,
            other => assert_eq!(other, Verdict::Restart(0)),
        }
        assert_eq!(life.state, State::Backoff(1000 + *pause * 10));
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    life.started(0);
    assert_eq!(life.ended(Report::Exit(1), 0, 1), Verdict::GivenUp);
    assert!(life.is_over());
}

#[test]
fn never_means_never() {
    let mut life = Life::new(Restart::Never);
    life.started(0);
    assert_eq!(life.ended(Report::Exit(7), 0, 1), Verdict::Down);
    assert_eq!(life.state, State::Failed);
}

#[test]
fn the_last_vm() {
    let goes_off = |vms: &[&Life]| LastVm::default().goes_off(vms.iter().copied());
    let mut a = Life::new(Restart::Never);
    let mut b = Life::new(Restart::Never);
    assert!(!goes_off(&[]));
    b.refused();
    assert!(!goes_off(&[&a, &b]));
    a.started(0);
    assert!(!goes_off(&[&a, &b]));
    let _ = a.ended(Report::Exit(0), 0, 1);
    assert!(goes_off(&[&a, &b]));
    assert!(!goes_off(&[&b]));
}

#[test]
fn the_last_vm_goes_off_once_for_each_time_that_one_was_started() {
    let mut last = LastVm::default();
    let mut vm = Life::new(Restart::Never);
    for _ in 0..3 {
        assert!(!last.goes_off([&vm].into_iter()));
        vm.started(0);
        assert!(!last.goes_off([&vm].into_iter()));
        let _ = vm.ended(Report::Killed, 0, 1);
        assert!(last.goes_off([&vm].into_iter()));
        assert!(!last.goes_off([&vm].into_iter()));
        vm.begin_anew();
    }
}

#[test]
fn a_stable_time_makes_up_for_failures() {
    let mut life = Life::new(Restart::OnFailure { max: 2 });
    for _ in 0..10 {
        life.started(1000);
        assert_eq!(life.ended(Report::Fault(6), 1000, 10), Verdict::Restart(100));
        life.started(2000);
        assert_eq!(life.ended(Report::Exit(1), 301_999, 10), Verdict::Restart(200));
        life.started(5000);
        // 30 s at 10 ticks in a millisecond.
        assert_eq!(life.ended(Report::Silent, 305_000, 10), Verdict::Restart(100));
        life.failures = 0;
    }
    assert_eq!(life.restarts, 29);
}

#[test]
fn what_the_operator_ends_does_not_count() {
    let mut life = Life::new(Restart::OnFailure { max: 1 });
    for _ in 0..20 {
        life.started(0);
        assert_eq!(life.ended(Report::Killed, 0, 1), Verdict::Restart(100));
    }
    life.started(0);
    assert_eq!(life.ended(Report::Fault(13), 0, 1), Verdict::Restart(100));
    life.started(0);
    assert_eq!(life.ended(Report::Killed, 0, 1), Verdict::Restart(100));
    life.started(0);
    assert_eq!(life.ended(Report::Fault(13), 0, 1), Verdict::GivenUp);
    life.begin_anew();
    assert_eq!(life.state, State::Waiting);
    life.started(0);
    assert_eq!(life.ended(Report::Fault(13), 0, 1), Verdict::Restart(100));
}

#[test]
fn killed_stays_down_where_nothing_is_restarted() {
    let mut life = Life::new(Restart::Never);
    life.started(0);
    assert_eq!(life.ended(Report::Killed, 0, 1), Verdict::Down);
    life.begin_anew();
    life.started(0);
    assert_eq!((life.state, life.restarts), (State::Running, 1));
}
