//! The system calls, typed. One function each; see `ipc::syscall` and `docs/abi.md` for what they
//! do and every error they give.
//!
//! Functions whose effect can break memory safety in the caller's own protection domain are
//! `unsafe`: starting code at an address, giving away or taking away memory.

use ipc::cap::{Held, MemRights, Range, Rights, Selector};
use ipc::event::Exit;
use ipc::state::Mtd;
use ipc::status::{Result, Status};
use ipc::syscall::{Call, DOWN_ZERO, EC_GLOBAL, EcOp, InterruptOp, Number};
use ipc::utcb::Message;

use crate::arch::{self, Out};
use crate::cap::{
    Call as CallRight, Cap, Control, Down, Ec, Guest, Holds, Interrupt, Kind, Pd, Portal, RightsOf,
    Sc, Semaphore, Up, Vcpu,
};

fn invoke(number: Number, rdi: u64, rsi: u64, rdx: u64, r10: u64, r8: u64) -> Result<Out> {
    // SAFETY: the functions below pass on what their contracts demand.
    let out = unsafe { arch::syscall(number.0, rdi, rsi, rdx, r10, r8) };
    Status::from_register(out.rax).map(|()| out)
}

/// Calls a portal.
///
/// # Safety
/// The reply overwrites words and items of the current UTCB; no reference into them is held.
///
/// # Errors
/// See `docs/abi.md`.
#[inline(always)]
pub unsafe fn call<R: Holds<CallRight>>(
    portal: Cap<Portal, R>,
    message: Message,
) -> Result<Message> {
    const NUMBER: Number = Number::new(Call::Call);
    // SAFETY: the caller's promise.
    let (status, reply) = unsafe { arch::syscall2(NUMBER.0, portal.raw(), message.0) };
    Status::from_register(status).map(|()| Message(reply))
}

impl<R: Holds<Up>> Cap<Semaphore, R> {
    /// Signals.
    ///
    /// # Errors
    /// See `docs/abi.md`.
    #[inline(always)]
    pub fn up(self) -> Result {
        const NUMBER: Number = Number::new(Call::Up);
        // SAFETY: changes nothing of ours.
        let (status, _) = unsafe { arch::syscall2(NUMBER.0, self.raw(), 0) };
        Status::from_register(status)
    }
}

impl<R: Holds<Down>> Cap<Semaphore, R> {
    /// Waits for a signal; returns the badges that came in.
    ///
    /// # Errors
    /// See `docs/abi.md`.
    #[inline(always)]
    pub fn down(self) -> Result<u64> {
        self.wait(Number::new(Call::Down), 0)
    }

    /// Waits for a signal, or until the TSC reaches `deadline` ([`Status::Timeout`]).
    ///
    /// # Errors
    /// See `docs/abi.md`.
    #[inline]
    pub fn down_until(self, deadline: u64) -> Result<u64> {
        self.wait(Number::new(Call::Down), deadline)
    }

    /// Waits for signals and takes all that came in: the counter is zero afterwards.
    ///
    /// # Errors
    /// See `docs/abi.md`.
    #[inline]
    pub fn down_all(self, deadline: Option<u64>) -> Result<u64> {
        self.wait(Number::new(Call::Down).flags(DOWN_ZERO), deadline.unwrap_or(0))
    }

    #[inline(always)]
    fn wait(self, number: Number, deadline: u64) -> Result<u64> {
        // SAFETY: changes nothing of ours.
        let (status, badges) = unsafe { arch::syscall2(number.0, self.raw(), deadline) };
        Status::from_register(status).map(|()| badges)
    }
}

/// Creates a protection domain with `pages` of kernel memory from `from`.
///
/// # Errors
/// See `docs/abi.md`.
pub fn create_pd(at: Selector, from: Cap<Pd>, pages: u64) -> Result<Cap<Pd>> {
    create_pd_with::<Up>(at, from, pages, u8::MAX, None)
}

/// The same with a ceiling for the priorities of scheduling contexts in it (never above that of
/// `from`), and a semaphore that is signalled when one of its execution contexts is stopped for want
/// of a handler (`None`: that of `from`).
///
/// # Errors
/// See `docs/abi.md`.
pub fn create_pd_with<R: Holds<Up>>(
    at: Selector,
    from: Cap<Pd>,
    pages: u64,
    ceiling: u8,
    supervisor: Option<Cap<Semaphore, R>>,
) -> Result<Cap<Pd>> {
    let supervisor = supervisor.map_or(0, Cap::raw);
    let number = Number::new(Call::CreatePd);
    invoke(number, at.0, from.raw(), pages, ceiling.into(), supervisor)?;
    Ok(Cap::new(at))
}

