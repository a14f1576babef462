//! Running a vCPU: from guest entry to the exit message.

use core::ptr::NonNull;

use ipc::event::Exit;
use ipc::state::Mtd;
use ipc::utcb::Utcb;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::arch::virt::Outcome;
use crate::arch::{self};
use crate::object::Obj;
use crate::object::ec::Ec;
use crate::object::vcpu::Vcpu;
use crate::{interrupt, ipc as message, sched};

/// Runs the guest of the current execution context until somebody else is current or an exit was
/// sent to its VMM.
pub fn run(cpu: &PerCpu, vcpu: Obj<Vcpu>) {
    let ec: Obj<Ec> = Obj::of(&vcpu.ec);
    loop {
        if sched::take_reschedule(cpu) {
            return sched::preempt(cpu);
        }
        let flags = ec.regs.flags.get();
        if flags & flag::DEAD != 0 || cpu.sched.current.get() != Some(ec) {
            return;
        }
        if flags & flag::RECALL != 0 {
            ec.regs.clear(flag::RECALL);
            return stop(cpu, vcpu, Exit::Recall);
        }
        if flags & flag::DEADLINE != 0 {
            ec.regs.clear(flag::DEADLINE);
            // SAFETY: this is the vCPU's CPU and the reference ends here.
            unsafe { vcpu.guest() }.clear_deadline();
            return stop(cpu, vcpu, Exit::Deadline);
        }
        // SAFETY: as above.
        let (halted, deadline) = unsafe {
            let guest = vcpu.guest();
            (guest.is_halted(), guest.deadline())
        };
        if deadline != 0 && deadline <= arch::instr::rdtsc() {
            ec.regs.set(flag::DEADLINE);
            continue;
        }
        sched::set_deadline(cpu, ec, deadline);
        if halted {
            sched::detach(cpu);
            return sched::block(cpu, ec);
        }
        sched::attach(cpu, vcpu);
        match enter(cpu, vcpu) {
            Outcome::Interrupt => {
                if let Some(vector) = arch::entry::interrupt_window(cpu) {
                    interrupt::handle(cpu, vector);
                }
            }
            Outcome::MachineCheck => crate::trap::machine_check(),
            Outcome::Exit(reason) => return exit(cpu, vcpu, reason),
        }
    }
}

fn enter(cpu: &PerCpu, vcpu: Obj<Vcpu>) -> Outcome {
    // SAFETY: this is the vCPU's CPU; nothing else borrows `guest` or `virt` while the guest runs.
    unsafe {
        match &mut *cpu.sched.virt.get() {
            Some(virt) => vcpu.guest().run(virt, vcpu.space.generation(cpu.sched.id)),
            // A vCPU is created only where the extension is on.
            None => Outcome::Exit(Exit::EntryFailed),
        }
    }
}

/// Sends an exit that the guest did not cause.
fn stop(cpu: &PerCpu, vcpu: Obj<Vcpu>, reason: Exit) {
    // SAFETY: this is the vCPU's CPU and the reference ends here.
    unsafe { vcpu.guest() }.stop();
    exit(cpu, vcpu, reason);
}

/// Sends an exit to the VMM.
fn exit(cpu: &PerCpu, vcpu: Obj<Vcpu>, reason: Exit) {
    sched::detach(cpu);
    message::event(cpu, Obj::of(&vcpu.ec), reason.number());
}

/// Writes state groups into the VMM's UTCB.
pub fn store(vcpu: Obj<Vcpu>, mtd: Mtd, utcb: NonNull<Utcb>) {
    // SAFETY: a live UTCB frame that the kernel only writes; the guest is not running and this is
    // its CPU.
    unsafe { vcpu.guest().store(mtd, &mut (*utcb.as_ptr()).state) };
}

/// Takes state groups from the VMM's UTCB.
pub fn load(vcpu: Obj<Vcpu>, mtd: Mtd, utcb: NonNull<Utcb>) {
    // SAFETY: as in `store`; the backend checks what it takes.
    unsafe { vcpu.guest().load(mtd, &(*utcb.as_ptr()).state) };
}
