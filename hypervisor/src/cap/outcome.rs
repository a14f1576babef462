//! What a revocation leaves for its caller to do.

use ipc::cap::ObjectType;

use super::header::ObjectList;
use super::node::Handle;
use crate::mem::frames::PageList;

/// Consequences of taking capabilities away. The order is fixed:
///
/// 1. where something was [`Self::taken`], rendezvous: every CPU leaves the kernel or waits for the kernel
///    lock, and flushes where [`Self::flush`] says so and the space's
///    [`crate::mem::space::Epoch`] is another one;
/// 2. free [`Self::pages`];
/// 3. take the objects out of [`Self::dead`] and destroy those without uses.
#[derive(Default)]
#[must_use]
pub struct Outcome {
    /// The budget ran out: the operation is to be called again with the same arguments. The
    /// consequences are to be drawn in any case.
    pub more: bool,
    /// Translations were removed or lost rights.
    pub flush: bool,
    /// Something was taken away.
    pub taken: bool,
    /// Pages that fell out of use: page tables, leaves of object spaces.
    pub pages: PageList,
    /// Objects that have no capability any more, which may still have uses; and interrupts whose
    /// [`super::watch`]ed capability is gone.
    pub dead: ObjectList,
}

impl Outcome {
    /// Counts off a capability of an object that is about to go.
    pub(super) fn drop_capability(&mut self, node: Handle) {
        let object = node.object();
        object.caps.set(object.caps.get() - 1);
        // Interrupts never die, and their list is free for the end of a binding.
        if object.ty == ObjectType::Interrupt {
            if object.watched.get() == Some(node) {
                object.watched.set(None);
                self.dead.push(object);
            }
        } else if object.caps.get() == 0 {
            self.dead.push(object);
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        #[cfg(test)]
        if std::thread::panicking() {
            return;
        }
        debug_assert!(self.pages.is_empty() && self.dead.is_empty(), "consequences not drawn");
    }
}
