//! Bochs: an emulator with VT-x and SVM. Slower than QEMU, and stricter: it checks most of what a
//! processor checks when a guest is entered.

use std::fmt::Write as _;
use std::fs::File;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::expect::Step;
use crate::machine::{Cpu, bound};
use crate::session::{End, Finished, Running, Session};

/// The emulator.
pub const PROGRAM: &str = "bochs";
/// Its firmware, from the package `bochsbios`.
pub const BIOS: &str = "/usr/share/bochs/BIOS-bochs-latest";
/// Its VGA firmware, from the package `vgabios`.
pub const VGA_BIOS: &str = "/usr/share/bochs/VGABIOS-lgpl-latest";

/// Instructions that make up a second of the machine's time. About as fast as Bochs gets, so that
/// the machine's time runs no faster than ours, and time limits in it are as generous as meant.
const INSTRUCTIONS_PER_SECOND: u32 = 100_000_000;
/// How often its debugger may stop it: it does so at each triple fault, a guest's, too.
const STOPS: usize = 64;
/// What it has to say to a triple fault.
const TRIPLE_FAULT: &str = "exception(): 3rd (";
/// Most memory that the firmware finds: above begins the hole for devices.
const MEMORY_MAX: u64 = 2 << 30;

/// CPU models that run guests here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Model {
    /// Intel Core i7-7800X.
    #[value(name = "corei7_skylake_x")]
    Skylake,
    /// Intel Core i7-4770.
    #[value(name = "corei7_haswell_4770")]
    Haswell,
    /// Intel Core i7-1185G7.
    #[value(name = "tigerlake")]
    Tigerlake,
    /// AMD Ryzen 7 1700.
    #[value(name = "ryzen")]
    Ryzen,
}

impl Model {
    /// The model where only the vendor is named.
    #[must_use]
    pub const fn usual(vendor: Cpu) -> Self {
        match vendor {
            Cpu::Amd => Self::Ryzen,
            Cpu::Intel => Self::Skylake,
        }
    }

    /// Who makes it.
    #[must_use]
    pub const fn vendor(self) -> Cpu {
        match self {
            Self::Ryzen => Cpu::Amd,
            Self::Skylake | Self::Haswell | Self::Tigerlake => Cpu::Intel,
        }
    }

    /// As Bochs calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skylake => "corei7_skylake_x",
            Self::Haswell => "corei7_haswell_4770",
            Self::Tigerlake => "tigerlake",
            Self::Ryzen => "ryzen",
        }
    }
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    model: Model,
    smp: u16,
    /// Bytes of RAM.
    memory: u64,
}

/// Files beside the boot image that a run of the emulator needs or leaves.
struct Files {
    /// What the machine is.
    configuration: PathBuf,
    /// What its debugger, which Debian's build always has, is told: to go on.
    commands: PathBuf,
    /// What the emulator has to say.
    log: PathBuf,
    /// What it says before it knows where its log is.
    early: PathBuf,
}

impl Files {
    fn of(iso: &Path) -> Self {
        let file = |extension: &str| iso.with_extension(extension);
        Self {
            configuration: file("bochsrc"),
            commands: file("bochs-commands"),
            log: file("bochs-log"),
            early: file("bochs-early"),
        }
    }
}

impl Machine {
    /// A machine with this CPU, so many of them, and so many bytes of RAM.
    ///
    /// # Errors
    /// There is no such memory in Bochs.
    pub fn new(model: Model, smp: u16, memory: u64) -> Result<Self> {
        if !memory.is_multiple_of(1 << 20) || memory > MEMORY_MAX {
            bail!("Bochs takes whole MiB of memory, at most 2G");
        }
        Ok(Self { model, smp, memory })
    }

    /// Runs the session's script against the machine.
    ///
    /// # Errors
    /// The emulator cannot be started, or does not like its configuration.
    pub fn run(&self, session: &Session, iso: &Path, script: Vec<Step>) -> Result<Finished> {
        let mut finished = session.converse(self.start(iso)?, script)?;
        finished.end = self.end_of(iso, finished.end);
        Ok(finished)
    }

    /// Starts the machine.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub fn start(&self, iso: &Path) -> Result<Running> {
        let files = Files::of(iso);
        // Bochs connects to us; the number of a port that we hold cannot be anybody else's.
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("no port for the console")?;
        let text = self.configuration(iso, &files.log, listener.local_addr()?.port())?;
        let write = |path: &Path, text: &str| {
            std::fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        write(&files.configuration, &text)?;
        write(&files.commands, &"continue\n".repeat(STOPS))?;
        let early = File::create(&files.early)
            .with_context(|| format!("cannot write {}", files.early.display()))?;
        let mut command = self.command(&files);
        // It draws the machine's screen on its standard output.
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(early);
        Running::connected(&mut command, &listener).with_context(|| {
            let said = std::fs::read_to_string(&files.log).unwrap_or_default();
            let early = std::fs::read_to_string(&files.early).unwrap_or_default();
            format!("Bochs does not start\n{early}{said}")
        })
    }

    /// How a run ended, with what the emulator has to say about it.
    #[must_use]
    pub fn end_of(&self, iso: &Path, end: End) -> End {
        let log = Files::of(iso).log;
        let said = std::fs::read(&log).unwrap_or_default();
        let stopped = |words: &str| End::Stopped(format!("{words} (more in {})", log.display()));
        judge(end, &String::from_utf8_lossy(&said), stopped)
    }

    fn command(&self, files: &Files) -> Command {
        let mut command = bound(PROGRAM);
        command.args(["-q", "-f"]).arg(&files.configuration).arg("-rc").arg(&files.commands);
        // Any terminal: nobody sees it.
        command.env("TERM", "vt100");
        command
    }

