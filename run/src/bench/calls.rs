//! What kernel calls cost, as the conformance component measures them, on an emulated machine
//! that counts instructions: one tick of its clock is one instruction, and runs repeat exactly.

use std::time::Duration;

use anyhow::{Result, bail};

use super::{Bench, Figure, reported};
use crate::qemu::{EXIT_PASS, Machine, Serial, Start};
use crate::session::{End, Session};
use crate::system;

const SMP: u16 = 2;
/// Above 4 GiB there is a whole aligned GiB to delegate.
const MEMORY: u64 = 4 << 30;
const TIMEOUT: Duration = Duration::from_secs(120);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let path = bench.repo.config("bench");
    let compiled = system::check(&bench.repo, &path, SMP, MEMORY)?;
    let iso = bench.repo.target.join("bench-calls.iso");
    system::plan(&bench.repo, &bench.toolchain, &compiled)?.pack(&iso)?;
    let machine = Machine { counting: true, ..Machine::plain(SMP, MEMORY) };
    let session = Session { timeout: Some(TIMEOUT), to_the_end: true, ..Session::default() };
    let command = &mut machine.command(&Start::Iso(iso), &Serial::Pipes);
    let finished = session.run(command, Vec::new())?;
    if finished.end != End::Exit(Some(EXIT_PASS)) {
        finished.require_done()?;
        bail!("the benchmark component failed");
    }
    Ok(reported::figures("", finished.conversation.text()))
}
