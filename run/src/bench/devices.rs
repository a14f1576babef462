//! Disks and networks as a guest sees them, against the same kernel, RAM disk and program directly
//! on the machine that has the devices.
//!
//! A ratio says what part of the direct performance the guest has: where less is better, as with
//! latencies, it is turned round. What there is only with us, another guest on the machine, is held
//! against the direct way outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use measure::stream;

use super::{Bench, Figure, median, reported};
use crate::config::compile::Compiled;
use crate::config::payload::Payload;
use crate::demo::initramfs::{self, Contents};
use crate::expect::Step;
use crate::qemu::{Machine, Serial, Start};
use crate::session::Session;
use crate::{system, ui};

const SMP: u16 = 2;
const MEMORY: u64 = 2 << 30;
const TIMEOUT: Duration = Duration::from_secs(600);

/// The program that measures.
const PROGRAM: &str = "measure";
const INIT: &str = include_str!("../../measure/init");
/// Drivers for the devices, behind us and directly.
const DRIVERS: &[&str] = &["virtio_mmio", "virtio_pci", "virtio_blk", "virtio_net"];
/// Where it has a libc that can be linked in.
const TARGET: &str = "x86_64-unknown-linux-gnu";
/// Line of the guest when it is through; begin of one that says what failed.
const DONE: &str = "MEASURED";
const FAILED: &str = "MEASURE-FAILED";

/// The VMs of the configuration.
const ONE: &str = "one";
const TWO: &str = "two";
const PEER: &str = "10.0.2.12:5000";
/// What the emulator makes of the host.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let path = bench.repo.config("bench-devices");
    let mut compiled = system::check(&bench.repo, &path, SMP, MEMORY)?;
    let initrd = initrd(bench)?;
    for (_, payload) in &mut compiled.payloads {
        if *payload == Payload::Demo {
            *payload = Payload::File(initrd.clone());
        }
    }
    let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
    let outside = format!("outside:{OUTSIDE}:{}", listener.local_addr()?.port());
    thread::spawn(move || stream::serve(&listener));

    let words = format!("m_ip=10.0.2.11/24 m_net={outside}");
    let direct = Direct::new(bench, &compiled, &initrd, &format!("{words} m_disks=disk:vda"))?;
    add(&mut compiled, ONE, &format!("{words},peer:{PEER} m_disks=disk:vda,ram-disk:vdb"))?;
    add(&mut compiled, TWO, "m_ip=10.0.2.12/24 m_serve=5000")?;
    let iso = bench.repo.target.join("bench-devices.iso");
    system::plan(&bench.repo, &bench.toolchain, &compiled)?.pack(&iso)?;
    let machine = Machine { extra: devices(bench, &compiled)?, ..Machine::plain(SMP, MEMORY) };

    let (mut theirs, mut ours) = (Series::default(), Series::default());
    // In turns: whatever else the host does meets both.
    for n in 1..=bench.runs {
        ui::note(&format!("run {n} of {}", bench.runs));
        theirs.add(measure(&direct.machine, &direct.start)?);
        ours.add(measure(&machine, &Start::Iso(iso.clone()))?);
    }
    Ok(compare(&theirs.medians(), &ours.medians()))
}

/// The guest without us.
struct Direct {
    machine: Machine,
    start: Start,
}

impl Direct {
    fn new(bench: &Bench, compiled: &Compiled, initrd: &Path, words: &str) -> Result<Self> {
        let vm = compiled.system.components.iter().find(|c| c.name == ONE);
        let vm = vm.and_then(|c| c.vm.as_ref()).context("the configuration has no such VM")?;
        let kernel = compiled.payloads.iter().find(|(name, _)| *name == vm.kernel);
        let (_, kernel) = kernel.context("the VM has no kernel")?;
        let start = Start::Linux {
            kernel: system::provide(&bench.repo, kernel)?,
            initrd: Some(initrd.to_path_buf()),
            // There the devices are on PCI.
            cmdline: format!("{} {words}", vm.cmdline.replace(" pci=off", "")),
        };
        let plain = Machine::plain(u16::try_from(vm.vcpus.len())?, vm.ram);
        Ok(Self { machine: Machine { extra: devices(bench, compiled)?, ..plain }, start })
    }
}

/// The machine's devices. What the host's own disk takes is not measured.
fn devices(bench: &Bench, compiled: &Compiled) -> Result<Vec<String>> {
    let devices = compiled.hardware.arguments(&bench.repo, &compiled.system.name)?;
    let unsafely = |word: String| {
        if word.starts_with("if=none,") { format!("{word},cache=unsafe") } else { word }
    };
    Ok(devices.into_iter().map(unsafely).collect())
}

