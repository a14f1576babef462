//! Control blocks that VMRUN refuses (APM volume 2, 15.5.1).

use super::super::Outcome;
use super::super::guest::Common;
use super::super::sabotage::ordered;
use super::vmcb::field;
use super::{Cpu, EFER_SVME, Vcpu};

impl Vcpu {
    /// An entry that fails as it was ordered; `None` without an order.
    pub(super) fn sabotaged(
        &mut self,
        common: &mut Common,
        cpu: &mut Cpu,
        space: u64,
    ) -> Option<Outcome> {
        let (field, wrong) = match ordered(self)? {
            // VMRUN is not intercepted.
            1 => (field::MORE_INTERCEPTS, 1),
            2 => (field::EFER, EFER_SVME),
            3 => (field::CR4, 1 << 63),
            _ => (field::CR0, 1 << 63),
        };
        let right = self.read(field);
        self.write(field, right ^ wrong);
        let outcome = self.enter_guest(common, cpu, space);
        self.write(field, right);
        Some(outcome)
    }
}
