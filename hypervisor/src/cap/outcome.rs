//! What a revocation leaves for its caller to do.

use core::ptr::NonNull;

use super::header::ObjectHeader;
use super::node::Handle;
use crate::mem::frames::{Frames, PageList};

/// How far a restartable operation got.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// It is complete.
    #[default]
    Done,
    /// Its budget ran out; call it again with the same arguments.
    More,
}

/// Consequences of taking capabilities away. The order is fixed:
///
/// 1. unless [`Self::is_empty`], rendezvous: every CPU leaves the kernel or waits for the kernel
///    lock, and flushes where [`Self::flush`] says so and its bit in the space's
///    [`crate::mem::space::Stale`] is set;
/// 2. [`Self::free_pages`];
/// 3. [`Self::next_dead`] until there is none, destroying what has no uses.
#[derive(Default)]
#[must_use]
pub struct Outcome {
    /// How far it got. The consequences are to be drawn in any case.
    pub progress: Progress,
    /// Translations were removed or lost rights.
    pub flush: bool,
    /// Something was taken away.
    pub(super) taken: bool,
    pub(super) pages: PageList,
    dead: Option<NonNull<ObjectHeader>>,
}

impl Outcome {
    /// Whether nothing was taken away, so that no rendezvous is needed.
    pub fn is_empty(&self) -> bool {
        !self.taken
    }

    /// Frees the pages that fell out of use: page tables, leaves of object spaces.
    ///
    /// # Safety
    /// The rendezvous is over and the TLBs are flushed.
    pub unsafe fn free_pages(&mut self, frames: &mut Frames) {
        // SAFETY: promised.
        unsafe { self.pages.free(frames) };
    }

    /// Takes the next object that has no capability any more. It may still have uses.
    pub fn next_dead(&mut self) -> Option<NonNull<ObjectHeader>> {
        let object = self.dead?;
        // SAFETY: objects in the list are allocated: only the taker of the list frees them.
        self.dead = unsafe { object.as_ref() }.next.take();
        Some(object)
    }

    /// Counts off a capability of an object that is about to go.
    pub(super) fn drop_capability(&mut self, node: Handle) {
        let header = node.header();
        header.caps.set(header.caps.get() - 1);
        if header.caps.get() == 0 {
            header.next.set(self.dead.replace(node.object()));
        }
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        #[cfg(test)]
        if std::thread::panicking() {
            return;
        }
        debug_assert!(self.pages.is_empty() && self.dead.is_none(), "consequences not drawn");
    }
}
