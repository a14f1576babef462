//! What all kernel objects have in common.

use core::cell::Cell;

use ipc::cap::ObjectType;

use super::node::Handle;
use crate::shared::Obj;

/// First field of every kernel object. Changed under the kernel lock only.
#[repr(C)]
pub struct ObjectHeader {
    /// Next in a list of objects without capabilities; free for the kernel's use before that.
    pub next: Cell<Option<Obj<ObjectHeader>>>,
    /// Number of capabilities for the object. Kept by [`crate::cap`].
    pub caps: Cell<u32>,
    /// Number of other uses: objects that refer to it. Kept by the objects.
    pub uses: Cell<u32>,
    /// The protection domain that pays for it, one of whose uses it is.
    pub payer: Cell<Option<Obj<ObjectHeader>>>,
    /// The capability with which an interrupt was bound. Kept by [`crate::cap`].
    pub(super) watched: Cell<Option<Handle>>,
    /// Type of the object.
    pub ty: ObjectType,
}

impl ObjectHeader {
    /// Header of a new object of type `ty`, without capabilities and uses.
    pub const fn new(ty: ObjectType) -> Self {
        Self {
            next: Cell::new(None),
            caps: Cell::new(0),
            uses: Cell::new(0),
            payer: Cell::new(None),
            watched: Cell::new(None),
            ty,
        }
    }

    /// Counts another use. Kernel lock.
    pub fn add_use(&self) {
        self.uses.set(self.uses.get() + 1);
    }

    /// Counts off a use; whether the object is dead now. Kernel lock.
    #[must_use]
    pub fn drop_use(&self) -> bool {
        self.uses.set(self.uses.get() - 1);
        self.uses.get() == 0 && self.caps.get() == 0
    }
}

/// Objects linked through their headers.
#[derive(Default)]
pub struct ObjectList(pub Cell<Option<Obj<ObjectHeader>>>);

impl ObjectList {
    /// Nothing.
    pub const fn new() -> Self {
        Self(Cell::new(None))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.get().is_none()
    }

    /// Takes one out.
    pub fn pop(&self) -> Option<Obj<ObjectHeader>> {
        let first = self.0.get()?;
        self.0.set(first.next.take());
        Some(first)
    }

    /// Adds an object.
    pub fn push(&self, object: Obj<ObjectHeader>) {
        object.next.set(self.0.replace(Some(object)));
    }
}

/// A kernel object that capabilities can name.
///
/// # Safety
/// The type is `repr(C)`, its first field is an [`ObjectHeader`] with `ty` equal to [`Self::TYPE`],
/// and no other Rust type has the same `TYPE`. Objects may be reached from several CPUs at once:
/// what is not under the kernel lock is atomic or under a lock of its own. An object stays
/// allocated while capabilities for it exist and until the rendezvous after that.
pub unsafe trait Object {
    /// Its type; not `Null`.
    const TYPE: ObjectType;
}
