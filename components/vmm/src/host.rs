//! What the handlers need from the system around them.

use core::fmt;

use ipc::state::{Mtd, State};

/// The world outside the VM.
pub trait Host {
    /// The host's time-stamp counter.
    fn tsc(&self) -> u64;

    /// Forces a vCPU to its recall exit.
    fn recall(&self, vcpu: u32);

    /// Adds groups to the state of a vCPU whose exit is being handled, beyond those that its portal
    /// transfers: for what is rare.
    ///
    /// # Errors
    /// The kernel refused; the groups are not valid.
    fn fetch(&self, vcpu: u32, groups: Mtd, state: &mut State) -> ipc::status::Result;

    /// Writes a line in the VM's name.
    fn log(&self, line: fmt::Arguments<'_>);
}
