//! Start and end of a component.

/// Names the function that a component starts with: `sysroot::entry!(main)`. It takes nothing;
/// when it returns the component ends in order.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        extern "Rust" fn portico_main() {
            let main: fn() = $main;
            main();
        }
    };
}

/// What the root task reads in a component's image: the ABI version that it was built for, in an ELF
/// note.
#[cfg(target_os = "none")]
#[used]
#[unsafe(link_section = ".note.portico")]
static NOTE: [u32; 6] = ipc::proto::start::NOTE;

/// Sets up the run-time library from the start block and runs the component's `main`.
#[cfg(target_os = "none")]
pub(crate) extern "sysv64" fn component_main(utcb: u64) -> ! {
    use crate::{heap, process, utcb};

    unsafe extern "Rust" {
        // SAFETY of the declaration: `entry!` defines it with this type.
        safe fn portico_main();
    }

    let (heap, cpu) = install(utcb);
    // SAFETY: the UTCB of this thread, which nothing has used yet.
    unsafe { utcb::prepare(utcb::current(), cpu, 0) };
    // SAFETY: the start block says that the area is mapped for this purpose.
    unsafe { heap::add(heap) };
    crash_later();
    portico_main();
    process::exit(0)
}

/// Installs the start block, which is large: none of it stays on the stack. Returns heap and CPU.
#[cfg(target_os = "none")]
#[inline(never)]
fn install(utcb: u64) -> (ipc::proto::start::Area, u16) {
    use ipc::PAGE_SIZE;
    use ipc::proto::start::{PAGES, Start};

    use crate::num::usize_of;

    let block = core::ptr::with_exposed_provenance(usize_of(utcb) + PAGE_SIZE);
    // SAFETY: the root task maps the start block behind the UTCB, read-only and for good.
    let block: &'static [u8] = unsafe { core::slice::from_raw_parts(block, PAGES * PAGE_SIZE) };
    let Ok(start) = Start::decode(block) else {
        // Without it there is nobody to tell; a fault is what the root task sees.
        crate::arch::abort()
    };
    let facts = (start.heap, start.cpu);
    crate::process::init(start);
    facts
}

/// With the argument `crash-after=MS` a component faults after so many milliseconds: for tests of
/// its supervisor and its clients.
#[cfg(target_os = "none")]
fn crash_later() {
    use crate::{arch, process, thread, time};

    let Some(ms) = process::argument("crash-after").and_then(|ms| ms.parse().ok()) else { return };
    let _ = thread::spawn(thread::Config::on(process::start().cpu), move || {
        time::sleep_ms(ms);
        arch::abort();
    });
}

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    use core::sync::atomic::{AtomicBool, Ordering};

    /// A panic while one is reported: nothing can be said any more. Relaxed: only a flag.
    static PANICKED: AtomicBool = AtomicBool::new(false);
    if !PANICKED.swap(true, Ordering::Relaxed) {
        crate::log!("{info}");
    }
    crate::process::exit(ipc::proto::root::PANIC)
}
