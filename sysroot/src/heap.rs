//! The heap: the global allocator over the area that the start block names.

use core::alloc::{GlobalAlloc, Layout};

use ipc::proto::start::Area;
use talc::TalcLock;
use talc::source::Manual;

use crate::num::usize_of;
use crate::sync::RawLock;

static HEAP: TalcLock<RawLock, Manual> = TalcLock::new(Manual);

/// Hands memory to the heap.
///
/// # Safety
/// The area is mapped readable and writable, and used by nobody else from now on.
pub unsafe fn add(area: Area) {
    let base = core::ptr::with_exposed_provenance_mut(usize_of(area.base));
    // SAFETY: the caller's promise.
    let _ = unsafe { HEAP.lock().claim(base, usize_of(area.size)) };
}

/// The allocator of a component's heap.
#[derive(Clone, Copy, Debug)]
pub struct Heap;

// SAFETY: passes everything on to an allocator that keeps the contract.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { HEAP.alloc(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise.
        unsafe { HEAP.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { HEAP.realloc(ptr, layout, new_size) }
    }
}

#[cfg(target_os = "none")]
#[global_allocator]
static GLOBAL: Heap = Heap;
