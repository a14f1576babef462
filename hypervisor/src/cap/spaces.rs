//! The spaces of a protection domain, and of a guest.

use core::cell::Cell;
use core::ptr::NonNull;

use ipc::cap::MemRights;
use ipc::status::Status;

use super::index::Index;
use super::node::Handle;
use super::objspace::ObjectSpace;
use super::outcome::Outcome;
use crate::mem::account::Account;
use crate::mem::frames::{Frames, PageList};
use crate::mem::paging::{Format, LeafSize};
use crate::mem::space::{AddressSpace, HostLayout, PortSpace};

/// Memory of a protection domain or a guest: the address space and the capabilities behind it.
pub struct Memory {
    /// The page tables.
    pub space: AddressSpace,
    pub(super) index: Index<Handle>,
}

impl Memory {
    /// The node that covers a page.
    pub(super) fn covering(&self, page: u64) -> Option<Handle> {
        covering(&self.index, page)
    }
}

/// Ports of a protection domain: the bitmap and the capabilities behind it.
#[derive(Default)]
pub struct Ports {
    /// The I/O bitmap.
    pub space: PortSpace,
    pub(super) index: Index<Handle>,
}

impl Ports {
    /// The node that covers a port.
    pub(super) fn covering(&self, port: u64) -> Option<Handle> {
        covering(&self.index, port)
    }

    pub(super) fn is_vacant(&self, port: u64, order: u8) -> bool {
        self.covering(port).is_none()
            && self.index.ceil(port).is_none_or(|node| node.base >= port + (1 << order))
    }
}

fn covering(index: &Index<Handle>, unit: u64) -> Option<Handle> {
    index.floor(unit).filter(|node| unit < node.end())
}

/// What a protection domain holds, and the account that pays for it. Embedded in the PD object.
///
/// The address must not change from the first capability on. Everything but the lookup of objects
/// and the stale masks is used under the kernel lock only.
pub struct PdSpaces {
    /// Object capabilities by selector.
    pub objects: ObjectSpace,
    /// Memory by page.
    pub memory: Memory,
    /// Ports.
    pub ports: Ports,
    /// Pays for the spaces and all capabilities in them.
    pub account: Account,
    closed: Cell<bool>,
}

// SAFETY: cells and links are used under the kernel lock only (functions that change them take
// `&mut Frames`, of which there is one, inside the lock); what is read without it is atomic.
unsafe impl Sync for PdSpaces {}
// SAFETY: nothing in it belongs to one CPU.
unsafe impl Send for PdSpaces {}

impl PdSpaces {
    /// Empty spaces with a quota of `pages`, taken from `giver`, which three pages of are used
    /// up: the roots of the object space and of the page tables.
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
        match Self::with_account(frames, account, layout) {
            Ok(spaces) => Ok(spaces),
            Err((status, account)) => {
                account.surrender(giver);
                Err(status)
            }
        }
    }

    /// Empty spaces that are charged to `account`, which holds no objects yet: for the first
    /// domain.
    ///
    /// # Errors
    /// `Quota`, and the account as it was.
    pub fn with_account(
        frames: &mut Frames,
        account: Account,
        layout: &HostLayout,
    ) -> Result<Self, (Status, Account)> {
        let space = match AddressSpace::host(frames, &account, layout) {
            Ok(space) => space,
            Err(status) => return Err((status, account)),
        };
        let objects = match ObjectSpace::new(frames, &account) {
            Ok(objects) => objects,
            Err(status) => {
                // SAFETY: the space was never used.
                unsafe { space.destroy(frames, &account) };
                return Err((status, account));
            }
        };
        Ok(Self {
            objects,
            memory: Memory { space, index: Index::new() },
            ports: Ports::default(),
            account,
            closed: Cell::new(false),
        })
    }

    /// Maps one page of the pool at a user address, without a capability: see
    /// [`AddressSpace::map_kernel_frame`].
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
        if self.is_closed() {
            return Err(Status::BadCap);
        }
        self.memory.space.map_kernel_frame(frames, &self.account, addr, phys, rights)
    }

    /// Undoes [`Self::map_kernel_frame`]; the TLBs must be flushed before the page is freed.
    pub fn unmap_kernel_frame(&self, addr: u64, out: &mut Outcome) {
        let mut pages = PageList::new();
        self.memory.space.unmap_kernel_frame(&self.account, addr, &mut pages);
        out.add_pages(pages);
        out.flush = true;
    }

    /// Frees the roots of the spaces and the I/O bitmap, the last that is left of them. All other pages are the
    /// account's objects.
    ///
    /// # Safety
    /// [`super::destroy_spaces`] is done, all kernel frames are unmapped, the rendezvous is over,
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

    /// Whether the spaces are being destroyed: nothing can be put into them any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
    }
}

/// Memory of a guest. Embedded in the guest-space object; the address must not change from the
/// first capability on.
pub struct GuestSpace {
    /// Guest-physical memory by page.
    pub memory: Memory,
    account: NonNull<Account>,
    closed: Cell<bool>,
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
        Ok(Self {
            memory: Memory { space, index: Index::new() },
            account: NonNull::from(account),
            closed: Cell::new(false),
        })
    }

    /// Who pays.
    #[must_use]
    pub fn account(&self) -> &Account {
        // SAFETY: promised to `new`.
        unsafe { self.account.as_ref() }
    }

    /// Frees the root of the space.
    ///
    /// # Safety
    /// [`super::destroy_guest`] is done, the rendezvous is over, no CPU has the space loaded, and
    /// it is not used again.
    pub unsafe fn free_roots(&self, frames: &mut Frames) {
        // SAFETY: as promised.
        unsafe { self.memory.space.destroy(frames, self.account()) };
    }

    /// Whether the space is being destroyed.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.get()
    }

    pub(super) fn close(&self) {
        self.closed.set(true);
    }
}
