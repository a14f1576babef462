//! An intrusive ordered tree (AVL): nothing is allocated, every operation is O(log n).
//!
//! Used for the memory and port capabilities of a space by first unit, and for whatever else has
//! a key of 64 bits, such as timeouts. Entries with the same key are kept apart by their id.

use core::cell::Cell;

/// Enough for any number of entries that fits into 32 bits: 1.44 * 32.
const MAX_HEIGHT: usize = 48;

/// A reference to something that can be in a tree.
pub trait Entry: Copy + Eq {
    /// What the tree is ordered by. Must not change while the entry is in a tree.
    fn key(&self) -> u64;
    /// Tells entries with equal keys apart.
    fn id(&self) -> u64;
    /// The links. An entry is in at most one tree per set of links.
    fn links(&self) -> &Links<Self>;
}

/// Links that an entry carries for the tree.
#[repr(C)]
pub struct Links<E> {
    left: Cell<Option<E>>,
    right: Cell<Option<E>>,
    height: Cell<u8>,
}

impl<E> Links<E> {
    /// Links of an entry that is in no tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { left: Cell::new(None), right: Cell::new(None), height: Cell::new(0) }
    }

    /// Whether the entry is in a tree.
    #[must_use]
    pub fn is_linked(&self) -> bool {
        self.height.get() != 0
    }
}

impl<E> Default for Links<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// A tree.
pub struct Index<E> {
    root: Cell<Option<E>>,
}

impl<E> Default for Index<E> {
    fn default() -> Self {
        Self { root: Cell::new(None) }
    }
}

/// The way from the root to a place: entries, and whether it went left from there.
type Path<E> = heapless::Vec<(E, bool), MAX_HEIGHT>;

impl<E: Entry> Index<E> {
    /// An empty tree.
    #[must_use]
    pub const fn new() -> Self {
        Self { root: Cell::new(None) }
    }

    /// Some entry, O(1); `None` where there is none.
    #[must_use]
    pub fn any(&self) -> Option<E> {
        self.root.get()
    }

    /// The first entry.
    #[must_use]
    pub fn first(&self) -> Option<E> {
        self.ceil(0)
    }

    /// The last entry with a key of at most `key`.
    #[must_use]
    pub fn floor(&self, key: u64) -> Option<E> {
        let mut best = None;
        let mut at = self.root.get();
        while let Some(entry) = at {
            at = if entry.key() <= key {
                best = Some(entry);
                entry.links().right.get()
            } else {
                entry.links().left.get()
            };
        }
        best
    }

    /// The first entry with a key of at least `key`.
    #[must_use]
    pub fn ceil(&self, key: u64) -> Option<E> {
        let mut best = None;
        let mut at = self.root.get();
        while let Some(entry) = at {
            at = if entry.key() >= key {
                best = Some(entry);
                entry.links().left.get()
            } else {
                entry.links().right.get()
            };
        }
        best
    }

    /// Adds an entry that is in no tree.
    pub fn insert(&self, new: E) {
        debug_assert!(!new.links().is_linked());
        let path = self.path_to(new);
        new.links().left.set(None);
        new.links().right.set(None);
        new.links().height.set(1);
        self.rebuild(path, Some(new));
    }

    /// Removes an entry of this tree.
    pub fn remove(&self, old: E) {
        let path = self.path_to(old);
        let links = old.links();
        let below = match (links.left.get(), links.right.get()) {
            (None, only) | (only, None) => only,
            (left, Some(right)) => {
                // The next entry takes its place.
                let mut inner = Path::new();
                let mut next = right;
                while let Some(left) = next.links().left.get() {
                    push(&mut inner, (next, true));
                    next = left;
                }
                let rest = climb(inner, next.links().right.get());
                next.links().left.set(left);
                next.links().right.set(rest);
                Some(balance(next))
            }
        };
        links.left.set(None);
        links.right.set(None);
        links.height.set(0);
        self.rebuild(path, below);
    }

