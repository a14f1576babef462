//! A few domains and guests with a pool of their own.

use core::ptr::NonNull;

use ipc::cap::{MemRights, ObjectType, Range, Rights, Space};
use ipc::status::Status;

use super::check::{check_guest, check_spaces};
use crate::cap::node::{Handle, Owner};
use crate::cap::{
    Delegation, GuestSpace, Object, ObjectHeader, Outcome, PdSpaces, Revocations, Ticket, destroy,
    install_memory, install_object, install_ports, revoke,
};
use crate::mem::account::Account;
use crate::mem::paging::{Format, LeafSize, MemoryType};
use crate::mem::space::HostLayout;
use crate::mem::tests::Region;
use crate::shared::Obj;

pub(super) const LAYOUT: HostLayout = HostLayout { kernel: [1, 2, 3], max_leaf: LeafSize::Huge };
const QUOTA: u64 = 200;

macro_rules! object {
    ($name:ident, $ty:ident) => {
        #[repr(C)]
        pub(super) struct $name {
            pub(super) header: ObjectHeader,
            pub(super) id: usize,
        }

        // SAFETY: repr(C), starts with a header of that type, one Rust type per type.
        unsafe impl Object for $name {
            const TYPE: ObjectType = ObjectType::$ty;
        }

        impl New for $name {
            fn new(id: usize) -> Self {
                Self { header: ObjectHeader::new(Self::TYPE), id }
            }
        }
    };
}

pub(super) trait New: Object {
    fn new(id: usize) -> Self;
}

object!(SmObject, Sm);
object!(PtObject, Pt);
object!(EcObject, Ec);

/// What a node says, without links.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct View {
    pub(super) kind: u8,
    pub(super) base: u64,
    pub(super) order: u8,
    pub(super) rights: u8,
    pub(super) target: u64,
    pub(super) badge: u64,
    pub(super) memory: u8,
}

#[allow(clippy::vec_box, reason = "nodes keep the addresses")]
pub(super) struct World {
    // Dropped before the region.
    pub(super) pds: Vec<Box<PdSpaces>>,
    pub(super) guests: Vec<Box<GuestSpace>>,
    pub(super) revocations: Revocations,
    /// All objects that were made; `None` when dead.
    pub(super) objects: Vec<Option<NonNull<ObjectHeader>>>,
    pub(super) region: Box<Region>,
}

impl World {
    /// Guests are paid for by the first domain.
    pub(super) fn new(pds: usize, guests: usize) -> Self {
        let mut w = Self {
            pds: Vec::new(),
            guests: Vec::new(),
            revocations: Revocations::new(),
            objects: Vec::new(),
            region: Region::new(1024),
        };
        for _ in 0..pds {
            let pd = w.new_pd();
            w.pds.push(pd);
        }
        for _ in 0..guests {
            let account = &w.pds[0].account;
            // SAFETY: domain 0 is destroyed after the guests, and is boxed.
            let guest = unsafe {
                GuestSpace::new(&mut w.region.frames, account, Format::Npt, LeafSize::Huge)
            };
            w.guests.push(Box::new(guest.unwrap()));
        }
        w
    }

    fn new_pd(&mut self) -> Box<PdSpaces> {
        let Region { frames, root, .. } = &mut *self.region;
        Box::new(PdSpaces::new(frames, root, QUOTA, &LAYOUT).unwrap())
    }

    pub(super) fn install<T: New>(&mut self, pd: usize, sel: u64, rights: Rights) -> usize {
        let id = self.objects.len();
        let Region { frames, root, .. } = &mut *self.region;
        let object = root.alloc(frames, T::new(id)).unwrap();
        // SAFETY: `drain` frees objects.
        unsafe { install_object(frames, &self.pds[pd], sel, object, rights) }.unwrap();
        self.objects.push(Some(object.cast()));
        id
    }

