//! The scheduler: who runs next on this CPU.
//!
//! Fixed priorities, round robin within a priority, budgets. A scheduling context runs the end of
//! the chain that starts at its execution context and follows `partner` links; the chain is walked
//! afresh each time, so nothing has to be kept in step when calls and replies change it.
//!
//! An execution context that calls a busy handler *helps*: its `call` is set up to be executed
//! again, and its time runs the handler meanwhile. No pointer records this, so nothing has to be
//! undone when either of them dies.

mod queue;
mod remote;
mod timeout;

pub use queue::{PRIORITIES, RunQueue};
pub use remote::{MAX_CPUS, drain, kick, others, recall, remote, set_online};
pub use timeout::Timeouts;

use core::cell::{Cell, UnsafeCell};
use core::iter::successors;
use core::ptr::null;
use core::sync::atomic::Ordering;

use crate::arch::percpu::PerCpu;
use crate::arch::regs::flag;
use crate::arch::{self, io_bitmap, tlb, virt};
use crate::mem::frames::FREE;
use crate::mem::pool;
use crate::object::Obj;
use crate::object::ec::{Ec, State};
use crate::object::pd::Pd;
use crate::object::sc::{Place, Sc};
use crate::object::vcpu::Vcpu;
use crate::syscall::{DONE, Handled, Outcome};
use crate::trace;

use ipc::trace::{Counter, Kind};

/// Bits of [`Cpu::unusual`].
pub mod unusual {
    /// The current execution context runs on time that helps it.
    pub const HELPING: u8 = 1 << 0;
    /// The FPU holds the state of the current execution context.
    pub const FPU: u8 = 1 << 1;
}

/// Scheduling state of one CPU.
#[derive(Default)]
pub struct Cpu {
    /// Index in the information page's list.
    pub id: u16,
    /// Runs now, or ran last where the CPU idles.
    pub current: Cell<Option<Obj<Ec>>>,
    /// Whose address space is loaded; `None`: the kernel's own.
    pub space: Cell<Option<Obj<Pd>>>,
    /// Whose I/O bitmap is mapped: [`crate::mem::space::PortSpace::key`].
    ports: Cell<usize>,
    /// What the TLB holds.
    pub pcids: tlb::Pcids,
    /// Whose time is running; `None` while idle.
    pub sc: Cell<Option<Obj<Sc>>>,
    /// When it began to run.
    started: Cell<u64>,
    /// What keeps messages off their fast path: bits of [`unusual`].
    pub unusual: Cell<u8>,
    /// Whose state the FPU holds, besides a vCPU's.
    fpu: Cell<Option<Obj<Ec>>>,
    /// Something more important than the current scheduling context became ready.
    pub reschedule: Cell<bool>,
    /// Ready scheduling contexts.
    pub queue: RunQueue,
    /// Waits that end at a time.
    pub timeouts: Timeouts,
    /// TSC value that the timer is set to; 0 for none.
    armed: Cell<u64>,
    /// The vCPU whose guest registers are in the CPU.
    attached: Cell<Option<Obj<Vcpu>>>,
    /// State of the virtualization extension, where there is one.
    pub virt: UnsafeCell<Option<virt::Cpu>>,
}

impl Cpu {
    /// State of a CPU that has not started.
    pub fn new(id: u16) -> Self {
        Self { id, ..Self::default() }
    }

    /// The current execution context; for system calls, which somebody has made.
    #[inline(always)]
    pub fn current(&self) -> Obj<Ec> {
        // SAFETY: RSP0 leads to the registers of the current execution context, and a system call
        // has just saved registers there.
        unsafe { self.current.get().unwrap_unchecked() }
    }

    /// Whether `ec` is the current execution context.
    #[inline(always)]
    pub fn is_current(&self, ec: Obj<Ec>) -> bool {
        self.current.get() == Some(ec)
    }
}

