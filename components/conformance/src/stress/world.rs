//! Domains of the stress, and how somebody in them makes a system call.

use alloc::vec::Vec;

use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::proto::start::layout;
use ipc::state::Mtd;
use ipc::status::{Result, Status};
use ipc::syscall::{Call, Number};
use ipc::utcb::Message;
use sysroot::arch::{Entry, Out};
use sysroot::cap::{Cap, Ec, Pd, Portal};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::syscall::{self, Account};
use sysroot::{process, selector, utcb};

use super::model::OWNERS;
use crate::arch;
use crate::domain::{Domain, own};
use crate::tests::{Echo, FAULT, Fixes};

/// log2 of the selectors and of the shared pages, and the pages of a window.
pub(super) const SELECTORS: u8 = 4;
/// See [`SELECTORS`].
pub(super) const SHARED: u8 = 4;
/// See [`SELECTORS`].
pub(super) const WINDOW: u64 = 64;

/// Event base in the domains.
const EVENTS: u32 = 512;
/// Where the domains hold each other.
const DOMAINS: u64 = 600;
/// First selector of the window in the domains.
const OBJECTS: u64 = 1024;
/// Quota of a domain.
const QUOTA: u64 = 160;

/// What an agent does: a system call with six words, or access to memory or a port.
const SYSCALL: u64 = 0;
/// See [`SYSCALL`].
pub(super) const READ: u64 = 1;
/// See [`SYSCALL`].
pub(super) const WRITE: u64 = 2;
/// See [`SYSCALL`].
pub(super) const INPUT: u64 = 3;

/// Acts in its domain as its words say.
struct Agent;

impl Entry for Agent {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        let [kind, number, a, b, c, d, e] = utcb::with_message(|area| {
            let [kind, number, a, b, c, d, e, ..] = *area.words;
            [kind, number, a, b, c, d, e]
        });
        let attempt = match kind {
            READ => arch::read,
            WRITE => arch::write,
            _ => arch::input,
        };
        let result = if kind == SYSCALL {
            // SAFETY: the stress names selectors and pages that are in use for nothing else.
            let out = unsafe { sysroot::arch::syscall(number, a, b, c, d, e) };
            [out.rax, out.rsi, out.rdx]
        } else {
            // SAFETY: a fault is handled; what is accessed is there for the stress.
            let done = unsafe { attempt(number, a) };
            [done.fault, done.value, 0]
        };
        utcb::with_message(|area| {
            for (to, from) in area.words.iter_mut().zip(result) {
                *to = from;
            }
        });
        Message::new(3, 0).0
    }
}

/// A domain with an agent in it.
struct Inhabited {
    domain: Domain,
    agent: Cap<Portal>,
}

/// The domains of one operator, all on its CPU.
pub(super) struct World {
    cpu: u16,
    /// Owner 0 is the component itself.
    others: Vec<Option<Inhabited>>,
    /// First selector of the component's window.
    objects: Selector,
    /// First page of the windows, in every domain.
    pub(super) pages: u64,
    /// The memory that is handed around.
    pub(super) shared: Pages,
    /// What portals are made of.
    pub(super) handler: Cap<Ec>,
    _home: Domain,
    /// System calls that were made.
    pub(super) calls: u64,
}

impl World {
    /// The world of an operator. Windows of operators do not overlap.
    pub(super) fn new(cpu: u16) -> Result<Self> {
        let mut home = own();
        let mut world = Self {
            cpu,
            others: (1..OWNERS).map(|_| None).collect(),
            objects: selector::alloc_range(SELECTORS)?,
            pages: page(layout::WINDOWS.end()) - (1 + u64::from(cpu)) * 1024,
            shared: Pages::new(SHARED)?,
            handler: home.handler(cpu)?,
            _home: home,
            calls: 0,
        };
        for owner in 1..OWNERS {
            world.replace(owner)?;
        }
        Ok(world)
    }

