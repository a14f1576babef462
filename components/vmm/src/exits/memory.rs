//! Accesses to guest-physical memory that is not RAM.

use ipc::exit::MemoryAccess;
use ipc::state::{Mtd, State};

use super::GPR;
use crate::boot::layout;
use crate::bus::{MemoryDevice, PortOutcome, Wild, memory_device};
use crate::cpu;
use crate::decode::{self, Store};
use crate::devices::lapic::Effect;
use crate::devices::virtio::page;
use crate::emulate::{Bus, execute};
use crate::host::Host;
use crate::num::{byte_mask, low8, low32, u64_of};
use crate::report::{GuestFault, Stop, VmmError};
use crate::vcpu::{Handling, Run, Vcpu};
use crate::vm::Vm;

impl Handling<'_, '_> {
    pub(super) fn memory(&mut self) -> Result<(), Stop> {
        let [access, gpa, _] = self.state.qualification;
        let access = MemoryAccess::from_bits_truncate(access);
        if self.vm.ram().contains(gpa, 1) {
            return Err(VmmError::NotMapped(gpa).into());
        }
        if self.event.is_valid() {
            return Err(GuestFault::Delivery(gpa).into());
        }
        if access.contains(MemoryAccess::PAGE_WALK) {
            return Err(GuestFault::PageTable(gpa).into());
        }
        if access.contains(MemoryAccess::FETCH) {
            return Err(GuestFault::Fetch(gpa).into());
        }
        if access.contains(MemoryAccess::WRITE)
            && let MemoryDevice::Virtio(index, offset) = memory_device(gpa)
            && gpa.is_multiple_of(4)
            && let Some(store) = decode::store(self.vm.ram(), self.state)
        {
            return self.virtio_store((index, offset), store);
        }
        self.need_execute()?;
        self.collect_eoi();
        let before = Registers::of(self.state);
        let mut outside = Outside::new(self.cpu, self.vm, self.host);
        let done = execute(self.vm.ram(), self.state, &mut outside);
        let stalled = outside.stalled;
        outside.finish();
        if stalled {
            before.restore(self.state);
            self.cpu.run = Run::Stalled;
            return Ok(());
        }
        self.cpu.publish(self.vm);
        self.reply |= GPR | Mtd::RIP;
        self.after_execution(done, gpa)
    }

    /// The plain store to a register of a virtio device.
    fn virtio_store(&mut self, place: (usize, u64), store: Store) -> Result<(), Stop> {
        let value = cpu::gpr(self.state, store.gpr) & 0xffff_ffff;
        if place.0 >= self.vm.virtio().len() {
            let gpa = layout::VIRTIO + u64_of(place.0) * page::SIZE;
            nothing(self.vm, self.host, gpa, "write");
        } else if self.vm.virtio_write(self.host, self.cpu.index, place, 4, value) {
            self.cpu.run = Run::Stalled;
            return Ok(());
        }
        self.state.rip = self.state.rip.wrapping_add(store.length);
        self.completed()
    }

    /// A write to the local APIC has consequences.
    pub(super) fn apply(&mut self, effect: Effect) {
        apply(self.cpu.index, self.vm, self.host, effect);
    }
}

fn apply(vcpu: u32, vm: &Vm<'_>, host: &dyn Host, effect: Effect) {
    let targets = match effect {
        Effect::None | Effect::Eoi { level: None } => return,
        Effect::Eoi { level: Some(vector) } => vm.devices().lock().eoi(vector, vm.apics()),
        Effect::Send(message) => vm.apics().deliver(message),
    };
    vm.recall(host, targets, vcpu);
}

/// An access that nobody takes.
fn nothing(vm: &Vm<'_>, host: &dyn Host, gpa: u64, what: &str) {
    const PAGE: u64 = !0xfff;
    if vm.devices().lock().is_news(Wild::Page(gpa & PAGE)) {
        host.log(format_args!("{what} of {gpa:#x}, where nothing is"));
    }
}

/// The devices, as an executed instruction reaches them.
pub(super) struct Outside<'a, 'v> {
    cpu: &'a mut Vcpu,
    vm: &'a Vm<'v>,
    host: &'a dyn Host,
    outcome: PortOutcome,
    /// Devices that raise interrupts by a level changed.
    touched: bool,
    /// A device is not ready for what was written: the instruction is to be executed again.
    stalled: bool,
}