/// Makes `ec` the current execution context.
#[inline(always)]
pub fn switch_to(cpu: &PerCpu, ec: Obj<Ec>) {
    cpu.sched.current.set(Some(ec));
    cpu.set_rsp0(ec.frame_end());
    let loaded = cpu.sched.space.get().map_or(null(), |pd| pd.pointer().as_ptr().cast_const());
    if loaded != ec.pd.pointer().as_ptr() {
        detach(cpu);
        load_space(cpu, ec.pd);
    }
}

/// Loads the address space and the ports of a protection domain.
#[inline(always)]
pub fn load_space(cpu: &PerCpu, pd: Obj<Pd>) {
    cpu.sched.space.set(Some(pd));
    let space = &pd.spaces.memory.space;
    // SAFETY: the root has the kernel's half, and stays until the domain is destroyed, which every
    // CPU leaves before.
    unsafe { cpu.sched.pcids.load(space.root, space.epoch.number()) };
    let ports = pd.spaces.ports.space.key();
    if ports != 0 && ports != cpu.sched.ports.get() {
        map_ports(cpu, pd);
    }
    cpu.set_ports(ports != 0);
}

/// Maps the I/O bitmap of a protection domain.
#[inline(never)]
fn map_ports(cpu: &PerCpu, pd: Obj<Pd>) {
    let ports = &pd.spaces.ports.space;
    let Some(bitmap) = ports.bitmap() else { return };
    cpu.sched.ports.set(ports.key());
    // SAFETY: the bitmap stays until the domain is destroyed, at which each CPU forgets it.
    unsafe { io_bitmap::map(cpu.sched.id.into(), bitmap.map(pool::phys)) };
}

/// Chooses who runs next. On return there is a current execution context; it may have flags that
/// [`settle`] looks at.
pub fn pick(cpu: &PerCpu) {
    let sched = &cpu.sched;
    debug_assert!(sched.sc.get().is_none());
    sched.unusual.set(sched.unusual.get() & !unusual::HELPING);
    loop {
        sched.reschedule.set(false);
        let Some(sc) = sched.queue.pop() else {
            idle(cpu);
            continue;
        };
        let ec = chain_end(sc.ec);
        match ec.state.get() {
            State::Runnable => {
                start(cpu, sc);
                trace::count(cpu, Counter::Switch);
                trace::note(cpu, Kind::Switch, || [trace::number(ec), sc.priority.into()]);
                switch_to(cpu, ec);
                return;
            }
            State::Blocked => wait_for(sc, ec),
            // A handler without a caller, or a dead root: there is nothing to spend the time on.
            State::Idle | State::Dead => sc.place.set(Place::Nowhere),
        }
    }
}

/// The execution context that the chain from `ec` leads to.
pub fn chain_end(ec: Obj<Ec>) -> Obj<Ec> {
    successors(Some(ec), |ec| ec.partner.get()).last().unwrap_or(ec)
}

/// Puts a scheduling context where it stays until `ec` is woken.
fn wait_for(sc: Obj<Sc>, ec: Obj<Ec>) {
    sc.place.set(Place::Waiting(ec));
    ec.waiting.push_back(sc);
}

fn start(cpu: &PerCpu, sc: Obj<Sc>) {
    sc.place.set(Place::Current);
    cpu.sched.sc.set(Some(sc));
    cpu.sched.started.set(arch::instr::rdtsc());
    arm_timer(cpu);
}

/// Ends the current scheduling context's turn and charges it.
fn stop(cpu: &PerCpu) -> Option<Obj<Sc>> {
    let sc = cpu.sched.sc.take()?;
    charge(cpu, sc);
    Some(sc)
}

/// Brings the account of the current scheduling context up to date.
pub fn charge(cpu: &PerCpu, sc: Obj<Sc>) {
    let now = arch::instr::rdtsc();
    let used = now.saturating_sub(cpu.sched.started.replace(now));
    sc.consumed.fetch_add(used, Ordering::Relaxed);
    sc.left.set(sc.left.get().saturating_sub(used));
}

