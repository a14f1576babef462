//! Running a vCPU: from guest entry to the exit message.

use core::cell::UnsafeCell;
use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use ipc::event::Exit;
use ipc::state::{Mtd, State};
use ipc::trace::{Counter, Kind};
use ipc::utcb::Utcb;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::arch::{self};
use crate::object::Obj;
use crate::object::ec::Ec;
use crate::object::vcpu::Vcpu;
use crate::{interrupt, ipc as message, sched, trace};

/// Runs the guest of the current execution context until somebody else is current or an exit was
/// sent to its VMM.
pub fn run(cpu: &PerCpu, vcpu: Obj<Vcpu>) {
    let ec: Obj<Ec> = Obj::of(&vcpu.ec);
    // SAFETY: nothing else uses it before this function is left.
    let Some(virt) = (unsafe { &mut *cpu.sched.virt.get() }) else {
        return message::event(cpu, ec, Exit::EntryFailed.number());
    };
    // SAFETY: this is the vCPU's CPU and the reference ends here.
    let (halted, deadline) = unsafe { vcpu.guest() }.waits();
    let next = || {
        if !cpu.sched.is_current(ec) {
            return Some(Next::Nothing);
        }
        if sched::take_reschedule(cpu) {
            return Some(Next::Preempt);
        }
        if deadline != 0 && deadline <= arch::instr::rdtsc() {
            ec.regs.set(flag::DEADLINE);
        }
        (ec.regs.flags.get() != flag::VCPU).then_some(Next::Flags)
    };
    let left = match next() {
        Some(next) => Err(next),
        None => {
            sched::set_deadline(cpu, ec, deadline);
            if halted {
                return sched::block(cpu, ec);
            }
            sched::attach(cpu, vcpu, virt);
            let space = || vcpu.space.space.memory.space.epoch.number();
            // SAFETY: as above. Where it is destroyed meanwhile, it stays until this CPU leaves the
            // kernel.
            unsafe { vcpu.guest() }.run(virt, space, || {
                if let Some(vector) = arch::entry::interrupt_window(cpu) {
                    // In a rendezvous the state of this or another vCPU may be asked for.
                    if vector == interrupt::IPI_RENDEZVOUS {
                        return Some(Next::Rendezvous);
                    }
                    interrupt::handle(cpu, vector);
                }
                next()
            })
        }
    };
    match left {
        Ok(Exit::EntryFailed) => {
            sched::select(cpu, vcpu, true);
            // SAFETY: as above.
            unsafe { vcpu.guest() }.recover();
            message::event(cpu, ec, Exit::EntryFailed.number());
        }
        Ok(reason) => message::event(cpu, ec, reason.number()),
        Err(Next::Nothing) => {}
        Err(Next::Preempt) => sched::preempt(cpu),
        Err(Next::Rendezvous) => interrupt::handle(cpu, interrupt::IPI_RENDEZVOUS),
        Err(Next::Flags) => interrupted(cpu, vcpu),
    }
}

/// Why a guest does not run, or not on.
enum Next {
    /// Somebody else is current.
    Nothing,
    Preempt,
    /// A rendezvous is on, for which nothing of the guest may be in the CPU's registers.
    Rendezvous,
    /// The context has flags.
    Flags,
}

/// Something besides the guest wants the VMM's attention, or the vCPU is dead.
#[cold]
fn interrupted(cpu: &PerCpu, vcpu: Obj<Vcpu>) {
    let regs = &vcpu.ec.regs;
    if regs.has(flag::DEAD) {
        return;
    }
    let (flag, reason) = match () {
        () if regs.has(flag::RECALL) => (flag::RECALL, Exit::Recall),
        () if regs.has(flag::DEADLINE) => (flag::DEADLINE, Exit::Deadline),
        () => return,
    };
    regs.clear(flag);
    // SAFETY: this is the vCPU's CPU and the reference ends here.
    unsafe { vcpu.guest() }.stop(reason == Exit::Deadline);
    message::event(cpu, Obj::of(&vcpu.ec), reason.number());
}

/// What `CtrlEc` is to do with the state of a vCPU, on the vCPU's CPU.
pub struct StateTransfer {
    /// The vCPU.
    pub vcpu: Obj<Vcpu>,
    /// The groups.
    pub mtd: Mtd,
    /// The caller's UTCB.
    pub utcb: NonNull<Utcb>,
    /// Into the vCPU.
    pub set: bool,
}

impl StateTransfer {
    /// Does it. This is the vCPU's CPU, on which no guest runs right now.
    pub fn carry_out(&self, cpu: &PerCpu) {
        let Self { vcpu, mtd, utcb, set } = *self;
        if set {
            load(cpu, vcpu, mtd, utcb);
            sched::wake(cpu, Obj::of(&vcpu.ec));
        } else {
            store(cpu, vcpu, mtd, utcb);
        }
    }
}

/// Groups whose registers are in the CPU while the vCPU is attached.
const ATTACHED: Mtd = Mtd::XSTATE.union(Mtd::DR).union(Mtd::TSC).union(Mtd::SYSCALL_MSR);

/// Counts an exit that goes to the VMM.
#[inline(always)]
pub fn count(cpu: &PerCpu, vcpu: Obj<Vcpu>, exit: u8) {
    trace::count(cpu, Counter::Exit);
    trace::note(cpu, Kind::Exit, || [trace::number(Obj::of(&vcpu.ec)), exit.into()]);
    if let Some(count) = vcpu.exits.get(usize::from(exit)) {
        // Only this CPU writes it.
        count.store(count.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
    }
}

/// Writes state groups into the VMM's UTCB.
#[inline(always)]
pub fn store(cpu: &PerCpu, vcpu: Obj<Vcpu>, mtd: Mtd, utcb: NonNull<Utcb>) {
    sched::select(cpu, vcpu, mtd.intersects(ATTACHED));
    // SAFETY: the guest is not running and this is its CPU; the UTCB frame is live.
    unsafe { vcpu.guest().store(mtd, area(utcb)) };
}

/// Takes state groups from the VMM's UTCB.
#[inline(always)]
pub fn load(cpu: &PerCpu, vcpu: Obj<Vcpu>, mtd: Mtd, utcb: NonNull<Utcb>) {
    sched::select(cpu, vcpu, mtd.intersects(ATTACHED));
    // SAFETY: as in `store`; the backend checks what it takes.
    unsafe { vcpu.guest().load(mtd, area(utcb)) };
}

/// The state area of a UTCB.
///
/// # Safety
/// The UTCB frame outlives the result.
unsafe fn area<'a>(utcb: NonNull<Utcb>) -> &'a UnsafeCell<State> {
    // SAFETY: promised; the cell allows for what user code does to the area meanwhile.
    unsafe { &*(&raw const (*utcb.as_ptr()).state).cast() }
}
