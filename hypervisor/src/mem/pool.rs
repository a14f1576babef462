//! The pool: the one stretch of physical memory that the kernel owns, mapped linearly.

use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::num::{u64_of, usize_of};

/// Bytes of a page.
pub const PAGE_SIZE: u64 = 4096;
/// log2 of [`PAGE_SIZE`].
pub const PAGE_SHIFT: u32 = 12;

// Written once by `init` before any other CPU runs, only read afterwards: no ordering needed.
static PHYS: AtomicU64 = AtomicU64::new(0);
static VIRT: AtomicU64 = AtomicU64::new(0);

/// One page of the pool, as words that the hardware or other CPUs may read at any time.
#[repr(C, align(4096))]
pub struct Page([AtomicU64; Page::WORDS]);

impl Page {
    /// Words in a page.
    pub const WORDS: usize = 512;

    /// Word `index` modulo [`Self::WORDS`].
    pub fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: the mask keeps the index below the length of the array.
        unsafe { self.0.get_unchecked(index & (Self::WORDS - 1)) }
    }
}

/// Tells where the pool is.
///
/// # Safety
/// Called before anything else of [`crate::mem`] is used, and again only where the pool is mapped
/// elsewhere from then on and no pointer into it was kept. `virt` and what follows, as much as
/// the pool has, maps `phys` for reading and writing, is page aligned, and is used by nobody else.
pub unsafe fn init(phys: u64, virt: u64) {
    PHYS.store(phys, Ordering::Relaxed);
    VIRT.store(virt, Ordering::Relaxed);
}

/// Physical address of an object in the pool.
pub fn phys<T: ?Sized>(ptr: NonNull<T>) -> u64 {
    offset(ptr).wrapping_add(PHYS.load(Ordering::Relaxed))
}

/// Where the kernel sees a physical address of the pool.
///
/// The pointer may only be used where the address is one of the pool.
pub fn ptr<T>(phys: u64) -> NonNull<T> {
    at_offset(phys.wrapping_sub(PHYS.load(Ordering::Relaxed)))
}

/// Distance of an object from the start of the pool.
pub(crate) fn offset<T: ?Sized>(ptr: NonNull<T>) -> u64 {
    u64_of(ptr.addr().get()).wrapping_sub(VIRT.load(Ordering::Relaxed))
}

/// The reverse of [`offset`].
pub(crate) fn at_offset<T>(offset: u64) -> NonNull<T> {
    let addr = usize_of(VIRT.load(Ordering::Relaxed).wrapping_add(offset));
    // SAFETY: nothing of the pool is at address 0, see `init`.
    unsafe { NonNull::new_unchecked(core::ptr::with_exposed_provenance_mut(addr)) }
}