/// What an execution context starts with.
#[derive(Clone, Copy, Debug)]
pub struct EcStart {
    /// CPU number.
    pub cpu: u16,
    /// Address of its UTCB in its protection domain.
    pub utcb: u64,
    /// Stack pointer.
    pub stack: u64,
    /// First selector of its event portals.
    pub events: u32,
    /// Entry point of a global one; `None` makes one that serves portals.
    pub entry: Option<u64>,
}

/// Creates an execution context in `pd`.
///
/// # Safety
/// Where `pd` is the own protection domain, code may run from the entry point on that stack.
///
/// # Errors
/// See `docs/abi.md`.
pub unsafe fn create_ec(at: Selector, pd: Cap<Pd>, start: EcStart) -> Result<Cap<Ec>> {
    // SAFETY: passed on.
    unsafe { create_ec_with(at, pd, start, 0) }
}

/// The same with further flags, as [`ipc::syscall::EC_FPU`].
///
/// # Safety
/// As [`create_ec`].
///
/// # Errors
/// See `docs/abi.md`.
pub unsafe fn create_ec_with(
    at: Selector,
    pd: Cap<Pd>,
    start: EcStart,
    flags: u8,
) -> Result<Cap<Ec>> {
    let flags = flags | if start.entry.is_some() { EC_GLOBAL } else { 0 };
    let number = Number::new(Call::CreateEc).flags(flags).cpu(start.cpu).selector(start.events);
    invoke(number, at.0, pd.raw(), start.utcb, start.stack, start.entry.unwrap_or(0))?;
    Ok(Cap::new(at))
}

/// Creates a virtual CPU in `pd` that runs in `space`; its exits go to the portals from `events` on.
///
/// # Errors
/// See `docs/abi.md`.
pub fn create_vcpu(
    at: Selector,
    pd: Cap<Pd>,
    space: Cap<Guest>,
    cpu: u16,
    events: u32,
) -> Result<Cap<Vcpu>> {
    let number = Number::new(Call::CreateVcpu).cpu(cpu).selector(events);
    invoke(number, at.0, pd.raw(), space.raw(), 0, 0)?;
    Ok(Cap::new(at))
}

/// What can have a scheduling context.
pub trait Schedulable: Kind {}
impl Schedulable for Ec {}
impl Schedulable for Vcpu {}

/// Creates a scheduling context, which makes `ec` runnable. `budget` is in TSC ticks.
///
/// # Errors
/// See `docs/abi.md`.
pub fn create_sc<K: Schedulable>(
    at: Selector,
    pd: Cap<Pd>,
    ec: Cap<K>,
    priority: u8,
    budget: u64,
) -> Result<Cap<Sc>> {
    let number = Number::new(Call::CreateSc);
    invoke(number, at.0, pd.raw(), ec.raw(), u64::from(priority), budget)?;
    Ok(Cap::new(at))
}

/// Creates a portal that `ec` handles from `entry` on.
///
/// # Safety
/// Where `ec` is in the own protection domain, code may run from the entry point on its stack.
///
/// # Errors
/// See `docs/abi.md`.
pub unsafe fn create_pt(
    at: Selector,
    pd: Cap<Pd>,
    ec: Cap<Ec>,
    entry: u64,
    id: u64,
) -> Result<Cap<Portal>> {
    invoke(Number::new(Call::CreatePt), at.0, pd.raw(), ec.raw(), entry, id)?;
    Ok(Cap::new(at))
}

/// Creates a semaphore.
///
/// # Errors
/// See `docs/abi.md`.
pub fn create_sm(at: Selector, pd: Cap<Pd>, count: u64) -> Result<Cap<Semaphore>> {
    invoke(Number::new(Call::CreateSm), at.0, pd.raw(), count, 0, 0)?;
    Ok(Cap::new(at))
}

/// Creates a guest space.
///
/// # Errors
/// See `docs/abi.md`.
pub fn create_guest(at: Selector, pd: Cap<Pd>) -> Result<Cap<Guest>> {
    invoke(Number::new(Call::CreateGuest), at.0, pd.raw(), 0, 0, 0)?;
    Ok(Cap::new(at))
}

