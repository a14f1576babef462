//! Protection domains.

use core::cell::Cell;

use ipc::cap::Rights;
use ipc::status::Status;

use super::List;
use super::create::Creation;
use super::ec::Ec;
use crate::cap::{Object, ObjectHeader, PdSpaces};
use crate::mem::space::HostLayout;
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
    pub fn new(spaces: PdSpaces) -> Self {
        let header = ObjectHeader::new(Self::TYPE);
        Self { header, spaces, ecs: List::default(), dying: Cell::new(false) }
    }
}

/// System call `CreatePd`.
///
/// # Errors
/// As [`Creation::begin`]; `Quota`: the giver has fewer pages, or they do not hold the new
/// domain's own tables.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let layout = HOST.get().ok_or(Status::BadState)?;
    let parent = creation.pd;
    let giver = &parent.spaces.account;
    let spaces = PdSpaces::new(&mut creation.kernel.frames, giver, c.args.rdx, &layout.spaces)?;
    if let Err((status, pd)) = creation.place(Pd::new(spaces)) {
        // SAFETY: nobody has seen the spaces.
        unsafe { pd.spaces.free_roots(&mut creation.kernel.frames) };
        pd.spaces.account.surrender(giver);
        return Err(status);
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
