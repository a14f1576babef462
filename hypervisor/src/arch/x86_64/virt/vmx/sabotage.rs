//! Entries that end with VMfail (SDM volume 3, 27.1 and 27.2).

use super::super::Outcome;
use super::super::guest::Common;
use super::super::registers::Backend;
use super::super::sabotage::ordered;
use super::vmcs::field;
use super::{Cpu, Vcpu};

impl Vcpu {
    /// An entry that fails as it was ordered; `None` without an order.
    pub(super) fn sabotaged(
        &mut self,
        common: &mut Common,
        cpu: &mut Cpu,
        space: u64,
    ) -> Option<Outcome> {
        let kind = ordered(self)?;
        let launched = self.launched;
        let field = if kind == 1 { field::PIN } else { field::HOST_CS };
        let right = self.read(field);
        match kind {
            // There is no current control structure.
            2 => self.retire(),
            // VMRESUME of one that was not launched, or the other way round.
            3 => self.launched = !launched,
            // No control that has to be one is; the host has no code segment.
            _ => self.write(field, 0),
        }
        let outcome = self.enter_guest(common, cpu, space);
        self.select();
        if kind == 3 {
            self.launched = launched;
        }
        self.write(field, right);
        Some(outcome)
    }
}
