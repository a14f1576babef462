//! The root task: its image, its protection domain, and everything that it starts with.

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use ipc::cap::{MemRights, Rights};
use ipc::info::{Features, Info, Memory, MemoryKind, root};
use ipc::status::Status;
use ipc::trace::{ADDRESS, PAGES};

use super::Boot;
use crate::arch::layout::PAGE;
use crate::arch::percpu::PerCpu;
use crate::arch::{self, tsc};
use crate::boot::identity::Identity;
use crate::boot::machine::Machine;
use crate::boot::root::{self as image, Image};
use crate::boot::{self, Physical, memory::Range};
use crate::cap::{self, Object, PdSpaces};
use crate::mem::account::Account;
use crate::mem::frames::Frames;
use crate::mem::paging::{LeafSize, MemoryType};
use crate::mem::pool;
use crate::mem::space::HostLayout;
use crate::num::u64_of;
use crate::object::ec::Ec;
use crate::object::interrupt::Interrupt;
use crate::object::pd::{self, Pd};
use crate::object::sc::Sc;
use crate::object::vcpu;
use crate::object::{Obj, charge};
use crate::sync::lock;
use crate::{log, sched};

/// Where the information page and the UTCB of the root task are mapped.
const INFO_ADDRESS: u64 = 0x7fff_ffff_c000;
const UTCB_ADDRESS: u64 = 0x7fff_ffff_d000;
/// Priority of the root task.
const PRIORITY: u8 = 64;
/// Its budget in milliseconds.
const BUDGET_MS: u64 = 10;
/// Interrupts for message-signalled sources.
const MESSAGE_INTERRUPTS: u32 = 64;

/// Checks the image; the boot page tables are still in use.
pub(super) fn prepare(identity: &Identity, machine: &Machine) -> boot::Result<Image> {
    let range = machine.root_image();
    let file = identity.bytes(range.start, range.size());
    image::parse(file.ok_or("root task: module above 4 GiB")?)
}

/// Creates the root task and makes it ready on this CPU.
///
/// # Errors
/// The kernel's memory is too small.
pub(super) fn create(
    cpu: &PerCpu,
    boot: &Boot,
    cpus: u16,
    gsis: u32,
    virtualization: bool,
    mut owned: Frames,
) -> Result<(), Status> {
    let machine = &boot.machine;
    let frames = &mut owned;
    // The protection domain pays for all others, so nobody can pay for it: it has its own frame.
    let place = frames.alloc().ok_or(Status::Quota)?.cast::<Pd>();
    let account = Account::new(frames.free_pages());
    let max_leaf = if arch::cpu::features().huge_pages { LeafSize::Huge } else { LeafSize::Large };
    let layout = HostLayout { kernel: boot.space.entries, max_leaf };
    pd::set_host_layout(layout, boot.space.root);
    let spaces = PdSpaces::new(frames, &account, account.limit(), &layout)?;
    // SAFETY: the frame is large enough (asserted below) and nobody else's; it is never freed.
    let pd = unsafe {
        place.write(Pd::new(spaces, u8::MAX, None));
        Obj::new(place)
    };
    let account = &pd.spaces.account;
    give(frames, pd, root::PD.0, pd.pointer())?;

    let utcb = account.alloc_page(frames)?;
    pd.spaces.map_kernel_frame(frames, UTCB_ADDRESS, pool::phys(utcb), MemRights::RW)?;
    let mut ec = Ec::new(Ec::TYPE, pd, cpu.sched.id, root::EVENTS.0, true);
    ec.set_up(utcb.cast(), UTCB_ADDRESS, boot.image.entry, 0);
    ec.regs.rdi.set(INFO_ADDRESS);
    ec.regs.rsi.set(UTCB_ADDRESS);
    // SAFETY: just allocated; destroyed by `destroy` only.
    let ec = unsafe { Obj::new(account.alloc(frames, ec)?) };
    give(frames, pd, root::EC.0, ec.pointer())?;
    pd.ecs.push_front(ec);
    charge(&ec.header, pd);

    let sc = Sc::new(ec, PRIORITY, BUDGET_MS * tsc::khz());
    // SAFETY: as above.
    let sc = unsafe { Obj::new(account.alloc(frames, sc)?) };
    give(frames, pd, root::SC.0, sc.pointer())?;
    ec.sc.set(Some(sc));
    ec.header.add_use();
    charge(&sc.header, pd);

    let interrupts = gsis + MESSAGE_INTERRUPTS;
    for n in 0..interrupts {
        let interrupt = account.alloc(frames, Interrupt::new((n < gsis).then_some(n)))?;
        give(frames, pd, root::INTERRUPTS.offset(n.into()).0, interrupt)?;
    }
    map_image(frames, pd, boot)?;
    give_memory(frames, pd, machine)?;
    // The control page can be written, the rings behind it only be read.
    let trace = Range::new(boot.space.trace, PAGE * (1 + PAGES * u64_of(machine.cpus.len())));
    let control = Range::new(trace.start, PAGE);
    let rings = Range { start: control.end, ..trace };
    install(frames, pd, ADDRESS, control, MemRights::RW, MemoryType::WriteBack)?;
    install(frames, pd, ADDRESS + PAGE, rings, MemRights::READ, MemoryType::WriteBack)?;
    cap::install_ports(frames, &pd.spaces, 0, 16)?;

    let page = account.alloc_page(frames)?;
    pd.spaces.map_kernel_frame(frames, INFO_ADDRESS, pool::phys(page), MemRights::READ)?;
    // SAFETY: a fresh zeroed page that only the kernel can write; every field of `Info` is a
    // number, for which zero is a value.
    let info = unsafe { page.cast::<Info>().as_mut() };
    machine.describe(info);
    if let Some(slot) = info.memory.get_mut(machine.memory.regions.len()) {
        let (base, size, kind) = (ADDRESS, trace.size(), MemoryKind::Trace.number().into());
        *slot = Memory { base, size, kind };
        info.memory_count += 1;
    }
    info.cpu_count = cpus.into();
    for (id, slot) in (0..cpus).zip(&mut info.cpus) {
        slot.apic_id = sched::remote(id).map_or(0, |r| r.apic_id.load(Ordering::Relaxed));
    }
    info.magic = ipc::info::MAGIC;
    info.abi_version = ipc::ABI_VERSION;
    info.tsc_khz = tsc::khz();
    info.boot_tsc = tsc::boot();
    info.gsi_count = gsis;
    info.interrupt_count = interrupts;
    info.quota = account.limit() - account.used();
    let mut features = Features::empty();
    features.set(Features::VIRTUALIZATION, virtualization);
    features.set(Features::X2APIC, arch::cpu::features().x2apic);
    features.set(Features::TSC_DEADLINE, arch::cpu::features().tsc_deadline);
    features
        .set(Features::NESTED_1G, vcpu::platform().is_some_and(|p| p.nested().1 == LeafSize::Huge));
    features.set(Features::TAGGED_TLB, arch::tlb::has_pcids());
    info.features = features.bits();
    log!("kernel memory: {} KiB free", frames.free_pages() * PAGE / 1024);
    lock::initialise(owned);
    sched::enqueue(cpu, sc);
    Ok(())
}

