//! Free selectors of the own object space.

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{Rights, Selector};
use ipc::status::{Result, Status};

use crate::sync::Mutex;
use crate::{process, syscall};

/// How many were taken from the start of the free range. Relaxed: it only has to be unique.
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// Single selectors that were given back.
static FREE: Mutex<Vec<Selector>> = Mutex::new(Vec::new());

/// Ranges that were given back: order and first selector.
static RANGES: Mutex<Vec<(u8, Selector)>> = Mutex::new(Vec::new());

/// A free selector.
///
/// # Errors
/// [`Status::Quota`] where none is left.
pub fn alloc() -> Result<Selector> {
    // A handler must not wait for a thread that may not get to run: it rather takes a new one.
    if let Some(selector) = FREE.try_lock().and_then(|mut free| free.pop()) {
        return Ok(selector);
    }
    alloc_range(0)
}

/// `2^order` free selectors, naturally aligned.
///
/// # Errors
/// [`Status::Quota`] where not as many are left.
pub fn alloc_range(order: u8) -> Result<Selector> {
    // As above.
    let used = RANGES.try_lock().and_then(|mut ranges| {
        let index = ranges.iter().position(|r| r.0 == order)?;
        Some(ranges.swap_remove(index).1)
    });
    if let Some(first) = used {
        return Ok(first);
    }
    let objects = &process::start().objects;
    let (first, count) = (u64::from(objects.free), u64::from(objects.free_count));
    let size = 1u64.checked_shl(u32::from(order)).ok_or(Status::BadParam)?;
    let place = |taken: u64| {
        let base = (first + taken).checked_next_multiple_of(size)?;
        let end = base.checked_add(size)?;
        (end <= first + count).then_some((base, end - first))
    };
    TAKEN
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |taken| place(taken).map(|p| p.1))
        .ok()
        .and_then(place)
        .map(|(base, _)| Selector(base))
        .ok_or(Status::Quota)
}

/// Gives back a selector that is empty.
pub fn free(selector: Selector) {
    FREE.lock().push(selector);
}

/// Gives back `2^order` selectors, of which whatever is left in them is deleted.
pub fn delete_range(first: Selector, order: u8) {
    for n in 0..1u64.checked_shl(order.into()).unwrap_or(0) {
        let _ = syscall::revoke_object(first.offset(n), Rights::FULL, true);
    }
    // Rather lost than waited for.
    if let Some(mut ranges) = RANGES.try_lock() {
        ranges.push((order, first));
    }
}

/// Deletes a capability with everything derived from it, and gives back its selector.
pub fn delete(selector: Selector) {
    let _ = syscall::revoke_object(selector, Rights::FULL, true);
    free(selector);
}
