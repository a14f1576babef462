//! RAM of the VMs: clearing it, lending it to those who work on it, and taking it back.

use alloc::vec::Vec;

use sysroot::{log, time};

use super::Supervisor;
use crate::grant::{take_back, zero};
use crate::memory::Span;
use crate::policy::Report;
use crate::ram::{PATIENCE_MS, Ram, Step};
use crate::spawn::Refusal;

impl Supervisor {
    /// Whether a component has what takes time to get: a VM its RAM.
    pub(super) fn prepare(&mut self, index: usize) -> Result<bool, Refusal> {
        let vm = self.system.components.get(index).and_then(|c| c.vm.as_ref());
        let Some((vm, ram)) = vm.zip(self.rams.get(index)) else { return Ok(true) };
        if ram.spans.is_empty() {
            self.host().prepare(index, vm.ram)?;
            self.clean();
        }
        Ok(self.rams.get(index).is_some_and(Ram::is_ready))
    }

    /// Keeps the cleaner busy.
    pub(super) fn clean(&mut self) {
        if !self.cleaner.is_idle() {
            return;
        }
        if let Some(ram) = self.cleaning.take().and_then(|user| self.rams.get_mut(user)) {
            ram.cleared();
        }
        let next = self.rams.iter().enumerate().find_map(|(n, ram)| Some((n, ram.dirty()?)));
        if let Some((user, span)) = next {
            self.cleaning = Some(user);
            self.cleaner.clear(span);
        }
    }

    /// Those who work on the RAM of a VM that was started get it.
    pub(super) fn lend(&mut self, user: usize) {
        for provider in self.lenders(user) {
            let child = self.wards.get_mut(provider).and_then(|w| w.child.take());
            let Some(child) = child else { continue };
            let system = self.system;
            let outcome = self.host().lend(&child, provider, user, system);
            let _ = child.bell.up();
            if let Some(ward) = self.wards.get_mut(provider) {
                ward.child = Some(child);
            }
            if let Err(status) = outcome {
                log!(
                    "root: component \"{}\" does not get the RAM of \"{}\": {status}",
                    self.name(provider),
                    self.name(user)
                );
            }
        }
    }

    /// Components that work on the RAM of a VM, each once.
    fn lenders(&self, user: usize) -> Vec<usize> {
        let sessions = self.desk.wires.iter().map(|w| w.session);
        let mut all: Vec<usize> =
            sessions.filter(|s| s.lends && s.user == user).map(|s| s.provider).collect();
        all.dedup();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// The VM is gone: those who work on its RAM are to let go of it.
    pub(super) fn end_ram(&mut self, user: usize) {
        let Some(ram) = self.rams.get_mut(user) else { return };
        ram.end(time::deadline_in_ms(PATIENCE_MS));
        let life = ram.life();
        for provider in self.lenders(user) {
            self.host().set_lives(provider, user, life);
            if let Some(child) = self.wards.get(provider).and_then(|w| w.child.as_ref()) {
                let _ = child.bell.up();
            }
        }
    }

    /// Takes back the RAM of VMs that are gone.
    pub(super) fn reclaim(&mut self) {
        for user in 0..self.rams.len() {
            let released = |provider: usize, life| {
                let sessions = self.desk.wires.iter().filter(|w| w.session.lends);
                sessions
                    .filter(|w| w.session.user == user && w.session.provider == provider)
                    .all(|w| w.has_released(life))
            };
            let Some(ram) = self.rams.get(user) else { continue };
            match ram.step(time::now(), released) {
                Step::Rest | Step::Wait(_) => {}
                Step::Evict(late) => {
                    for provider in late {
                        log!(
                            "root: component \"{}\" keeps the RAM of \"{}\"",
                            self.name(provider),
                            self.name(user)
                        );
                        self.end(provider, Report::Silent);
                    }
                    self.take_back(user);
                }
                Step::TakeBack => self.take_back(user),
            }
        }
    }

    /// Nobody uses the RAM of this VM any more.
    fn take_back(&mut self, user: usize) {
        for span in self.rams.get_mut(user).map(Ram::take).unwrap_or_default() {
            match take_back(span) {
                Ok(()) => self.memory.give(span),
                // It stays lost rather than to get a second owner.
                Err(status) => log!("root: RAM at {:#x} is not taken back: {status}", span.base),
            }
        }
        let mine = self.desk.wires.iter().filter(|w| w.session.lends && w.session.user == user);
        for wire in mine.filter(|w| w.session.shared > 0) {
            zero(Span { base: wire.memory, size: wire.session.shared });
        }
    }
}
