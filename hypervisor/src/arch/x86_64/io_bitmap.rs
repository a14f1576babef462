//! Which ports user code reaches: the I/O permission bitmap behind each CPU's TSS.
//!
//! A domain without ports costs nothing: the TSS then points past its limit. A domain's bitmap is
//! two frames of its own, mapped behind the TSS of each CPU that runs it.

use super::layout::{PAGE, in_window, window};
use super::tlb;
use crate::num::usize_of;
use core::ptr::with_exposed_provenance_mut;
use core::sync::atomic::{AtomicU64, Ordering};
use ipc::info::MAX_CPUS;

/// Present, accessed, dirty, global, not executable; read-only. Global, so that one invalidation reaches
/// the entry whatever PCID is current.
pub const ENTRY_FLAGS: u64 = 1 << 63 | 1 << 8 | 1 << 6 | 1 << 5 | 1;

/// Address of each CPU's two page-table entries, which map its bitmap pages for good. Relaxed: written
/// before other CPUs start, and used only by the CPU it belongs to.
pub(crate) static ENTRIES: [AtomicU64; MAX_CPUS] = [const { AtomicU64::new(0) }; MAX_CPUS];

/// Maps a bitmap of two frames, in which the bits of ports that may be used are clear, where the
/// TSS of this CPU points to while [`super::percpu::PerCpu::set_ports`] says so.
///
/// # Safety
/// `cpu` is this CPU, whose [`ENTRIES`] are set; the frames hold a bitmap for as long as it is in use.
pub unsafe fn map(cpu: usize, frames: [u64; 2]) {
    let entries = ENTRIES.get(cpu).map_or(0, |entry| entry.load(Ordering::Relaxed));
    let mut entry = with_exposed_provenance_mut::<u64>(usize_of(entries));
    if entry.is_null() {
        return;
    }
    let mut page = in_window(cpu, window::IO_BITMAP);
    for frame in frames {
        let value = frame | ENTRY_FLAGS;
        // SAFETY: both entries are this CPU's own ([`ENTRIES`]); nobody else writes them.
        unsafe {
            if entry.read_volatile() != value {
                entry.write_volatile(value);
                tlb::flush_page(page);
            }
            entry = entry.add(1);
        }
        page += PAGE;
    }
}
