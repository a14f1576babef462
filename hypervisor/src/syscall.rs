//! The system calls: the whole table, and the one place that writes results.

use ipc::cap::Rights;
use ipc::status::{Result, Status};
use ipc::syscall::{Call, Number};
use ipc::utcb::Message;

use crate::arch::entry;
use crate::arch::percpu::{self, PerCpu};
use crate::arch::regs::{Args, Pair};
use crate::cap::Object;
use crate::ipc as message;
use crate::num::low8;
use crate::object::{Obj, ec, interrupt, pd, pt, sc, sm, vcpu};
use crate::sync::{self, Guard};
use crate::{cap_call, sched};

/// What a system call leaves to do. An error is written into the caller's `rax`.
#[must_use]
pub enum Outcome {
    /// Done; the values go to `rsi` and `rdx`.
    Done(u64, u64),
    /// The caller's registers are set, or will be when it is woken.
    Switched,
    /// Not finished: the caller executes the call again.
    Again,
}

/// Result of a system call handler.
pub type Handled = Result<Outcome>;

/// Done, without values.
pub const DONE: Handled = Ok(Outcome::Done(0, 0));

/// The caller of a system call: its CPU, its execution context, its arguments.
pub struct Caller<'a> {
    /// This CPU.
    pub cpu: &'a PerCpu,
    /// The execution context that made the call.
    pub ec: Obj<ec::Ec>,
    /// Its arguments.
    pub args: Args,
}

impl Caller<'_> {
    /// The object at a selector of the caller. It stays valid until the CPU leaves the kernel.
    ///
    /// # Errors
    /// `BadCap`, `BadRight`.
    #[inline(always)]
    pub fn object<T: Object>(&self, selector: u64, rights: Rights) -> Result<&T> {
        self.ec.pd.spaces.objects.lookup(selector, rights)
    }

    /// Takes the kernel lock, before any lookup, since other CPUs may revoke while this one waits.
    ///
    /// # Errors
    /// `Aborted`: the caller was destroyed meanwhile, or the time that it ran on.
    pub fn lock(&self) -> Result<Guard> {
        // What the caller finds where it loses its time meanwhile and gets some again later.
        self.ec.regs.rax.set(Status::Aborted.number().into());
        let guard = sync::lock(self.cpu);
        // Where it was, its memory may be gone, too.
        if self.cpu.sched.is_current(self.ec) { Ok(guard) } else { Err(Status::Aborted) }
    }
}

fn dispatch(call: Call, c: &Caller<'_>) -> Handled {
    match call {
        Call::Call => message::call(c),
        Call::Reply => message::reply(c),
        Call::Down => sm::down(c),
        Call::Up => sm::up(c),
        Call::CreatePd => pd::create(c),
        Call::CreateEc => ec::create(c),
        Call::CreateVcpu => vcpu::create(c),
        Call::CreateSc => sc::create(c),
        Call::CreatePt => pt::create(c),
        Call::CreateSm => sm::create(c),
        Call::CreateGuest => vcpu::create_space(c),
        Call::Delegate => cap_call::delegate(c),
        Call::Revoke => cap_call::revoke(c),
        Call::Query => cap_call::query(c),
        Call::CtrlEc => ec::control(c),
        Call::CtrlSc => sc::control(c),
        Call::CtrlPt => pt::control(c),
        Call::CtrlPd => pd::control(c),
        Call::CtrlInterrupt => interrupt::control(c),
    }
}

/// `Call`, as `rdi` and `rsi` of the handler where nothing unusual happens; everything else, errors
/// included, is left to [`dispatch`].
#[unsafe(no_mangle)]
extern "sysv64" fn portico_call(rdi: u64, rsi: u64) -> Pair {
    let cpu = percpu::this();
    match message::plain_call(cpu, cpu.sched.current(), rdi, Message(rsi)) {
        Some(registers) => registers,
        None => portico_syscall(rdi, rsi, 0, 0, 0, Call::Call.number().into()),
    }
}

/// `Reply`, as `rdi` and `rsi` of the caller; see [`portico_call`].
#[unsafe(no_mangle)]
extern "sysv64" fn portico_reply(rdi: u64, rsi: u64) -> Pair {
    let cpu = percpu::this();
    let ec = cpu.sched.current();
    match message::plain_reply(cpu, ec, Message(rsi)) {
        Some(registers) => registers,
        None => other_reply(cpu, ec, rdi, rsi),
    }
}

/// Apart from the above, which gets by with fewer registers so.
#[inline(never)]
fn other_reply(cpu: &PerCpu, ec: Obj<ec::Ec>, rdi: u64, rsi: u64) -> ! {
    if message::exit_reply(cpu, ec, rsi) {
        // SAFETY: the entry path has set GS, and the current execution context is set.
        unsafe { entry::resume() }
    }
    portico_syscall(rdi, rsi, 0, 0, 0, Call::Reply.number().into())
}

const DOWN: u8 = Call::Down.number();
const UP: u8 = Call::Up.number();
/// What [`portico_short`] returns for a call that is none.
const LONG: Pair = Pair(1 << 31, 0);

/// The plain case of calls that switch to nobody: status and value. Anything unusual is left to
/// [`dispatch`], without effect.
#[unsafe(no_mangle)]
extern "sysv64" fn portico_short(rdi: u64, _rsi: u64, number: u64) -> Pair {
    let ec = || percpu::this().sched.current();
    match low8(number) {
        UP => sm::plain_up(ec(), rdi).map_or(LONG, |()| Pair(0, 0)),
        DOWN if Number(number).get_flags() == 0 => {
            sm::plain_down(ec(), rdi).map_or(LONG, |badges| Pair(0, badges))
        }
        n if Call::from_number(n).is_some() => LONG,
        _ => Pair(Status::BadCall.number().into(), 0),
    }
}

/// Every call in every case. It does not return to the entry path: `resume` loads every register.
#[unsafe(no_mangle)]
extern "sysv64" fn portico_syscall(
    rdi: u64,
    rsi: u64,
    rdx: u64,
    r10: u64,
    r8: u64,
    number: u64,
) -> ! {
    let cpu = percpu::this();
    let ec = cpu.sched.current();
    let args = Args { number, rdi, rsi, rdx, r10, r8 };
    let handled = match Number(number).call() {
        Some(call) => dispatch(call, &Caller { cpu, ec, args }),
        None => Err(Status::BadCall),
    };
    match handled {
        Ok(Outcome::Switched) => {}
        Ok(Outcome::Done(first, second)) => finish(cpu, ec, Status::Ok, first, second),
        Err(status) => finish(cpu, ec, status, 0, 0),
        Ok(Outcome::Again) => again(cpu, ec, &args),
    }
    // A rendezvous on the way may have woken somebody.
    sched::finish(cpu);
    // SAFETY: the entry path has set GS, and the current execution context is set.
    unsafe { entry::resume() }
}

#[inline(always)]
fn finish(cpu: &PerCpu, ec: Obj<ec::Ec>, status: Status, first: u64, second: u64) {
    // The call may have destroyed its caller.
    if cpu.sched.is_current(ec) {
        ec.regs.set_results(status, first, second);
    }
}

#[cold]
fn again(cpu: &PerCpu, ec: Obj<ec::Ec>, args: &Args) {
    if cpu.sched.is_current(ec) {
        ec.regs.restart(args);
        sched::preemption_point(cpu);
    }
}
