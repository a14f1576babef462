//! Bringing the machine up: from the boot loader to the first instruction of the root task.

mod root_task;

use core::cell::UnsafeCell;
use core::ptr::with_exposed_provenance_mut;

use heapless::Vec;
use spin::Once;

use crate::arch::layout::{CpuWindow, PAGE, POOL_BASE};
use crate::arch::percpu::{self, PerCpu};
use crate::arch::virt::{self, Platform};
use crate::arch::{
    apic, cpu, descriptors, entry, fpu, instr, ioapic, msr, pic, serial, smp, start, tsc,
};
use crate::boot::identity::{Identity, PoolFront};
use crate::boot::kernel_space::{self, KernelSpace};
use crate::boot::machine::{Facts, Machine, discover};
use crate::boot::root::Image;
use crate::mem::frames::Frames;
use crate::mem::pool;
use crate::num::{low16, u64_of, usize_of};
use crate::object::vcpu;
use crate::{interrupt, log, sched};

/// What the boot phase hands to the phase on the kernel's own page tables.
struct Boot {
    machine: Machine,
    image: Image,
    /// Physical address of the memory behind the image's file (zeroed).
    extra: u64,
    space: KernelSpace,
    /// Bytes at the start of the pool that are in use for good.
    used: u64,
}

static BOOT: Once<Boot> = Once::new();

/// RFLAGS bits that SYSCALL clears: TF, IF, DF, IOPL, NT, AC.
const SYSCALL_MASK: u64 = 0x4_7700;

/// First Rust code: boot stack, boot page tables, interrupts off.
///
/// # Safety
/// Called once by the start code with what the boot loader passed.
pub unsafe fn boot(boot_info: u64, load_base: u64) -> ! {
    // SAFETY: nothing else runs yet; serial port and timer are the kernel's.
    unsafe {
        serial::init();
        log!("Portico {} (x86_64)", env!("CARGO_PKG_VERSION"));
        let source = tsc::init();
        log!("clock: TSC {} MHz ({source:?})", tsc::khz() / 1000);
    }
    // SAFETY: the boot page tables are in use until `enter`.
    let identity = unsafe { Identity::new() };
    let mut machine = match discover(&identity, boot_info, &Facts::collect(load_base)) {
        Ok(machine) => machine,
        Err(error) => fail(format_args!("{error}")),
    };
    machine.report();
    let (image, extra) = match root_task::prepare(&identity, &mut machine) {
        Ok(prepared) => prepared,
        Err(error) => fail(format_args!("root task: {error}")),
    };
    // SAFETY: discovery chose free memory for both.
    let mut front = unsafe { PoolFront::new(machine.pool) };
    if let Some(page) = machine.trampoline {
        // SAFETY: as above.
        unsafe { smp::install(page, load_base) };
    }
    let Some(space) = kernel_space::build(&machine, start::image_layout(), &mut front) else {
        fail(format_args!("kernel memory is too small for the kernel's page tables"));
    };
    let used = front.used();
    BOOT.call_once(|| Boot { machine, image, extra, space, used });
    // SAFETY: the tables map image and stack.
    unsafe { start::enter(space.root, CpuWindow::new(0).stack_top(), run, 0) }
}

fn fail(why: core::fmt::Arguments<'_>) -> ! {
    log::emergency(format_args!("cannot start: {why}"));
    instr::halt_forever()
}

/// On the kernel's own page tables and stack.
extern "sysv64" fn run(_: usize) -> ! {
    let Some(boot) = BOOT.get() else { instr::halt_forever() };
    let machine = &boot.machine;
    let stubs: [u64; 256] = core::array::from_fn(|v| entry::handler(crate::num::low8(u64_of(v))));
    // SAFETY: once, on the boot CPU, with interrupts off, in the order that these ask for.
    let gsis = unsafe {
        descriptors::install_vectors(&stubs);
        cpu::init(0);
        pic::disable();
        let vectors = apic::Vectors {
            timer: interrupt::TIMER,
            error: interrupt::APIC_ERROR,
            spurious: interrupt::SPURIOUS,
        };
        apic::init(vectors, machine.nmi_pin);
        ioapic::init(&machine.ioapics)
    };
    // SAFETY: the pool is mapped; its first bytes stay with the boot phase.
    let mut frames = unsafe {
        let pool = machine.pool;
        pool::init(pool.start, pool.size(), POOL_BASE);
        Frames::new(pool.start + boot.used, (pool.size() - boot.used) / PAGE)
    };
    fpu::detect();
    let virtualization = set_up_virtualization(machine, &mut frames);
    log!(
        "interrupts: {}, timer {}, {gsis} GSIs",
        if apic::is_x2apic() { "x2APIC" } else { "xAPIC" },
        if apic::has_deadline() { "TSC deadline" } else { "one-shot" },
    );
    let cpu = set_up_cpu(0);
    let mut started: Vec<u32, { sched::MAX_CPUS }> = Vec::new();
    if let Some(page) = machine.trampoline {
        let others = machine.cpus.get(1..).unwrap_or(&[]);
        // SAFETY: once; the trampoline is in place.
        started = unsafe { smp::start(others, page, boot.space.root, run_other) };
    }
    for id in 0..=started.len() {
        while !sched::is_online(low16(u64_of(id))) {
            instr::pause();
        }
    }
    log!("CPUs: {} running", started.len() + 1);
    root_task::create(cpu, boot, &started, gsis, virtualization, frames);
    finish(cpu)
}