    /// Destroys the domain, if there is one, and puts another in its place.
    pub(super) fn replace(&mut self, owner: usize) -> Result {
        if let Some(place) = self.place(owner) {
            *place = None;
        }
        let mut domain = Domain::new(QUOTA)?;
        let events = domain.serve::<Fixes>(self.cpu, 0)?;
        domain.route(EVENTS, &[13, 14], events, Mtd::HOST, 0)?;
        let handler = domain.handler_with(self.cpu, EVENTS)?;
        let agent = domain.portal::<Agent>(handler, 0)?;
        let pd = domain.pd;
        if let Some(place) = self.place(owner) {
            *place = Some(Inhabited { domain, agent });
        }
        let at = |n| Selector(DOMAINS + sysroot::num::u64_of(n));
        for n in (0..OWNERS).filter(|n| *n == 0 || self.inhabited(*n).is_some()) {
            let other = self.pd(n);
            syscall::delegate_object(pd, other, at(n), Rights::FULL, 0)?;
            if n != 0 && n != owner {
                syscall::delegate_object(other, pd, at(owner), Rights::FULL, 0)?;
            }
        }
        Ok(())
    }

    fn place(&mut self, owner: usize) -> Option<&mut Option<Inhabited>> {
        self.others.get_mut(owner.checked_sub(1)?)
    }

    fn inhabited(&self, owner: usize) -> Option<&Inhabited> {
        self.others.get(owner.checked_sub(1)?)?.as_ref()
    }

    /// A domain; the component's own where it is not there yet.
    pub(super) fn pd(&self, owner: usize) -> Cap<Pd> {
        self.inhabited(owner).map_or_else(process::pd, |i| i.domain.pd)
    }

    /// The name of the domain `named` in `owner`.
    pub(super) fn name(&self, owner: usize, named: usize) -> u64 {
        match owner {
            0 => self.pd(named).raw(),
            _ => DOMAINS + sysroot::num::u64_of(named),
        }
    }

    /// The n-th selector of a window.
    pub(super) fn selector(&self, owner: usize, n: u64) -> u64 {
        if owner == 0 { self.objects.0 + n } else { OBJECTS + n }
    }

    /// Account of a domain.
    pub(super) fn account(&mut self, owner: usize) -> Result<Account> {
        self.calls += 1;
        syscall::account(self.pd(owner))
    }

    /// What somebody in a domain gets from a system call.
    pub(super) fn call(&mut self, owner: usize, number: Number, a: [u64; 5]) -> Result<(u64, u64)> {
        self.calls += 1;
        let out = if self.inhabited(owner).is_none() {
            let [rdi, rsi, rdx, r10, r8] = a;
            // SAFETY: the stress names selectors and pages that are in use for nothing else.
            unsafe { sysroot::arch::syscall(number.0, rdi, rsi, rdx, r10, r8) }
        } else {
            let [rdi, rsi, rdx, r10, r8] = a;
            self.act(owner, [SYSCALL, number.0, rdi, rsi, rdx, r10, r8])?
        };
        Status::from_register(out.rax).map(|()| (out.rsi, out.rdx))
    }

    /// What somebody in a domain finds at an address or port; or the vector of the fault.
    pub(super) fn access(
        &mut self,
        owner: usize,
        kind: u64,
        at: u64,
        value: u64,
    ) -> Result<core::result::Result<u64, u64>> {
        let out = self.act(owner, [kind, at, value, 0, 0, 0, 0])?;
        Ok(if out.rax & FAULT == 0 { Ok(out.rsi) } else { Err(out.rax & 0xff) })
    }

    fn act(&mut self, owner: usize, words: [u64; 7]) -> Result<Out> {
        self.calls += 2;
        let agent = self.inhabited(owner).map(|i| i.agent).ok_or(Status::BadState)?;
        utcb::call(
            agent,
            |area| {
                for (to, from) in area.words.iter_mut().zip(words) {
                    *to = from;
                }
                Message::new(words.len(), 0)
            },
            |_, area| {
                let [rax, rsi, rdx, ..] = *area.words;
                Out { rax, rsi, rdx }
            },
        )
    }

    /// A portal with the operator's handler behind it.
    pub(super) fn portal(&mut self, at: u64) -> Result {
        let number = Number::new(Call::CreatePt);
        let entry = sysroot::arch::portal_entry::<Echo>();
        let (pd, ec) = (process::pd().raw(), self.handler.raw());
        self.call(0, number, [at, pd, ec, entry, 0]).map(drop)
    }
}

/// All rights that memory of the heap has.
pub(super) const HEAP: u8 = MemRights::RW.bits();

/// What is held at a unit of a space: rights, and first unit or badge.
pub(super) fn held(world: &mut World, owner: usize, range: Range, at: u64) -> Result<(u64, u64)> {
    world.call(owner, Number::new(Call::Query), [range.0, at, 0, 0, 0])
}
