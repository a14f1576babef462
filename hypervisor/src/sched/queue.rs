//! The run queue of a CPU: a list per priority and a bitmap of those that hold something.

use core::cell::Cell;

use crate::object::Obj;
use crate::object::sc::{List, Place, Sc};

/// Number of priorities.
pub const PRIORITIES: usize = 128;

/// Ready scheduling contexts by priority.
pub struct RunQueue {
    lists: [List; PRIORITIES],
    occupied: Cell<u128>,
}

impl RunQueue {
    /// An empty queue.
    pub const fn new() -> Self {
        Self { lists: [const { List::new() }; PRIORITIES], occupied: Cell::new(0) }
    }

    /// Whether nothing is ready.
    pub fn is_empty(&self) -> bool {
        self.occupied.get() == 0
    }

    /// Behind its equals.
    pub fn push_back(&self, sc: Obj<Sc>) {
        if let Some(list) = self.list(sc) {
            list.push_back(sc);
        }
    }

    /// Before its equals.
    pub fn push_front(&self, sc: Obj<Sc>) {
        if let Some(list) = self.list(sc) {
            list.push_front(sc);
        }
    }

    fn list(&self, sc: Obj<Sc>) -> Option<&List> {
        let list = self.lists.get(usize::from(sc.priority))?;
        self.occupied.set(self.occupied.get() | 1 << sc.priority);
        sc.place.set(Place::Ready);
        Some(list)
    }

    /// The first of the highest priority.
    pub fn pop(&self) -> Option<Obj<Sc>> {
        let priority = self.occupied.get().checked_ilog2()?;
        let list = self.lists.get(crate::num::usize_of(u64::from(priority)))?;
        let sc = list.pop_front();
        if list.is_empty() {
            self.occupied.set(self.occupied.get() & !(1 << priority));
        }
        sc
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

impl Default for RunQueue {
    fn default() -> Self {
        Self::new()
    }
}
