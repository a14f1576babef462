//! Message transfer and donation of time: call, reply, events.
//!
//! A call hands the caller's time to the handler and its words to the handler's UTCB; a reply is
//! the way back. Both stay on one CPU and take no lock unless capabilities travel.

use core::ptr::NonNull;

use ipc::cap::Rights;
use ipc::state::Mtd;
use ipc::status::Status;
use ipc::trace::{Counter, Kind};
use ipc::utcb::{Message, Utcb};

use crate::arch::percpu::PerCpu;
use crate::arch::regs::{Pair, Regs, USER_RFLAGS, USER_RFLAGS_MASK, flag};
use crate::arch::{instr, layout};
use crate::object::Obj;
use crate::object::ec::{Ec, State};
use crate::object::pt::Pt;
use crate::object::vcpu::Vcpu;
use crate::sched::unusual;
use crate::syscall::{Caller, Handled, Outcome};
use crate::{interrupt, sched, trace, transfer};

/// Copies untyped words from one UTCB to another.
#[inline(always)]
fn copy_words(from: &Ec, to: &Ec, words: usize) {
    if words == 0 {
        return;
    }
    let (Some(from), Some(to)) = (from.utcb, to.utcb) else { return };
    // SAFETY: both point to live UTCB frames in kernel memory, which do not overlap, and
    // `Message::words` is at most the size of the array. Their owners may write at the same time;
    // the words are only moved, never interpreted.
    unsafe {
        let from = (&raw const (*from.as_ptr()).words).cast::<u64>();
        let to = (&raw mut (*to.as_ptr()).words).cast::<u64>();
        instr::copy(from, to, words);
    }
}

/// Starts the handler of a portal, but for its registers.
#[inline(always)]
fn enter(cpu: &PerCpu, caller: Obj<Ec>, pt: &Pt) {
    let callee = pt.ec;
    trace::count(cpu, Counter::Call);
    trace::note(cpu, Kind::Call, || [trace::number(caller), trace::number(callee)]);
    callee.state.set(State::Runnable);
    callee.caller.set(Some(caller));
    caller.partner.set(Some(callee));
    callee.regs.rip.set(pt.entry);
    sched::switch_to(cpu, callee);
}

/// The handler is free again, and the caller runs on.
#[inline(always)]
fn leave(cpu: &PerCpu, ec: Obj<Ec>, caller: Obj<Ec>) {
    trace::note(cpu, Kind::Reply, || [trace::number(ec), trace::number(caller)]);
    ec.caller.set(None);
    ec.state.set(State::Idle);
    caller.partner.set(None);
    sched::switch_to(cpu, caller);
}

/// A call that carries words only, to a free handler of this CPU: what its `rdi` and `rsi` start
/// with. `None` where it is none.
#[inline(always)]
pub fn plain_call(cpu: &PerCpu, ec: Obj<Ec>, portal: u64, message: Message) -> Option<Pair> {
    let pt = ec.pd.spaces.objects.lookup::<Pt>(portal, Rights::PT_CALL).ok()?;
    let callee = pt.ec;
    if !message.is_plain()
        || callee.cpu != cpu.sched.id
        || callee.state.get() != State::Idle
        || callee.regs.flags.get() != 0
        || cpu.sched.unusual.get() != 0
    {
        return None;
    }
    copy_words(&ec, &callee, message.words());
    enter(cpu, ec, pt);
    Some(Pair(pt.id.get(), message.0))
}

/// A reply that carries words only, to a caller that waits for nothing else: what its `rdi` and
/// `rsi` get. `None` where it is none.
#[inline(always)]
pub fn plain_reply(cpu: &PerCpu, ec: Obj<Ec>, message: Message) -> Option<Pair> {
    let caller = ec.caller.get()?;
    if !message.is_plain() || caller.regs.flags.get() != 0 || cpu.sched.unusual.get() != 0 {
        return None;
    }
    copy_words(&ec, &caller, message.words());
    leave(cpu, ec, caller);
    Some(Pair(0, message.0))
}

/// A reply to the exit of a vCPU that waits for nothing else: whether it was one. The guest runs
/// until its next exit.
#[inline(always)]
pub fn exit_reply(cpu: &PerCpu, ec: Obj<Ec>, mtd: u64) -> bool {
    let (Some(caller), Some(utcb)) = (ec.caller.get(), ec.utcb) else { return false };
    if caller.regs.flags.get() != flag::VCPU | flag::EVENT || cpu.sched.unusual.get() != 0 {
        return false;
    }
    let Some(vcpu) = Vcpu::of(caller) else { return false };
    caller.regs.flags.set(flag::VCPU);
    crate::vcpu::load(cpu, vcpu, Mtd::from_bits_truncate(mtd), utcb);
    leave(cpu, ec, caller);
    crate::vcpu::run(cpu, vcpu);
    true
}

