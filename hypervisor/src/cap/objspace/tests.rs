//! Self-check of object spaces.

use core::sync::atomic::Ordering;

use ipc::cap::Selector;

use super::{CapWord, LEAF_SLOTS, ObjectSpace, is_empty};

impl ObjectSpace {
    /// Checks that slots and nodes agree and leaves are counted.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        for first in (0..Selector::COUNT).step_by(LEAF_SLOTS) {
            if self.entry(first).is_some_and(|e| is_empty(e.load(Ordering::Relaxed))) {
                continue;
            }
            let mut used = 0;
            for selector in first..first + (LEAF_SLOTS as u64) {
                let Some(slot) = self.slot(selector) else {
                    continue;
                };
                let word = CapWord(slot.cap.load(Ordering::Relaxed));
                let badge = slot.badge.load(Ordering::Relaxed);
                match slot.node.get() {
                    Some(node) if node.base != selector => return Err("slot of another selector"),
                    Some(node) if node.word() != word || node.badge() != badge => {
                        return Err("slot differs from its node");
                    }
                    Some(_) => used += 1,
                    None if word.0 != 0 => return Err("capability without a node"),
                    None => {}
                }
            }
            let counted = self.slot(first).map_or(0, |slot| slot.used.get());
            if counted != used || used == 0 {
                return Err("leaf with a wrong count");
            }
        }
        Ok(())
    }
}
