//! From the first instruction to the supervisor's thread.

use heapless::Vec;
use ipc::cap::Selector;
use ipc::info::{Info, MemoryKind, root};
use ipc::proto::start::{Area, Objects, PARK_SELECTOR, Start};
use sysroot::num::usize_of;
use sysroot::{heap, log, process, syscall, thread, time};

use crate::memory::{Memory, PAGE};
use crate::{clock, output, supervisor};

/// Heap of the root task.
const HEAP: u64 = 2 << 20;
/// Thread blocks of the root task: above its image.
const THREADS: Area = Area { base: 0x5000_0000_0000, size: 1 << 30 };
/// Event bases of the root task's threads: nothing is there, as nobody supervises it.
const EVENTS: u32 = 1024;
/// Selectors from here on are free.
const FREE: u32 = 4096;
/// Priority of the supervisor: above every component that it must be able to stop.
const PRIORITY: u8 = 127;

const _: () = assert!(root::FREE.0 <= EVENTS as u64);

/// The first Rust code, on the boot stack.
pub extern "sysv64" fn boot(info: u64, _utcb: u64) -> ! {
    log::set_sink(output::own);
    // SAFETY: the kernel maps the information page at this address, read-only and for good.
    let info: &'static Info =
        unsafe { &*core::ptr::with_exposed_provenance::<Info>(usize_of(info)) };
    if !info.is_compatible() {
        halt("root: the kernel has another interface version");
    }
    let Some(heap) = find_heap(info) else { halt("root: too little memory for the root task") };
    // SAFETY: free memory is mapped where it physically is, and nobody else has it.
    unsafe { heap::add(heap) };
    process::init(own_start(info, heap));
    let park = syscall::create_sm(Selector(PARK_SELECTOR.into()), process::pd(), 0);
    if park.is_err() {
        halt("root: no kernel memory");
    }
    let mut memory = Memory::new();
    for range in info.memory().iter().filter(|m| m.kind == u64::from(MemoryKind::Free.number())) {
        let (base, end) = (range.base.max(PAGE), range.base.saturating_add(range.size));
        // Without the heap, which lies within one range.
        if heap.base >= base && heap.end() <= end {
            memory.add(base, heap.base - base);
            memory.add(heap.end(), end - heap.end());
        } else {
            memory.add(base, end.saturating_sub(base));
        }
    }
    let config = thread::Config { priority: PRIORITY, stack_order: 4, ..thread::Config::on(0) };
    match thread::spawn(config, move || supervisor::run(info, memory)) {
        Ok(_) => process::park(),
        Err(status) => {
            log!("root: the supervisor cannot start: {status}");
            process::park()
        }
    }
}

fn halt(why: &str) -> ! {
    output::own(why);
    process::park()
}

/// The start of the first range that is large enough, above the first megabyte, which firmware
/// and old devices may still use.
fn find_heap(info: &Info) -> Option<Area> {
    const FIRST_MEGABYTE: u64 = 1 << 20;
    info.memory()
        .iter()
        .filter(|m| m.kind == u64::from(MemoryKind::Free.number()))
        .map(|m| (m.base.max(FIRST_MEGABYTE), m.base.saturating_add(m.size)))
        .map(|(base, end)| (base.next_multiple_of(HEAP), end))
        .find(|&(base, end)| base.checked_add(HEAP).is_some_and(|heap_end| heap_end <= end))
        .map(|(base, _)| Area { base, size: HEAP })
}

fn uptime_ms(info: &Info) -> u64 {
    time::now().saturating_sub(info.boot_tsc).checked_div(info.tsc_khz).unwrap_or(0)
}

/// The root task has a start block of its own making.
fn own_start(info: &Info, heap: Area) -> Start<'static> {
    let selector = |s: Selector| u32::try_from(s.0).unwrap_or(0);
    Start {
        name: "root",
        args: "",
        tsc_khz: info.tsc_khz,
        boot_tsc: info.boot_tsc,
        wall_ms: clock::wall_ms().map_or(0, |now| now.saturating_sub(uptime_ms(info))),
        cpus: u16::try_from(info.cpus().len()).unwrap_or(1),
        cpu: 0,
        priority: PRIORITY,
        objects: Objects {
            pd: selector(root::PD),
            ec: selector(root::EC),
            sc: selector(root::SC),
            semaphore: 0,
            root: 0,
            events: EVENTS,
            free: FREE,
            free_count: u32::try_from(Selector::COUNT).unwrap_or(0).saturating_sub(FREE),
        },
        heap,
        threads: THREADS,
        windows: Area::default(),
        uses: Vec::new(),
        clients: Vec::new(),
        devices: Vec::new(),
        stores: Vec::new(),
        orders: Area::default(),
        figures: Area::default(),
        vm: None,
        log: None,
    }
}
