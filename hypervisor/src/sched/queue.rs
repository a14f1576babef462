//! The run queue of a CPU: a list per priority and a bitmap of those that hold something.

use core::array;
use core::cell::Cell;

use crate::object::sc::{Place, Sc};
use crate::object::{List, Obj};

/// Number of priorities.
pub const PRIORITIES: usize = 128;

/// Ready scheduling contexts by priority.
pub struct RunQueue {
    lists: [List<Sc, ()>; PRIORITIES],
    occupied: Cell<u128>,
}

impl Default for RunQueue {
    fn default() -> Self {
        Self { lists: array::from_fn(|_| List::default()), occupied: Cell::new(0) }
    }
}

impl RunQueue {
    /// Whether nothing is ready.
    pub fn is_empty(&self) -> bool {
        self.occupied.get() == 0
    }

    /// Makes one ready, before or behind its equals.
    pub fn push(&self, sc: Obj<Sc>, front: bool) {
        let Some(list) = self.lists.get(usize::from(sc.priority)) else { return };
        self.occupied.set(self.occupied.get() | 1 << sc.priority);
        sc.place.set(Place::Ready);
        list.insert(sc, list.first().filter(|_| front));
    }

    /// The first of the highest priority.
    pub fn pop(&self) -> Option<Obj<Sc>> {
        let priority = self.occupied.get().checked_ilog2()?;
        let sc = self.lists.get(crate::num::usize_of(u64::from(priority)))?.first()?;
        self.remove(sc);
        Some(sc)
    }

    /// Takes out one that is ready.
    pub fn remove(&self, sc: Obj<Sc>) {
        let Some(list) = self.lists.get(usize::from(sc.priority)) else { return };
        list.remove(sc);
        if list.is_empty() {
            self.occupied.set(self.occupied.get() & !(1 << sc.priority));
        }
    }
}
