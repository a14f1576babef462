//! `run/boot`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Boot, Context, limit};
use crate::expect::Step;
use crate::iso::Medium;
use crate::machine::{self, Machine};
use crate::qemu::{Accel, EXIT_PASS, Firmware, Serial, Start};
use crate::session::{End, Session};
use crate::{bochs, deps, images, qemu, system, terminal, ui};

/// Seconds until a machine that nobody sits at is given up.
const TIMEOUT: u64 = 600;

pub(super) fn run(context: &Context, args: &Boot, script: Vec<Step>) -> Result<ExitCode> {
    let mut machine = machine(args)?;
    let repo = &context.repo;
    let config = args.config.clone().unwrap_or_else(|| repo.config("linux"));
    let compiled = system::check(repo, &config, args.size.smp, args.size.memory)?;
    let needs = match machine {
        Machine::Qemu(_) => deps::For::Boot,
        Machine::Bochs(_) => deps::For::BootBochs,
    };
    deps::ensure(needs, &context.toolchain, args.consent.yes)?;
    let plan = system::plan(repo, &context.toolchain, &compiled)?;
    let iso = repo.target.join(&compiled.system.name).with_extension("iso");
    plan.pack(&iso)?;
    machine.plug_in(compiled.hardware.arguments(repo, &compiled.system.name)?)?;

    let scripted = !script.is_empty();
    let interactive = !scripted && !args.headless && std::io::stdin().is_terminal();
    if interactive {
        let timeout = args.timeout.map(limit);
        return match machine {
            Machine::Qemu(machine) => {
                let serial = Serial::Terminal { log: args.log.clone() };
                sit_at(machine.command(&Start::Iso(iso), &serial), timeout)
            }
            Machine::Bochs(machine) => sit_at_bochs(&machine, &iso, timeout, args.log.as_deref()),
        };
    }
    let session = Session {
        echo: true,
        log: args.log.as_deref(),
        symbols: Some(&images::symbols(repo, images::HYPERVISOR)),
        timeout: Some(limit(args.timeout.unwrap_or(TIMEOUT))),
        to_the_end: !scripted,
    };
    let finished = machine.run(&session, &iso, script)?;
    // The console rarely stops at the end of a line.
    println!();
    match finished.end {
        End::Exit(Some(0 | EXIT_PASS)) if !scripted => {}
        _ => finished.require_done()?,
    }
    ui::note(&format!("{:10} as expected ({})", "boot", ui::seconds(finished.time)));
    Ok(ExitCode::SUCCESS)
}

/// The machine that the options describe.
fn machine(args: &Boot) -> Result<Machine> {
    let (smp, memory) = (args.size.smp, args.size.memory);
    let Some(model) = machine::choose(args.cpu, args.emulator, args.model)? else {
        return Ok(Machine::Qemu(qemu::Machine {
            firmware: args.firmware,
            smp,
            memory,
            accel: args.accel,
            counting: false,
            medium: Medium::Disc,
            extra: args.qemu_arg.clone(),
        }));
    };
    if args.firmware != Firmware::Bios {
        bail!("Bochs has its own BIOS only; leave --firmware out");
    }
    if args.accel != Accel::Tcg || !args.qemu_arg.is_empty() {
        bail!("--accel and --qemu-arg are for QEMU, and this machine runs in Bochs");
    }
    bochs::Machine::new(model, smp, memory).map(Machine::Bochs)
}

/// The same with a machine in Bochs.
fn sit_at_bochs(
    machine: &bochs::Machine,
    iso: &Path,
    timeout: Option<Duration>,
    log: Option<&Path>,
) -> Result<ExitCode> {
    let create = |path: &Path| {
        File::create(path).with_context(|| format!("cannot write {}", path.display()))
    };
    let mut log = log.map(create).transpose()?;
    ui::note("Ctrl-A x leaves the machine.\n");
    let start = Instant::now();
    let log = log.as_mut().map(|file| file as &mut dyn Write);
    let end = terminal::sit_at(machine.start(iso)?, timeout, log)?;
    ui::note(&format!("\n{:10} ended ({})", "boot", ui::seconds(start.elapsed())));
    match machine.end_of(iso, end) {
        End::Done | End::Exit(Some(0)) => Ok(ExitCode::SUCCESS),
        other => bail!("the machine ended with {other:?}"),
    }
}

/// Gives the terminal to the machine.
fn sit_at(mut command: Command, timeout: Option<Duration>) -> Result<ExitCode> {
    ui::note("Ctrl-A x leaves the machine, Ctrl-A h shows what else there is.\n");
    let start = Instant::now();
    let mut machine = command.spawn().context("cannot start QEMU")?;
    let status = loop {
        if let Some(status) = machine.try_wait()? {
            break status;
        }
        if timeout.is_some_and(|t| start.elapsed() >= t) {
            machine.kill()?;
            machine.wait()?;
            bail!("time is up");
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    ui::note(&format!("\n{:10} ended ({})", "boot", ui::seconds(start.elapsed())));
    match status.code() {
        Some(0 | EXIT_PASS) => Ok(ExitCode::SUCCESS),
        _ => bail!("the machine ended with {status}"),
    }
}
