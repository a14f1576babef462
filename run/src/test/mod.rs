//! `run/test`: every check there is, in layers, from cheap to dear.

pub mod conformance;
pub mod host;
pub mod inspect;
pub mod lane;
pub mod lint;
mod operator;
pub mod pages;
mod partition;
pub mod report;
pub mod size;
pub mod stick;
pub mod system;
pub mod watch;

use std::collections::VecDeque;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};

use crate::images::{self, Images};
use crate::repo::Repo;
use crate::toolchain::Toolchain;
use crate::ui;
use lane::Lane;
use report::Report;

/// What the cases work with.
pub struct Context {
    /// The work tree.
    pub repo: Repo,
    /// Its toolchain.
    pub toolchain: Toolchain,
    images: OnceLock<Result<Images, String>>,
    sabotaged: OnceLock<Result<PathBuf, String>>,
}

impl Context {
    /// All programs, built once for all cases.
    ///
    /// # Errors
    /// They do not build; every case that needs them fails with this.
    pub fn images(&self) -> Result<&Images> {
        let build = || {
            let mut programs: Vec<String> = self.repo.images()?.into_iter().collect();
            programs.push(images::HOSTILE_GUEST.to_owned());
            images::build(&self.repo, &self.toolchain, &programs)
        };
        let built =
            self.images.get_or_init(|| build().map_err(|e: anyhow::Error| format!("{e:#}")));
        built.as_ref().map_err(|e| anyhow!("{e}"))
    }

    /// The kernel whose guest entries fail on demand.
    ///
    /// # Errors
    /// It does not build.
    pub fn sabotaged(&self) -> Result<&PathBuf> {
        let build = || images::sabotaged(&self.repo, &self.toolchain).map_err(|e| format!("{e:#}"));
        self.sabotaged.get_or_init(build).as_ref().map_err(|e| anyhow!("{e}"))
    }

    /// A place for what a case leaves behind.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn scratch(&self, name: &str) -> Result<PathBuf> {
        let folder = self.repo.target.join("test");
        std::fs::create_dir_all(&folder)?;
        Ok(folder.join(name))
    }
}

type Group = Box<dyn FnOnce(&Context, &Report) -> Result<()> + Send>;

/// Work that brings one result or many.
pub struct Job {
    name: String,
    many: bool,
    work: Group,
}

impl Job {
    /// One case. What it returns is shown beside its name.
    pub fn case(
        name: impl Into<String>,
        work: impl FnOnce(&Context) -> Result<String> + Send + 'static,
    ) -> Self {
        let name = name.into();
        let case = name.clone();
        let work: Group = Box::new(move |context, report| {
            report.measure(&case, || work(context));
            Ok(())
        });
        Self { name, many: false, work }
    }

    /// Cases whose names, beginning with this one, are only known when it runs. An error is that
    /// of the group itself.
    pub fn group(
        name: impl Into<String>,
        work: impl FnOnce(&Context, &Report) -> Result<()> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), many: true, work: Box::new(work) }
    }

    /// Whether a filter leaves anything of it. A group runs also for a filter that may be a part
    /// of one of its names: any word, unless that is the name of another layer or lane. For slow
    /// machines that must be the name of a case, with its `::`.
    fn wanted(&self, filter: &str) -> bool {
        if self.name.contains(filter) || !self.many {
            return self.name.contains(filter);
        }
        let other = LAYERS.contains(&filter)
            || Lane::ALL.iter().any(|l| l.name() == filter)
            || self.rank() == SLOW && !filter.contains("::");
        filter.starts_with(&self.name) || !(filter.contains('/') || other)
    }

    /// What takes longest begins first, so that nothing long is left alone at the end.
    fn rank(&self) -> u8 {
        match Lane::of(&self.name) {
            Some(Lane::BochsIntel | Lane::BochsAmd) => SLOW,
            Some(Lane::QemuAmd) if LONG.iter().any(|part| self.name.ends_with(part)) => 1,
            Some(Lane::QemuAmd) => 2,
            None => 3,
        }
    }

    fn run(self, context: &Context, report: &Report) {
        let name = self.name;
        let start = Instant::now();
        let _running = self.many.then(|| report.begin(&name));
        if let Err(error) = (self.work)(context, report) {
            report.measure(&name, || Err(error));
        }
        if let Some(lane) = Lane::of(&name) {
            report.spent(lane, start.elapsed());
        }
    }
}

