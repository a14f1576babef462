//! The derivation forest: one node per capability of any kind.
//!
//! A node hangs below the one it was delegated from. Its range and rights lie within those of its
//! parent. Depth is bounded, so every way up or down is.

use core::cell::Cell;
use core::num::NonZeroU32;
use core::ops::Deref;
use core::ptr::NonNull;

use ipc::cap::{MemRights, ObjectType, Rights, Space};
use ipc::status::Status;

use super::header::ObjectHeader;
use super::spaces::{GuestSpace, Memory, PdSpaces};
use super::word::CapWord;
use crate::mem::account::Account;
use crate::mem::frames::Frames;
use crate::mem::paging::{Mapping, MemoryType};
use crate::mem::pool;
use crate::num::{low32, usize_of};
use crate::shared::Obj;

/// Longest chain of delegations.
pub const MAX_DEPTH: u8 = 255;

/// One capability. Reached through [`Handle`]s only.
#[repr(C, align(64))]
pub struct Node {
    pub(super) parent: Cell<Option<Handle>>,
    pub(super) child: Cell<Option<Handle>>,
    pub(super) next: Cell<Option<Handle>>,
    pub(super) prev: Cell<Option<Handle>>,
    /// Links in an [`super::index::Index`].
    pub(super) left: Cell<Option<Handle>>,
    pub(super) right: Cell<Option<Handle>>,
    pub(super) height: Cell<u8>,
    pub(super) depth: u8,
    pub(super) space: Space,
    /// Memory of a guest: says what `owner` points to.
    guest: bool,
    pub(super) order: u8,
    pub(super) rights: Cell<u8>,
    /// First selector, page or port.
    pub(super) base: u64,
    /// What is there: address of the object, physical page number, port.
    pub(super) target: u64,
    /// Object: the badge. Memory: its type.
    pub(super) extra: u64,
    /// [`GuestSpace`] or [`PdSpaces`].
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
pub struct Handle(NonZeroU32);

const _: () = assert!(size_of::<Option<Handle>>() == 4);

impl Deref for Handle {
    type Target = Node;

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

/// Whom a capability belongs to, or is to.
#[derive(Clone, Copy)]
pub enum Owner<'a> {
    /// A protection domain.
    Pd(&'a PdSpaces),
    /// A guest; takes memory only.
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
}

/// What a node is made from; see [`Node`].
#[derive(Clone, Copy)]
pub(super) struct Seed<'a> {
    pub(super) owner: Owner<'a>,
    pub(super) parent: Option<Handle>,
    pub(super) space: Space,
    pub(super) order: u8,
    pub(super) rights: u8,
    pub(super) base: u64,
    pub(super) target: u64,
    pub(super) extra: u64,
}

impl Node {
    fn new(seed: &Seed) -> Self {
        let (guest, owner) = match seed.owner {
            Owner::Pd(spaces) => (false, NonNull::from(spaces).cast()),
            Owner::Guest(space) => (true, NonNull::from(space).cast()),
        };
        Self {
            parent: Cell::default(),
            child: Cell::default(),
            next: Cell::default(),
            prev: Cell::default(),
            left: Cell::default(),
            right: Cell::default(),
            height: Cell::default(),
            depth: seed.parent.map_or(0, |p| p.depth.saturating_add(1)),
            space: seed.space,
            guest,
            order: seed.order,
            rights: Cell::new(seed.rights),
            base: seed.base,
            target: seed.target,
            extra: seed.extra,
            owner,
        }
    }

    /// The subtree of nodes before or after this one in its index.
    pub(super) fn side(&self, left: bool) -> &Cell<Option<Handle>> {
        if left { &self.left } else { &self.right }
    }

    /// Whom it belongs to.
    pub(super) fn owner<'a>(&self) -> Owner<'a> {
        // SAFETY: spaces keep their address and outlive their nodes; `guest` tells which type
        // the pointer was made from.
        unsafe {
            match self.guest {
                true => Owner::Guest(self.owner.cast().as_ref()),
                false => Owner::Pd(self.owner.cast().as_ref()),
            }
        }
    }

    /// Whether it is one of these spaces'.
    pub(super) fn is_owned_by(&self, spaces: &PdSpaces) -> bool {
        !self.guest && self.owner == NonNull::from(spaces).cast()
    }

    pub(super) fn rights(&self) -> u8 {
        self.rights.get()
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
        if self.space == Space::Object { self.extra } else { 0 }
    }

    /// The type of a memory capability.
    pub(super) fn memory_type(&self) -> MemoryType {
        match self.extra {
            1 => MemoryType::Uncached,
            2 => MemoryType::WriteCombining,
            _ => MemoryType::WriteBack,
        }
    }

    /// The object of an object capability.
    pub(super) fn object(&self) -> Obj<ObjectHeader> {
        debug_assert!(self.space == Space::Object);
        let object = core::ptr::with_exposed_provenance_mut(usize_of(self.target));
        // SAFETY: `install_object` made the word from a pointer; an object stays allocated while
        // capabilities for it exist.
        unsafe { Obj::new(NonNull::new_unchecked(object)) }
    }

    pub(super) fn object_type(&self) -> ObjectType {
        if self.space == Space::Object { self.object().ty } else { ObjectType::Null }
    }

    /// The word for the slot of an object capability.
    pub(super) fn word(&self) -> CapWord {
        let rights = Rights::from_bits_retain(self.rights());
        CapWord::new(self.target, self.object_type(), rights)
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
        let unreadable = self.space == Space::Memory && left & MemRights::READ.bits() == 0;
        if unreadable { 0 } else { left }
    }
}