/// Sets the timer to whatever comes first: the end of the budget or of a wait.
fn arm_timer(cpu: &PerCpu) {
    let sched = &cpu.sched;
    let budget = sched.sc.get().map(|sc| sched.started.get().saturating_add(sc.left.get()));
    let next = [budget, sched.timeouts.first()].into_iter().flatten().min().unwrap_or(0);
    if sched.armed.get() != next {
        sched.armed.set(next);
        arch::apic::arm(next);
    }
}

/// Gives the CPU to the most important scheduling context; the current one stays ready.
pub fn preempt(cpu: &PerCpu) {
    if let Some(sc) = stop(cpu) {
        let spent = sc.left.get() == 0;
        if spent {
            sc.left.set(sc.budget);
        }
        cpu.sched.queue.push(sc, !spent);
    }
    pick(cpu);
}

/// The current execution context has to wait: its time waits with it.
pub fn block(cpu: &PerCpu, ec: Obj<Ec>) {
    ec.state.set(State::Blocked);
    if let Some(sc) = stop(cpu) {
        wait_for(sc, ec);
    }
    pick(cpu);
}

/// Makes everything ready that waited for `ec`. `ec` is bound to this CPU.
pub fn wake(cpu: &PerCpu, ec: Obj<Ec>) {
    if ec.state.get() == State::Blocked {
        ec.state.set(State::Runnable);
    }
    ec.waits_for.set(None);
    cpu.sched.timeouts.remove(ec);
    while let Some(sc) = ec.waiting.pop_front() {
        enqueue(cpu, sc);
    }
}

/// Makes a scheduling context ready.
pub fn enqueue(cpu: &PerCpu, sc: Obj<Sc>) {
    if sc.left.get() == 0 {
        sc.left.set(sc.budget);
    }
    cpu.sched.queue.push(sc, false);
    if cpu.sched.sc.get().is_none_or(|current| sc.priority > current.priority) {
        cpu.sched.reschedule.set(true);
    }
}

/// Spends the current time on `ec`, which is busy with somebody else's call, up to the end of
/// its chain. The current execution context has to be one that asks again when it runs.
pub fn help(cpu: &PerCpu, ec: Obj<Ec>) {
    trace::count(cpu, Counter::Help);
    let end = chain_end(ec);
    match end.state.get() {
        State::Runnable => {
            cpu.sched.unusual.set(cpu.sched.unusual.get() | unusual::HELPING);
            switch_to(cpu, end);
        }
        State::Blocked => {
            if let Some(sc) = stop(cpu) {
                wait_for(sc, end);
            }
            pick(cpu);
        }
        State::Idle | State::Dead => preempt(cpu),
    }
}

/// Handles the timer interrupt.
pub fn timer(cpu: &PerCpu) {
    let sched = &cpu.sched;
    sched.armed.set(0);
    let now = arch::instr::rdtsc();
    while let Some(ec) = sched.timeouts.pop_expired(now) {
        timeout::expire(cpu, ec);
    }
    if let Some(sc) = sched.sc.get() {
        charge(cpu, sc);
        if sc.left.get() == 0 {
            sched.reschedule.set(true);
        }
    }
    arm_timer(cpu);
}

/// Ends the wait of `ec` at `deadline`; 0 for no end.
#[inline(always)]
pub fn set_deadline(cpu: &PerCpu, ec: Obj<Ec>, deadline: u64) {
    if ec.deadline.get() != deadline {
        change_deadline(cpu, ec, deadline);
    }
}

fn change_deadline(cpu: &PerCpu, ec: Obj<Ec>, deadline: u64) {
    cpu.sched.timeouts.remove(ec);
    if deadline != 0 {
        cpu.sched.timeouts.insert(ec, deadline);
        arm_timer(cpu);
    }
}