/// Rank of what runs on slow machines.
const SLOW: u8 = 0;

/// Cases that take half a minute and more in QEMU.
const LONG: &[&str] = &[
    "/killed-back-ends-lose-nothing",
    "/flood-loses-nothing-and-starves-nobody",
    "/guest-that-breaks-the-rules-harms-nobody",
    "/killed-console-loses-nothing",
    "/stress-2-cpus",
    "/stress-4-cpus",
];

/// First parts of all names.
const LAYERS: [&str; 5] = ["lint", "host", "size", "conformance", "system"];

/// Jobs that run together.
struct Layer {
    jobs: Vec<Job>,
    /// How many at a time: cargo uses all CPUs by itself, an emulator about one.
    workers: usize,
}

/// Runs all cases whose name contains the filter. Returns whether all of them passed. Where that is
/// not over within `budget`, the process ends with what there is, and with it the emulators.
///
/// # Errors
/// Only for faults of this tool.
pub fn run(repo: Repo, toolchain: Toolchain, filter: &str, budget: Duration) -> Result<bool> {
    ui::silence();
    let context = Context { repo, toolchain, images: OnceLock::new(), sabotaged: OnceLock::new() };
    let report = Report::new(filter);
    let late = || {
        let _ = report.overdue(budget);
        std::process::exit(1);
    };
    Ok(watch::within(budget, || layers(&context, &report, filter), late))
}

fn layers(context: &Context, report: &Report, filter: &str) -> bool {
    let layers = [
        Layer { jobs: lint::jobs(), workers: 1 },
        Layer { jobs: host::jobs(), workers: 1 },
        Layer { jobs: size::jobs(), workers: 1 },
        Layer { jobs: machines(), workers: cpus() },
    ];
    for layer in layers {
        let wanted = layer.jobs.into_iter().filter(|job| job.wanted(filter)).collect();
        work(context, report, wanted, layer.workers);
    }
    report.close()
}

/// Everything that runs in an emulator.
fn machines() -> Vec<Job> {
    let mut jobs = conformance::jobs();
    jobs.extend(system::jobs());
    jobs.extend(stick::jobs());
    jobs.extend(inspect::jobs());
    jobs.sort_by_key(Job::rank);
    jobs
}

/// Number of CPUs that we may use.
fn cpus() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

fn work(context: &Context, report: &Report, jobs: VecDeque<Job>, workers: usize) {
    let queue = Mutex::new(jobs);
    let next = || queue.lock().map_or(None, |mut queue| queue.pop_front());
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                while let Some(job) = next() {
                    job.run(context, report);
                }
            });
        }
    });
}

#[cfg(test)]
mod tests {
    use super::{Job, LONG, Lane, machines};

    #[test]
    fn filter_selects_by_part_of_the_name() {
        let case = Job::case("system/shell", |_| Ok(String::new()));
        assert!(case.wanted("") && case.wanted("shell") && !case.wanted("lint"));
    }

    #[test]
    fn group_runs_where_its_cases_may_be_meant() {
        let group = Job::group("conformance/qemu-amd/2-cpus", |_, _| Ok(()));
        assert!(group.wanted("conformance") && group.wanted("ipc"));
        assert!(group.wanted("conformance/qemu-amd/2-cpus/ipc") && group.wanted("qemu-amd"));
        assert!(!group.wanted("system/shell") && !group.wanted("system"));
        assert!(!group.wanted("bochs-amd") && !group.wanted("conformance/bochs-amd"));
        let slow = Job::group("conformance/bochs-amd/2-cpus", |_, _| Ok(()));
        assert!(slow.wanted("bochs-amd") && slow.wanted("ipc::call") && slow.wanted(""));
        assert!(!slow.wanted("ipc") && !slow.wanted("qemu-amd"));
    }

    #[test]
    fn slow_machines_begin_first() {
        let jobs = machines();
        assert!(jobs.is_sorted_by_key(Job::rank));
        assert_eq!(jobs.iter().filter(|job| job.rank() == 1).count(), LONG.len());
        for lane in Lane::ALL {
            let of_lane = |layer| {
                jobs.iter().any(|j| j.name.starts_with(layer) && Lane::of(&j.name) == Some(lane))
            };
            assert!(of_lane("conformance/") && of_lane("system/"), "{lane:?}");
        }
    }
}