    fn configuration(&self, iso: &Path, log: &Path, port: u16) -> Result<String> {
        let mut text = String::new();
        let mut line = |line: std::fmt::Arguments| writeln!(text, "{line}");
        line(format_args!("config_interface: textconfig"))?;
        line(format_args!("display_library: term"))?;
        line(format_args!("plugin_ctrl: speaker=0, gameport=0, parallel=0, extfpuirq=0"))?;
        line(format_args!("romimage: file={BIOS}"))?;
        line(format_args!("vgaromimage: file={VGA_BIOS}"))?;
        line(format_args!("megs: {}", self.memory >> 20))?;
        let (model, smp) = (self.model.name(), self.smp);
        line(format_args!("cpu: model={model}, count={smp}, ips={INSTRUCTIONS_PER_SECOND}"))?;
        line(format_args!("cpu: reset_on_triple_fault=0, ignore_bad_msrs=1"))?;
        line(format_args!("clock: sync=none, time0=utc"))?;
        line(format_args!("boot: cdrom"))?;
        line(format_args!("ata0-master: type=cdrom, path={}, status=inserted", quoted(iso)?))?;
        line(format_args!("com1: enabled=1, mode=socket-client, dev=127.0.0.1:{port}"))?;
        line(format_args!("log: {}", quoted(log)?))?;
        line(format_args!("debugger_log: /dev/null"))?;
        // The registers where it gives up are information; every guest exit is an error to it.
        // A guest that shuts down is a panic of its CPU, too, and has to go on.
        let cpus: String = (0..smp).map(|n| format!(", cpu{n}=report")).collect();
        line(format_args!("panic: action=fatal{cpus}"))?;
        line(format_args!("error: action=ignore"))?;
        line(format_args!("info: action=report"))?;
        line(format_args!("debug: action=ignore"))?;
        Ok(text)
    }
}

/// A path as a configuration can hold it: there is no way to write some characters.
fn quoted(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains(['"', '$', '\n']) => Ok(format!("\"{text}\"")),
        _ => bail!("Bochs cannot be given the path {}", path.display()),
    }
}

/// What came of a run: whatever the emulator calls a panic spoils it, but for switching itself off,
/// and a guest's triple fault, after which it goes on.
fn judge(end: End, log: &str, stopped: impl Fn(&str) -> End) -> End {
    let panics = log.lines().filter_map(|line| line.split_once(">>PANIC<< "));
    let panics: Vec<&str> = panics.map(|(_, words)| words.trim()).collect();
    match (end, panics.last()) {
        (End::Exit(_), Some(words)) if words.contains("soft power off") => End::Exit(Some(0)),
        (End::Exit(_) | End::Timeout, Some(words)) => stopped(words),
        (end, _) => {
            let bad = panics.iter().find(|words| !words.starts_with(TRIPLE_FAULT));
            bad.map_or(end, |words| stopped(words))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine::new(Model::Haswell, 2, 1 << 30).unwrap()
    }

    #[test]
    fn configuration_says_what_the_machine_is() {
        let text = machine().configuration("/a b/c,d.iso".as_ref(), "/l".as_ref(), 4711).unwrap();
        for part in [
            "cpu: model=corei7_haswell_4770, count=2, ips=",
            "megs: 1024\n",
            "path=\"/a b/c,d.iso\", status=inserted",
            "dev=127.0.0.1:4711\n",
            "log: \"/l\"\n",
            "reset_on_triple_fault=0",
            "panic: action=fatal, cpu0=report, cpu1=report\n",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn what_bochs_cannot_have_is_refused() {
        let refused = |iso: &str| machine().configuration(iso.as_ref(), "/l".as_ref(), 1).is_err();
        assert!(refused("/a\"b.iso"));
        assert!(refused("/$HOME/b.iso"));
        assert!(Machine::new(Model::Ryzen, 1, (1 << 30) + 1).is_err());
        assert!(Machine::new(Model::Ryzen, 1, 4 << 30).is_err());
        assert!(Machine::new(Model::Ryzen, 1, 2 << 30).is_ok());
    }

    #[test]
    fn models_have_the_names_of_the_command_line() {
        for model in Model::value_variants() {
            let value = model.to_possible_value().unwrap();
            assert_eq!(value.get_name(), model.name());
            assert_eq!(Model::usual(model.vendor()).vendor(), model.vendor());
        }
    }

    #[test]
    fn panics_of_the_emulator_are_judged() {
        let judge = |end, log: &str| judge(end, log, |words| End::Stopped(words.to_owned()));
        let stopped = |words: &str| End::Stopped(words.to_owned());
        let triple = "1p[CPU0  ] >>PANIC<< exception(): 3rd (13) exception with no resolution\n";
        let off = "2p[ACPI  ] >>PANIC<< ACPI control: soft power off\n";
        let bad = "3p[CPU1  ] >>PANIC<< unknown\n4i[CPU0  ] x\n";
        assert_eq!(judge(End::Exit(Some(1)), ""), End::Exit(Some(1)));
        assert_eq!(judge(End::Exit(Some(1)), &format!("{triple}{off}")), End::Exit(Some(0)));
        assert_eq!(judge(End::Exit(Some(1)), bad), stopped("unknown"));
        assert_eq!(judge(End::Done, triple), End::Done);
        assert_eq!(judge(End::Done, &format!("{bad}{triple}")), stopped("unknown"));
        assert_eq!(judge(End::Timeout, ""), End::Timeout);
        assert!(matches!(judge(End::Timeout, triple), End::Stopped(_)));
    }
}