/// Halts until something is ready.
fn idle(cpu: &PerCpu) {
    trace::count(cpu, Counter::Idle);
    trace::set(cpu, Counter::FreePages, FREE.load(Ordering::Relaxed));
    detach(cpu);
    arm_timer(cpu);
    while cpu.sched.queue.is_empty() {
        if let Some(vector) = arch::entry::wait_for_interrupt(cpu) {
            crate::interrupt::handle(cpu, vector);
        }
    }
}

/// Makes the current execution context one that can return to user mode: runs guests, delivers
/// what is pending, replaces what is dead.
pub fn settle(cpu: &PerCpu) {
    loop {
        let Some(ec) = cpu.sched.current.get() else {
            preempt(cpu);
            continue;
        };
        let flags = ec.regs.flags.get();
        if flags & !(flag::FULL | flag::FPU) == 0 {
            return switch_fpu(cpu, ec);
        }
        if flags & flag::DEAD != 0 {
            preempt(cpu);
        } else if flags & flag::PENDING != 0 {
            ec.regs.clear(flag::PENDING);
            if let Some(event) = ec.pending_event.take() {
                crate::ipc::event(cpu, ec, event);
            }
        } else if let Some(vcpu) = Vcpu::of(ec) {
            crate::vcpu::run(cpu, vcpu);
        } else if flags & flag::RECALL != 0 {
            ec.regs.clear(flag::RECALL);
            crate::ipc::event(cpu, ec, ipc::event::HOST_RECALL);
        } else {
            // No other flag concerns a host execution context that is current.
            ec.regs.clear(!(flag::FULL | flag::FPU));
        }
    }
}

/// On the way to user mode, gives the FPU to `ec` if it uses it, and takes it from anybody else.
fn switch_fpu(cpu: &PerCpu, ec: Obj<Ec>) {
    if cpu.sched.fpu.get().is_some_and(|owner| owner != ec) {
        release_fpu(cpu);
    }
    if ec.regs.has(flag::FPU)
        && let Some(fpu) = &ec.fpu
    {
        detach(cpu);
        // SAFETY: whoever had the FPU has saved it, just now.
        unsafe { fpu.restore() };
        ec.regs.clear(flag::FPU);
        cpu.sched.fpu.set(Some(ec));
        cpu.sched.unusual.set(cpu.sched.unusual.get() | unusual::FPU);
    }
}

/// Saves the state that the FPU holds, if it is a host execution context's.
fn release_fpu(cpu: &PerCpu) {
    let Some(ec) = cpu.sched.fpu.take() else { return };
    if let Some(fpu) = &ec.fpu {
        // SAFETY: the FPU holds it since `switch_fpu`.
        unsafe { fpu.save() };
    }
    ec.regs.set(flag::FPU);
    cpu.sched.unusual.set(cpu.sched.unusual.get() & !unusual::FPU);
}

/// Ends a visit to the kernel: whoever is more important by now is chosen, and the FPU holds
/// nothing of somebody who does not run.
#[inline(always)]
pub fn finish(cpu: &PerCpu) {
    if take_reschedule(cpu) {
        preempt(cpu);
    }
    if cpu.sched.fpu.get().is_some()
        && let Some(ec) = cpu.sched.current.get()
    {
        switch_fpu(cpu, ec);
    }
}

/// Puts the guest's registers into the CPU. They stay there while the VMM handles an exit, which
/// can use none of them, until another protection domain or another vCPU has its turn.
#[inline(always)]
pub fn attach(cpu: &PerCpu, vcpu: Obj<Vcpu>, virt: &mut virt::Cpu) {
    if cpu.sched.attached.get() != Some(vcpu) {
        detach(cpu);
        release_fpu(cpu);
        cpu.sched.attached.set(Some(vcpu));
        // SAFETY: this is the vCPU's CPU, and `guest` is borrowed nowhere else meanwhile.
        unsafe { vcpu.guest() }.attach(virt);
    }
}

