//! Port accesses.

use ipc::exit::Io;
use ipc::state::Mtd;

use super::GPR;
use super::memory::Outside;
use crate::bus::{PortOutcome, Wild};
use crate::decode;
use crate::devices::pm::Power;
use crate::emulate::{Done, EmulateError, execute};
use crate::num::{byte_mask, merge_register, u64_of};
use crate::report::{GuestFault, Stop};
use crate::vcpu::Handling;

impl Handling<'_, '_> {
    pub(super) fn io(&mut self) -> Result<(), Stop> {
        let io = Io::from_word(self.state.qualification[0]);
        if io.string {
            return self.port_string(io);
        }
        let size = u64::from(io.size);
        let outcome = {
            let mut devices = self.vm.devices().lock();
            let outcome = if io.input {
                devices.port_read(io.port, io.size)
            } else {
                devices.port_write(io.port, io.size, self.state.rax & byte_mask(size))
            };
            let targets = devices.settle(self.vm.apics());
            self.vm.recall(self.host, targets, self.cpu.index);
            outcome
        };
        if io.input {
            self.state.rax = merge_register(self.state.rax, outcome.value, size);
            self.reply |= Mtd::GPR_ACDB;
        }
        let length = self.io_length()?;
        self.advance(length)?;
        self.conclude(io.port, outcome)
    }

    /// Length of the instruction where the processor does not tell.
    fn io_length(&mut self) -> Result<u64, Stop> {
        if self.state.instruction_length != 0 {
            return Ok(self.state.instruction_length);
        }
        self.need_execute()?;
        match decode::current(self.vm.ram(), self.state) {
            Ok(fetched) => Ok(u64_of(fetched.instruction.len())),
            Err(error) => {
                let address = self.state.rip;
                Err(GuestFault::Emulation { error: EmulateError::Decode(error), address }.into())
            }
        }
    }

    /// INS and OUTS.
    fn port_string(&mut self, io: Io) -> Result<(), Stop> {
        self.need_execute()?;
        let mut outside = Outside::new(self.cpu, self.vm, self.host);
        let done = execute(self.vm.ram(), self.state, &mut outside);
        let outcome = outside.finish();
        self.reply |= GPR | Mtd::RIP;
        self.after_execution(done, u64::from(io.port))?;
        self.conclude(io.port, outcome)
    }

    /// What a port access led to beside its value.
    pub(super) fn conclude(&mut self, port: u16, outcome: PortOutcome) -> Result<(), Stop> {
        if outcome.unknown && self.vm.devices().lock().is_news(Wild::Port(port)) {
            self.host.log(format_args!("access to port {port:#x}, where nothing is"));
        }
        match outcome.power {
            Some(Power::Off) => Err(Stop::PowerOff),
            Some(Power::Reset) => {
                self.host.log(format_args!("guest restarts ({})", self.vm.exits()));
                self.vm.begin_reset(self.host, self.cpu.index);
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// An instruction was executed, or not.
    pub(super) fn after_execution(
        &mut self,
        done: Result<Done, EmulateError>,
        address: u64,
    ) -> Result<(), Stop> {
        match done {
            Ok(Done::Complete) => self.completed(),
            Ok(Done::Again) => Ok(()),
            Ok(Done::PageFault(error, linear)) => {
                self.state.cr2 = linear;
                self.reply |= Mtd::CR;
                self.raise(14, Some(error))
            }
            Ok(Done::Protection) => self.raise_gp(),
            Err(EmulateError::Table(e)) => Err(GuestFault::PageTable(e.gpa).into()),
            Err(error) => Err(GuestFault::Emulation { error, address }.into()),
        }
    }
}
