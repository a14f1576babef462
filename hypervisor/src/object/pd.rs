//! Protection domains.

use core::cell::Cell;

use ipc::cap::Rights;
use ipc::status::Status;

use super::create::Creation;
use super::ec::Ec;
use super::sm::Sm;
use super::{List, Obj};
use crate::cap::{Object, ObjectHeader, PdSpaces};
use crate::mem::space::HostLayout;
use crate::num::low8;
use crate::syscall::{Caller, DONE, Handled, Outcome};
use spin::Once;

/// The unit of isolation: spaces, and an account of kernel memory.
#[repr(C)]
pub struct Pd {
    /// Common part; `uses` counts the objects that are charged to it. Its quota came from its payer.
    pub header: ObjectHeader,
    /// Object, memory and port space, and the account. Lookups need no lock, changes the kernel
    /// lock.
    pub spaces: PdSpaces,
    /// Execution contexts that run in it; kernel lock.
    pub ecs: List<Ec, Self>,
    /// Highest priority of a scheduling context that is charged to it; constant.
    pub ceiling: u8,
    /// Whom to tell, and with which badge, when an execution context of it is stopped; constant.
    /// Accounted for in the semaphore's `uses`.
    pub supervisor: Option<(Obj<Sm>, u64)>,
    /// It is being destroyed: nothing new is created in it. Kernel lock.
    pub dying: Cell<bool>,
}

/// What every address space shares with the kernel's.
struct Host {
    spaces: HostLayout,
    kernel_root: u64,
}

static HOST: Once<Host> = Once::new();

/// Tells what every address space shares with the kernel's, whose root is `kernel_root`; at boot.
pub fn set_host_layout(spaces: HostLayout, kernel_root: u64) {
    HOST.call_once(|| Host { spaces, kernel_root });
}

/// Root of the kernel's own page tables.
pub fn kernel_root() -> u64 {
    HOST.get().map_or(0, |host| host.kernel_root)
}

impl Pd {
    /// A protection domain around its spaces.
    pub fn new(spaces: PdSpaces, ceiling: u8, supervisor: Option<(Obj<Sm>, u64)>) -> Self {
        let (header, ecs) = (ObjectHeader::new(Self::TYPE), List::default());
        Self { header, spaces, ecs, ceiling, supervisor, dying: Cell::new(false) }
    }
}

/// System call `CreatePd`.
///
/// # Errors
/// As [`Creation::begin`]; `BadCap`, `BadRight`: the semaphore; `Quota`: the giver has fewer pages, or they do not hold the new
/// domain's own tables.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let layout = HOST.get().ok_or(Status::BadState)?;
    let parent = creation.pd;
    let supervisor = match c.args.r8 {
        0 => parent.supervisor,
        selector => {
            let objects = &c.ec.pd.spaces.objects;
            let (sm, badge) = objects.lookup_badged::<Sm>(selector, Rights::SM_UP)?;
            Some((Obj::of(sm), badge))
        }
    };
    let ceiling = parent.ceiling.min(low8(c.args.r10.min(u8::MAX.into())));
    let giver = &parent.spaces.account;
    let spaces = PdSpaces::new(&mut creation.kernel.frames, giver, c.args.rdx, &layout.spaces)?;
    if let Err((status, pd)) = creation.place(Pd::new(spaces, ceiling, supervisor)) {
        // SAFETY: nobody has seen the spaces.
        unsafe { pd.spaces.free_roots(&mut creation.kernel.frames) };
        pd.spaces.account.surrender(giver);
        return Err(status);
    }
    if let Some((sm, _)) = supervisor {
        sm.header.add_use();
    }
    DONE
}

/// System call `CtrlPd`.
///
/// # Errors
/// `BadCap`, `BadRight`: one of the PDs; `Quota`: the giver has fewer pages unused.
pub fn control(c: &Caller<'_>) -> Handled {
    let _kernel = c.lock()?;
    let pd = c.object::<Pd>(c.args.rdi, Rights::PD_CTRL)?;
    if c.args.rdx != 0 {
        let from = c.object::<Pd>(c.args.rdx, Rights::PD_CREATE)?;
        if pd.dying.get() || from.dying.get() {
            return Err(Status::BadState);
        }
        from.spaces.account.transfer(&pd.spaces.account, c.args.rsi)?;
    }
    let account = &pd.spaces.account;
    Ok(Outcome::Done(account.used(), account.limit()))
}
