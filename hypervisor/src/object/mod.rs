//! Kernel objects, one file each.
//!
//! Objects live in slab memory charged to a protection domain and are shared through [`Obj`].
//! Who may touch which field is stated at the field: most belong to the CPU that the object is
//! bound to, some to the holder of the kernel lock or of the object's own lock.

pub mod create;
pub mod ec;
pub mod interrupt;
pub mod pd;
pub mod pt;
pub mod sc;
pub mod sm;
pub mod vcpu;

use core::mem::offset_of;

use ipc::cap::ObjectType;

use crate::cap::{Object, ObjectHeader};
pub use crate::shared::{Link, List, Obj};

/// Says which Rust type stands for an object type, and where it has its header.
macro_rules! objects {
    ($($module:ident::$object:ident, $ty:ident, $($header:ident).+;)+) => {$(
        // SAFETY: the structure is `repr(C)`, its header comes first, and each type is named once.
        unsafe impl Object for $module::$object {
            const TYPE: ObjectType = ObjectType::$ty;
        }
        const _: () = assert!(offset_of!($module::$object, $($header).+) == 0);
    )+};
}

objects! {
    pd::Pd, Pd, header;
    ec::Ec, Ec, header;
    vcpu::Vcpu, Vcpu, ec.header;
    sc::Sc, Sc, header;
    pt::Pt, Pt, header;
    sm::Sm, Sm, header;
    vcpu::GuestSpace, Guest, header;
    interrupt::Interrupt, Interrupt, header;
}

/// Charges an object to a protection domain, which it uses from then on. Kernel lock.
pub fn charge(object: &ObjectHeader, pd: Obj<pd::Pd>) {
    pd.header.add_use();
    object.payer.set(Some(Obj::of(&pd.header)));
}
