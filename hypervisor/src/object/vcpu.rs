//! vCPUs: execution contexts that run a guest.

use core::cell::UnsafeCell;
use core::sync::atomic::AtomicU64;

use ipc::cap::Rights;
use ipc::status::Status;

use super::Obj;
use super::create::Creation;
use super::ec::{self, Ec};
use crate::arch::regs::flag;
use crate::arch::virt::{Guest, Platform};
use crate::cap::{self, Object, ObjectHeader};
use crate::syscall::{Caller, DONE, Handled};
use spin::Once;

static PLATFORM: Once<Platform> = Once::new();

/// What all CPUs and guests share; at boot.
pub fn set_platform(platform: Platform) {
    PLATFORM.call_once(|| platform);
}

/// What all CPUs and guests share; `None` where the machine runs no guests.
pub fn platform() -> Option<&'static Platform> {
    PLATFORM.get()
}

/// The nested page table of a VM, as an object.
#[repr(C)]
pub struct GuestSpace {
    /// Common part.
    pub header: ObjectHeader,
    /// Tables and what is mapped; kernel lock.
    pub space: cap::GuestSpace,
}

/// Exits that are counted: all that there are.
const EXITS: usize = ipc::event::Exit::ALL.len();

/// An execution context that runs a guest.
#[repr(C)]
pub struct Vcpu {
    /// The execution context; its flags have VCPU set.
    pub ec: Ec,
    /// The guest's memory; the vCPU accounts for it in its `uses`.
    pub space: Obj<GuestSpace>,
    /// How often it exited, by number of the exit; written by its own CPU.
    pub exits: [AtomicU64; EXITS],
    /// The backend; only the vCPU's own CPU touches it.
    guest: UnsafeCell<Guest>,
}

impl Vcpu {
    /// A new vCPU.
    pub const fn new(ec: Ec, space: Obj<GuestSpace>, guest: Guest) -> Self {
        Self {
            ec,
            space,
            exits: [const { AtomicU64::new(0) }; EXITS],
            guest: UnsafeCell::new(guest),
        }
    }

    /// The vCPU that an execution context is part of.
    pub fn of(ec: Obj<Ec>) -> Option<Obj<Self>> {
        // SAFETY: only vCPUs have the flag, and their `ec` is at offset 0.
        ec.is_vcpu().then(|| unsafe { Obj::new(ec.pointer().cast()) })
    }

    /// The backend.
    ///
    /// # Safety
    /// Called on the vCPU's own CPU, and no other reference from here is alive.
    #[expect(clippy::mut_from_ref, reason = "the CPU owns the backend, see Safety")]
    pub unsafe fn guest(&self) -> &mut Guest {
        // SAFETY: the caller keeps the contract.
        unsafe { &mut *self.guest.get() }
    }
}

/// System call `CreateGuest`.
///
/// # Errors
/// As [`Creation::begin`]; `NotSupported`: the machine runs no guests; `Quota`.
pub fn create_space(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let platform = platform().ok_or(Status::NotSupported)?;
    let (format, leaf) = platform.nested();
    let (frames, account) = (&mut creation.kernel.frames, &creation.pd.spaces.account);
    // SAFETY: the account lives in the PD, which the object's use keeps.
    let space = unsafe { cap::GuestSpace::new(frames, account, format, leaf) }?;
    let header = ObjectHeader::new(GuestSpace::TYPE);
    let object = GuestSpace { header, space };
    creation.place(object).map_err(|(status, object)| {
        // SAFETY: nobody has seen the space.
        unsafe { object.space.free_roots(&mut creation.kernel.frames) };
        status
    })?;
    DONE
}

/// System call `CreateVcpu`.
///
/// # Errors
/// As [`Creation::begin`]; `NotSupported`; `BadCpu`; `BadCap`, `BadRight`: the guest space;
/// `BadParam`: the event base; `Quota`.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let platform = platform().ok_or(Status::NotSupported)?;
    let cpu = ec::online_cpu(c)?;
    let events = ec::event_base(c, ipc::event::VCPU_EVENTS)?;
    let space = c.object::<GuestSpace>(c.args.rdx, Rights::GUEST_BIND)?;
    let pages = [creation.page()?, creation.page()?];
    let ec = Ec::new(Vcpu::TYPE, creation.pd, cpu, events, true);
    ec.regs.set(flag::VCPU | flag::PENDING);
    ec.pending_event.set(Some(ipc::event::Exit::Startup.number()));
    // SAFETY: the pages are fresh and the guest's from now on, and the space outlives it.
    let guest = unsafe { Guest::new(platform, pages, space.space.memory.space.root) };
    let vcpu = creation.place_plain(Vcpu::new(ec, Obj::of(space), guest))?;
    space.header.add_use();
    creation.pd.ecs.push_front(Obj::of(&vcpu.ec));
    DONE
}
