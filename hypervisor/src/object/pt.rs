//! Portals.

use core::cell::Cell;

use ipc::cap::Rights;
use ipc::state::Mtd;
use ipc::status::Status;

use super::Obj;
use super::create::Creation;
use super::ec::Ec;
use crate::arch::layout;
use crate::cap::{Object, ObjectHeader};
use crate::syscall::{Caller, DONE, Handled};

/// An entry point into a protection domain, served by a local execution context.
///
/// `id` and `mtd` may be changed by a call on another CPU while an IPC reads them; each is one
/// word, so the IPC sees the old or the new value.
#[repr(C)]
pub struct Pt {
    /// Common part.
    pub header: ObjectHeader,
    /// The handler; the portal accounts for it in its `uses`.
    pub ec: Obj<Ec>,
    /// Address at which the handler starts.
    pub entry: u64,
    /// Passed to the handler in `rdi`.
    pub id: Cell<u64>,
    /// State that an event message carries.
    pub mtd: Cell<u64>,
}

/// System call `CreatePt`.
///
/// # Errors
/// As [`Creation::begin`]; `BadCap`, `BadRight`: the EC; `BadState`: it is global; `BadParam`: the
/// entry point; `Quota`.
pub fn create(c: &Caller<'_>) -> Handled {
    let mut creation = Creation::begin(c)?;
    let ec = c.object::<Ec>(c.args.rdx, Rights::EC_BIND_PT)?;
    if ec.global || ec.is_dead() {
        return Err(Status::BadState);
    }
    if !layout::is_user(c.args.r10) {
        return Err(Status::BadParam);
    }
    let pt = Pt {
        header: ObjectHeader::new(Pt::TYPE),
        ec: Obj::of(ec),
        entry: c.args.r10,
        id: Cell::new(c.args.r8),
        mtd: Cell::new(0),
    };
    creation.place_plain(pt)?;
    ec.header.add_use();
    DONE
}

/// System call `CtrlPt`.
///
/// # Errors
/// `BadCap`, `BadRight`: the portal; `BadParam`: the MTD has unknown bits.
pub fn control(c: &Caller<'_>) -> Handled {
    let pt = c.object::<Pt>(c.args.rdi, Rights::PT_CTRL)?;
    let mtd = Mtd::from_bits(c.args.rdx).ok_or(Status::BadParam)?;
    pt.id.set(c.args.rsi);
    pt.mtd.set(mtd.bits());
    DONE
}