impl<'a, 'v> Outside<'a, 'v> {
    pub(super) fn new(cpu: &'a mut Vcpu, vm: &'a Vm<'v>, host: &'a dyn Host) -> Self {
        let outcome = PortOutcome::default();
        Self { cpu, vm, host, outcome, touched: false, stalled: false }
    }

    /// The instruction is done: passes interrupts on, and says what became of its port accesses.
    pub(super) fn finish(self) -> PortOutcome {
        if self.touched {
            let targets = self.vm.devices().lock().settle(self.vm.apics());
            self.vm.recall(self.host, targets, self.cpu.index);
        }
        self.outcome
    }

    fn note(&mut self, outcome: PortOutcome) -> u64 {
        self.outcome.unknown |= outcome.unknown;
        self.outcome.power = self.outcome.power.or(outcome.power);
        outcome.value
    }
}

/// What executing an instruction changes in a vCPU.
struct Registers {
    gpr: [u64; 16],
    rip: u64,
    rflags: u64,
}

impl Registers {
    fn of(state: &State) -> Self {
        let mut gpr = [0; 16];
        for (number, value) in (0u8..).zip(&mut gpr) {
            *value = cpu::gpr(state, number);
        }
        Self { gpr, rip: state.rip, rflags: state.rflags }
    }

    fn restore(&self, state: &mut State) {
        for (number, value) in (0u8..).zip(&self.gpr) {
            *cpu::gpr_mut(state, number) = *value;
        }
        (state.rip, state.rflags) = (self.rip, self.rflags);
    }
}

/// The part of a register of four bytes that an access of `size` bytes at `offset` is.
fn part(register: u32, offset: u64, size: u64) -> u64 {
    u64::from(register) >> ((offset & 3) * 8) & byte_mask(size)
}

impl Bus for Outside<'_, '_> {
    fn read(&mut self, gpa: u64, size: u64) -> u64 {
        match memory_device(gpa) {
            MemoryDevice::IoApic(offset) => {
                part(self.vm.devices().lock().ioapic_read(offset & !3), offset, size)
            }
            MemoryDevice::Lapic(offset) if self.cpu.lapic.is_xapic() => {
                part(self.cpu.lapic.read_mmio(offset & !3, self.host.tsc()), offset, size)
            }
            MemoryDevice::Virtio(index, offset) if index < self.vm.virtio().len() => {
                self.vm.virtio().get(index).map_or(0, |slot| slot.page().read(offset, size))
            }
            _ => {
                nothing(self.vm, self.host, gpa, "read");
                u64::MAX
            }
        }
    }

    /// Registers of both APICs are written whole (Intel SDM vol. 3, 10.4.1).
    fn write(&mut self, gpa: u64, size: u64, value: u64) {
        match memory_device(gpa) {
            MemoryDevice::IoApic(offset) if offset & 3 == 0 => {
                let targets = self.vm.devices().lock().ioapic_write(offset, value, self.vm.apics());
                self.vm.recall(self.host, targets, self.cpu.index);
            }
            MemoryDevice::Lapic(offset) if offset & 3 == 0 && self.cpu.lapic.is_xapic() => {
                let effect = self.cpu.lapic.write_mmio(offset, low32(value), self.host.tsc());
                apply(self.cpu.index, self.vm, self.host, effect);
            }
            MemoryDevice::Virtio(index, offset) if index < self.vm.virtio().len() => {
                let (host, place) = (self.host, (index, offset));
                self.stalled |= self.vm.virtio_write(host, self.cpu.index, place, size, value);
            }
            _ => nothing(self.vm, self.host, gpa, "write"),
        }
    }

    fn port_read(&mut self, port: u16, size: u64) -> u64 {
        self.touched = true;
        let outcome = self.vm.devices().lock().port_read(port, low8(size));
        self.note(outcome)
    }

    fn port_write(&mut self, port: u16, size: u64, value: u64) {
        self.touched = true;
        let outcome = self.vm.devices().lock().port_write(port, low8(size), value);
        self.note(outcome);
    }
}