const _: () = assert!(size_of::<Pd>() <= 4096 && align_of::<Pd>() <= 4096);

/// Gives the root task the first capability of an object, with all rights.
fn give<T: Object>(
    frames: &mut Frames,
    pd: Obj<Pd>,
    selector: u64,
    object: NonNull<T>,
) -> Result<(), Status> {
    // SAFETY: objects are freed by `destroy` only.
    unsafe { cap::install_object(frames, &pd.spaces, selector, object, Rights::FULL) }
}

/// Maps the image where it is linked.
fn map_image(frames: &mut Frames, pd: Obj<Pd>, boot: &Boot) -> Result<(), Status> {
    let module = boot.machine.root_image().start;
    for segment in &boot.image.segments {
        let range = Range::new(module + segment.offset, segment.bytes).outward();
        install(frames, pd, segment.address, range, segment.rights, MemoryType::WriteBack)?;
    }
    Ok(())
}

/// Gives the root task all memory that is not the kernel's, at its physical address.
fn give_memory(frames: &mut Frames, pd: Obj<Pd>, machine: &Machine) -> Result<(), Status> {
    for region in &machine.memory.regions {
        let (rights, memory) = match region.kind {
            MemoryKind::Kernel | MemoryKind::Trace => continue,
            MemoryKind::Free | MemoryKind::Module => (MemRights::all(), MemoryType::WriteBack),
            MemoryKind::Firmware => (MemRights::READ, MemoryType::WriteBack),
            MemoryKind::Device => (MemRights::RW, MemoryType::Uncached),
        };
        let range = region.range;
        install(frames, pd, range.start, range, rights, memory)?;
    }
    Ok(())
}

/// Installs a range of memory in naturally aligned pieces.
fn install(
    frames: &mut Frames,
    pd: Obj<Pd>,
    address: u64,
    range: Range,
    rights: MemRights,
    memory: MemoryType,
) -> Result<(), Status> {
    let (mut page, mut frame) = (address / PAGE, range.start / PAGE);
    let mut left = range.size() / PAGE;
    while left > 0 {
        let aligned = (page | frame).trailing_zeros().min(left.ilog2()).min(18);
        let order = u8::try_from(aligned).unwrap_or(0);
        cap::install_memory(frames, &pd.spaces, page, frame, order, memory, rights)?;
        page += 1 << order;
        frame += 1 << order;
        left -= 1 << order;
    }
    Ok(())
}
