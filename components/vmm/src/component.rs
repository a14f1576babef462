//! The VMM as a component: builds the VM that its start block describes, then waits for what comes
//! in from outside while the vCPUs run.

mod backend;
mod console;
mod guest;

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use core::ptr::NonNull;

use ipc::proto::board::{Figures, Orders};
use ipc::proto::ring::Shareable;
use ipc::proto::start::{Area, NOTIFY, Vm as Description};
use ipc::status::Status;
use sysroot::num::{u64_of, usize_of};
use sysroot::{log, process, time};

use crate::memory::Ram;
use crate::report::{Stop, VmmError};
use crate::vm::{Config, Counters, Vm};
use backend::Backend;
use guest::Kernel;

/// Exit code where the guest is at fault.
const GUEST_FAULT: u32 = 2;
/// Exit code where the VMM is, or its configuration.
const VMM_FAULT: u32 = 3;

/// Why there is no VM.
#[derive(Debug)]
enum SetupError {
    /// The configuration gives the component no VM.
    NoVm,
    /// The kernel refused an object, or memory for the guest.
    System(&'static str, Status),
    /// The VM itself.
    Vm(VmmError),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoVm => f.write_str("no VM in the configuration"),
            Self::System(what, status) => write!(f, "{what}: {status}"),
            Self::Vm(e) => e.fmt(f),
        }
    }
}

impl From<VmmError> for SetupError {
    fn from(e: VmmError) -> Self {
        Self::Vm(e)
    }
}

/// Names what a system call was for.
trait Context<T> {
    fn context(self, what: &'static str) -> Result<T, SetupError>;
}

impl<T> Context<T> for ipc::status::Result<T> {
    fn context(self, what: &'static str) -> Result<T, SetupError> {
        self.map_err(|status| SetupError::System(what, status))
    }
}

/// Runs the component.
pub fn main() {
    match build() {
        Ok(running) => {
            process::ready();
            running.wait()
        }
        Err(e) => {
            log!("VM not started: {e}");
            process::exit(VMM_FAULT)
        }
    }
}

/// A VM that runs, and who it has to do with.
struct Running {
    vm: &'static Vm<'static>,
    kernel: &'static Kernel,
    backends: Vec<&'static Backend>,
    orders: Option<&'static Orders>,
}

fn build() -> Result<Running, SetupError> {
    let start = process::start();
    let description = start.vm.as_ref().ok_or(SetupError::NoVm)?;
    let vcpus = u32::try_from(description.vcpus.len()).unwrap_or(u32::MAX);
    let config = Config {
        kernel: module(description.kernel),
        initrd: description.initrd.map_or(&[], module),
        cmdline: description.cmdline,
        vcpus,
        tsc_khz: start.tsc_khz,
        start_tsc: time::now(),
        // In 1970 where the machine has no clock.
        wall_ns: start.wall_ms.saturating_add(time::uptime_ms()).saturating_mul(1_000_000),
        x2apic: !process::has_argument("xapic"),
    };
    let backends = backend::all();
    let links = backend::links(&backends);
    let counters = counters(start.figures);
    let vm = Vm::new(config, ram(description), console::open(), links, counters, &host_cpuid)?;
    log!(
        "VM with {} MiB, {vcpus} vCPUs, {} virtio devices, kernel at {:#x}",
        description.ram.size >> 20,
        backends.len(),
        vm.loaded().kernel
    );
    let vm: &'static Vm<'static> = Box::leak(Box::new(vm));
    backend::gather(vm, &backends);
    let kernel = guest::start(vm, description)?;
    Ok(Running { vm, kernel, backends, orders: board(start.orders) })
}

impl Running {
    /// Waits for back ends, for input, for room for output, for orders and for services that come
    /// back.
    fn wait(&self) -> ! {
        let Self { vm, kernel, backends, orders } = self;
        // What came in while the VM was built.
        let mut badges = NOTIFY | console::BADGE;
        loop {
            backend::signals(vm, *kernel, backends, badges);
            if badges & NOTIFY != 0 {
                if let Some(orders) = orders {
                    vm.pause(*kernel, orders.is_paused());
                }
                if let Some(console) = console::refresh() {
                    vm.devices().lock().connect(console);
                }
                backend::refresh(vm, *kernel, backends);
            }
            if badges & (console::BADGE | NOTIFY) != 0 {
                vm.attention(*kernel);
            }
            badges = process::semaphore().down_all(None).unwrap_or(0);
        }
    }
}

/// The VM is over, and with it the component.
fn end(stop: &Stop) -> ! {
    process::exit(match stop {
        Stop::PowerOff => 0,
        Stop::Guest(_) => GUEST_FAULT,
        Stop::Vmm(_) => VMM_FAULT,
    })
}

fn ram(description: &Description<'_>) -> Ram {
    let base: *mut u8 = core::ptr::with_exposed_provenance_mut(usize_of(description.ram.base));
    let size = if base.is_null() { 0 } else { description.ram.size };
    // SAFETY: the root task mapped the area readable and writable for good, aligned to 2 MiB, for
    // this purpose alone; an area that is none has size 0.
    unsafe { Ram::new(NonNull::new(base).unwrap_or(NonNull::dangling()), size) }
}

/// A boot module.
fn module(area: Area) -> &'static [u8] {
    let base = core::ptr::with_exposed_provenance::<u8>(usize_of(area.base));
    if base.is_null() {
        return &[];
    }
    // SAFETY: the root task mapped the area read-only for good, and nobody writes it.
    unsafe { core::slice::from_raw_parts(base, usize_of(area.size)) }
}

/// A page that the root task shares with every component.
fn board<T: Shareable>(area: Area) -> Option<&'static T> {
    let base = core::ptr::with_exposed_provenance::<T>(usize_of(area.base));
    if base.is_null() || area.size < u64_of(size_of::<T>()) {
        return None;
    }
    // SAFETY: the root task mapped the area for good, and such types are atomic throughout and
    // valid with any content. `Orders` is read-only here, and nothing here writes it.
    Some(unsafe { &*base })
}

/// Where exits are counted, for everybody to see.
fn counters(figures: Area) -> &'static Counters {
    match board::<Figures>(figures) {
        Some(figures) => &figures.exits,
        None => Box::leak(Box::default()),
    }
}

fn host_cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = raw_cpuid::native_cpuid::cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}
