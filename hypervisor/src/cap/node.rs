//! The derivation forest: one node per capability of any kind.
//!
//! A node hangs below the one it was delegated from. Its range and rights lie within those of its
//! parent. Depth is bounded, so every way up or down is.

use core::cell::Cell;
use core::num::NonZeroU32;
use core::ops::Deref;
use core::ptr::NonNull;

use ipc::cap::{MemRights, ObjectType, Rights};
use ipc::status::Status;

use super::header::ObjectHeader;
use super::index::{Entry, Links};
use super::spaces::{GuestSpace, Memory, PdSpaces};
use super::word::CapWord;
use crate::mem::account::Account;
use crate::mem::frames::Frames;
use crate::mem::paging::{Mapping, MemoryType};
use crate::mem::pool;
use crate::num::{low32, u64_of, usize_of};

/// Longest chain of delegations.
pub const MAX_DEPTH: u8 = 255;

/// What a node stands for, and thereby where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// An object in an object space.
    Object,
    /// Memory in the host space of a protection domain.
    Host,
    /// Memory in the space of a guest.
    Guest,
    /// Ports.
    Port,
}

/// One capability. Reached through [`Handle`]s only.
#[repr(C, align(64))]
pub(crate) struct Node {
    pub(super) parent: Cell<Option<Handle>>,
    pub(super) child: Cell<Option<Handle>>,
    pub(super) next: Cell<Option<Handle>>,
    pub(super) prev: Cell<Option<Handle>>,
    index: Links<Handle>,
    pub(super) kind: Kind,
    pub(super) order: u8,
    rights: Cell<u8>,
    pub(super) depth: u8,
    /// First selector, page or port.
    pub(super) base: u64,
    /// What is there: address of the object, physical page number, port.
    pub(super) target: u64,
    /// Object: the badge. Memory: its type.
    extra: u64,
    /// [`PdSpaces`], or [`GuestSpace`] where the kind says so.
    owner: NonNull<()>,
}

const NODE_SIZE: u64 = 64;
const _: () = assert!(size_of::<Node>() as u64 == NODE_SIZE);

/// Names a node: its distance from the start of the pool in nodes.
///
/// A handle is only kept in links of other nodes, slots and indices, which all forget it before
/// the node is freed. Hence it always names a live node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub(crate) struct Handle(NonZeroU32);

const _: () = assert!(size_of::<Option<Handle>>() == 4);

impl Deref for Handle {
    type Target = Node;

    #[inline]
    fn deref(&self) -> &Node {
        // SAFETY: see the type: the node is allocated and valid; nodes are only shared.
        unsafe { self.ptr().as_ref() }
    }
}

impl Handle {
    fn ptr(self) -> NonNull<Node> {
        pool::at_offset(u64::from(self.0.get()) * NODE_SIZE)
    }

    /// Allocates a node from the account of its owner.
    pub(super) fn alloc(frames: &mut Frames, seed: &Seed) -> Result<Self, Status> {
        let node = seed.owner.account().alloc(frames, Node::new(seed))?;
        // The pool starts with the state bytes of `Frames`, and has less than 256 GiB.
        NonZeroU32::new(low32(pool::offset(node) / NODE_SIZE)).map(Self).ok_or(Status::Quota)
    }

    /// Frees a node that nothing links to any more.
    ///
    /// # Safety
    /// No copy of the handle is kept.
    pub(super) unsafe fn free(self, frames: &mut Frames) {
        // SAFETY: the node came from `alloc`; the owner's account lives as long as its nodes.
        unsafe { Account::free(frames, self.ptr()) };
    }

    /// Hangs a new node below its parent, as the first of its children.
    pub(super) fn link(self, parent: Self) {
        let next = parent.child.replace(Some(self));
        self.parent.set(Some(parent));
        self.next.set(next);
        if let Some(next) = next {
            next.prev.set(Some(self));
        }
    }

    /// Takes a node without children out of the forest.
    pub(super) fn unlink(self) {
        debug_assert!(self.child.get().is_none());
        let (next, prev) = (self.next.take(), self.prev.take());
        if let Some(next) = next {
            next.prev.set(prev);
        }
        match (prev, self.parent.take()) {
            (Some(prev), _) => prev.next.set(next),
            (None, Some(parent)) => parent.child.set(next),
            (None, None) => {}
        }
    }

    /// The node after this one and all below it, in pre-order within the tree of `root`.
    pub(super) fn after(self, root: Self) -> Option<Self> {
        let mut at = self;
        while at != root {
            if let Some(next) = at.next.get() {
                return Some(next);
            }
            at = at.parent.get()?;
        }
        None
    }
}

impl Entry for Handle {
    fn key(&self) -> u64 {
        self.base
    }

    fn id(&self) -> u64 {
        u64::from(self.0.get())
    }

    fn links(&self) -> &Links<Self> {
        &self.index
    }
}

/// Whom a capability belongs to.
#[derive(Clone, Copy)]
pub(crate) enum Owner<'a> {
    Pd(&'a PdSpaces),
    Guest(&'a GuestSpace),
}

impl<'a> Owner<'a> {
    pub(super) fn account(self) -> &'a Account {
        match self {
            Self::Pd(spaces) => &spaces.account,
            Self::Guest(space) => space.account(),
        }
    }

    pub(super) fn memory(self) -> &'a Memory {
        match self {
            Self::Pd(spaces) => &spaces.memory,
            Self::Guest(space) => &space.memory,
        }
    }

    pub(super) fn is_closed(self) -> bool {
        match self {
            Self::Pd(spaces) => spaces.is_closed(),
            Self::Guest(space) => space.is_closed(),
        }
    }
}