/// System call `Call`.
///
/// # Errors
/// `BadCap`, `BadRight`: no such portal. `BadCpu`: its handler is bound to another CPU.
/// `BadState`: its handler waits for the caller. `Aborted`: its handler is dead. With typed items also what their transfer reports.
pub fn call(c: &Caller<'_>) -> Handled {
    let (cpu, ec) = (c.cpu, c.ec);
    let message = Message(c.args.rsi);
    let mut kernel = (message.items() != 0).then(|| c.lock()).transpose()?;
    let pt = c.object::<Pt>(c.args.rdi, Rights::PT_CALL)?;
    let callee = pt.ec;
    if callee.cpu != cpu.sched.id {
        return Err(Status::BadCpu);
    }
    if callee.is_dead() {
        return Err(Status::Aborted);
    }
    if callee.state.get() != State::Idle {
        if sched::chain_end(callee) == ec {
            // It would wait for itself.
            return Err(Status::BadState);
        }
        ec.regs.restart(&c.args);
        sched::help(cpu, callee);
        return Ok(Outcome::Switched);
    }
    if let Some(kernel) = &mut kernel {
        transfer::items(kernel, cpu, ec, callee, message.items())?;
    }
    copy_words(&ec, &callee, message.words());
    callee.regs.start(pt.id.get(), message.normal().0);
    enter(cpu, ec, pt);
    Ok(Outcome::Switched)
}

/// System call `Reply`.
///
/// # Errors
/// `BadState`: the execution context is global and has nobody to reply to.
pub fn reply(c: &Caller<'_>) -> Handled {
    let (cpu, ec) = (c.cpu, c.ec);
    let message = Message(c.args.rsi);
    if ec.global {
        return Err(Status::BadState);
    }
    if let Some(caller) = ec.caller.get()
        && caller.regs.has(flag::EVENT)
    {
        caller.regs.clear(flag::EVENT);
        let mtd = Mtd::from_bits_truncate(message.0);
        if let Some(utcb) = ec.utcb {
            match Vcpu::of(caller) {
                Some(vcpu) => crate::vcpu::load(cpu, vcpu, mtd, utcb),
                None => load_host(caller, mtd, utcb),
            }
        }
        leave(cpu, ec, caller);
    } else {
        let mut kernel = (message.items() != 0).then(|| c.lock()).transpose()?;
        // The caller may have died while this CPU waited for the lock.
        match (ec.caller.get(), &mut kernel) {
            (Some(caller), kernel) => {
                // It must learn that something is missing, the handler must not hang on it.
                let sent = kernel
                    .as_mut()
                    .map_or(Ok(()), |k| transfer::items(k, cpu, ec, caller, message.items()));
                copy_words(&ec, &caller, message.words());
                let status = sent.err().unwrap_or(Status::Ok);
                caller.regs.set_results(status, message.normal().0, 0);
                leave(cpu, ec, caller);
            }
            (None, _) => {
                ec.state.set(State::Idle);
                // Whose time this is runs on wherever its own chain ends.
                sched::preempt(cpu);
                return Ok(Outcome::Switched);
            }
        }
    }
    if cpu.sched.unusual.get() & unusual::HELPING != 0 {
        sched::preempt(cpu);
    }
    Ok(Outcome::Switched)
}

/// Delivers an event of `ec` through its event portal; a call on behalf of `ec`.
pub fn event(cpu: &PerCpu, ec: Obj<Ec>, number: u8) {
    let selector = ec.events.wrapping_add(u64::from(number));
    let Ok(pt) = ec.pd.spaces.objects.lookup::<Pt>(selector, Rights::PT_EVENT) else {
        return unhandled(cpu, ec, number);
    };
    let callee = pt.ec;
    if callee.cpu != cpu.sched.id || callee.is_dead() || callee == ec {
        return unhandled(cpu, ec, number);
    }
    if callee.state.get() != State::Idle {
        ec.pending_event.set(Some(number));
        ec.regs.set(flag::PENDING);
        return sched::help(cpu, callee);
    }
    trace::count(cpu, Counter::Event);
    ec.regs.clear(flag::PENDING);
    ec.regs.set(flag::EVENT);
    ec.last_event.set(number);
    let mtd = Mtd::from_bits_truncate(pt.mtd.get());
    if let Some(utcb) = callee.utcb {
        match Vcpu::of(ec) {
            Some(vcpu) => {
                crate::vcpu::count(cpu, vcpu, number);
                crate::vcpu::store(cpu, vcpu, mtd, utcb);
            }
            None => store_host(&ec.regs, mtd, utcb),
        }
    }
    callee.regs.start(pt.id.get(), mtd.bits());
    enter(cpu, ec, pt);
}

