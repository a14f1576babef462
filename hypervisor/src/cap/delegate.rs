//! Delegation: a capability derived from another, in the same or another space.
//!
//! All checks come first, without effect; then the effect, which can only fail for want of memory
//! and leaves nothing behind then.

use ipc::cap::{MemRights, ObjectType, Range, Rights, Selector, Space};
use ipc::status::Status;

use super::install::{check_place, check_ports, place};
use super::node::{Handle, MAX_DEPTH, Owner, Seed, What};
use super::outcome::Outcome;
use super::revoke::{Revocations, remove};
use super::spaces::{GuestSpace, PdSpaces};
use crate::mem::frames::Frames;
use crate::mem::paging::MemoryType;

/// Largest range of memory in one delegation: 1 GiB.
pub const MAX_MEMORY_ORDER: u8 = 18;

/// Where a delegation goes.
#[derive(Clone, Copy)]
pub enum Destination<'a> {
    /// The spaces of a protection domain.
    Pd(&'a PdSpaces),
    /// A guest; takes memory only.
    Guest(&'a GuestSpace),
}

/// A [`Range`] that was taken apart and checked for itself.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) space: Space,
    pub(super) order: u8,
    pub(super) rights: u8,
    pub(super) own: bool,
    pub(super) translate: bool,
    combine: bool,
}

impl Request {
    /// # Errors
    /// `BadParam` where bits have no meaning, where the order does not suit the space, where no
    /// right is named or one that does not exist.
    pub(super) fn new(range: Range) -> Result<Self, Status> {
        let space = range.space().ok_or(Status::BadParam)?;
        let (order, rights) = match space {
            Space::Object => (0, Rights::FULL.bits()),
            Space::Memory => (36, MemRights::all().bits()),
            Space::Port => (16, 1),
        };
        let valid = range.0 & !Range::VALID == 0
            && range.order() <= order
            && range.rights() & !rights == 0
            && range.rights() != 0;
        if !valid {
            return Err(Status::BadParam);
        }
        Ok(Self {
            space,
            order: range.order(),
            rights: range.rights(),
            own: range.is_include_self(),
            translate: range.is_translate(),
            combine: range.is_write_combining(),
        })
    }

    /// Number of units.
    pub(super) fn size(&self) -> u64 {
        1 << self.order
    }

    /// Checks that a range of the source space is one: aligned, and not beyond the end.
    ///
    /// # Errors
    /// `BadParam`; `BadCap` for a selector that is out of range.
    pub(super) fn check_base(&self, base: u64) -> Result<(), Status> {
        match self.space {
            Space::Object if base >= Selector::COUNT => Err(Status::BadCap),
            Space::Object => Ok(()),
            Space::Memory if base & (self.size() - 1) != 0 || base >> 52 != 0 => {
                Err(Status::BadParam)
            }
            Space::Memory => Ok(()),
            Space::Port => check_ports(base, self.order),
        }
    }

    /// The one node that the whole range lies in.
    pub(super) fn node(&self, spaces: &PdSpaces, base: u64) -> Option<Handle> {
        let node = match self.space {
            Space::Object => spaces.objects.node(base),
            Space::Memory => spaces.memory.covering(base),
            Space::Port => spaces.ports.covering(base),
        };
        node.filter(|node| base + self.size() <= node.end())
    }
}

/// A delegation that passed all checks. Valid as long as the kernel lock is held and nothing is
/// revoked.
#[derive(Clone, Copy)]
pub struct Delegation<'a> {
    seed: Seed<'a>,
    range: Range,
}

/// A delegation that was made, to be undone with [`undo`].
#[derive(Clone, Copy, Debug)]
pub struct Delegated(Handle);