/// What a node is made from.
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) owner: Owner<'a>,
    pub(super) parent: Option<Handle>,
    pub(super) what: What,
    pub(super) base: u64,
    pub(super) order: u8,
    pub(super) rights: u8,
}

/// What a capability is for.
#[derive(Clone, Copy)]
pub(super) enum What {
    Object { object: NonNull<ObjectHeader>, badge: u64 },
    Memory { phys: u64, memory: MemoryType },
    Port,
}

impl Node {
    fn new(seed: &Seed) -> Self {
        let (kind, target, extra) = match (seed.what, seed.owner) {
            (What::Object { object, badge }, _) => {
                (Kind::Object, u64_of(object.as_ptr().expose_provenance()), badge)
            }
            (What::Memory { phys, memory }, Owner::Pd(_)) => (Kind::Host, phys, memory as u64),
            (What::Memory { phys, memory }, Owner::Guest(_)) => (Kind::Guest, phys, memory as u64),
            (What::Port, _) => (Kind::Port, seed.base, 0),
        };
        Self {
            parent: Cell::new(None),
            child: Cell::new(None),
            next: Cell::new(None),
            prev: Cell::new(None),
            index: Links::new(),
            kind,
            order: seed.order,
            rights: Cell::new(seed.rights),
            depth: seed.parent.map_or(0, |p| p.depth.saturating_add(1)),
            base: seed.base,
            target,
            extra,
            owner: match seed.owner {
                Owner::Pd(spaces) => NonNull::from(spaces).cast(),
                Owner::Guest(space) => NonNull::from(space).cast(),
            },
        }
    }

    /// Whom it belongs to.
    pub(super) fn owner<'a>(&self) -> Owner<'a> {
        // SAFETY: spaces keep their address and outlive their nodes; the kind tells which type
        // the pointer was made from.
        unsafe {
            match self.kind {
                Kind::Guest => Owner::Guest(self.owner.cast().as_ref()),
                _ => Owner::Pd(self.owner.cast().as_ref()),
            }
        }
    }

    /// Whether it is one of these spaces'.
    pub(super) fn is_owned_by(&self, spaces: &PdSpaces) -> bool {
        self.kind != Kind::Guest && core::ptr::eq(self.owner.as_ptr(), (&raw const *spaces).cast())
    }

    pub(super) fn rights(&self) -> u8 {
        self.rights.get()
    }

    pub(super) fn set_rights(&self, rights: u8) {
        self.rights.set(rights);
    }

    /// Number of units.
    pub(super) fn size(&self) -> u64 {
        1 << self.order
    }

    /// One past the last unit.
    pub(super) fn end(&self) -> u64 {
        self.base + self.size()
    }

    /// The badge of an object capability, 0 for anything else.
    pub(super) fn badge(&self) -> u64 {
        if self.kind == Kind::Object { self.extra } else { 0 }
    }

    /// The type of a memory capability, `WriteBack` for anything else.
    pub(super) fn memory_type(&self) -> MemoryType {
        match (self.kind, self.extra) {
            (Kind::Host | Kind::Guest, 1) => MemoryType::Uncached,
            (Kind::Host | Kind::Guest, 2) => MemoryType::WriteCombining,
            _ => MemoryType::WriteBack,
        }
    }

    /// The object of an object capability.
    pub(super) fn object(&self) -> NonNull<ObjectHeader> {
        debug_assert!(self.kind == Kind::Object);
        let object = core::ptr::with_exposed_provenance_mut(usize_of(self.target));
        // SAFETY: `new` made the word from a pointer.
        unsafe { NonNull::new_unchecked(object) }
    }

    pub(super) fn header<'a>(&self) -> &'a ObjectHeader {
        // SAFETY: an object stays allocated while capabilities for it exist.
        unsafe { self.object().as_ref() }
    }

    pub(super) fn object_type(&self) -> ObjectType {
        if self.kind == Kind::Object { self.header().ty } else { ObjectType::Null }
    }

    /// The word for the slot of an object capability.
    pub(super) fn word(&self) -> CapWord {
        let rights = Rights::from_bits_retain(self.rights());
        CapWord::new(self.object().cast(), self.object_type(), rights)
    }

    /// What the page tables must say about a memory capability.
    pub(super) fn mapping(&self) -> Mapping {
        Mapping {
            page: self.base,
            order: self.order,
            phys: self.target,
            rights: MemRights::from_bits_retain(self.rights()),
            memory: self.memory_type(),
            kernel: false,
        }
    }

    /// Which rights are left when those of `mask` are taken. A capability without rights does
    /// not exist, and nothing is left of memory that cannot be read.
    pub(super) fn without(&self, mask: u8) -> u8 {
        let left = self.rights() & !mask;
        match self.kind {
            Kind::Host | Kind::Guest if left & MemRights::READ.bits() == 0 => 0,
            _ => left,
        }
    }
}
