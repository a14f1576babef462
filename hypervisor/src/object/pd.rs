//! Protection domains.

use core::cell::Cell;

use ipc::cap::{ObjectType, Rights};
use ipc::status::Status;

use super::Obj;
use super::create::Creation;
use super::ec::Ec;
use crate::cap::{Object, ObjectHeader, PdSpaces};
use crate::mem::space::HostLayout;
use crate::sync;
use crate::syscall::{Caller, Handled, Outcome};
use spin::Once;

/// The unit of isolation: spaces, and an account of kernel memory.
#[repr(C)]
pub struct Pd {
    /// Common part; `uses` counts the objects that are charged to it.
    pub header: ObjectHeader,
    /// Object, memory and port space, and the account. Lookups need no lock, changes the kernel
    /// lock.
    pub spaces: PdSpaces,
    /// The PD that its quota came from; kernel lock.
    pub parent: Cell<Option<Obj<Pd>>>,
    /// Execution contexts that run in it; kernel lock.
    pub ecs: Cell<Option<Obj<Ec>>>,
    /// It is being destroyed: nothing new is created in it. Kernel lock.
    pub dying: Cell<bool>,
}

// SAFETY: the header is the first field and the structure is `repr(C)`.
unsafe impl Object for Pd {
    const TYPE: ObjectType = ObjectType::Pd;
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
    pub const fn new(header: ObjectHeader, spaces: PdSpaces, parent: Option<Obj<Self>>) -> Self {
        Self {
            header,
            spaces,
            parent: Cell::new(parent),
            ecs: Cell::new(None),
            dying: Cell::new(false),
        }
    }

    /// Adds an execution context to the list. Kernel lock.
    pub fn link(&self, ec: Obj<Ec>) {
        let first = self.ecs.replace(Some(ec));
        ec.siblings.set((None, first));
        if let Some(first) = first {
            first.siblings.set((Some(ec), first.siblings.get().1));
        }
    }

    /// Takes one out. Kernel lock.
    pub fn unlink(&self, ec: Obj<Ec>) {
        let (prev, next) = ec.siblings.take();
        match prev {
            Some(p) => p.siblings.set((p.siblings.get().0, next)),
            None => self.ecs.set(next),
        }
        if let Some(n) = next {
            n.siblings.set((prev, n.siblings.get().1));
        }
    }
}

/// System call `CreatePd`.
///
/// # Errors
/// As [`Creation::begin`]; `Quota`: the giver has fewer pages, or they do not hold the new
/// domain's own tables.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let parent = creation.pd;
    let layout = HOST.get().ok_or(Status::BadState)?;
    let giver = &parent.spaces.account;
    let spaces = PdSpaces::new(creation.frames(), giver, c.args.rdx, &layout.spaces)?;
    let pd = Pd::new(creation.header::<Pd>(), spaces, Some(parent));
    if let Err((status, pd)) = creation.place(pd) {
        // SAFETY: nobody has seen the spaces.
        unsafe { pd.spaces.free_roots(creation.frames()) };
        pd.spaces.account.surrender(&parent.spaces.account);
        return Err(status);
    }
    creation.done()
}

/// System call `CtrlPd`.
///
/// # Errors
/// `BadCap`, `BadRight`: one of the PDs; `Quota`: the giver has fewer pages unused.
pub fn control(c: &Caller<'_>) -> Handled {
    let _kernel = sync::lock(c.cpu);
    if c.ec.is_dead() {
        return Err(Status::Aborted);
    }
    let objects = &c.ec.pd.spaces.objects;
    let pd = objects.lookup::<Pd>(c.args.rdi, Rights::PD_CTRL)?;
    if c.args.rdx != 0 {
        let from = objects.lookup::<Pd>(c.args.rdx, Rights::PD_CREATE)?;
        if pd.dying.get() || from.dying.get() {
            return Err(Status::BadState);
        }
        from.spaces.account.transfer(&pd.spaces.account, c.args.rsi)?;
    }
    let account = &pd.spaces.account;
    Ok(Outcome::Done(account.used(), account.limit()))
}
