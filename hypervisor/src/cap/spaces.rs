//! The spaces of a protection domain, and of a guest.

use core::cell::Cell;
use core::ptr::NonNull;

use ipc::cap::{MemRights, Space};
use ipc::status::Status;

use super::index::Index;
use super::node::Handle;
use super::objspace::ObjectSpace;
use crate::mem::account::Account;
use crate::mem::frames::Frames;
use crate::mem::paging::{Format, LeafSize, Mapping, MemoryType};
use crate::mem::pool::{PAGE_SHIFT, PAGE_SIZE};
use crate::mem::space::{AddressSpace, HostLayout, PortSpace};

/// Memory of a protection domain or a guest: the address space and the capabilities behind it.
pub struct Memory {
    /// The page tables.
    pub space: AddressSpace,
    pub(super) index: Index,
    /// Whether the owner is being destroyed: nothing can be put into any of its spaces any more.
    pub closed: Cell<bool>,
}

impl Memory {
    fn new(space: AddressSpace) -> Self {
        Self { space, index: Index::default(), closed: Cell::new(false) }
    }
}

/// Ports of a protection domain: the bitmap and the capabilities behind it.
#[derive(Default)]
pub struct Ports {
    /// The I/O bitmap.
    pub space: PortSpace,
    pub(super) index: Index,
}

/// What a protection domain holds, and the account that pays for it. Embedded in the PD object.
///
/// The address must not change from the first capability on. Everything but the lookup of objects
/// and the epochs is used under the kernel lock only.
pub struct PdSpaces {
    /// Object capabilities by selector.
    pub objects: ObjectSpace,
    /// Memory by page.
    pub memory: Memory,
    /// Ports.
    pub ports: Ports,
    /// Pays for the spaces and all capabilities in them.
    pub account: Account,
}

// SAFETY: cells and links are used under the kernel lock only (functions that change them take
// `&mut Frames`, of which there is one, inside the lock); what is read without it is atomic.
unsafe impl Sync for PdSpaces {}
// SAFETY: nothing in it belongs to one CPU.
unsafe impl Send for PdSpaces {}

impl PdSpaces {
    /// Empty spaces with a quota of `pages`, taken from `giver`. Two are used up: the roots of the
    /// object space and of the page tables.
    ///
    /// # Errors
    /// `Quota`; the giver has its pages back then.
    pub fn new(
        frames: &mut Frames,
        giver: &Account,
        pages: u64,
        layout: &HostLayout,
    ) -> Result<Self, Status> {
        let account = Account::new(0);
        giver.transfer(&account, pages)?;
        let roots = AddressSpace::host(frames, &account, layout).and_then(|space| {
            let objects = ObjectSpace::new(frames, &account).inspect_err(|_| {
                // SAFETY: the space was never used.
                unsafe { space.destroy(frames, &account) };
            })?;
            Ok((Memory::new(space), objects))
        });
        let (memory, objects) = roots.inspect_err(|_| account.surrender(giver))?;
        Ok(Self { objects, memory, ports: Ports::default(), account })
    }

    /// The first capability that ends after a unit of a space: the one that covers it, or else, of
    /// memory and ports, the next one.
    pub(super) fn next(&self, space: Space, unit: u64) -> Option<Handle> {
        match space {
            Space::Object => self.objects.node(unit),
            Space::Memory => self.memory.index.next(unit),
            Space::Port => self.ports.index.next(unit),
        }
    }

    /// The capability that covers a unit of a space.
    pub(super) fn covering(&self, space: Space, unit: u64) -> Option<Handle> {
        self.next(space, unit).filter(|node| node.base <= unit)
    }

    /// Maps one page of the pool at a user address: a UTCB, the information page. No capability
    /// stands for it: it can be neither delegated nor revoked, and nothing can be delegated over
    /// it. Undone by [`AddressSpace::unmap_kernel_frame`].
    ///
    /// # Errors
    /// `BadParam` where the address is no user page, `Exists` where it is in use, `BadCap` where
    /// the domain is being destroyed, `Quota`.
    pub fn map_kernel_frame(
        &self,
        frames: &mut Frames,
        addr: u64,
        phys: u64,
        rights: MemRights,
    ) -> Result<(), Status> {
        let (page, space) = (addr >> PAGE_SHIFT, &self.memory.space);
        if self.memory.closed.get() {
            return Err(Status::BadCap);
        }
        if (addr | phys) & (PAGE_SIZE - 1) != 0 || !space.admits(page, 0) {
            return Err(Status::BadParam);
        }
        if !space.table.is_vacant(page, 0) {
            return Err(Status::Exists);
        }
        let phys = phys >> PAGE_SHIFT;
        let memory = MemoryType::WriteBack;
        let mapping = Mapping { page, order: 0, phys, rights, memory, kernel: true };
        space.table.map(frames, &self.account, &mapping)
    }

    /// Frees the roots of the spaces and the I/O bitmap, the last that is left of them. All other
    /// pages are the account's objects.
    ///
    /// # Safety
    /// [`super::destroy`] is done, all kernel frames are unmapped, the rendezvous is over,
    /// no CPU has the address space loaded, and the spaces are not used again (the account may
    /// be).
    pub unsafe fn free_roots(&self, frames: &mut Frames) {
        // SAFETY: as promised.
        unsafe {
            self.memory.space.destroy(frames, &self.account);
            self.objects.destroy(frames, &self.account);
            self.ports.space.destroy(frames, &self.account);
        }
    }
}

/// Memory of a guest. Embedded in the guest-space object; the address must not change from the
/// first capability on.
pub struct GuestSpace {
    /// Guest-physical memory by page.
    pub memory: Memory,
    account: NonNull<Account>,
}

// SAFETY: as for `PdSpaces`.
unsafe impl Sync for GuestSpace {}
// SAFETY: nothing in it belongs to one CPU.
unsafe impl Send for GuestSpace {}

impl GuestSpace {
    /// An empty space, charged to `account`.
    ///
    /// # Safety
    /// The account keeps its address and outlives the space.
    ///
    /// # Errors
    /// `Quota`.
    pub unsafe fn new(
        frames: &mut Frames,
        account: &Account,
        format: Format,
        max_leaf: LeafSize,
    ) -> Result<Self, Status> {
        let space = AddressSpace::guest(frames, account, format, max_leaf)?;
        Ok(Self { memory: Memory::new(space), account: NonNull::from(account) })
    }

    /// Who pays.
    pub fn account(&self) -> &Account {
        // SAFETY: promised to `new`.
        unsafe { self.account.as_ref() }
    }

    /// Frees the root of the space.
    ///
    /// # Safety
    /// [`super::destroy`] is done, the rendezvous is over, no CPU has the space loaded, and
    /// it is not used again.
    pub unsafe fn free_roots(&self, frames: &mut Frames) {
        // SAFETY: as promised.
        unsafe { self.memory.space.destroy(frames, self.account()) };
    }
}
