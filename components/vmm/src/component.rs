//! The VMM as a component: builds the VM that its start block describes, then waits for what comes
//! in from outside while the vCPUs run.

mod console;
mod guest;

use alloc::boxed::Box;
use core::fmt;
use core::ptr::NonNull;

use ipc::proto::start::{Area, NOTIFY, Vm as Description};
use ipc::status::Status;
use sysroot::num::usize_of;
use sysroot::{log, process, time};

use crate::memory::Ram;
use crate::report::{Stop, VmmError};
use crate::vm::{Config, Vm};
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
        Ok((vm, kernel)) => {
            process::ready();
            wait(vm, kernel)
        }
        Err(e) => {
            log!("VM not started: {e}");
            process::exit(VMM_FAULT)
        }
    }
}

fn build() -> Result<(&'static Vm<'static>, &'static Kernel), SetupError> {
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
        // Nobody has a clock to ask.
        wall_ns: 0,
        x2apic: !process::has_argument("xapic"),
    };
    let vm = Vm::new(config, ram(description), console::open(), &host_cpuid)?;
    log!(
        "VM with {} MiB, {vcpus} vCPUs, kernel at {:#x}",
        description.ram.size >> 20,
        vm.loaded().kernel
    );
    let vm: &'static Vm<'static> = Box::leak(Box::new(vm));
    let kernel = guest::start(vm, description)?;
    Ok((vm, kernel))
}

/// Waits for input, for room for output, and for services that come back.
fn wait(vm: &'static Vm<'static>, kernel: &'static Kernel) -> ! {
    loop {
        let badges = process::semaphore().down_all(None).unwrap_or(0);
        if badges & NOTIFY != 0 {
            vm.devices().lock().connect(console::open());
        }
        if badges & (console::BADGE | NOTIFY) != 0 {
            vm.attention(kernel);
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

fn host_cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let r = raw_cpuid::native_cpuid::cpuid_count(leaf, subleaf);
    [r.eax, r.ebx, r.ecx, r.edx]
}
