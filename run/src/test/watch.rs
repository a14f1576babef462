//! The end of a run that finds none by itself: a case can hang in spite of its own time limit.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Does the work, and `late` beside it if it is not done in time.
pub fn within<T>(budget: Duration, work: impl FnOnce() -> T, late: impl FnOnce() + Send) -> T {
    std::thread::scope(|scope| {
        let (done, over) = channel::<()>();
        scope.spawn(move || {
            if over.recv_timeout(budget) == Err(RecvTimeoutError::Timeout) {
                late();
            }
        });
        let outcome = work();
        drop(done);
        outcome
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use anyhow::bail;

    use super::within;
    use crate::test::report::Report;

    #[test]
    fn work_that_is_done_in_time_is_left_alone() {
        let outcome = within(Duration::from_secs(60), || 42, || panic!("it was not late"));
        assert_eq!(outcome, 42);
    }

    /// What hangs is failed by its name, once, and what comes after that does not count.
    #[test]
    fn hanging_case_ends_the_run() {
        let budget = Duration::from_millis(50);
        let report = Report::new("");
        let (free, hang) = channel::<()>();
        let hangs = || {
            report.measure("host/good", || Ok(String::new()));
            let _group = report.begin("host");
            report.measure("host/hangs", || {
                let _ = hang.recv();
                Ok(String::new())
            });
        };
        let late = || {
            assert!(!report.overdue(budget));
            drop(free);
        };
        within(budget, hangs, late);
        assert_eq!(report.counts(), (1, vec!["host/hangs".to_owned()]));
        report.measure("host/after", || bail!("no"));
        assert_eq!(report.counts(), (1, vec!["host/hangs".to_owned()]));
        assert!(!report.close());
    }
}
