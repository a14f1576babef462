//! Prints results as they come and counts them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Result;

use super::lane::Lane;
use crate::ui::seconds;

/// The results of a run.
pub struct Report {
    filter: String,
    start: Instant,
    totals: Mutex<Totals>,
}

#[derive(Default)]
struct Totals {
    passed: usize,
    failed: Vec<String>,
    skipped: usize,
    lanes: BTreeMap<&'static str, Counts>,
    /// What is being done, and since when.
    running: Vec<(String, Instant)>,
    /// The run was ended; nothing counts any more.
    ended: bool,
}

/// What came of a lane's cases.
#[derive(Default)]
struct Counts {
    passed: usize,
    failed: usize,
    skipped: usize,
    /// Time of all its machines, some of which ran at the same time.
    time: Duration,
}

impl Totals {
    /// The counts of a case's lane, where it is in one.
    fn lane(&mut self, case: &str) -> Option<&mut Counts> {
        Lane::of(case).map(|lane| self.lanes.entry(lane.name()).or_default())
    }
}

impl Report {
    /// No results yet.
    #[must_use]
    pub fn new(filter: &str) -> Self {
        Self { filter: filter.to_owned(), start: Instant::now(), totals: Mutex::default() }
    }

    /// Notes that a case or a group runs, for as long as the result lives.
    #[must_use]
    pub fn begin(&self, name: &str) -> Running<'_> {
        self.totals().running.push((name.to_owned(), Instant::now()));
        Running { report: self, name: name.to_owned() }
    }

    /// Runs a case and notes its result.
    pub fn measure(&self, name: &str, case: impl FnOnce() -> Result<String>) {
        let running = self.begin(name);
        let start = Instant::now();
        let result = case();
        drop(running);
        self.note(name, start.elapsed(), result);
    }

    /// Whether a case that a group found is wanted.
    #[must_use]
    pub fn wanted(&self, name: &str) -> bool {
        name.contains(&self.filter)
    }

    /// Notes a result, with what is to be shown beside it.
    pub fn note(&self, name: &str, time: Duration, result: Result<String>) {
        let mut totals = self.totals();
        if totals.ended {
            return;
        }
        match result {
            Ok(remark) => {
                totals.passed += 1;
                totals.lane(name).into_iter().for_each(|lane| lane.passed += 1);
                let gap = if remark.is_empty() { "" } else { "  " };
                println!("{name} ... ok ({}){gap}{remark}", seconds(time));
            }
            Err(error) => {
                totals.failed.push(name.to_owned());
                totals.lane(name).into_iter().for_each(|lane| lane.failed += 1);
                println!("{name} ... FAILED ({})", seconds(time));
                for line in format!("{error:#}").lines() {
                    println!("    {line}");
                }
            }
        }
    }

    /// Notes a case that does not apply here; it is shown, and counts as neither.
    pub fn skip(&self, name: &str, why: &str) {
        let mut totals = self.totals();
        if totals.ended {
            return;
        }
        totals.skipped += 1;
        totals.lane(name).into_iter().for_each(|lane| lane.skipped += 1);
        println!("{name} ... skipped: {why}");
    }

    /// Notes time that a lane's machine took.
    pub fn spent(&self, lane: Lane, time: Duration) {
        self.totals().lanes.entry(lane.name()).or_default().time += time;
    }

    /// The counts; a case that panicked elsewhere must not hide the rest.
    fn totals(&self) -> MutexGuard<'_, Totals> {
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Time is up: what runs has failed, and nothing counts any more. Then as [`Self::close`].
    #[must_use]
    pub fn overdue(&self, budget: Duration) -> bool {
        let mut totals = self.totals();
        let running = std::mem::take(&mut totals.running);
        for (name, since) in &running {
            // Of a group and its case, the case.
            let within = format!("{name}/");
            if running.iter().any(|(other, _)| other.starts_with(&within)) {
                continue;
            }
            println!("{name} ... FAILED ({})", seconds(since.elapsed()));
            println!("    it did not end within the {} of the whole run", seconds(budget));
            totals.failed.push(name.clone());
            totals.lane(name).into_iter().for_each(|lane| lane.failed += 1);
        }
        totals.ended = true;
        self.summary(totals)
    }

    /// Prints the closing lines. Returns whether there were cases and all passed.
    #[must_use]
    pub fn close(&self) -> bool {
        self.summary(self.totals())
    }

    fn summary(&self, mut totals: MutexGuard<'_, Totals>) -> bool {
        if !totals.failed.is_empty() {
            println!("\nfailed:");
            for name in &totals.failed {
                println!("    {name}");
            }
        }
        if totals.passed + totals.failed.len() == 0 {
            println!("no case has a name with `{}`", self.filter);
        }
        totals.lanes.retain(|_, lane| lane.passed + lane.failed + lane.skipped > 0);
        if !totals.lanes.is_empty() {
            println!("\nlanes, with the time that their machines took:");
        }
        for (name, lane) in &totals.lanes {
            let Counts { passed, failed, skipped, time } = lane;
            let time = seconds(*time);
            println!("    {name:12} {passed} passed, {failed} failed, {skipped} skipped ({time})");
        }
        if totals.skipped > 0 {
            println!("\n{} skipped", totals.skipped);
        }
        println!("\nall of it took {}", seconds(self.start.elapsed()));
        println!("\n{} passed, {} failed", totals.passed, totals.failed.len());
        totals.failed.is_empty() && totals.passed > 0
    }

    /// Number of cases that passed, and the names of those that failed.
    #[cfg(test)]
    pub fn counts(&self) -> (usize, Vec<String>) {
        let totals = self.totals();
        (totals.passed, totals.failed.clone())
    }
}

/// A case or a group that runs.
pub struct Running<'a> {
    report: &'a Report,
    name: String,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        let mut totals = self.report.totals();
        if let Some(at) = totals.running.iter().position(|(name, _)| *name == self.name) {
            totals.running.remove(at);
        }
    }
}
