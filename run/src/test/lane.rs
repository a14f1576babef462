//! Lanes: the machines that kernel and systems are tested on.

use anyhow::Result;

use crate::bochs::{self, Model};
use crate::machine::{Cpu, Machine};
use crate::qemu;

/// Emulator and vendor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lane {
    /// The reference: fast.
    QemuAmd,
    /// VT-x.
    BochsIntel,
    /// A second opinion on SVM.
    BochsAmd,
}

impl Lane {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::QemuAmd, Self::BochsIntel, Self::BochsAmd];

    /// The second part of the names of its cases.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::QemuAmd => "qemu-amd",
            Self::BochsIntel => "bochs-intel",
            Self::BochsAmd => "bochs-amd",
        }
    }

    /// The lane of a case or group.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let part = name.split('/').nth(1)?;
        Self::ALL.into_iter().find(|lane| lane.name() == part)
    }

    /// Its usual machine.
    ///
    /// # Errors
    /// The emulator has no such machine.
    pub fn machine(self, smp: u16, memory: u64) -> Result<Machine> {
        match self {
            Self::QemuAmd => Ok(Machine::Qemu(qemu::Machine::plain(smp, memory))),
            Self::BochsIntel => with_model(Model::usual(Cpu::Intel), smp, memory),
            Self::BochsAmd => with_model(Model::usual(Cpu::Amd), smp, memory),
        }
    }
}

/// A machine in Bochs with a CPU model of its own.
///
/// # Errors
/// The emulator has no such machine.
pub fn with_model(model: Model, smp: u16, memory: u64) -> Result<Machine> {
    bochs::Machine::new(model, smp, memory).map(Machine::Bochs)
}

#[cfg(test)]
mod tests {
    use super::Lane;

    #[test]
    fn lane_is_the_second_part_of_a_name() {
        assert_eq!(Lane::of("conformance/bochs-intel/2-cpus/ipc::call"), Some(Lane::BochsIntel));
        assert_eq!(Lane::of("system/qemu-amd/reboot"), Some(Lane::QemuAmd));
        assert_eq!(Lane::of("host/run::bochs-amd"), None);
        assert_eq!(Lane::of("bochs-amd"), None);
    }
}