/// A started CPU, on its own stack.
extern "sysv64" fn run_other(id: usize) -> ! {
    let cpu = set_up_cpu(id);
    finish(cpu)
}

/// Leaves the kernel for the first time.
fn finish(cpu: &PerCpu) -> ! {
    cpu.set_nobody();
    // SAFETY: GS base and RSP0 are set; `resume` asks the scheduler, as nobody is current.
    unsafe { entry::resume() }
}

/// What this CPU keeps for itself, and what user mode needs.
fn set_up_cpu(id: usize) -> &'static PerCpu {
    let window = CpuWindow::new(id);
    let number = low16(u64_of(id));
    // SAFETY: the page is mapped, this CPU's own and written once; then GS leads to it, and the
    // user's GS base, which SWAPGS brings in, is zero.
    unsafe {
        with_exposed_provenance_mut::<PerCpu>(usize_of(window.percpu()))
            .write(PerCpu::new(number, window));
        msr::write(msr::GS_BASE, window.percpu());
        msr::write(msr::KERNEL_GS_BASE, 0);
        cpu::set_syscall_entry(
            crate::num::u64_of(entry::syscall_entry as *const () as usize),
            SYSCALL_MASK,
        );
    }
    let cpu = percpu::this();
    // SAFETY: once on this CPU, interrupts off, after `fpu::detect`.
    unsafe { fpu::enable() };
    if let (Some(platform), Some(pages)) = (vcpu::platform(), VIRT_PAGES.take(id)) {
        // SAFETY: the pages are this CPU's; descriptor tables, GS and FPU are set up.
        match unsafe { virt::Cpu::enable(platform, pages) } {
            // SAFETY: nothing else uses the field yet.
            Ok(state) => unsafe { *cpu.sched.virt.get() = Some(state) },
            Err(why) => log!("CPU {id}: no guests: {why}"),
        }
    }
    sched::set_online(number, apic::id());
    cpu
}

type CpuPages = [virt::Page; virt::Cpu::PAGES];

/// Pages for the virtualization extension of each CPU.
struct VirtPages(UnsafeCell<[Option<CpuPages>; sched::MAX_CPUS]>);

// SAFETY: filled before other CPUs start, then each CPU takes its own entry.
unsafe impl Sync for VirtPages {}

static VIRT_PAGES: VirtPages = VirtPages(UnsafeCell::new([const { None }; sched::MAX_CPUS]));

impl VirtPages {
    fn take(&self, cpu: usize) -> Option<CpuPages> {
        // SAFETY: each CPU touches only its own element; see `Sync`.
        unsafe { (*self.0.get()).get_mut(cpu)?.take() }
    }

    fn put(&self, cpu: usize, pages: CpuPages) {
        // SAFETY: called before other CPUs start.
        if let Some(slot) = unsafe { (*self.0.get()).get_mut(cpu) } {
            *slot = Some(pages);
        }
    }
}

/// A zeroed run of pool pages that is never given back.
fn run_of(frames: &mut Frames, order: u8) -> Option<virt::Page> {
    let run = frames.alloc(order)?;
    // SAFETY: freshly allocated, given to the virtualization backend for good.
    Some(unsafe { virt::Page::new(run.cast(), pool::phys(run)) })
}

/// Finds out whether guests can run, and sets aside the memory for it.
fn set_up_virtualization(machine: &Machine, frames: &mut Frames) -> bool {
    let vendor = match virt::detect() {
        Ok(vendor) => vendor,
        Err(why) => {
            log!("virtualization: none: {why}");
            return false;
        }
    };
    let io = run_of(frames, Platform::IO_ORDER);
    let msr = run_of(frames, Platform::MSR_ORDER);
    let (Some(io), Some(msr)) = (io, msr) else { return false };
    for id in 0..machine.cpus.len() {
        let (Some(a), Some(b)) = (run_of(frames, 0), run_of(frames, 0)) else { return false };
        VIRT_PAGES.put(id, [a, b]);
    }
    log!("virtualization: {vendor:?}");
    // SAFETY: fresh zeroed runs, given away for good.
    vcpu::set_platform(unsafe { Platform::new(vendor, io, msr) });
    true
}
