//! `run/boot`.

use std::io::IsTerminal;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::{Boot, Context, limit};
use crate::expect::Step;
use crate::qemu::{Cpu, EXIT_PASS, Machine, Serial, Start};
use crate::session::{End, Session};
use crate::{deps, system, ui};

/// Seconds until a machine that nobody sits at is given up.
const TIMEOUT: u64 = 600;

pub(super) fn run(context: &Context, args: &Boot, script: Vec<Step>) -> Result<ExitCode> {
    if args.cpu == Cpu::Intel {
        bail!("--cpu intel: QEMU does not emulate VT-x; that needs Bochs, which is not there yet");
    }
    let repo = &context.repo;
    let config = args.config.clone().unwrap_or_else(|| repo.config("linux"));
    let compiled = system::check(repo, &config, args.size.smp, args.size.memory)?;
    deps::ensure(deps::For::Boot, &context.toolchain, args.consent.yes)?;
    let plan = system::plan(repo, &context.toolchain, &compiled)?;
    let iso = repo.target.join(&compiled.system.name).with_extension("iso");
    plan.pack(&iso)?;

    let mut extra = compiled.hardware.arguments(repo, &compiled.system.name)?;
    extra.extend(args.qemu_arg.iter().cloned());
    let machine = Machine {
        firmware: args.firmware,
        smp: args.size.smp,
        memory: args.size.memory,
        accel: args.accel,
        counting: false,
        extra,
    };
    let start = Start::Iso(iso);
    let scripted = !script.is_empty();
    let interactive = !scripted && !args.headless && std::io::stdin().is_terminal();
    if interactive {
        let serial = Serial::Terminal { log: args.log.clone() };
        return sit_at(machine.command(&start, &serial), args.timeout.map(limit));
    }
    let session = Session {
        echo: true,
        log: args.log.as_deref(),
        timeout: Some(limit(args.timeout.unwrap_or(TIMEOUT))),
        to_the_end: !scripted,
    };
    let finished = session.run(&mut machine.command(&start, &Serial::Pipes), script)?;
    // The console rarely stops at the end of a line.
    println!();
    match finished.end {
        End::Exit(Some(0 | EXIT_PASS)) if !scripted => {}
        _ => finished.require_done()?,
    }
    ui::note(&format!("{:10} as expected ({})", "boot", ui::seconds(finished.time)));
    Ok(ExitCode::SUCCESS)
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
