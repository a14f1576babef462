//! Model-specific registers.

use ipc::state::Mtd;

use crate::bus::Wild;
use crate::cpu::{CR0_PG, EFER_LMA, EFER_LME, EFER_NXE};
use crate::devices::lapic::Fault;
use crate::memory::NotRam;
use crate::num::{high32, low32};
use crate::policy::msr::{self, Action};
use crate::report::Stop;
use crate::vcpu::Handling;

/// First MSR of the local APIC in x2APIC mode.
const X2APIC_BASE: u32 = 0x800;
/// Bits of EFER that a guest may write: SYSCALL, long mode, NX; LMA is ignored.
const EFER_WRITABLE: u64 = 1 | EFER_LME | EFER_LMA | EFER_NXE;
/// Bits of `IA32_MTRR_DEF_TYPE`.
const MTRR_DEFAULT_WRITABLE: u64 = 0xcff;

/// The access raises #GP.
struct Refused;

impl From<Fault> for Refused {
    fn from(_: Fault) -> Self {
        Self
    }
}

impl From<NotRam> for Refused {
    fn from(_: NotRam) -> Self {
        Self
    }
}

impl Handling<'_, '_> {
    pub(super) fn msr_read(&mut self, register: u32) -> Result<(), Stop> {
        let Some(action) = self.msr_action(register, "read") else { return self.raise_gp() };
        self.need(groups(action))?;
        match self.read_action(register, action) {
            Ok(value) => {
                self.set_edx_eax(value);
                self.advance(2)
            }
            Err(Refused) => self.raise_gp(),
        }
    }

    pub(super) fn msr_write(&mut self, register: u32) -> Result<(), Stop> {
        let value = u64::from(low32(self.state.rdx)) << 32 | u64::from(low32(self.state.rax));
        let Some(action) = self.msr_action(register, "write") else { return self.raise_gp() };
        self.need(groups(action))?;
        match self.write_action(register, action, value) {
            Ok(()) => self.advance(2),
            Err(Refused) => self.raise_gp(),
        }
    }

    /// The policy; a register that nobody thought of is logged once.
    fn msr_action(&mut self, register: u32, what: &str) -> Option<Action> {
        let entry = msr::lookup(register);
        if entry.is_none() && self.vm.devices().lock().is_news(Wild::Msr(register)) {
            self.host.log(format_args!("{what} of unknown MSR {register:#x}: #GP"));
        }
        entry.map(|entry| entry.action)
    }

    fn read_action(&mut self, register: u32, action: Action) -> Result<u64, Refused> {
        Ok(match action {
            Action::Constant(value) | Action::ReadOnly(value) => value,
            Action::Absent => return Err(Refused),
            Action::Tsc => self.host.tsc().wrapping_add(self.cpu.tsc_offset),
            Action::TscDeadline => self.cpu.lapic.tsc_deadline(),
            Action::TscAux => self.state.tsc_aux,
            Action::ApicBase => self.cpu.lapic.base(),
            Action::X2Apic => {
                self.collect_eoi();
                let now = self.host.tsc();
                self.cpu.lapic.read_msr(register - X2APIC_BASE, now)?
            }
            Action::Efer => self.state.efer,
            Action::Pat => self.state.pat,
            Action::MtrrDefault => self.cpu.mtrr_default,
            Action::KvmWallClock => 0,
            Action::KvmSystemTime => self.cpu.pv.system_time(),
            Action::KvmEoi => self.cpu.pv.eoi(),
        })
    }

    fn write_action(&mut self, register: u32, action: Action, value: u64) -> Result<(), Refused> {
        match action {
            Action::Constant(_) => {}
            Action::ReadOnly(_) | Action::Absent => return Err(Refused),
            Action::Tsc => self.set_tsc(value),
            Action::TscDeadline => {
                let now = self.host.tsc();
                self.cpu.lapic.set_tsc_deadline(value, self.cpu.tsc_offset, now);
            }
            Action::TscAux if high32(value) == 0 => {
                self.state.tsc_aux = value;
                self.reply |= Mtd::TSC;
            }
            Action::TscAux => return Err(Refused),
            Action::ApicBase => {
                self.collect_eoi();
                self.cpu.lapic.set_base(value)?;
                self.cpu.publish(self.vm);
            }
            Action::X2Apic => {
                self.collect_eoi();
                let now = self.host.tsc();
                let effect = self.cpu.lapic.write_msr(register - X2APIC_BASE, value, now)?;
                self.apply(effect);
                self.cpu.publish(self.vm);
                self.mirror_tpr(register);
            }
            Action::Efer => self.set_efer(value)?,
            Action::Pat => {
                if !is_valid_pat(value) {
                    return Err(Refused);
                }
                self.state.pat = value;
                self.reply |= Mtd::EFER_PAT;
            }
            Action::MtrrDefault if value & !MTRR_DEFAULT_WRITABLE == 0 => {
                self.cpu.mtrr_default = value;
            }
            Action::MtrrDefault => return Err(Refused),
            Action::KvmWallClock => self.vm.clock().write_wall(self.vm.ram(), value)?,
            Action::KvmSystemTime => {
                let (ram, offset) = (self.vm.ram(), self.cpu.tsc_offset);
                self.cpu.pv.set_system_time(value, self.vm.clock(), ram, offset)?;
            }
            Action::KvmEoi => {
                self.collect_eoi();
                self.cpu.pv.set_eoi(value, self.vm.ram())?;
            }
        }
        Ok(())
    }

    /// The guest's TSC moves; the paravirtual clock and the timer move against it.
    fn set_tsc(&mut self, value: u64) {
        let offset = value.wrapping_sub(self.host.tsc());
        self.cpu.tsc_offset = offset;
        self.state.tsc_offset = offset;
        self.reply |= Mtd::TSC;
        self.cpu.lapic.set_tsc_offset(offset);
        self.cpu.pv.refresh(self.vm.clock(), self.vm.ram(), offset);
    }

    fn set_efer(&mut self, value: u64) -> Result<(), Refused> {
        let old = self.state.efer;
        // LME cannot change while paging is on (AMD APM vol. 2, 3.1.7).
        let switches = (value ^ old) & EFER_LME != 0 && self.state.cr0 & CR0_PG != 0;
        if value & !EFER_WRITABLE != 0 || switches {
            return Err(Refused);
        }
        self.state.efer = value & !EFER_LMA | old & EFER_LMA;
        self.reply |= Mtd::EFER_PAT;
        Ok(())
    }

    /// The task priority is CR8 as well.
    fn mirror_tpr(&mut self, register: u32) {
        const TPR: u32 = X2APIC_BASE + 8;
        if register == TPR {
            self.state.cr8 = u64::from(self.cpu.lapic.tpr() >> 4);
            self.reply |= Mtd::CR8;
        }
    }
}

/// Groups of the state that an action reads or writes partly.
const fn groups(action: Action) -> Mtd {
    match action {
        Action::Efer => Mtd::EFER_PAT.union(Mtd::CR),
        Action::Pat => Mtd::EFER_PAT,
        Action::Tsc | Action::TscAux => Mtd::TSC,
        _ => Mtd::empty(),
    }
}

/// Each byte is a memory type: 0, 1, or 4 to 7 (Intel SDM vol. 3, 12.12.2).
const fn is_valid_pat(value: u64) -> bool {
    let mut rest = value;
    while rest != 0 {
        if !matches!(rest & 0xff, 0 | 1 | 4..=7) {
            return false;
        }
        rest >>= 8;
    }
    true
}
