//! What the exit of a guest costs on Intel: in Bochs, whose clock advances by one tick with each
//! instruction where the machine has one CPU.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, Figure, reported};
use crate::bochs::{Machine, Model};
use crate::expect::Step;
use crate::machine::Cpu;
use crate::session::Session;
use crate::system;

const MEMORY: u64 = 2 << 30;
const TIMEOUT: Duration = Duration::from_secs(600);
/// Name of the component that measures, in its configuration.
const COMPONENT: &str = "conformance";

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let mut compiled = system::check(&bench.repo, &bench.repo.config("bench"), 1, MEMORY)?;
    let component = compiled.system.components.iter_mut().find(|c| c.name == COMPONENT);
    component.context("the configuration has no component that measures")?.args =
        "bench only=guest".to_owned();
    let iso = bench.repo.target.join("bench-intel.iso");
    system::plan(&bench.repo, &bench.toolchain, &compiled)?.pack(&iso)?;
    let session = Session { timeout: Some(TIMEOUT), ..Session::default() };
    let script = vec![Step::Expect(format!("root: component \"{COMPONENT}\" ended"))];
    let finished =
        Machine::new(Model::usual(Cpu::Intel), 1, MEMORY)?.run(&session, &iso, script)?;
    finished.require_done()?;
    let figures = reported::figures("", finished.conversation.text());
    let named = |f: Figure| Figure { name: format!("{}_intel", f.name), ..f };
    Ok(figures.into_iter().map(named).collect())
}
