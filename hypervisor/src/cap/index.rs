//! The memory or port capabilities of a space, ordered: an intrusive balanced tree (AVL).
//!
//! Nothing is allocated, every operation is O(log n). Ranges in one index never overlap, so the
//! order by their first unit is the order by their last one. Depth of recursion: the height of
//! the tree, at most 46 for as many nodes as there are handles.

use core::cell::Cell;

use super::node::Handle;

/// A tree of nodes.
#[derive(Default)]
pub(crate) struct Index {
    pub(super) root: Cell<Option<Handle>>,
}

impl Index {
    /// The first node that ends after a unit: the one that covers it, or else the next one.
    pub(super) fn next(&self, unit: u64) -> Option<Handle> {
        let mut best = None;
        let mut at = self.root.get();
        while let Some(node) = at {
            let ends_after = node.end() > unit;
            if ends_after {
                best = at;
            }
            at = node.side(ends_after).get();
        }
        best
    }

    /// Adds a node that overlaps none.
    pub(super) fn insert(&self, new: Handle) {
        self.root.set(Some(insert(self.root.get(), new)));
    }

    /// Removes a node.
    pub(super) fn remove(&self, old: Handle) {
        self.root.set(remove(self.root.get(), old));
    }
}

fn insert(top: Option<Handle>, new: Handle) -> Handle {
    if let Some(top) = top {
        let side = top.side(new.base < top.base);
        side.set(Some(insert(side.get(), new)));
    }
    balance(top.unwrap_or(new))
}

fn remove(top: Option<Handle>, old: Handle) -> Option<Handle> {
    let top = top?;
    if top != old {
        let side = top.side(old.base < top.base);
        side.set(remove(side.get(), old));
        return Some(balance(top));
    }
    let (left, right) = (old.left.take(), old.right.take());
    let (Some(_), Some(mut next)) = (left, right) else { return left.or(right) };
    // The next node takes its place.
    while let Some(before) = next.left.get() {
        next = before;
    }
    let rest = remove(right, next);
    next.left.set(left);
    next.right.set(rest);
    Some(balance(next))
}

fn height(top: Option<Handle>) -> u8 {
    top.map_or(0, |node| node.height.get())
}

fn measure(node: Handle) {
    node.height.set(1 + height(node.left.get()).max(height(node.right.get())));
}

/// Restores the balance of a node whose subtrees are balanced. Returns the new top.
fn balance(top: Handle) -> Handle {
    for left in [true, false] {
        let (side, other) = (top.side(left), top.side(!left));
        if let Some(heavy) = side.get()
            && height(side.get()) > height(other.get()) + 1
        {
            if height(heavy.side(left).get()) < height(heavy.side(!left).get()) {
                side.set(Some(raise(heavy, !left)));
            }
            return raise(top, left);
        }
    }
    measure(top);
    top
}

/// Rotates: the child on one side takes the place of `top`, which becomes its other child.
fn raise(top: Handle, left: bool) -> Handle {
    let Some(up) = top.side(left).get() else { return top };
    top.side(left).set(up.side(!left).replace(Some(top)));
    measure(top);
    measure(up);
    up
}
