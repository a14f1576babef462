//! Putting a capability into a space, and the first capabilities of lineages.

use core::ptr::NonNull;

use ipc::cap::{MemRights, Rights, Space};
use ipc::status::Status;

use super::header::{Object, ObjectHeader};
use super::node::{Handle, Owner, Seed};
use super::outcome::Outcome;
use super::spaces::PdSpaces;
use crate::mem::frames::Frames;
use crate::mem::paging::MemoryType;
use crate::mem::space::PortSpace;
use crate::num::u64_of;

/// Whether the place that a seed names is free to take.
pub(super) fn check_place(seed: &Seed) -> Result<(), Status> {
    if seed.owner.memory().closed.get() {
        return Err(Status::BadCap);
    }
    let vacant = match (seed.space, seed.owner) {
        (Space::Object, Owner::Pd(spaces)) => return spaces.objects.check_vacant(seed.base),
        (Space::Memory, owner) => {
            let space = &owner.memory().space;
            if !space.admits(seed.base, seed.order) {
                return Err(Status::BadParam);
            }
            space.table.is_vacant(seed.base, seed.order)
        }
        (Space::Port, Owner::Pd(spaces)) => {
            if !PortSpace::admits(seed.base, seed.order) {
                return Err(Status::BadParam);
            }
            let next = spaces.ports.index.next(seed.base);
            next.is_none_or(|node| node.base >= seed.base + (1 << seed.order))
        }
        (_, Owner::Guest(_)) => return Err(Status::BadParam),
    };
    if vacant { Ok(()) } else { Err(Status::Exists) }
}

/// Makes a capability and what it stands for: a filled slot, a mapping, open ports. The place was
/// checked.
///
/// # Errors
/// `Quota`, without effect.
pub(super) fn place(frames: &mut Frames, seed: &Seed) -> Result<Handle, Status> {
    let node = Handle::alloc(frames, seed)?;
    if let Err(status) = attach(frames, node) {
        // SAFETY: nothing links to the node yet.
        unsafe { node.free(frames) };
        return Err(status);
    }
    if let Some(parent) = seed.parent {
        node.link(parent);
    }
    Ok(node)
}

fn attach(frames: &mut Frames, node: Handle) -> Result<(), Status> {
    let owner = node.owner();
    let account = owner.account();
    match (node.space, owner) {
        (Space::Object, Owner::Pd(spaces)) => {
            spaces.objects.insert(frames, account, node)?;
            let object = node.object();
            object.caps.set(object.caps.get() + 1);
        }
        (Space::Port, Owner::Pd(spaces)) => {
            spaces.ports.space.allow(frames, account, node.base, node.order)?;
            spaces.ports.index.insert(node);
        }
        _ => {
            owner.memory().space.table.map(frames, account, &node.mapping())?;
            owner.memory().index.insert(node);
        }
    }
    Ok(())
}

/// Takes a capability out of its space: the reverse of `attach`.
pub(super) fn detach(node: Handle, out: &mut Outcome) {
    let owner = node.owner();
    let account = owner.account();
    out.taken = true;
    match (node.space, owner) {
        (Space::Object, Owner::Pd(spaces)) => {
            spaces.objects.remove(account, node.base, &mut out.pages);
            out.drop_capability(node);
        }
        (Space::Port, Owner::Pd(spaces)) => {
            spaces.ports.index.remove(node);
            spaces.ports.space.set(node.base, node.order, true);
        }
        _ => {
            owner.memory().index.remove(node);
            owner.memory().space.unmap(account, node.base, node.order, &mut out.pages);
            out.flush = true;
        }
    }
}

/// First capability for a new object, at `selector`.
///
/// # Safety
/// The object stays allocated until its header came out of [`super::Outcome::dead`].
///
/// # Errors
/// `BadCap` where the selector is out of range or null or the domain is being destroyed, `Exists`
/// where it is in use, `Quota`; without effect.
pub unsafe fn install_object<T: Object>(
    frames: &mut Frames,
    spaces: &PdSpaces,
    selector: u64,
    object: NonNull<T>,
    rights: Rights,
) -> Result<(), Status> {
    let object = object.cast::<ObjectHeader>();
    // SAFETY: the object is allocated and starts with its header.
    debug_assert_eq!(unsafe { object.as_ref() }.ty, T::TYPE);
    let target = u64_of(object.as_ptr().expose_provenance());
    let rights = (rights & Rights::FULL).bits();
    install(frames, &Seed { rights, ..first(spaces, Space::Object, selector, target) })
}

/// First capability for `2^order` pages of physical memory from page number `phys` on, mapped at
/// page number `page` with these rights, reading among them. Both are multiples of `2^order`; any
/// order is possible.
///
/// # Errors
/// `BadParam`, `Exists`, `Quota`; without effect.
pub fn install_memory(
    frames: &mut Frames,
    spaces: &PdSpaces,
    page: u64,
    phys: u64,
    order: u8,
    memory: MemoryType,
    rights: MemRights,
) -> Result<(), Status> {
    let readable = rights.contains(MemRights::READ) && MemRights::all().contains(rights);
    if order >= 36 || phys & ((1 << order) - 1) != 0 || phys >> 40 != 0 || !readable {
        return Err(Status::BadParam);
    }
    let (rights, extra) = (rights.bits(), memory as u64);
    install(frames, &Seed { order, rights, extra, ..first(spaces, Space::Memory, page, phys) })
}

/// First capability for `2^order` ports from `port` on.
///
/// # Errors
/// `BadParam`, `Exists`, `Quota`; without effect.
pub fn install_ports(
    frames: &mut Frames,
    spaces: &PdSpaces,
    port: u64,
    order: u8,
) -> Result<(), Status> {
    install(frames, &Seed { order, ..first(spaces, Space::Port, port, port) })
}

/// The seed of one unit, without parent.
fn first(spaces: &PdSpaces, space: Space, base: u64, target: u64) -> Seed<'_> {
    let owner = Owner::Pd(spaces);
    Seed { owner, parent: None, space, order: 0, rights: 1, base, target, extra: 0 }
}

fn install(frames: &mut Frames, seed: &Seed) -> Result<(), Status> {
    check_place(seed)?;
    place(frames, seed).map(|_| ())
}