/// Delegates an object capability to `to`, with the rights in `rights` at most. `badge` is what
/// signals through a semaphore capability add, where it has none yet.
///
/// # Errors
/// See `docs/abi.md`.
pub fn delegate_object<K, R>(
    to: Cap<Pd>,
    cap: Cap<K, R>,
    at: Selector,
    rights: Rights,
    badge: u64,
) -> Result {
    let range = Range::object(rights).0;
    invoke(Number::new(Call::Delegate), to.raw(), range, cap.raw(), at.0, badge).map(drop)
}

/// Delegates an object capability to the own protection domain `own`, with exactly the rights of
/// the type `Less`: for handing on by name.
///
/// # Errors
/// See `docs/abi.md`.
pub fn derive<K, R, Less>(
    own: Cap<Pd>,
    cap: Cap<K, R>,
    at: Selector,
    badge: u64,
) -> Result<Cap<K, Less>>
where
    R: Holds<Less>,
    Less: RightsOf<K>,
{
    delegate_object(own, cap, at, Less::BITS, badge)?;
    Ok(Cap::new(at))
}

/// What memory can be delegated to.
pub trait MemoryTarget: Kind {}
impl MemoryTarget for Pd {}
impl MemoryTarget for Guest {}

/// Delegates the pages from `page` on to page `at` of `to`.
///
/// # Safety
/// Whoever receives the memory can access it as the rights in `range` say; into the own
/// protection domain it makes an alias.
///
/// # Errors
/// See `docs/abi.md`.
pub unsafe fn delegate_memory<K: MemoryTarget>(
    to: Cap<K>,
    range: Range,
    page: u64,
    at: u64,
) -> Result {
    invoke(Number::new(Call::Delegate), to.raw(), range.0, page, at, 0).map(drop)
}

/// Delegates `2^order` ports.
///
/// # Errors
/// See `docs/abi.md`.
pub fn delegate_ports(to: Cap<Pd>, order: u8, port: u16) -> Result {
    let (range, port) = (Range::port(order).0, u64::from(port));
    invoke(Number::new(Call::Delegate), to.raw(), range, port, port, 0).map(drop)
}

/// Revokes what was delegated from an object capability; with `own`, the capability itself too.
///
/// # Errors
/// See `docs/abi.md`.
pub fn revoke_object(at: Selector, rights: Rights, own: bool) -> Result {
    let range = Range::object(rights);
    let range = if own { range.include_self() } else { range };
    invoke(Number::new(Call::Revoke), range.0, at.0, 0, 0, 0).map(drop)
}

/// Revokes ports.
///
/// # Errors
/// See `docs/abi.md`.
pub fn revoke_ports(order: u8, port: u16, own: bool) -> Result {
    let range = Range::port(order);
    let range = if own { range.include_self() } else { range };
    invoke(Number::new(Call::Revoke), range.0, u64::from(port), 0, 0, 0).map(drop)
}

/// Revokes what was delegated from pages; with `include_self` in `range` the own mapping too.
///
/// # Safety
/// No reference to the memory is used where it goes away.
///
/// # Errors
/// See `docs/abi.md`.
pub unsafe fn revoke_memory(range: Range, page: u64) -> Result {
    invoke(Number::new(Call::Revoke), range.0, page, 0, 0, 0).map(drop)
}

/// What the own spaces hold at a unit, and the first unit of that range (object: the badge).
///
/// # Errors
/// See `docs/abi.md`.
pub fn query(range: Range, unit: u64) -> Result<(Held, u64)> {
    let out = invoke(Number::new(Call::Query), range.0, unit, 0, 0, 0)?;
    Ok((Held(out.rsi), out.rdx))
}

/// What can be recalled.
pub trait Recallable: Kind {}
impl Recallable for Ec {}
impl Recallable for Vcpu {}

/// Forces an execution context or vCPU to its recall event.
///
/// # Errors
/// See `docs/abi.md`.
pub fn recall<K: Recallable, R: Holds<Control>>(ec: Cap<K, R>) -> Result {
    ec_op(ec.raw(), EcOp::Recall, Mtd::empty())
}

/// Reads the groups of `mtd` of a vCPU that is not running into the state area of the UTCB.
///
/// # Safety
/// No reference into the state area of the current UTCB is held.
///
/// # Errors
/// See `docs/abi.md`.
pub unsafe fn get_state(vcpu: Cap<Vcpu>, mtd: Mtd) -> Result {
    ec_op(vcpu.raw(), EcOp::GetState, mtd)
}

