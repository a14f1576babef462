//! Whole systems, looked at from outside through QEMU's monitor while they run.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};

use super::pages::Dump;
use super::{Context, Job};
use crate::expect::Step;
use crate::images::{self, HYPERVISOR};
use crate::qemu::{Machine, Serial, Start};
use crate::session::{End, Finished, Session};
use crate::system;

const MEMORY: u64 = 2 << 30;
const SMP: u16 = 2;
const TIMEOUT: Duration = Duration::from_secs(400);
/// The kernel's memory in an idle system with one VM: a promise.
const KERNEL_MEMORY: u64 = 2 << 20;
/// Where the kernel's memory holds the counters of CPU 0: behind its root table and the control
/// page.
const COUNTERS: u64 = 2 * 4096;

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    let cpus = |name: &'static str, smp: u16, extra: &'static [&'static str]| {
        Job::case(format!("system/qemu-amd/{name}"), move |context| {
            starts(context, name, smp, extra)
        })
    };
    vec![
        Job::case("system/qemu-amd/idle-cpus-halt-and-no-page-is-open", page_tables),
        Job::case("system/qemu-amd/panic-names-its-place", panic_is_readable),
        cpus("8-cpus-start", 8, &[]),
        cpus("64-cpus-start", 64, &[]),
        cpus("4-cpus-start-without-x2apic", 4, &["-cpu", NO_X2APIC]),
    ]
}

/// As the usual one, but with APICs of the old kind.
const NO_X2APIC: &str = "EPYC,+svm,+npt,-x2apic,+umip,check=off";

/// QEMU's monitor.
struct Monitor(UnixStream);

impl Monitor {
    const PROMPT: &str = "(qemu) ";

    fn connect(socket: &Path) -> Result<Self> {
        let stream = UnixStream::connect(socket).context("QEMU's monitor does not answer")?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        let mut monitor = Self(stream);
        monitor.answer()?;
        Ok(monitor)
    }

    /// Gives a command and returns what it says.
    fn command(&mut self, command: &str) -> Result<String> {
        writeln!(self.0, "{command}")?;
        self.answer()
    }

