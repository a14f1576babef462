//! The machine that a system runs on, whichever emulator carries it out.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use crate::bochs::Model;
use crate::expect::Step;
use crate::qemu::{Serial, Start};
use crate::session::{Finished, Session};
use crate::{bochs, qemu};

/// Vendor of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Cpu {
    /// SVM.
    Amd,
    /// VT-x.
    Intel,
}

/// Program that carries the machine out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Emulator {
    /// Fast; AMD only.
    Qemu,
    /// Both vendors, with more of a processor's checks; BIOS only.
    Bochs,
}

/// A machine.
#[derive(Clone, Debug)]
pub enum Machine {
    /// In QEMU.
    Qemu(qemu::Machine),
    /// In Bochs.
    Bochs(bochs::Machine),
}

impl Machine {
    /// Adds devices, as QEMU's arguments.
    ///
    /// # Errors
    /// The machine is not QEMU's.
    pub fn plug_in(&mut self, mut devices: Vec<String>) -> Result<()> {
        match self {
            Self::Qemu(machine) => {
                devices.append(&mut machine.extra);
                machine.extra = devices;
            }
            Self::Bochs(_) if devices.is_empty() => {}
            Self::Bochs(_) => bail!("the configuration asks for devices that only QEMU has"),
        }
        Ok(())
    }

    /// Starts a boot image and runs the session's script against it.
    ///
    /// # Errors
    /// The emulator cannot be started.
    pub fn run(&self, session: &Session, iso: &Path, script: Vec<Step>) -> Result<Finished> {
        match self {
            Self::Qemu(machine) => {
                let start = Start::Iso(iso.to_path_buf());
                session.run(&mut machine.command(&start, &Serial::Pipes), script)
            }
            Self::Bochs(machine) => machine.run(session, iso, script),
        }
    }
}

/// What the options on vendor, emulator and CPU model come to: the model where it is Bochs.
///
/// # Errors
/// They contradict one another.
pub fn choose(
    cpu: Option<Cpu>,
    emulator: Option<Emulator>,
    model: Option<Model>,
) -> Result<Option<Model>> {
    if let (Some(cpu), Some(model)) = (cpu, model)
        && model.vendor() != cpu
    {
        bail!("--model {} is not of the vendor that --cpu names", model.name());
    }
    let vendor = cpu.or(model.map(Model::vendor)).unwrap_or(Cpu::Amd);
    match (emulator, vendor) {
        (Some(Emulator::Qemu), _) if model.is_some() => {
            bail!("--model chooses among the CPUs of Bochs; it does not go with --emulator qemu")
        }
        (Some(Emulator::Qemu), Cpu::Intel) => {
            bail!("QEMU does not emulate VT-x; --cpu intel needs --emulator bochs")
        }
        (None, Cpu::Amd) if model.is_none() => Ok(None),
        (Some(Emulator::Qemu), Cpu::Amd) => Ok(None),
        _ => Ok(Some(model.unwrap_or(Model::usual(vendor)))),
    }
}

/// From util-linux, part of every Debian.
const SETPRIV: &str = "/usr/bin/setpriv";

/// A command that ends when this tool does, even where that is killed.
#[must_use]
pub fn bound(program: impl AsRef<OsStr>) -> Command {
    if !Path::new(SETPRIV).exists() {
        return Command::new(program);
    }
    let mut command = Command::new(SETPRIV);
    command.args(["--pdeathsig", "KILL"]).arg(program);
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_and_model_choose_the_emulator() {
        let choose = |c, e, m| choose(c, e, m).unwrap();
        assert_eq!(choose(None, None, None), None);
        assert_eq!(choose(Some(Cpu::Amd), Some(Emulator::Qemu), None), None);
        assert_eq!(choose(Some(Cpu::Intel), None, None), Some(Model::Skylake));
        assert_eq!(choose(None, Some(Emulator::Bochs), None), Some(Model::Ryzen));
        assert_eq!(choose(None, None, Some(Model::Haswell)), Some(Model::Haswell));
        assert_eq!(choose(Some(Cpu::Intel), None, Some(Model::Tigerlake)), Some(Model::Tigerlake));
    }

    #[test]
    fn contradictions_are_told() {
        let error = |c, e, m| choose(c, e, m).unwrap_err().to_string();
        assert!(error(Some(Cpu::Intel), Some(Emulator::Qemu), None).contains("VT-x"));
        assert!(error(Some(Cpu::Amd), None, Some(Model::Haswell)).contains("corei7_haswell_4770"));
        assert!(error(None, Some(Emulator::Qemu), Some(Model::Ryzen)).contains("--model"));
    }
}
