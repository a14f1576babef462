//! Handing out memory and taking it back.

use ipc::cap::{MemRights, Range};
use ipc::proto::ring::Shareable;
use ipc::proto::start::Area;
use ipc::status::Status;
use sysroot::cap::{Cap, Pd};
use sysroot::num::usize_of;
use sysroot::syscall;

use crate::memory::{PAGE, Span, chunks};

/// Delegates memory of the root task to appear elsewhere in a component.
///
/// # Errors
/// What the kernel says.
pub fn give(pd: Cap<Pd>, from: u64, to: u64, size: u64, rights: MemRights) -> Result<(), Status> {
    let offset = from % PAGE;
    for (source, target, order) in chunks(from - offset, to - offset, size + offset) {
        give_chunk(pd, source, target, order, rights)?;
    }
    Ok(())
}

/// One chunk, in halves where the kernel does not take it whole.
fn give_chunk(
    pd: Cap<Pd>,
    source: u64,
    target: u64,
    order: u8,
    rights: MemRights,
) -> Result<(), Status> {
    let range = Range::memory(order, rights);
    // SAFETY: the root task uses memory that it has given to a component only to fill it before
    // the component runs, and what is atomic throughout.
    match unsafe { syscall::delegate_memory(pd, range, source, target) } {
        Err(Status::BadCap | Status::BadParam) if order > 0 => {
            let half = 1 << (order - 1);
            give_chunk(pd, source, target, order - 1, rights)?;
            give_chunk(pd, source + half, target + half, order - 1, rights)
        }
        outcome => outcome,
    }
}

/// Delegates several spans to appear one behind the other.
///
/// # Errors
/// What the kernel says.
pub fn give_all(pd: Cap<Pd>, spans: &[Span], area: Area, rights: MemRights) -> Result<(), Status> {
    let mut at = area.base;
    for span in spans {
        give(pd, span.base, at, span.size, rights)?;
        at += span.size;
    }
    Ok(())
}

/// Takes a span from everybody who got it.
///
/// # Errors
/// What the kernel says.
pub fn take_back(span: Span) -> Result<(), Status> {
    /// Largest range of a call.
    const MAX_ORDER: u8 = 18;
    for (page, _, order) in chunks(span.base, span.base, span.size) {
        let step = order.min(MAX_ORDER);
        for n in 0..1u64 << (order - step) {
            let range = Range::memory(step, MemRights::all());
            // SAFETY: the root task keeps its own mapping.
            unsafe { syscall::revoke_memory(range, page + (n << step)) }?;
        }
    }
    Ok(())
}

/// Memory that was just taken, as bytes.
pub fn bytes(span: Span) -> &'static mut [u8] {
    let start = core::ptr::with_exposed_provenance_mut(usize_of(span.base));
    // SAFETY: free memory is mapped where it physically is; the span is the caller's alone, and
    // nobody runs yet that it was delegated to.
    unsafe { core::slice::from_raw_parts_mut(start, usize_of(span.size)) }
}

/// Clears memory that may hold what others left behind.
pub fn zero(span: Span) {
    bytes(span).fill(0);
}

/// Copies bytes to an offset in memory that was just taken.
pub fn copy(span: Span, offset: u64, from: &[u8]) {
    let to = bytes(span).get_mut(usize_of(offset)..);
    if let Some(to) = to.and_then(|t| t.get_mut(..from.len())) {
        to.copy_from_slice(from);
    }
}

/// Memory that stays the root task's for good, as something to share; `None` where it is too
/// small.
#[must_use]
pub fn shared<T: Shareable>(span: Span) -> Option<&'static T> {
    if usize_of(span.size) < size_of::<T>() || !usize_of(span.base).is_multiple_of(align_of::<T>())
    {
        return None;
    }
    let start = core::ptr::with_exposed_provenance::<T>(usize_of(span.base));
    // SAFETY: memory of the root task is mapped where it physically is, and this is never given
    // back; such types are atomic throughout and valid with any content.
    Some(unsafe { &*start })
}