    fn answer(&mut self) -> Result<String> {
        let mut text = Vec::new();
        while !text.ends_with(Self::PROMPT.as_bytes()) {
            let mut buffer = [0; 4096];
            match self.0.read(&mut buffer)? {
                0 => bail!("QEMU's monitor is gone"),
                n => text.extend_from_slice(buffer.get(..n).unwrap_or(&[])),
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Boots the quiet system; once its guest's shell waits, does something at the monitor, and then
/// hears the rest of the script.
fn inspected<T: Send>(
    context: &Context,
    name: &str,
    look: impl FnOnce(&mut Monitor, &str) -> Result<T> + Send,
    then: &[&str],
) -> Result<(T, Finished)> {
    let compiled = system::check(&context.repo, &context.repo.config("quiet"), SMP, MEMORY)?;
    let iso = context.scratch(&format!("{name}.iso"))?;
    system::assemble(&context.repo, context.images()?, &compiled)?.pack(&iso)?;
    let (log, socket) = (iso.with_extension("log"), iso.with_extension("sock"));
    for old in [&log, &socket] {
        let _ = std::fs::remove_file(old);
    }
    let monitor = format!("unix:{},server=on,wait=off", socket.display());
    let machine =
        Machine { extra: vec!["-monitor".into(), monitor], ..Machine::plain(SMP, MEMORY) };
    let symbols = images::symbols(&context.repo, HYPERVISOR);
    let session = Session {
        timeout: Some(TIMEOUT),
        log: Some(&log),
        symbols: Some(&symbols),
        to_the_end: then.is_empty(),
        ..Session::default()
    };
    let script = then.iter().map(|text| Step::Expect((*text).to_owned())).collect();
    std::thread::scope(|scope| {
        let looked = scope.spawn(|| {
            let text = wait_for(&log, "GUEST-UP linux")?;
            let mut monitor = Monitor::connect(&socket)?;
            let found = look(&mut monitor, &text);
            if found.is_err() || then.is_empty() {
                // The machine ends without a word.
                let _ = writeln!(monitor.0, "quit");
            }
            found
        });
        let command = &mut machine.command(&Start::Iso(iso.clone()), &Serial::Pipes);
        let finished = session.run(command, script);
        let looked = looked.join().unwrap_or_else(|_| bail!("looking at the machine panicked"));
        let _ = std::fs::remove_file(&iso);
        Ok((looked?, finished?))
    })
}

/// What a machine has said, once a text is in it.
fn wait_for(log: &PathBuf, text: &str) -> Result<String> {
    let end = Instant::now() + TIMEOUT;
    while Instant::now() < end {
        let said = std::fs::read(log).unwrap_or_default();
        let said = String::from_utf8_lossy(&said);
        if said.contains(text) {
            return Ok(said.into_owned());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    bail!("{text:?} did not come")
}

/// The number behind a text.
fn number(said: &str, before: &str) -> Result<u64> {
    let digits = said.split_once(before).map_or("", |(_, rest)| rest);
    let word: &str = digits.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or("");
    let (digits, radix) = word.strip_prefix("0x").map_or((word, 10), |hex| (hex, 16));
    u64::from_str_radix(digits, radix).with_context(|| format!("no number behind {before:?}"))
}

/// The registers of each CPU, once all of them halt at a time: nobody has anything to do, and the
/// kernel does not spin.
fn idle(monitor: &mut Monitor) -> Result<Vec<String>> {
    let end = Instant::now() + TIMEOUT;
    while Instant::now() < end {
        let all = monitor.command("info registers -a")?;
        let cpus: Vec<String> = all.split("CPU#").skip(1).map(str::to_owned).collect();
        if cpus.len() == usize::from(SMP) && cpus.iter().all(|cpu| cpu.contains("HLT=1")) {
            return Ok(cpus);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    bail!("the CPUs never halt together")
}

/// What the processor has against mistakes is switched on, on every CPU (APM 2, 3.1 and 3.2).
fn protected(cpus: &[String]) -> Result<()> {
    const BITS: [(&str, &str, u32); 5] = [
        ("CR0=", "write protection", 16),
        ("CR4=", "UMIP", 11),
        ("CR4=", "SMEP", 20),
        ("CR4=", "SMAP", 21),
        ("EFER=", "NX", 11),
    ];
    for (n, cpu) in cpus.iter().enumerate() {
        for (register, what, bit) in BITS {
            let digits = cpu.split_once(register).map_or("", |(_, rest)| rest);
            let digits = digits.split_whitespace().next().unwrap_or("");
            let value =
                u64::from_str_radix(digits, 16).with_context(|| format!("no {register}"))?;
            ensure!(value >> bit & 1 == 1, "CPU {n}: {what} is off ({register}{digits})");
        }
    }
    Ok(())
}

fn page_tables(context: &Context) -> Result<String> {
    let file = context.scratch("kernel-memory.dump")?;
    let look = |monitor: &mut Monitor, said: &str| {
        let size = number(said, "of which ")? << 20;
        let base = number(said, " MiB at ")?;
        let image = number(said, "loaded at ")?;
        protected(&idle(monitor)?)?;
        monitor.command("stop")?;
        monitor.command(&format!("pmemsave {base:#x} {size:#x} \"{}\"", file.display()))?;
        let bytes = std::fs::read(&file).context("QEMU saved nothing")?;
        let _ = std::fs::remove_file(&file);
        Ok(Dump { base, bytes, image: (image, 1 << 20) })
    };
    let (dump, _) = inspected(context, "page-tables", look, &[])?;
    let seen = dump.check();
    if let Some(first) = seen.bad.first() {
        bail!("{} bad pages, the first: {first}", seen.bad.len());
    }
    // The kernel's own, the root task's, the console's, the VMM's.
    ensure!(seen.spaces >= 4, "only {} address spaces found", seen.spaces);
    ensure!(seen.user > 100, "only {} user pages found", seen.user);
    let counter = u64::from(ipc::trace::Counter::FreePages.number());
    let free = dump.word(dump.base + COUNTERS + 8 * counter).context("no counters")? * 4096;
    let all = u64::try_from(dump.bytes.len())?;
    ensure!(free > 0 && free < all, "{free} bytes of kernel memory are free, of {all}");
    let used = all - free;
    ensure!(used < KERNEL_MEMORY, "{} KiB of kernel memory in use", used >> 10);
    Ok(format!(
        "{} spaces, {} pages, {} KiB of kernel memory in use",
        seen.spaces,
        seen.pages,
        used >> 10
    ))
}

/// A machine check of the second CPU, which idles.
fn panic_is_readable(context: &Context) -> Result<String> {
    let check = |monitor: &mut Monitor, _: &str| {
        std::thread::sleep(Duration::from_secs(2));
        monitor.command("mce 1 4 0xb200000000000000 0x5 0 0")
    };
    let script =
        ["PANIC: exception 18", "rip 0xffffffff8", ".rs:", "rbp 0x", "  at 0xffffffff8", ".rs:"];
    let (said, finished) = inspected(context, "panic", check, &script)?;
    finished.require_done().with_context(|| format!("the monitor said {said}"))?;
    // What it did, inlined or not, is named with its line.
    let text = finished.conversation.text();
    let place = text.lines().find_map(|line| line.split_once("  rip ")?.1.split_once("rflags"));
    let name = place.and_then(|(_, rest)| rest.trim_start().split_once(' ')).map(|(_, name)| name);
    Ok(format!("in {}", name.context("the place has no name")?))
}

/// All CPUs start, and the root task runs on them.
fn starts(context: &Context, name: &str, smp: u16, extra: &[&str]) -> Result<String> {
    let compiled = system::check(&context.repo, &context.repo.config("quiet"), smp, MEMORY)?;
    let iso = context.scratch(&format!("{name}.iso"))?;
    system::assemble(&context.repo, context.images()?, &compiled)?.pack(&iso)?;
    let extra: Vec<String> = extra.iter().map(|word| (*word).to_owned()).collect();
    let machine = Machine { extra: extra.clone(), ..Machine::plain(smp, MEMORY) };
    let mut script = vec![Step::Expect(format!("CPUs: {smp} running"))];
    // So many emulated CPUs on a few real ones are too slow for a guest.
    if smp <= 8 {
        script.push(Step::Expect("GUEST-UP linux".to_owned()));
    }
    let session = Session { timeout: Some(TIMEOUT), ..Session::default() };
    let command = &mut machine.command(&Start::Iso(iso.clone()), &Serial::Pipes);
    let finished = session.run(command, script)?;
    let _ = std::fs::remove_file(&iso);
    finished.require_done()?;
    let apic = if extra.is_empty() { "interrupts: x2APIC" } else { "interrupts: xAPIC" };
    ensure!(finished.conversation.text().contains(apic), "not {apic}");
    ensure!(finished.end == End::Done, "ended early");
    Ok(String::new())
}
