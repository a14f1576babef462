//! Handlers behind portals.
//!
//! A handler is a local execution context: it runs on its callers' time, on one CPU, one call at a
//! time. A service that is used from several CPUs has one on each, all with the same `&'static`
//! state, which therefore is `Sync`. Handlers should not wait for locks that other threads of the
//! component hold for long, as the caller's time may end in the middle.

use core::marker::PhantomData;

use ipc::state::{Mtd, State};
use ipc::status::Result;
use ipc::utcb::Message;

use crate::arch::{Entry, portal_entry};
use crate::cap::{Cap, Ec, Portal};
use crate::num::{u64_of, usize_of};
use crate::syscall::{create_pt, set_portal};
use crate::thread::{Block, STACK_ORDER};
use crate::{process, selector, utcb};

/// Answers calls.
pub trait CallHandler: Sync + 'static {
    /// Handles a call to the portal with this id; words and items are in the message area.
    fn call(&self, id: u64, message: Message) -> Message;
}

/// Answers events: exits of vCPUs and exceptions of execution contexts.
pub trait EventHandler: Sync + 'static {
    /// Handles an event at the portal with this id. `state` holds the groups that `mtd` names;
    /// the groups that the result names are taken back.
    fn event(&self, id: u64, mtd: Mtd, state: &mut State) -> Mtd;
}

struct CallEntry<H>(PhantomData<H>);

impl<H: CallHandler> Entry for CallEntry<H> {
    extern "sysv64" fn enter(id: u64, descriptor: u64) -> u64 {
        // SAFETY: portals with this entry are made by `Handler<H>` only.
        unsafe { state::<H>() }.call(id, Message(descriptor)).0
    }
}

struct EventEntry<H>(PhantomData<H>);

impl<H: EventHandler> Entry for EventEntry<H> {
    extern "sysv64" fn enter(id: u64, descriptor: u64) -> u64 {
        // SAFETY: portals with this entry are made by `Handler<H>` only.
        let handler = unsafe { state::<H>() };
        let mtd = Mtd::from_bits_truncate(descriptor);
        utcb::with_state(|state| handler.event(id, mtd, state)).bits()
    }
}

/// The state that belongs to the current handler.
///
/// # Safety
/// The current thread is a handler created for `H`.
#[inline(always)]
unsafe fn state<H>() -> &'static H {
    let state: *const H = core::ptr::with_exposed_provenance(usize_of(utcb::user()));
    // SAFETY: `Handler::new` stored the address of a `&'static H`.
    unsafe { &*state }
}

/// Where a handler runs.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// CPU number.
    pub cpu: u16,
    /// log2 of the pages of its stack.
    pub stack_order: u8,
    /// Event base; the root task's portals unless changed.
    pub events: u32,
}

impl Config {
    /// A handler on `cpu`.
    #[must_use]
    pub fn on(cpu: u16) -> Self {
        Self { cpu, stack_order: STACK_ORDER, events: process::events(cpu) }
    }
}

/// A local execution context that runs `H`.
#[derive(Debug)]
pub struct Handler<H: 'static> {
    ec: Cap<Ec>,
    utcb: u64,
    handler: PhantomData<&'static H>,
}

impl<H: Sync + 'static> Handler<H> {
    /// Creates one on `config.cpu`.
    ///
    /// # Errors
    /// [`ipc::status::Status::Quota`] where heap, selectors or kernel memory are used up, and what
    /// creating its objects gives.
    pub fn new(config: Config, handler: &'static H) -> Result<Self> {
        let block = Block::new(config.stack_order)?;
        let user = u64_of(core::ptr::from_ref(handler).expose_provenance());
        let ec = block.create(config.cpu, config.events, None, user)?;
        Ok(Self { ec, utcb: block.utcb(), handler: PhantomData })
    }

    /// Its execution context.
    #[must_use]
    pub const fn ec(&self) -> Cap<Ec> {
        self.ec
    }

    /// Opens a receive window for it, before its first call.
    ///
    /// # Safety
    /// It handles no call yet. Memory that arrives in the window is used by nobody else.
    pub unsafe fn set_window(&self, space: ipc::cap::Space, window: ipc::utcb::Window) {
        let utcb: *mut ipc::utcb::Utcb =
            core::ptr::with_exposed_provenance_mut(usize_of(self.utcb));
        // SAFETY: the UTCB is mapped, and its thread does not run yet by the caller's promise.
        unsafe { utcb::write_window(utcb, space, window) };
    }
}

impl<H: CallHandler> Handler<H> {
    /// Creates a portal for calls.
    ///
    /// # Errors
    /// What creating it gives.
    pub fn portal(&self, id: u64) -> Result<Cap<Portal>> {
        let entry = portal_entry::<CallEntry<H>>();
        // SAFETY: the entry fits the state that the execution context was created with.
        unsafe { create_pt(selector::alloc()?, process::pd(), self.ec, entry, id) }
    }
}

impl<H: EventHandler> Handler<H> {
    /// Creates a portal for events at `at`, a selector at some event base. It delivers the groups
    /// of `mtd`.
    ///
    /// # Errors
    /// What creating it gives.
    pub fn event_portal(&self, at: ipc::cap::Selector, id: u64, mtd: Mtd) -> Result<Cap<Portal>> {
        let entry = portal_entry::<EventEntry<H>>();
        // SAFETY: as in `portal`.
        let portal = unsafe { create_pt(at, process::pd(), self.ec, entry, id) }?;
        set_portal(portal, id, mtd)?;
        Ok(portal)
    }
}
