//! Delegation: a capability derived from another, in the same or another space.
//!
//! All checks come first, without effect; then the effect, which can only fail for want of memory
//! and leaves nothing behind then.

use ipc::cap::{MemRights, ObjectType, Range, Rights, Selector, Space};
use ipc::status::Status;

use super::install::{check_place, place};
use super::node::{Handle, MAX_DEPTH, Owner, Seed};
use super::spaces::PdSpaces;
use crate::mem::frames::Frames;
use crate::mem::paging::MemoryType;
use crate::mem::space::PortSpace;

/// Largest range of memory in one delegation: 1 GiB.
pub const MAX_MEMORY_ORDER: u8 = 18;

/// A [`Range`] of a space, taken apart and checked for itself.
#[derive(Clone, Copy)]
pub(super) struct Request {
    pub(super) space: Space,
    pub(super) range: Range,
    pub(super) base: u64,
}

impl Request {
    /// # Errors
    /// `BadParam` where bits have no meaning, where the order does not suit the space, where no
    /// right is named or one that does not exist, where `base` is misaligned or beyond the end;
    /// `BadCap` for a selector that is out of range.
    pub(super) fn new(range: Range, base: u64) -> Result<Self, Status> {
        let space = range.space().ok_or(Status::BadParam)?;
        let (order, rights, end) = match space {
            Space::Object => (0, Rights::FULL.bits(), Selector::COUNT),
            Space::Memory => (36, MemRights::all().bits(), 1 << 52),
            Space::Port => (16, 1, PortSpace::PORTS),
        };
        let valid = range.0 & !Range::VALID == 0
            && range.order() <= order
            && range.rights() & !rights == 0
            && range.rights() != 0
            && base & ((1 << range.order()) - 1) == 0;
        if !valid || base >= end {
            return Err(match space {
                Space::Object if valid => Status::BadCap,
                _ => Status::BadParam,
            });
        }
        Ok(Self { space, range, base })
    }

    /// One past the last unit.
    pub(super) fn end(&self) -> u64 {
        self.base + (1 << self.range.order())
    }

    /// The one node that the whole range lies in.
    pub(super) fn node(&self, spaces: &PdSpaces) -> Option<Handle> {
        spaces.covering(self.space, self.base).filter(|node| self.end() <= node.end())
    }
}

/// A delegation that passed all checks. Valid as long as the kernel lock is held and nothing is
/// revoked.
#[derive(Clone, Copy)]
pub struct Delegation<'a> {
    seed: Seed<'a>,
}

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
        dst: Owner<'a>,
        range: Range,
        src_base: u64,
        dst_base: u64,
        badge: u64,
    ) -> Result<Self, Status> {
        let request = Request::new(range, src_base)?;
        let (space, order) = (request.space, range.order());
        let is_memory = space == Space::Memory;
        let unreadable = is_memory && range.rights() & MemRights::READ.bits() == 0;
        let too_large = is_memory && order > MAX_MEMORY_ORDER;
        let misfit = matches!(dst, Owner::Guest(_)) && !is_memory;
        let moved = space == Space::Port && src_base != dst_base;
        let other = range.is_include_self() || range.is_translate();
        if other || unreadable || too_large || misfit || moved {
            return Err(Status::BadParam);
        }
        let source = request.node(src).ok_or(Status::BadCap)?;
        let rights = source.rights() & range.rights();
        if rights == 0 {
            return Err(Status::BadRight);
        }
        if badge != 0 && (source.object_type() != ObjectType::Sm || source.badge() != 0) {
            return Err(Status::BadParam);
        }
        let extra = match range.is_write_combining() {
            false => source.extra | badge,
            true if is_memory && source.memory_type() != MemoryType::WriteBack => {
                MemoryType::WriteCombining as u64
            }
            true => return Err(Status::BadParam),
        };
        if source.depth == MAX_DEPTH {
            return Err(Status::Overflow);
        }
        let target = source.target + (src_base - source.base);
        let parent = Some(source);
        let seed = Seed { owner: dst, parent, space, order, rights, base: dst_base, target, extra };
        check_place(&seed)?;
        Ok(Self { seed })
    }

    /// What the receiver gets: space, order and rights.
    pub fn granted(&self) -> Range {
        Range::new(self.seed.space, self.seed.order, self.seed.rights)
    }

    /// Carries it out; [`super::remove`] undoes it, before the kernel lock is released. Nothing has
    /// to be flushed.
    ///
    /// # Errors
    /// `Quota`, or `Exists` where a delegation that was checked together with this one took the
    /// place; without effect.
    pub fn commit(self, frames: &mut Frames) -> Result<Handle, Status> {
        check_place(&self.seed)?;
        place(frames, &self.seed)
    }
}