    /// Path to an entry, or to where it would hang.
    fn path_to(&self, entry: E) -> Path<E> {
        let order = (entry.key(), entry.id());
        let mut path = Path::new();
        let mut at = self.root.get();
        while let Some(e) = at
            && e != entry
        {
            let left = order < (e.key(), e.id());
            push(&mut path, (e, left));
            at = if left { e.links().left.get() } else { e.links().right.get() };
        }
        path
    }

    fn rebuild(&self, path: Path<E>, below: Option<E>) {
        self.root.set(climb(path, below));
    }

    /// Checks order and balance. Returns the number of entries.
    ///
    /// # Errors
    /// What is wrong.
    pub fn check(&self) -> Result<usize, &'static str> {
        let mut last = None;
        let mut count = 0;
        check_below(self.root.get(), &mut |entry| {
            let order = Some((entry.key(), entry.id()));
            count += 1;
            core::mem::replace(&mut last, order) < order
        })?;
        Ok(count)
    }
}

fn push<E: Entry>(path: &mut Path<E>, step: (E, bool)) {
    // No balanced tree is deeper than the path is long.
    let full = path.push(step).is_err();
    debug_assert!(!full);
}

/// Hangs `below` under the end of a path and rebalances up to its start.
fn climb<E: Entry>(mut path: Path<E>, mut below: Option<E>) -> Option<E> {
    while let Some((entry, left)) = path.pop() {
        let links = entry.links();
        if left { &links.left } else { &links.right }.set(below);
        below = Some(balance(entry));
    }
    below
}

fn height<E: Entry>(entry: Option<E>) -> u8 {
    entry.map_or(0, |e| e.links().height.get())
}

fn measure<E: Entry>(entry: E) {
    let links = entry.links();
    links.height.set(1 + height(links.left.get()).max(height(links.right.get())));
}

/// Restores the balance of an entry whose subtrees are balanced. Returns the new top.
fn balance<E: Entry>(top: E) -> E {
    let links = top.links();
    let (left, right) = (links.left.get(), links.right.get());
    if let Some(heavy) = left
        && height(left) > height(right) + 1
    {
        if height(heavy.links().left.get()) < height(heavy.links().right.get()) {
            links.left.set(Some(rotate_left(heavy)));
        }
        return rotate_right(top);
    }
    if let Some(heavy) = right
        && height(right) > height(left) + 1
    {
        if height(heavy.links().right.get()) < height(heavy.links().left.get()) {
            links.right.set(Some(rotate_right(heavy)));
        }
        return rotate_left(top);
    }
    measure(top);
    top
}

fn rotate_left<E: Entry>(top: E) -> E {
    let Some(up) = top.links().right.get() else {
        return top;
    };
    top.links().right.set(up.links().left.get());
    up.links().left.set(Some(top));
    measure(top);
    measure(up);
    up
}

fn rotate_right<E: Entry>(top: E) -> E {
    let Some(up) = top.links().left.get() else {
        return top;
    };
    top.links().left.set(up.links().right.get());
    up.links().right.set(Some(top));
    measure(top);
    measure(up);
    up
}

/// Visits a subtree in order; `visit` tells whether the order is right. Depth of recursion: the
/// height of the tree.
fn check_below<E: Entry>(
    top: Option<E>,
    visit: &mut dyn FnMut(E) -> bool,
) -> Result<u8, &'static str> {
    let Some(entry) = top else { return Ok(0) };
    let left = check_below(entry.links().left.get(), visit)?;
    if !visit(entry) {
        return Err("index out of order");
    }
    let right = check_below(entry.links().right.get(), visit)?;
    if left.abs_diff(right) > 1 || entry.links().height.get() != 1 + left.max(right) {
        return Err("index out of balance");
    }
    Ok(1 + left.max(right))
}

#[cfg(test)]
mod tests;