impl<'a> Delegation<'a> {
    /// Checks everything about a delegation, without effect.
    ///
    /// Of memory, reading cannot be left out of the rights. A badge can be given to a semaphore
    /// capability that has none. Ports keep their number.
    ///
    /// # Errors
    /// * `BadParam`: the range is malformed, misaligned or larger than [`MAX_MEMORY_ORDER`]; the
    ///   destination's address is not one of its space; write-combining of RAM; a badge where
    ///   there can be none.
    /// * `BadCap`: the source does not hold the range, or not in one piece; a selector is out of
    ///   range; the destination is being destroyed.
    /// * `BadRight`: no right is left.
    /// * `Overflow`: the chain of delegations is too long.
    /// * `Exists`: the destination is in use.
    pub fn check(
        src: &PdSpaces,
        dst: Destination<'a>,
        range: Range,
        src_base: u64,
        dst_base: u64,
        badge: u64,
    ) -> Result<Self, Status> {
        let request = Request::new(range)?;
        let is_memory = request.space == Space::Memory;
        let unreadable = is_memory && request.rights & MemRights::READ.bits() == 0;
        let too_large = is_memory && request.order > MAX_MEMORY_ORDER;
        let owner = match dst {
            Destination::Pd(spaces) => Owner::Pd(spaces),
            Destination::Guest(space) => Owner::Guest(space),
        };
        let misfit = matches!(owner, Owner::Guest(_)) && !is_memory;
        let moved = request.space == Space::Port && src_base != dst_base;
        if request.own || request.translate || unreadable || too_large || misfit || moved {
            return Err(Status::BadParam);
        }
        request.check_base(src_base)?;
        let source = request.node(src, src_base).ok_or(Status::BadCap)?;
        let rights = source.rights() & request.rights;
        if rights == 0 {
            return Err(Status::BadRight);
        }
        if badge != 0 && (source.object_type() != ObjectType::Sm || source.badge() != 0) {
            return Err(Status::BadParam);
        }
        let memory = match (request.combine, source.memory_type()) {
            (false, memory) => memory,
            (true, MemoryType::WriteBack) => return Err(Status::BadParam),
            (true, _) => MemoryType::WriteCombining,
        };
        let what = match request.space {
            Space::Object => {
                What::Object { object: source.object(), badge: source.badge() | badge }
            }
            Space::Memory => {
                What::Memory { phys: source.target + (src_base - source.base), memory }
            }
            Space::Port => What::Port,
        };
        if source.depth == MAX_DEPTH {
            return Err(Status::Overflow);
        }
        let order = request.order;
        let seed = Seed { owner, parent: Some(source), what, base: dst_base, order, rights };
        check_place(&seed)?;
        let granted = match request.space {
            Space::Object => Range::object(Rights::from_bits_retain(rights)),
            Space::Memory => Range::memory(order, MemRights::from_bits_retain(rights)),
            Space::Port => Range::port(order),
        };
        Ok(Self { seed, range: granted })
    }

    /// What the receiver gets: space, order and rights.
    #[must_use]
    pub fn granted(&self) -> Range {
        self.range
    }

    /// Carries it out. Nothing has to be flushed.
    ///
    /// # Errors
    /// `Quota`, or `Exists` where a delegation that was checked together with this one took the
    /// place; without effect.
    pub fn commit(self, frames: &mut Frames) -> Result<Delegated, Status> {
        check_place(&self.seed)?;
        place(frames, &self.seed).map(Delegated)
    }
}

/// Delegates `range` at `src_base` of `src` to `dst_base` of `dst`.
///
/// # Errors
/// See [`Delegation::check`] and [`Delegation::commit`]; without effect.
pub fn delegate(
    frames: &mut Frames,
    src: &PdSpaces,
    dst: Destination,
    range: Range,
    src_base: u64,
    dst_base: u64,
    badge: u64,
) -> Result<(), Status> {
    Delegation::check(src, dst, range, src_base, dst_base, badge)?.commit(frames).map(|_| ())
}

/// Undoes a delegation, before the kernel lock is released.
pub fn undo(
    frames: &mut Frames,
    revocations: &mut Revocations,
    delegated: Delegated,
    out: &mut Outcome,
) {
    remove(frames, revocations, delegated.0, out);
}