    pub(super) fn install_memory(
        &mut self,
        pd: usize,
        page: u64,
        phys: u64,
        order: u8,
        memory: MemoryType,
    ) {
        let frames = &mut self.region.frames;
        let rights = MemRights::all();
        install_memory(frames, &self.pds[pd], page, phys, order, memory, rights).unwrap();
    }

    pub(super) fn install_ports(&mut self, pd: usize, port: u64, order: u8) {
        install_ports(&mut self.region.frames, &self.pds[pd], port, order).unwrap();
    }

    pub(super) fn delegate(
        &mut self,
        src: usize,
        dst: usize,
        range: Range,
        from: u64,
        to: u64,
        badge: u64,
    ) -> Result<(), Status> {
        let dst = Owner::Pd(&self.pds[dst]);
        let delegation = Delegation::check(&self.pds[src], dst, range, from, to, badge)?;
        delegation.commit(&mut self.region.frames).map(|_| ())
    }

    pub(super) fn delegate_guest(
        &mut self,
        src: usize,
        guest: usize,
        range: Range,
        from: u64,
        to: u64,
    ) -> Result<(), Status> {
        let dst = Owner::Guest(&self.guests[guest]);
        let delegation = Delegation::check(&self.pds[src], dst, range, from, to, 0)?;
        delegation.commit(&mut self.region.frames).map(|_| ())
    }

    /// One step. Returns whether there is more to do, and the objects that died.
    pub(super) fn revoke_step(
        &mut self,
        pd: usize,
        range: Range,
        base: u64,
        ticket: &mut Ticket,
        budget: u32,
    ) -> Result<(bool, Vec<usize>), Status> {
        let out = revoke(
            &mut self.region.frames,
            &mut self.revocations,
            &self.pds[pd],
            range,
            base,
            ticket,
            budget,
        )?;
        let more = out.more;
        Ok((more, self.drain(out)))
    }

    /// Until it is done. Returns the objects that died.
    pub(super) fn revoke(
        &mut self,
        pd: usize,
        range: Range,
        base: u64,
        budget: u32,
    ) -> Result<Vec<usize>, Status> {
        let mut ticket = Ticket::default();
        let mut dead = Vec::new();
        loop {
            let (more, died) = self.revoke_step(pd, range, base, &mut ticket, budget)?;
            dead.extend(died);
            if !more {
                assert_eq!(ticket, Ticket::default());
                dead.sort_unstable();
                return Ok(dead);
            }
        }
    }

    /// Draws the consequences.
    pub(super) fn drain(&mut self, mut out: Outcome) -> Vec<usize> {
        let frames = &mut self.region.frames;
        // SAFETY: no hardware and no other thread is involved.
        unsafe { out.pages.free(frames) };
        let mut dead = Vec::new();
        while let Some(header) = out.dead.pop().map(Obj::pointer) {
            // SAFETY: the object is alive, and this is its end.
            unsafe {
                assert_eq!(header.as_ref().caps.get(), 0);
                let object = header.cast::<SmObject>();
                let id = object.as_ref().id;
                assert_eq!(self.objects[id].take(), Some(header), "object died twice");
                dead.push(id);
                Account::free(frames, object);
            }
        }
        dead.sort_unstable();
        dead
    }

    /// Destroys what a domain holds. Returns the objects that died.
    pub(super) fn empty(&mut self, pd: usize, budget: u32) -> Vec<usize> {
        let mut dead = Vec::new();
        loop {
            let World { region, revocations, pds, .. } = self;
            let out = destroy(&mut region.frames, revocations, Owner::Pd(&pds[pd]), budget);
            let more = out.more;
            dead.extend(self.drain(out));
            if !more {
                dead.sort_unstable();
                return dead;
            }
        }
    }

