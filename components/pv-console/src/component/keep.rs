//! Where the memory is that stays.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU8;

use ipc::proto::console::LogRing;
use ipc::proto::start::{Area, Start};
use sysroot::num::{u64_of, usize_of};
use sysroot::{log, process};

use crate::keep::{Head, Keep};

/// Name of the store.
const STORE: &str = "state";
/// Logs of those that are no clients, as their lines come from the root task.
const OTHERS: usize = 8;
/// Bytes of a log where there is no store.
const LOG: usize = 8 * 1024;
/// Least bytes of a log in a store.
const LEAST: usize = 1024;

/// Opens the store, or takes memory from the heap.
pub(super) fn open(start: &Start<'_>) -> Keep {
    let names: BTreeSet<&str> = start.clients.iter().map(|c| c.name).collect();
    let logs = names.len() + OTHERS;
    let cpus = usize::from(start.cpus);
    if let Some(store) = process::store(STORE) {
        if let Some(keep) = in_store(store.area, cpus, logs) {
            return keep;
        }
        log!("store \"{STORE}\" is too small: {} bytes for {logs} logs", store.area.size);
    }
    let lines: Vec<LogRing> = (0..cpus).map(|_| LogRing::new()).collect();
    let data: Vec<AtomicU8> = (0..logs * LOG).map(|_| AtomicU8::new(0)).collect();
    Keep::new(Box::leak(Box::<Head>::default()), lines.leak(), data.leak(), logs)
}

/// The store's memory: head, a ring for each CPU, logs.
fn in_store(area: Area, cpus: usize, logs: usize) -> Option<Keep> {
    let rings = size_of::<Head>().next_multiple_of(align_of::<LogRing>());
    let data = rings + cpus * size_of::<LogRing>();
    let size = usize_of(area.size).checked_sub(data).filter(|&size| size >= logs * LEAST)?;
    let at = |offset: usize| usize_of(area.base + u64_of(offset));
    let head = core::ptr::with_exposed_provenance::<Head>(at(0));
    let lines = core::ptr::with_exposed_provenance::<LogRing>(at(rings));
    let data = core::ptr::with_exposed_provenance::<AtomicU8>(at(data));
    // SAFETY: the start block says that the store is mapped, readable and writable, for good and
    // for this component alone; this is called once. It begins with a page, the offsets are aligned
    // and end within it, the parts do not overlap. All three types are atomic throughout and valid
    // with any content.
    let (head, lines, data) = unsafe {
        let lines = core::slice::from_raw_parts(lines, cpus);
        (&*head, lines, core::slice::from_raw_parts(data, size))
    };
    Some(Keep::new(head, lines, data, logs))
}
