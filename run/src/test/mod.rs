//! `run/test`: every check there is, in layers, from cheap to dear.

pub mod conformance;
pub mod host;
pub mod lint;
mod partition;
pub mod report;
pub mod size;
pub mod system;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};

use anyhow::{Result, anyhow};

use crate::images::{self, Images};
use crate::repo::Repo;
use crate::toolchain::Toolchain;
use crate::ui;
use report::Report;

/// What the cases work with.
pub struct Context {
    /// The work tree.
    pub repo: Repo,
    /// Its toolchain.
    pub toolchain: Toolchain,
    images: OnceLock<Result<Images, String>>,
}

impl Context {
    /// All programs, built once for all cases.
    ///
    /// # Errors
    /// They do not build; every case that needs them fails with this.
    pub fn images(&self) -> Result<&Images> {
        let build = || {
            let components: Vec<String> = self.repo.images()?.into_iter().collect();
            images::build(&self.repo, &self.toolchain, &components)
        };
        let built =
            self.images.get_or_init(|| build().map_err(|e: anyhow::Error| format!("{e:#}")));
        built.as_ref().map_err(|e| anyhow!("{e}"))
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
    /// of one of its names: any word, unless that is the name of another layer.
    fn wanted(&self, filter: &str) -> bool {
        if self.name.contains(filter) || !self.many {
            return self.name.contains(filter);
        }
        filter.starts_with(&self.name) || !(filter.contains('/') || LAYERS.contains(&filter))
    }

    fn run(self, context: &Context, report: &Report) {
        let name = self.name;
        if let Err(error) = (self.work)(context, report) {
            report.measure(&name, || Err(error));
        }
    }
}

/// First parts of all names.
const LAYERS: [&str; 5] = ["lint", "host", "size", "conformance", "system"];

/// Jobs that run together.
struct Layer {
    jobs: Vec<Job>,
    /// How many at a time: cargo uses all CPUs by itself, an emulator about one.
    workers: usize,
}

/// Runs all cases whose name contains the filter. Returns whether all of them passed.
///
/// # Errors
/// Only for faults of this tool.
pub fn run(repo: Repo, toolchain: Toolchain, filter: &str) -> Result<bool> {
    ui::silence();
    let context = Context { repo, toolchain, images: OnceLock::new() };
    let report = Report::new(filter);
    let layers = [
        Layer { jobs: lint::jobs(), workers: 1 },
        Layer { jobs: host::jobs(), workers: 1 },
        Layer { jobs: size::jobs(), workers: 1 },
        Layer { jobs: conformance::jobs(), workers: 2 },
        Layer { jobs: system::jobs(), workers: 2 },
    ];
    for layer in layers {
        let wanted = layer.jobs.into_iter().filter(|job| job.wanted(filter)).collect();
        work(&context, &report, wanted, layer.workers);
    }
    Ok(report.close())
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
    use super::Job;

    #[test]
    fn filter_selects_by_part_of_the_name() {
        let case = Job::case("system/shell", |_| Ok(String::new()));
        assert!(case.wanted("") && case.wanted("shell") && !case.wanted("lint"));
    }

    #[test]
    fn group_runs_where_its_cases_may_be_meant() {
        let group = Job::group("conformance/2-cpus", |_, _| Ok(()));
        assert!(group.wanted("conformance") && group.wanted("ipc"));
        assert!(group.wanted("conformance/2-cpus/ipc"));
        assert!(!group.wanted("system/shell") && !group.wanted("system"));
    }
}