/// Nobody handles the event: the execution context stops for good, and its supervisor is told.
fn unhandled(cpu: &PerCpu, ec: Obj<Ec>, number: u8) {
    crate::log!(
        "EC stopped: event {} has no handler (rip {:#x}, address {:#x}, error {:#x})",
        number,
        ec.regs.rip.get(),
        ec.regs.cr2.get(),
        ec.regs.error.get()
    );
    crate::destroy::stop_ec(cpu, ec);
    // A full counter loses nothing: the badge is noted.
    if let Some((sm, badge)) = ec.pd.supervisor
        && let Ok(signal) = sm.up(badge)
    {
        interrupt::deliver(cpu, signal);
    }
    sched::preempt(cpu);
}

/// Tells the caller of a handler that no reply will come.
pub fn abort_caller(ec: Obj<Ec>) {
    let Some(caller) = ec.caller.take() else { return };
    caller.partner.set(None);
    if caller.regs.has(flag::EVENT) {
        // Its event cannot be handled; delivering it again will find that out.
        caller.regs.clear(flag::EVENT);
        caller.pending_event.set(Some(caller.last_event.get()));
        caller.regs.set(flag::PENDING);
    } else {
        caller.regs.set_results(Status::Aborted, 0, 0);
    }
}

/// Moves registers between a host execution context and the state area: `$copy` gets the name that
/// both have.
macro_rules! registers {
    ($mtd:ident, $copy:ident) => {
        if $mtd.contains(Mtd::GPR_ACDB) {
            $copy!(rax rcx rdx rbx);
        }
        if $mtd.contains(Mtd::GPR_BSD) {
            $copy!(rsp rbp rsi rdi);
        }
        if $mtd.contains(Mtd::GPR_R8) {
            $copy!(r8 r9 r10 r11 r12 r13 r14 r15);
        }
        if $mtd.contains(Mtd::RIP) {
            $copy!(rip rflags);
        }
    };
}

/// Writes the groups of a host execution context's state.
fn store_host(regs: &Regs, mtd: Mtd, utcb: NonNull<Utcb>) {
    // SAFETY: a live UTCB frame that the kernel only writes here. Its owner may look at it, or write
    // to it on another CPU, meanwhile: no reference is made, and every access is volatile.
    let state = unsafe { &raw mut (*utcb.as_ptr()).state };
    macro_rules! put {
        ($field:ident, $value:expr) => {
            // SAFETY: as above.
            unsafe { (&raw mut (*state).$field).write_volatile($value) }
        };
    }
    macro_rules! copy {
        ($($name:ident)+) => { $( put!($name, regs.$name.get()); )+ };
    }
    registers!(mtd, copy);
    if mtd.contains(Mtd::RIP) {
        put!(instruction_length, 0);
    }
    if mtd.contains(Mtd::CR) {
        put!(cr2, regs.cr2.get());
    }
    if mtd.contains(Mtd::QUAL) {
        let exception = regs.vector.get() & 0xff | 1 << 8 | regs.error.get() << 32;
        put!(qualification, [exception, regs.cr2.get(), 0]);
    }
}

/// Takes the groups of a host execution context's state back.
fn load_host(ec: Obj<Ec>, mtd: Mtd, utcb: NonNull<Utcb>) {
    let regs = &ec.regs;
    // SAFETY: as in `store_host`. Every field is read once, and any value of it is acceptable or
    // made so.
    let state = unsafe { &raw const (*utcb.as_ptr()).state };
    macro_rules! copy {
        // SAFETY: as above.
        ($($name:ident)+) => { $( regs.$name.set(unsafe { (&raw const (*state).$name).read_volatile() }); )+ };
    }
    registers!(mtd, copy);
    if mtd.contains(Mtd::RIP) {
        // IRET to a non-canonical address faults in user mode only after the switch, but a
        // canonical one is guaranteed all the same.
        regs.rip.set(regs.rip.get() & layout::USER_MASK);
        regs.rflags.set(regs.rflags.get() & USER_RFLAGS_MASK | USER_RFLAGS);
        // It may not come back to a revocation that was interrupted.
        ec.ticket.take();
    }
}
