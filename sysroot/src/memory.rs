//! Pages to share, and address windows for what others share.

use alloc::alloc::alloc_zeroed;
use core::alloc::Layout;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::PAGE_SIZE;
use ipc::cap::{MemRights, Range, Space};
use ipc::proto::ring::Shareable;
use ipc::proto::start::Area;
use ipc::status::{Result, Status};
use ipc::utcb::Window as Opening;

use crate::num::{address, page, u64_of, usize_of};
use crate::{process, syscall};

/// `2^order` pages of the heap, naturally aligned and zeroed, that are never given back: memory to
/// delegate to others.
#[derive(Clone, Copy, Debug)]
pub struct Pages {
    start: NonNull<u8>,
    order: u8,
}

// SAFETY: it is an address; access is up to who makes references of it.
unsafe impl Send for Pages {}
// SAFETY: as above.
unsafe impl Sync for Pages {}

impl Pages {
    /// Takes them from the heap.
    ///
    /// # Errors
    /// [`Status::Quota`] where the heap has no such range.
    pub fn new(order: u8) -> Result<Self> {
        let size = PAGE_SIZE.checked_shl(u32::from(order)).ok_or(Status::BadParam)?;
        let layout = Layout::from_size_align(size, size).map_err(|_| Status::BadParam)?;
        // SAFETY: the layout is not empty.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or(Status::Quota)?;
        Ok(Self { start, order })
    }

    /// First page number.
    #[must_use]
    pub fn page(self) -> u64 {
        page(address(self.start.as_ptr()))
    }

    /// log2 of their number.
    #[must_use]
    pub const fn order(self) -> u8 {
        self.order
    }

    /// The start of the memory as a `T`.
    ///
    /// # Safety
    /// All zero is a valid `T`. If it is written by others while it is shared, that happens only
    /// to parts with interior mutability.
    #[must_use]
    pub unsafe fn view<T: Sync>(self) -> Option<&'static T> {
        if size_of::<T>() > PAGE_SIZE << self.order {
            return None;
        }
        // SAFETY: the memory is large enough, aligned to a page, never freed, and valid by the
        // caller's promise.
        Some(unsafe { self.start.cast().as_ref() })
    }
}

/// Memory that the root task mapped for this component and another one, or that it keeps for this
/// one as a store, as a `T`.
#[must_use]
pub fn shared<T: Shareable>(area: Area) -> Option<&'static T> {
    let mapped = [
        process::start().uses.iter().any(|u| u.shared == Some(area)),
        process::start().clients.iter().any(|c| c.shared == Some(area)),
        process::start().stores.iter().any(|s| s.area == area),
    ];
    if !mapped.contains(&true) || u64_of(size_of::<T>()) > area.size {
        return None;
    }
    let start = core::ptr::with_exposed_provenance::<T>(usize_of(area.base));
    // SAFETY: the start block says that the area is mapped, readable and writable; the root task
    // never takes it away. Such types are atomic throughout and valid with any content.
    Some(unsafe { &*start })
}

/// `2^order` pages of address space into which others may delegate memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    base: u64,
    order: u8,
}

/// Bytes of the window area that are taken. Relaxed: it only has to be unique.
static TAKEN: AtomicU64 = AtomicU64::new(0);

impl Window {
    /// Takes a part of the window area that is never given back; keep windows and use them again.
    ///
    /// # Errors
    /// [`Status::Quota`] where no room is left.
    pub fn new(order: u8) -> Result<Self> {
        let area = process::start().windows;
        let size = 1u64.checked_shl(u32::from(order) + ipc::PAGE_BITS).ok_or(Status::BadParam)?;
        let place = |taken: u64| {
            let base = (area.base + taken).checked_next_multiple_of(size)?;
            let end = base.checked_add(size)?;
            (end <= area.end()).then_some((base, end - area.base))
        };
        TAKEN
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| place(taken).map(|p| p.1))
            .ok()
            .and_then(place)
            .map(|(base, _)| Self { base, order })
            .ok_or(Status::Quota)
    }

    /// First address.
    #[must_use]
    pub const fn base(self) -> u64 {
        self.base
    }

    /// As a receive window of the UTCB.
    #[must_use]
    pub const fn opening(self) -> Opening {
        Opening::open(page(self.base), self.order)
    }

    /// The start of what was delegated into the window as a `T`, where so much is mapped readable
    /// and writable.
    ///
    /// # Safety
    /// Any bytes are a valid `T` and all of it has interior mutability, as others write it. What
    /// is mapped can go away at any time, when its owner dies: access faults then, which ends the
    /// component.
    #[must_use]
    pub unsafe fn view<T: Sync>(self) -> Option<&'static T> {
        let size = crate::num::u64_of(size_of::<T>());
        if size > 1 << (u32::from(self.order) + ipc::PAGE_BITS) || !mapped(self.base, size) {
            return None;
        }
        let start = core::ptr::with_exposed_provenance::<T>(crate::num::usize_of(self.base));
        // SAFETY: the range is mapped, aligned to a page, and valid by the caller's promise.
        Some(unsafe { &*start })
    }

    /// Takes back whatever was delegated into the window.
    pub fn close(self) {
        let range = Range::memory(self.order, MemRights::all()).include_self();
        // SAFETY: nobody uses a window that is being closed; that is the caller's decision, and a
        // reference from `view` that is used after it faults at worst.
        let _ = unsafe { syscall::revoke_memory(range, page(self.base)) };
    }
}

/// Whether memory is mapped readable and writable from `base` on, `size` bytes.
fn mapped(base: u64, size: u64) -> bool {
    let (mut at, end) = (page(base), page(base + size + 4095));
    while at < end {
        match syscall::query(Range::memory(0, MemRights::empty()), at) {
            Ok((held, first)) if held.rights() & MemRights::RW.bits() == MemRights::RW.bits() => {
                at = first.saturating_add(1 << held.order()).max(at + 1);
            }
            _ => return false,
        }
    }
    true
}

/// The receive window of the object space for `2^order` selectors from an aligned base on.
pub fn open_objects(base: ipc::cap::Selector, order: u8) {
    crate::utcb::set_window(Space::Object, Opening::open(base.0, order));
}