/// Makes the state of a vCPU accessible: `whole`, or but for what is in the CPU while it is attached.
#[inline(always)]
pub fn select(cpu: &PerCpu, vcpu: Obj<Vcpu>, whole: bool) {
    if whole || cpu.sched.attached.get() != Some(vcpu) {
        detach_current(cpu);
        // SAFETY: as in `attach`.
        unsafe { vcpu.guest() }.select();
    }
}

/// Takes the guest's registers, if any, out of the CPU.
#[inline(always)]
pub fn detach(cpu: &PerCpu) {
    if cpu.sched.attached.get().is_some() {
        detach_current(cpu);
    }
}

#[inline(never)]
fn detach_current(cpu: &PerCpu) {
    if let Some(vcpu) = cpu.sched.attached.take() {
        // SAFETY: as in `attach`.
        unsafe { vcpu.guest() }.detach();
    }
}

/// Whether something more important became ready since the last choice.
pub fn take_reschedule(cpu: &PerCpu) -> bool {
    cpu.sched.reschedule.get() && cpu.sched.reschedule.take()
}

/// Between two steps of a long operation: lets interrupts in, and whoever became ready.
pub fn preemption_point(cpu: &PerCpu) {
    if let Some(vector) = arch::entry::interrupt_window(cpu) {
        crate::interrupt::handle(cpu, vector);
    }
    if take_reschedule(cpu) {
        preempt(cpu);
    }
}

/// Ends a system call of `ec` that may have made something more important ready.
///
/// # Errors
/// None; the result is that of the system call.
pub fn yield_if_needed(cpu: &PerCpu, ec: Obj<Ec>) -> Handled {
    if !take_reschedule(cpu) {
        return DONE;
    }
    ec.regs.rax.set(0);
    preempt(cpu);
    Ok(Outcome::Switched)
}

/// Whether a CPU exists and runs.
pub fn is_online(cpu: u16) -> bool {
    // Acquire: its set-up has happened.
    remote(cpu).is_some_and(|r| r.online.load(Ordering::Acquire))
}

/// Lets go of a dead execution context of this CPU.
pub fn forget(cpu: &PerCpu, ec: Obj<Ec>) {
    if cpu.sched.attached.get().map(|v| Obj::of(&v.ec)) == Some(ec) {
        detach(cpu);
    }
    if let Some(vcpu) = Vcpu::of(ec) {
        // SAFETY: this is the vCPU's CPU, and it is not attached.
        unsafe { vcpu.guest() }.retire();
    }
    if cpu.sched.fpu.get() == Some(ec) {
        release_fpu(cpu);
    }
    if cpu.sched.current.get() == Some(ec) {
        cpu.set_nobody();
    }
}

/// Takes a dead scheduling context of this CPU out of wherever it is.
pub fn remove(cpu: &PerCpu, sc: Obj<Sc>) {
    match sc.place.replace(Place::Nowhere) {
        Place::Ready => cpu.sched.queue.remove(sc),
        Place::Waiting(ec) => ec.waiting.remove(sc),
        Place::Current => {
            cpu.sched.sc.set(None);
            // Whoever runs on its time has none left.
            cpu.set_nobody();
        }
        Place::Nowhere => {}
    }
    sc.ec.sc.set(None);
}

/// Leaves the address space of a protection domain that is about to be freed.
pub fn leave_space(cpu: &PerCpu, pd: Obj<Pd>) {
    if cpu.sched.ports.get() == pd.spaces.ports.space.key() {
        cpu.sched.ports.set(0);
    }
    if cpu.sched.space.get() == Some(pd) {
        cpu.sched.space.set(None);
        cpu.set_ports(false);
        // SAFETY: the kernel's own tables map all that the kernel uses, and no user memory.
        unsafe { tlb::write_cr3(crate::object::pd::kernel_root()) };
    }
}

#[cfg(test)]
mod tests;
