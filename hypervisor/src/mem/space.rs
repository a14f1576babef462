//! What a protection domain or a guest sees of memory and ports, as the hardware reads it.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use ipc::status::Status;

use super::account::Account;
use super::frames::{Frames, PageList};
use super::paging::{Format, LeafSize, Mapping, PageTable};
use super::pool::{self, PAGE_SHIFT, Page};
use crate::num::usize_of;

/// Index of the first kernel entry in the root table of a host space.
const KERNEL_ENTRIES: usize = 509;

/// What the translations of a space are known by: a number that no other space ever has, and that
/// is another one once a mapping was taken away. Whoever keeps translations keeps them for a number.
pub struct Epoch(AtomicU64);

/// The last number given out. Relaxed: nothing but the number matters.
static LAST: AtomicU64 = AtomicU64::new(0);

impl Default for Epoch {
    fn default() -> Self {
        Self(AtomicU64::new(LAST.fetch_add(1, Ordering::Relaxed) + 1))
    }
}

impl Epoch {
    /// No translation that was kept so far is good any more.
    pub fn end(&self) {
        // Release: the changed entries are visible to a CPU that sees the new number.
        self.0.store(LAST.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// The number, never zero.
    pub fn number(&self) -> u64 {
        // Acquire: pairs with `end`.
        self.0.load(Ordering::Acquire)
    }
}

/// What every host space has in common.
#[derive(Clone, Copy, Debug)]
pub struct HostLayout {
    /// Entries 509 to 511 of the root table: the kernel's half.
    pub kernel: [u64; 3],
    /// Largest leaf that the processor knows.
    pub max_leaf: LeafSize,
}

/// An address space: the host page tables of a protection domain or the nested ones of a guest.
pub struct AddressSpace {
    /// Physical address of the root table.
    pub root: u64,
    /// The page tables. To unmap and to protect there are functions here, which end the epoch.
    pub table: PageTable,
    /// What TLBs know it by.
    pub epoch: Epoch,
}

impl AddressSpace {
    /// First and last user page are never mapped.
    const HOST_PAGES: core::ops::Range<u64> = 1..(1 << 35) - 1;
    const GUEST_PAGES: core::ops::Range<u64> = 0..1 << 36;

    /// The host space of a protection domain.
    ///
    /// # Errors
    /// `Quota`.
    pub fn host(
        frames: &mut Frames,
        account: &Account,
        layout: &HostLayout,
    ) -> Result<Self, Status> {
        let space = Self::guest(frames, account, Format::Host, layout.max_leaf)?;
        // SAFETY: the root table was just allocated and is valid.
        let root = unsafe { space.table.root.as_ref() };
        for (i, &entry) in layout.kernel.iter().enumerate() {
            root.word(KERNEL_ENTRIES + i).store(entry, Ordering::Relaxed);
        }
        Ok(space)
    }

    /// The nested space of a guest.
    ///
    /// # Errors
    /// `Quota`.
    pub fn guest(
        frames: &mut Frames,
        account: &Account,
        format: Format,
        max_leaf: LeafSize,
    ) -> Result<Self, Status> {
        let root = account.alloc_page(frames)?;
        let table = PageTable { root, format, max_leaf };
        Ok(Self { root: pool::phys(root), table, epoch: Epoch::default() })
    }

    /// Whether the space has room for such a range: naturally aligned and within its limits.
    pub fn admits(&self, page: u64, order: u8) -> bool {
        let host = self.table.format == Format::Host;
        let limits = if host { Self::HOST_PAGES } else { Self::GUEST_PAGES };
        order < 36
            && page & ((1 << order) - 1) == 0
            && page >= limits.start
            && page.checked_add(1 << order).is_some_and(|end| end <= limits.end)
    }

    /// Unmaps a range that was mapped as such; the TLBs must be flushed afterwards.
    pub fn unmap(&self, account: &Account, page: u64, order: u8, out: &mut PageList) {
        self.table.unmap(account, page, order, out);
        self.epoch.end();
    }

    /// Takes rights from a mapped range; the TLBs must be flushed afterwards.
    pub fn protect(&self, mapping: &Mapping) {
        self.table.protect(mapping);
        self.epoch.end();
    }

    /// Undoes [`crate::cap::PdSpaces::map_kernel_frame`]. After the flush the page may be used for
    /// something else and the tables in `out` be freed. Does nothing where no such page is mapped.
    pub fn unmap_kernel_frame(&self, account: &Account, addr: u64, out: &mut PageList) {
        let page = addr >> PAGE_SHIFT;
        if self.table.kernel_page(page).is_some() {
            self.unmap(account, page, 0, out);
        }
    }

    /// Frees the root table.
    ///
    /// # Safety
    /// Everything was unmapped, no CPU has the space loaded, and it is not used again.
    pub unsafe fn destroy(&self, frames: &mut Frames, account: &Account) {
        debug_assert!(self.table.is_vacant(0, 35), "address space in use");
        // SAFETY: the root is charged to the account; the caller promises that it is unused.
        unsafe { account.free_page(frames, self.table.root) };
    }
}

/// Access to ports: the I/O bitmap of a protection domain.
#[derive(Default)]
pub struct PortSpace {
    /// One bit per port, set where access is denied; both halves or none.
    bitmap: [AtomicPtr<Page>; 2],
}

impl PortSpace {
    /// Number of ports.
    pub const PORTS: u64 = 1 << 16;

    /// Whether such a range of ports exists and is naturally aligned.
    pub fn admits(port: u64, order: u8) -> bool {
        order <= 16 && port & ((1 << order) - 1) == 0 && port < Self::PORTS
    }

    /// The bitmap as the processor reads it; `None` where no port ever was allowed.
    pub fn bitmap(&self) -> Option<[NonNull<Page>; 2]> {
        // Acquire: the first half is stored last, and both are seen initialised.
        let [first, second] = self.bitmap.each_ref().map(|half| half.load(Ordering::Acquire));
        Some([NonNull::new(first)?, NonNull::new(second)?])
    }

    /// Tells bitmaps apart; 0 for none.
    #[inline(always)]
    pub fn key(&self) -> usize {
        let [first, _] = &self.bitmap;
        first.load(Ordering::Relaxed).addr()
    }

    /// Allows a naturally aligned range of ports.
    ///
    /// # Errors
    /// `Quota`, without effect.
    pub fn allow(
        &self,
        frames: &mut Frames,
        account: &Account,
        port: u64,
        order: u8,
    ) -> Result<(), Status> {
        if self.bitmap().is_none() {
            let first = account.alloc_page(frames)?;
            let second = account.alloc_page(frames).inspect_err(|_| {
                // SAFETY: nobody has seen the page.
                unsafe { account.free_page(frames, first) };
            })?;
            for (half, page) in self.bitmap.iter().zip([first, second]).rev() {
                // SAFETY: the page was just allocated, and all ones are valid words.
                unsafe { page.write_bytes(0xff, 1) };
                half.store(page.as_ptr(), Ordering::Release);
            }
        }
        self.set(port, order, false);
        Ok(())
    }

    /// Frees the bitmap. It is kept till then, as CPUs read it without a lock.
    ///
    /// # Safety
    /// No CPU uses the space, and it is not used again.
    pub unsafe fn destroy(&self, frames: &mut Frames, account: &Account) {
        for half in &self.bitmap {
            if let Some(page) = NonNull::new(half.swap(core::ptr::null_mut(), Ordering::Relaxed)) {
                // SAFETY: the page is charged to the account and, as promised, unused.
                unsafe { account.free_page(frames, page) };
            }
        }
    }

    /// The word with the bit of a port.
    fn word(&self, port: u64) -> Option<&AtomicU64> {
        let [first, second] = self.bitmap()?;
        let page = if port < Self::PORTS / 2 { first } else { second };
        // SAFETY: the pages stay allocated until `destroy`, and are accessed by atomic words only.
        Some(unsafe { page.as_ref() }.word(usize_of(port / 64)))
    }

    /// Denies a naturally aligned range of ports, or allows it in the bitmap that there is.
    pub fn set(&self, port: u64, order: u8, denied: bool) {
        let mask = if order < 6 { ((1 << (1 << order)) - 1) << (port % 64) } else { u64::MAX };
        for word in (port..port + (1 << order)).step_by(64).map_while(|port| self.word(port)) {
            let rest = word.load(Ordering::Relaxed) & !mask;
            word.store(rest | if denied { mask } else { 0 }, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests;