    /// Destroys a domain; its memory is back, except for what its account pays elsewhere.
    pub(super) fn destroy(&mut self, pd: usize, budget: u32) -> Vec<usize> {
        let dead = self.empty(pd, budget);
        let Region { frames, root, .. } = &mut *self.region;
        // SAFETY: the domain is empty and no CPU uses it.
        unsafe { self.pds[pd].free_roots(frames) };
        assert_eq!(self.pds[pd].account.used(), 0);
        self.pds[pd].account.surrender(root);
        dead
    }

    /// Destroys a domain and puts a new one in its place.
    pub(super) fn replace(&mut self, pd: usize, budget: u32) -> Vec<usize> {
        let dead = self.destroy(pd, budget);
        self.pds[pd] = self.new_pd();
        dead
    }

    /// What a domain holds.
    pub(super) fn nodes(&self, pd: usize) -> Vec<View> {
        let spaces = &self.pds[pd];
        let mut nodes: Vec<_> = spaces.objects.nodes().map(view).collect();
        for index in [&spaces.memory.index, &spaces.ports.index] {
            let mut next = index.next(0);
            while let Some(node) = next {
                nodes.push(view(node));
                next = index.next(node.end());
            }
        }
        nodes.sort();
        nodes
    }

    pub(super) fn guest_nodes(&self, guest: usize) -> Vec<View> {
        let mut nodes = Vec::new();
        let index = &self.guests[guest].memory.index;
        let mut next = index.next(0);
        while let Some(node) = next {
            nodes.push(view(node));
            next = index.next(node.end());
        }
        nodes
    }

    /// Checks all invariants.
    pub(super) fn check(&self) {
        let mut counts = vec![0; self.objects.len()];
        for pd in &self.pds {
            check_spaces(pd, &self.revocations).unwrap();
            for node in pd.objects.nodes() {
                // SAFETY: the object is alive: a capability exists. All have the same layout.
                counts[unsafe { node.object().pointer().cast::<SmObject>().as_ref() }.id] += 1;
            }
        }
        for guest in &self.guests {
            check_guest(guest, &self.revocations).unwrap();
        }
        for (object, count) in self.objects.iter().zip(counts) {
            // SAFETY: objects in the list are alive.
            let caps = object.map_or(0, |o| unsafe { o.as_ref() }.caps.get());
            assert_eq!(caps, count);
        }
    }

    /// Destroys everything: every page is back.
    pub(super) fn finish(mut self) {
        self.check();
        for guest in 0..self.guests.len() {
            let World { region, revocations, guests, .. } = &mut self;
            let out =
                destroy(&mut region.frames, revocations, Owner::Guest(&guests[guest]), u32::MAX);
            assert!(!out.more);
            self.drain(out);
            // SAFETY: the guest is empty and no CPU uses it.
            unsafe { self.guests[guest].free_roots(&mut self.region.frames) };
        }
        for pd in 0..self.pds.len() {
            self.empty(pd, 3);
        }
        for pd in 0..self.pds.len() {
            self.destroy(pd, 3);
        }
        assert!(self.objects.iter().all(Option::is_none), "objects without capabilities live");
        assert_eq!(self.region.root.used(), 0);
        assert_eq!(self.region.root.limit(), self.region.frames.free_pages());
    }
}

fn view(node: Handle) -> View {
    let is_object = node.space == Space::Object;
    let is_guest = matches!(node.owner(), Owner::Guest(_));
    // SAFETY: the object is alive: a capability exists. All have the same layout.
    let id = || unsafe { node.object().pointer().cast::<SmObject>().as_ref() }.id as u64;
    View {
        kind: match (node.space, is_guest) {
            (Space::Object, _) => 0,
            (Space::Memory, false) => 1,
            (Space::Memory, true) => 2,
            (Space::Port, _) => 3,
        },
        base: node.base,
        order: node.order,
        rights: node.rights(),
        target: if is_object { id() } else { node.target },
        badge: node.badge(),
        memory: if is_object { 0 } else { node.memory_type() as u8 },
    }
}
