//! The devices that the configuration gives to the suite.

use ipc::cap::Selector;
use sysroot::cap::{Cap, Interrupt};
use sysroot::port::Ports;
use sysroot::process;

use crate::check::Failure;

/// Ports of the emulator's exit device, by whatever name it was given.
pub(crate) fn exit_ports() -> Option<Ports> {
    const FIRST: u16 = 0xf4;
    let mut devices = process::start().devices.iter();
    devices.find_map(|d| Ports::of(d, 0).filter(|p| p.first() == FIRST))
}

/// Ports of the programmable interval timer: channel 0 is ISA interrupt 0.
pub(crate) struct Timer(Ports);

impl Timer {
    /// The timer, its interrupt and that one's trigger flags.
    pub(crate) fn find() -> Result<(Self, Cap<Interrupt>, u64), Failure> {
        let (device, interrupt) = process::start()
            .devices
            .iter()
            .find_map(|d| d.interrupts.iter().find(|i| i.line == 0).map(|i| (d, i)))
            .ok_or(Failure::Skip("no timer in the configuration"))?;
        let ports = Ports::of(device, 0).ok_or(Failure::Skip("the timer has no ports"))?;
        let source = Cap::new(Selector(interrupt.selector.into()));
        Ok((Self(ports), source, interrupt.trigger))
    }

    /// One interrupt after about a millisecond.
    pub(crate) fn fire(&self) {
        self.fire_after(0x04a9);
    }

    /// One interrupt after so many ticks of 838 ns. The line is low until then, and high from then
    /// on.
    pub(crate) fn fire_after(&self, ticks: u16) {
        let [low, high] = ticks.to_le_bytes();
        // Channel 0, both bytes, mode 0 (8254 data sheet).
        self.0.write8(3, 0x30);
        self.0.write8(0, low);
        self.0.write8(0, high);
    }
}