/// Writes the groups of `mtd` of a vCPU that is not running from the state area of the UTCB.
///
/// # Errors
/// See `docs/abi.md`.
pub fn set_state(vcpu: Cap<Vcpu>, mtd: Mtd) -> Result {
    ec_op(vcpu.raw(), EcOp::SetState, mtd)
}

/// How often a vCPU exited for a reason.
///
/// # Errors
/// See `docs/abi.md`.
pub fn exits<R: Holds<Control>>(vcpu: Cap<Vcpu, R>, exit: Exit) -> Result<u64> {
    let number = Number::new(Call::CtrlEc).flags(EcOp::Exits.number());
    invoke(number, vcpu.raw(), exit.number().into(), 0, 0, 0).map(|out| out.rsi)
}

fn ec_op(ec: u64, op: EcOp, mtd: Mtd) -> Result {
    let number = Number::new(Call::CtrlEc).flags(op.number());
    invoke(number, ec, mtd.bits(), 0, 0, 0).map(drop)
}

/// TSC ticks that a scheduling context consumed.
///
/// # Errors
/// See `docs/abi.md`.
pub fn consumed(sc: Cap<Sc>) -> Result<u64> {
    invoke(Number::new(Call::CtrlSc), sc.raw(), 0, 0, 0, 0).map(|out| out.rsi)
}

/// Sets id and MTD of a portal.
///
/// # Errors
/// See `docs/abi.md`.
pub fn set_portal(portal: Cap<Portal>, id: u64, mtd: Mtd) -> Result {
    invoke(Number::new(Call::CtrlPt), portal.raw(), id, mtd.bits(), 0, 0).map(drop)
}

/// Account of a protection domain in pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Account {
    /// In use.
    pub used: u64,
    /// Limit.
    pub limit: u64,
}

/// Reads the account of a protection domain.
///
/// # Errors
/// See `docs/abi.md`.
pub fn account(pd: Cap<Pd>) -> Result<Account> {
    let out = invoke(Number::new(Call::CtrlPd), pd.raw(), 0, 0, 0, 0)?;
    Ok(Account { used: out.rsi, limit: out.rdx })
}

/// Moves quota from one protection domain to another; returns the account of the latter.
///
/// # Errors
/// See `docs/abi.md`.
pub fn move_quota(to: Cap<Pd>, pages: u64, from: Cap<Pd>) -> Result<Account> {
    let out = invoke(Number::new(Call::CtrlPd), to.raw(), pages, from.raw(), 0, 0)?;
    Ok(Account { used: out.rsi, limit: out.rdx })
}

/// Binds an interrupt to a semaphore on a CPU and unmasks it. For message-signalled interrupts
/// returns address and data to program into the device.
///
/// # Errors
/// See `docs/abi.md`.
pub fn bind_interrupt(
    interrupt: Cap<Interrupt>,
    cpu: u16,
    semaphore: Cap<Semaphore>,
    badge: u64,
    trigger: u64,
) -> Result<(u64, u64)> {
    let number = Number::new(Call::CtrlInterrupt).flags(InterruptOp::Bind.number()).cpu(cpu);
    let out = invoke(number, interrupt.raw(), semaphore.raw(), badge, trigger, 0)?;
    Ok((out.rsi, out.rdx))
}

/// Lets a level-triggered interrupt come again.
///
/// # Errors
/// See `docs/abi.md`.
pub fn acknowledge(interrupt: Cap<Interrupt>) -> Result {
    let number = Number::new(Call::CtrlInterrupt).flags(InterruptOp::Ack.number());
    invoke(number, interrupt.raw(), 0, 0, 0, 0).map(drop)
}

/// Masks an interrupt and unbinds it.
///
/// # Errors
/// See `docs/abi.md`.
pub fn unbind_interrupt(interrupt: Cap<Interrupt>) -> Result {
    let number = Number::new(Call::CtrlInterrupt).flags(InterruptOp::Unbind.number());
    invoke(number, interrupt.raw(), 0, 0, 0, 0).map(drop)
}

/// Read and write rights as a memory range of `2^order` pages.
#[must_use]
pub const fn pages(order: u8, rights: MemRights) -> Range {
    Range::memory(order, rights)
}
