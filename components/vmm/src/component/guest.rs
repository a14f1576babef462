//! Guest space and vCPUs in the kernel, and the handlers behind their exit portals.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;

use ipc::PAGE_SIZE;
use ipc::cap::{MemRights, Range};
use ipc::event::Exit;
use ipc::proto::start::Vm as Description;
use ipc::state::{Mtd, State};
use ipc::status::{Result, Status};
use sysroot::cap::{Cap, Guest, Vcpu as VcpuObject};
use sysroot::portal::{Config, EventHandler, Handler};
use sysroot::sync::Mutex;
use sysroot::{log, process, selector, syscall, thread, time};

use super::{Context, SetupError, end};
use crate::boot::layout;
use crate::devices::virtio::page::Page;
use crate::exits;
use crate::host::Host;
use crate::memory::Region;
use crate::num::u64_of;
use crate::vcpu::{Action, Vcpu};
use crate::vm::Vm;

/// log2 of the selectors of a vCPU's exit portals.
const EVENTS_ORDER: u8 = 5;
const _: () = assert!(1 << EVENTS_ORDER == ipc::event::VCPU_EVENTS);

/// The system as the handlers see it.
pub(super) struct Kernel {
    vcpus: Vec<Cap<VcpuObject>>,
}

impl Kernel {
    fn vcpu(&self, index: u32) -> Option<Cap<VcpuObject>> {
        self.vcpus.get(index as usize).copied()
    }
}

impl Host for Kernel {
    fn tsc(&self) -> u64 {
        time::now()
    }

    fn recall(&self, vcpu: u32) {
        if let Some(vcpu) = self.vcpu(vcpu) {
            // One that is gone needs no recall.
            let _ = syscall::recall(vcpu);
        }
    }

    fn fetch(&self, vcpu: u32, groups: Mtd, state: &mut State) -> Result {
        let vcpu = self.vcpu(vcpu).ok_or(Status::BadParam)?;
        // The kernel writes through this pointer, not behind the reference's back.
        let place = core::ptr::from_mut(state).expose_provenance();
        let area = sysroot::utcb::current().addr() + core::mem::offset_of!(ipc::utcb::Utcb, state);
        if place != area {
            return Err(Status::BadState);
        }
        // SAFETY: the state area is written through the pointer that was just exposed; `state` is
        // not used meanwhile.
        unsafe { syscall::get_state(vcpu, groups) }
    }

    fn log(&self, line: fmt::Arguments<'_>) {
        log::print(line);
    }
}

/// What is behind the exit portals of a vCPU.
struct Exits {
    vm: &'static Vm<'static>,
    kernel: &'static Kernel,
    /// Only this handler takes it: never contended.
    vcpu: Mutex<Vcpu>,
}

impl EventHandler for Exits {
    fn event(&self, id: u64, _: Mtd, state: &mut State) -> Mtd {
        let exit = u8::try_from(id).ok().and_then(Exit::from_number).unwrap_or(Exit::Unknown);
        let action = self.vcpu.lock().handle(self.vm, self.kernel, exit, state);
        match action {
            Action::Reply(groups) => groups,
            Action::Stop(stop) => end(&stop),
        }
    }
}

/// Maps the guest's RAM, and starts its vCPUs.
pub(super) fn start(
    vm: &'static Vm<'static>,
    description: &Description<'_>,
) -> core::result::Result<&'static Kernel, SetupError> {
    let pd = process::pd();
    let at = selector::alloc().context("selector")?;
    let space = syscall::create_guest(at, pd).context("guest space")?;
    for region in vm.ram().regions() {
        map(space, description.ram.base, region).context("guest memory")?;
    }
    for (slot, gpa) in vm.virtio().iter().zip((layout::VIRTIO..).step_by(PAGE_SIZE)) {
        show(space, slot.page(), gpa).context("device registers")?;
    }
    let selectors = description.vcpus.iter().map(|_| selector::alloc().map(Cap::new));
    let vcpus = selectors.collect::<Result<Vec<_>>>().context("selectors")?;
    let kernel: &'static Kernel = Box::leak(Box::new(Kernel { vcpus }));
    for (index, (cpu, cap)) in (0..).zip(description.vcpus.iter().zip(&kernel.vcpus)) {
        let vcpu = Mutex::new(Vcpu::new(vm, index));
        let exits: &'static Exits = Box::leak(Box::new(Exits { vm, kernel, vcpu }));
        let handler = Handler::new(Config::on(*cpu), exits).context("exit handler")?;
        let events = selector::alloc_range(EVENTS_ORDER).context("selectors")?;
        for (exit, ..) in Exit::ALL {
            let number = u64::from(exit.number());
            handler
                .event_portal(events.offset(number), number, exits::portal(*exit))
                .context("exit portal")?;
        }
        let base = u32::try_from(events.0).unwrap_or(0);
        syscall::create_vcpu(cap.selector(), pd, space, *cpu, base).context("vCPU")?;
    }
    // The main thread, which brings news from outside, comes before the guest.
    let priority = process::start().priority.saturating_sub(1);
    for vcpu in &kernel.vcpus {
        let at = selector::alloc().context("selector")?;
        let sc = syscall::create_sc(at, pd, *vcpu, priority, thread::default_budget())
            .context("scheduling context")?;
        // Without it operators see less.
        let _ = process::account(sc);
    }
    Ok(kernel)
}

/// Lets the guest read a device's registers without an exit; writes come here.
fn show(space: Cap<Guest>, page: &Page, gpa: u64) -> Result {
    const BITS: u32 = ipc::PAGE_BITS;
    let from = u64_of(core::ptr::from_ref(page).expose_provenance()) >> BITS;
    // SAFETY: a page is atomic throughout, and the guest does not write it.
    unsafe { syscall::delegate_memory(space, Range::memory(0, MemRights::READ), from, gpa >> BITS) }
}

/// Delegates a region of RAM to the guest, in the largest ranges that the VMM holds it in.
fn map(space: Cap<Guest>, base: u64, region: Region) -> Result {
    const PAGE: u32 = ipc::PAGE_BITS;
    let mut from = (base + region.offset) >> PAGE;
    let mut to = region.gpa >> PAGE;
    let end = from + (region.size >> PAGE);
    while from < end {
        let (held, first) = syscall::query(Range::memory(0, MemRights::empty()), from)?;
        let held_end = first.saturating_add(1 << held.order()).min(end);
        let left = held_end.checked_sub(from).filter(|n| *n > 0).ok_or(Status::BadCap)?;
        let order = largest_order(from, to, left);
        // SAFETY: RAM of the guest holds no objects of ours.
        unsafe {
            syscall::delegate_memory(space, Range::memory(order, MemRights::all()), from, to)?;
        }
        from += 1 << order;
        to += 1 << order;
    }
    Ok(())
}

/// Order of the largest range of at most `left` pages that is naturally aligned in both spaces.
fn largest_order(from: u64, to: u64, left: u64) -> u8 {
    let aligned = (from | to).trailing_zeros();
    let fits = left.checked_ilog2().unwrap_or(0);
    crate::num::low8(u64::from(aligned.min(fits).min(62)))
}

#[cfg(test)]
mod tests;
