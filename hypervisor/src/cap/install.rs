//! Putting a capability into a space, and the first capabilities of lineages.

use core::ptr::NonNull;

use ipc::cap::{MemRights, Rights};
use ipc::status::Status;

use super::header::{Object, ObjectHeader};
use super::node::{Handle, Kind, Owner, Seed, What};
use super::spaces::PdSpaces;
use crate::mem::frames::{Frames, PageList};
use crate::mem::paging::MemoryType;
use crate::mem::space::PortSpace;

/// Whether the place that a seed names is free to take.
pub(super) fn check_place(seed: &Seed) -> Result<(), Status> {
    if seed.owner.is_closed() {
        return Err(Status::BadCap);
    }
    let vacant = match (seed.what, seed.owner) {
        (What::Object { .. }, Owner::Pd(spaces)) => {
            return spaces.objects.check_vacant(seed.base);
        }
        (What::Memory { .. }, owner) => {
            let space = &owner.memory().space;
            if !space.admits(seed.base, seed.order) {
                return Err(Status::BadParam);
            }
            space.table().is_vacant(seed.base, seed.order)
        }
        (What::Port, Owner::Pd(spaces)) => {
            check_ports(seed.base, seed.order)?;
            spaces.ports.is_vacant(seed.base, seed.order)
        }
        (_, Owner::Guest(_)) => return Err(Status::BadParam),
    };
    if vacant { Ok(()) } else { Err(Status::Exists) }
}

/// Whether ports are in range and aligned.
pub(super) fn check_ports(base: u64, order: u8) -> Result<(), Status> {
    let aligned = order <= 16 && base & ((1 << order) - 1) == 0;
    if aligned && base < PortSpace::PORTS { Ok(()) } else { Err(Status::BadParam) }
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
    match (node.kind, owner) {
        (Kind::Object, Owner::Pd(spaces)) => {
            spaces.objects.insert(frames, account, node)?;
            node.header().caps.set(node.header().caps.get() + 1);
        }
        (Kind::Port, Owner::Pd(spaces)) => {
            spaces.ports.space.allow(frames, account, node.base, node.order)?;
            spaces.ports.index.insert(node);
        }
        _ => {
            owner.memory().space.map(frames, account, &node.mapping())?;
            owner.memory().index.insert(node);
        }
    }
    Ok(())
}

/// Takes a capability out of its space: the reverse of `attach`. Returns whether a TLB may still
/// hold what is gone.
pub(super) fn detach(node: Handle, pages: &mut PageList) -> bool {
    let owner = node.owner();
    let account = owner.account();
    match (node.kind, owner) {
        (Kind::Object, Owner::Pd(spaces)) => {
            spaces.objects.remove(account, node.base, pages);
            false
        }
        (Kind::Port, Owner::Pd(spaces)) => {
            spaces.ports.index.remove(node);
            spaces.ports.space.deny(node.base, node.order);
            false
        }
        _ => {
            owner.memory().index.remove(node);
            owner.memory().space.unmap(account, node.base, node.order, pages);
            true
        }
    }
}

/// First capability for a new object, at `selector`.
///
/// # Safety
/// The object stays allocated until its header came out of [`super::Outcome::next_dead`].
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
    let what = What::Object { object, badge: 0 };
    install(frames, spaces, what, selector, 0, (rights & Rights::FULL).bits())
}

/// First capability for `2^order` pages of physical memory from page number `phys` on, mapped at
/// page number `page` with these rights, reading among them. Both are multiples of `2^order`; any order is possible.
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
    let what = What::Memory { phys, memory };
    let readable = rights.contains(MemRights::READ) && MemRights::all().contains(rights);
    if order >= 36 || phys & ((1 << order) - 1) != 0 || phys >> 40 != 0 || !readable {
        return Err(Status::BadParam);
    }
    install(frames, spaces, what, page, order, rights.bits())
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
    install(frames, spaces, What::Port, port, order, 1)
}

fn install(
    frames: &mut Frames,
    spaces: &PdSpaces,
    what: What,
    base: u64,
    order: u8,
    rights: u8,
) -> Result<(), Status> {
    let seed = Seed { owner: Owner::Pd(spaces), parent: None, what, base, order, rights };
    check_place(&seed)?;
    place(frames, &seed).map(|_| ())
}
