//! Bringing the machine up: from the boot loader to the first instruction of the root task.

mod root_task;

use core::ptr::with_exposed_provenance_mut;

use spin::Once;

use crate::arch::layout::{PAGE, POOL_BASE, in_window, window};
use crate::arch::percpu::{self, PerCpu};
use crate::arch::virt::{self, Platform};
use crate::arch::{
    apic, cpu, descriptors, entry, fpu, instr, ioapic, msr, pic, serial, smp, start, tsc,
};
use crate::boot::Result;
use crate::boot::identity::Identity;
use crate::boot::kernel_space::{self, KernelSpace};
use crate::boot::machine::{Machine, discover};
use crate::boot::memory::Range;
use crate::boot::root::Image;
use crate::mem::frames::Frames;
use crate::mem::pool;
use crate::num::usize_of;
use crate::object::vcpu;
use crate::{log, sched};

/// What the boot phase hands to the phase on the kernel's own page tables.
struct Boot {
    machine: Machine,
    image: Image,
    space: KernelSpace,
    /// Bytes at the start of the pool that are in use for good.
    used: u64,
}

static BOOT: Once<Boot> = Once::new();

/// First Rust code: boot stack, boot page tables, interrupts off.
///
/// # Safety
/// Called once by the start code with what the boot loader passed.
pub unsafe fn boot(boot_info: u64, load_base: u64) -> ! {
    // SAFETY: nothing else runs yet; serial port and timer are the kernel's.
    unsafe {
        serial::init();
        descriptors::install_vectors();
        log!("Portico {} (x86_64), ABI {}", env!("CARGO_PKG_VERSION"), ipc::ABI_VERSION);
        let source = tsc::init();
        log!("clock: TSC {} MHz ({source})", tsc::khz() / 1000);
    }
    // SAFETY: the boot page tables are in use until `enter`.
    match unsafe { prepare(boot_info, load_base) } {
        Ok(boot) => {
            let root = BOOT.call_once(|| boot).space.root;
            // SAFETY: the tables map image and stack.
            unsafe { start::enter(root, in_window(0, window::STACK_TOP), run) }
        }
        Err(error) => log::fatal(format_args!("cannot start: {error}")),
    }
}

/// # Safety
/// The boot page tables are in use.
unsafe fn prepare(boot_info: u64, load_base: u64) -> Result<Boot> {
    // SAFETY: passed on.
    let identity = unsafe { Identity::new() };
    let machine = discover(Machine::new(load_base), &identity, boot_info)?;
    let image = root_task::prepare(&identity, &machine)?;
    let Range { start, end } = machine.memory.pool;
    // SAFETY: discovery chose free memory for both, which is mapped one to one.
    let mut frames = unsafe {
        smp::install(machine.memory.trampoline, load_base);
        pool::init(start, start);
        Frames::new(start, (end - start) / PAGE)
    };
    let space = kernel_space::build(&machine, start::image_layout(), &mut frames)
        .ok_or("kernel memory is too small for the kernel's page tables")?;
    Ok(Boot { machine, image, space, used: end - start - frames.free_pages() * PAGE })
}

/// On the kernel's own page tables and stack.
extern "sysv64" fn run() -> ! {
    let Some(boot) = BOOT.get() else { instr::halt_forever() };
    let machine = &boot.machine;
    // SAFETY: once, on the boot CPU, with interrupts off, in the order that these ask for.
    let gsis = unsafe {
        cpu::init(0);
        pic::disable();
        apic::init();
        ioapic::init(&machine.ioapics)
    };
    // SAFETY: the pool is mapped here for good, and only the tables were kept, by their physical
    // addresses; its first bytes are theirs.
    let mut frames = unsafe {
        let pool = machine.memory.pool;
        pool::init(pool.start, POOL_BASE);
        Frames::new(pool.start + boot.used, (pool.size() - boot.used) / PAGE)
    };
    if !fpu::detect() {
        log::fatal(format_args!("cannot start: the processor has no XSAVE"));
    }
    let virtualization = set_up_virtualization(machine, &mut frames).is_some();
    log!(
        "interrupts: {}, timer {}, {gsis} GSIs",
        if cpu::features().x2apic { "x2APIC" } else { "xAPIC" },
        if cpu::features().tsc_deadline { "TSC deadline" } else { "one-shot" },
    );
    let cpu = set_up_cpu(0);
    let others = machine.cpus.get(1..).unwrap_or(&[]);
    let page = machine.memory.trampoline;
    // SAFETY: once; the trampoline is in place.
    let cpus = unsafe { smp::start(others, page, boot.space.root, sched::is_online) };
    log!("CPUs: {cpus} running");
    match root_task::create(cpu, boot, cpus, gsis, virtualization, frames) {
        Ok(()) => finish(cpu),
        Err(status) => log::fatal(format_args!("cannot start: root task: {status}")),
    }
}

/// First Rust code of a started CPU, on its own stack and the kernel's page tables.
#[unsafe(no_mangle)]
extern "sysv64" fn portico_start_cpu(number: u16) -> ! {
    // SAFETY: this is the one CPU with this number, interrupts are off, and the boot CPU prepared
    // the APIC mode before it sent the start-up interrupt.
    unsafe {
        cpu::init(number.into());
        apic::init_cpu();
    }
    finish(set_up_cpu(number))
}

/// Leaves the kernel for the first time.
fn finish(cpu: &PerCpu) -> ! {
    cpu.set_nobody();
    // SAFETY: GS base and RSP0 are set; `resume` asks the scheduler, as nobody is current.
    unsafe { entry::resume() }
}

/// What this CPU keeps for itself, and what user mode needs.
fn set_up_cpu(number: u16) -> &'static PerCpu {
    let percpu = in_window(number.into(), window::PERCPU);
    // SAFETY: the page is mapped, this CPU's own and written once; then GS leads to it, and the
    // user's GS base, which SWAPGS brings in, is zero. The FPU was detected.
    unsafe {
        with_exposed_provenance_mut::<PerCpu>(usize_of(percpu)).write(PerCpu::new(number));
        msr::write(msr::GS_BASE, percpu);
        msr::write(msr::KERNEL_GS_BASE, 0);
        fpu::set_xcr0(fpu::components());
    }
    let cpu = percpu::this();
    if let Some(platform) = vcpu::platform() {
        // SAFETY: once on this CPU; descriptor tables, GS and FPU are set up.
        match unsafe { virt::Cpu::enable(platform, number.into()) } {
            // SAFETY: nothing else uses the field yet.
            Ok(state) => unsafe { *cpu.sched.virt.get() = Some(state) },
            Err(why) => log!("CPU {number}: no guests: {why}"),
        }
    }
    sched::set_online(number, apic::id());
    cpu
}

/// Finds out whether guests can run, and sets aside the memory for it.
fn set_up_virtualization(machine: &Machine, frames: &mut Frames) -> Option<()> {
    let detected = virt::detect().inspect_err(|why| log!("virtualization: none: {why}"));
    let (vendor, caps) = detected.ok()?;
    let pages = frames.alloc_run(Platform::pages(machine.cpus.len()))?;
    log!("virtualization: {vendor:?}");
    // SAFETY: a fresh zeroed run, given away for good.
    vcpu::set_platform(unsafe { Platform::new(vendor, caps, pages) });
    Some(())
}
