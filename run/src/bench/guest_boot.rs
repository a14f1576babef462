//! How long a guest takes to its init, against the same kernel, RAM disk and command line without
//! us on the same emulated machine.

use std::time::Duration;

use anyhow::{Context, Result};

use super::{Bench, Figure, median, reported};
use crate::config::compile::Compiled;
use crate::demo::initramfs::GUEST_UP;
use crate::expect::Step;
use crate::qemu::{Machine, Serial, Start};
use crate::session::{Finished, Session};
use crate::{system, ui};

/// First sign of life of Linux's decompressor, where the command line asks for one.
const EARLY: &str = "early console in";
/// Line of the VMM when the guest is loaded, directly before it is entered.
const GUEST_START: &str = "VM with ";

const SMP: u16 = 2;
const MEMORY: u64 = 2 << 30;
const TIMEOUT: Duration = Duration::from_secs(240);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let path = bench.repo.config("quiet");
    let compiled = system::check(&bench.repo, &path, SMP, MEMORY)?;
    let direct = direct(bench, &compiled)?;
    let mut figures = vec![Figure::new("guest-boot/direct", "s", direct)];

    let iso = bench.repo.target.join("bench.iso");
    system::plan(&bench.repo, &bench.toolchain, &compiled)?.pack(&iso)?;
    let machine = Machine::plain(SMP, MEMORY);
    let (mut machine_up, mut guest) = (Vec::new(), Vec::new());
    let mut said = Vec::new();
    for _ in 0..bench.runs {
        let finished = run_to(&machine, &Start::Iso(iso.clone()), GUEST_UP)?;
        let up = time_of(&finished, GUEST_UP)?;
        machine_up.push(up);
        guest.push(up - time_of(&finished, GUEST_START)?);
        ui::note(&format!("Portico: init after {up:.2} s"));
        said = reported::figures("guest-boot/", finished.conversation.text());
    }
    let guest = median(guest);
    figures.push(Figure::new("guest-boot/power-on-to-init", "s", median(machine_up)));
    figures.push(Figure::new("guest-boot/guest", "s", guest));
    figures.push(Figure::new("guest-boot/ratio", "x", guest / direct));
    figures.extend(said);
    Ok(figures)
}

/// Seconds from the guest kernel's start to its init, without us: the time of the whole machine
/// less that of its firmware.
fn direct(bench: &Bench, compiled: &Compiled) -> Result<f64> {
    let vm = compiled.system.components.iter().find_map(|c| c.vm.as_ref());
    let vm = vm.context("the configuration has no VM")?;
    let file = |module: &str| {
        let payload = compiled.payloads.iter().find(|(name, _)| name == module);
        let (_, payload) = payload.with_context(|| format!("no module {module}"))?;
        system::provide(&bench.repo, payload)
    };
    let start = Start::Linux {
        kernel: file(&vm.kernel)?,
        initrd: vm.initrd.as_deref().map(file).transpose()?,
        cmdline: vm.cmdline.clone(),
    };
    let early = Start::Linux {
        kernel: file(&vm.kernel)?,
        initrd: None,
        cmdline: "earlyprintk=ttyS0 debug console=ttyS0".to_owned(),
    };
    let machine = Machine::plain(u16::try_from(vm.vcpus.len())?, vm.ram);
    let (mut firmware, mut up) = (Vec::new(), Vec::new());
    for _ in 0..bench.runs {
        firmware.push(time_of(&run_to(&machine, &early, EARLY)?, EARLY)?);
        up.push(time_of(&run_to(&machine, &start, GUEST_UP)?, GUEST_UP)?);
    }
    let (firmware, up) = (median(firmware), median(up));
    ui::note(&format!("direct: init after {up:.2} s, of which firmware {firmware:.2} s"));
    Ok(up - firmware)
}

fn run_to(machine: &Machine, start: &Start, text: &str) -> Result<Finished> {
    let session = Session { timeout: Some(TIMEOUT), ..Session::default() };
    let script = vec![Step::Expect(text.to_owned())];
    let finished = session.run(&mut machine.command(start, &Serial::Pipes), script)?;
    finished.require_done()?;
    Ok(finished)
}

fn time_of(finished: &Finished, text: &str) -> Result<f64> {
    let time = finished.time_of(text);
    time.map(|t| t.as_secs_f64()).with_context(|| format!("{text:?} was not on the console"))
}