/// Adds words to the command line of a VM.
fn add(compiled: &mut Compiled, name: &str, words: &str) -> Result<()> {
    let vm = compiled.system.components.iter_mut().find(|c| c.name == name);
    let vm = vm.and_then(|c| c.vm.as_mut());
    let vm = vm.with_context(|| format!("the configuration has no VM {name}"))?;
    vm.cmdline = format!("{} {words}", vm.cmdline);
    Ok(())
}

/// Builds the RAM disk with the program.
fn initrd(bench: &Bench) -> Result<PathBuf> {
    let folder = bench.repo.target.join("guest");
    let mut cargo = bench.toolchain.cargo();
    cargo.args(["build", "--release", "--package", PROGRAM, "--bin", PROGRAM]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(&folder).current_dir(&bench.repo.root);
    // The guest has no libraries.
    cargo.env("RUSTFLAGS", "-Ctarget-feature=+crt-static -Cstrip=symbols");
    ui::run(&mut cargo, None).context("cannot build the program that measures")?;
    let program = folder.join(TARGET).join("release").join(PROGRAM);
    let program =
        std::fs::read(&program).with_context(|| format!("cannot read {}", program.display()))?;
    let programs = &[(PROGRAM, program)];
    let contents = Contents { name: PROGRAM, init: INIT, drivers: DRIVERS, programs };
    initramfs::make(&bench.repo, &contents)
}

/// Figures of one run.
fn measure(machine: &Machine, start: &Start) -> Result<Vec<Figure>> {
    let session = Session { timeout: Some(TIMEOUT), ..Session::default() };
    let script = vec![Step::Expect(DONE.to_owned())];
    let finished = session.run(&mut machine.command(start, &Serial::Pipes), script)?;
    finished.require_done()?;
    let text = finished.conversation.text();
    if let Some(line) = text.lines().find(|line| line.contains(FAILED)) {
        bail!("{line}");
    }
    Ok(reported::figures("", text))
}

/// Figures of several runs.
#[derive(Default)]
struct Series {
    /// Names and units, in the order in which they came.
    names: Vec<(String, String)>,
    values: BTreeMap<String, Vec<f64>>,
}

impl Series {
    fn add(&mut self, figures: Vec<Figure>) {
        for Figure { name, unit, value } in figures {
            if !self.values.contains_key(&name) {
                self.names.push((name.clone(), unit));
            }
            self.values.entry(name).or_default().push(value);
        }
    }

    fn medians(&self) -> Vec<Figure> {
        let figure = |(name, unit): &(String, String)| {
            let values = self.values.get(name).cloned().unwrap_or_default();
            Figure::new(name, unit, median(values))
        };
        self.names.iter().map(figure).collect()
    }
}

/// Ours, what is direct, and the ratio.
fn compare(direct: &[Figure], ours: &[Figure]) -> Vec<Figure> {
    let mut list = Vec::new();
    for figure in ours {
        let Figure { name, unit, value } = figure;
        list.push(figure.clone());
        let same = name.replacen("peer/", "outside/", 1);
        let Some(other) = direct.iter().find(|f| f.name == same) else { continue };
        if *name == same {
            list.push(Figure::new(format!("{name}/direct"), unit, other.value));
        }
        let less_is_better = unit == "us";
        let ratio = if less_is_better { other.value / value } else { value / other.value };
        list.push(Figure::new(format!("{name}/ratio"), "x", ratio));
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_parts_of_the_direct_performance() {
        let figure = |name: &str, unit: &str, value| Figure::new(name, unit, value);
        let direct = [figure("outside/tcp", "MiB/s", 10.0), figure("outside/ping", "us", 50.0)];
        let ours = [
            figure("outside/tcp", "MiB/s", 5.0),
            figure("outside/tcp/exits/hlt", "exits/MiB", 1.0),
            figure("outside/ping", "us", 100.0),
            figure("peer/tcp", "MiB/s", 20.0),
        ];
        let list: Vec<_> = compare(&direct, &ours).into_iter().map(|f| (f.name, f.value)).collect();
        let expected = [
            ("outside/tcp", 5.0),
            ("outside/tcp/direct", 10.0),
            ("outside/tcp/ratio", 0.5),
            ("outside/tcp/exits/hlt", 1.0),
            ("outside/ping", 100.0),
            ("outside/ping/direct", 50.0),
            ("outside/ping/ratio", 0.5),
            ("peer/tcp", 20.0),
            ("peer/tcp/ratio", 2.0),
        ];
        assert_eq!(list, expected.map(|(name, value)| (name.to_owned(), value)));
    }

    #[test]
    fn medians_keep_the_order_of_the_names() {
        let mut series = Series::default();
        for value in [3.0, 1.0, 2.0] {
            series.add(vec![Figure::new("b", "us", value), Figure::new("a", "us", -value)]);
        }
        let expected = [Figure::new("b", "us", 2.0), Figure::new("a", "us", -2.0)];
        assert_eq!(series.medians(), expected);
    }
}
