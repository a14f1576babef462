//! Revocation: taking capabilities, or rights of them, from everybody who got them from here.
//!
//! Every step is bounded; the caller draws the consequences of a step and repeats the call until
//! it is done. Removing all of a tree needs no memory of where it stopped: it always goes on with
//! the deepest first child. Everything else (some rights, part of a node, several nodes) walks
//! over nodes that stay, so its position is kept, in the one [`Walk`] that can be under way;
//! whoever wants to start another first helps to finish it.

use core::ptr::NonNull;

use ipc::cap::{Range, Space};
use ipc::status::Status;

use super::delegate::Request;
use super::install::detach;
use super::node::{Handle, Owner};
use super::outcome::Outcome;
use super::spaces::PdSpaces;
use crate::mem::frames::Frames;

/// What an execution context keeps of a revocation that is to go on: which walk works for it, and
/// for which arguments. The default is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ticket {
    walk: u64,
    range: u64,
    base: u64,
}

/// State of revocations between their steps. There is one, under the kernel lock.
#[derive(Default)]
pub struct Revocations {
    walk: Option<Walk>,
    /// Ticket of the newest walk. Older ones are complete.
    last: u64,
}

/// A walk over everything that was derived from a range, in pre-order.
struct Walk {
    /// Whose range it is. Only to find the nodes of the range; a walk ends before its spaces do.
    spaces: NonNull<PdSpaces>,
    request: Request,
    /// What is left of the range: nodes that start before `from` are done or under way.
    from: u64,
    /// The node of the range that is under way, and what of it is revoked, as targets.
    root: Option<Handle>,
    targets: core::ops::Range<u64>,
    /// Next node to visit below (or at) the root.
    at: Option<Handle>,
}

impl Revocations {
    /// Nothing under way.
    pub const fn new() -> Self {
        Self { walk: None, last: 0 }
    }

    /// Whether a revocation of rights is half done: then a node may have more rights than its
    /// parent.
    #[cfg(test)]
    pub(super) fn is_busy(&self) -> bool {
        self.walk.is_some()
    }

    fn is_complete(&self, walk: u64) -> bool {
        walk != 0 && (walk < self.last || self.walk.is_none())
    }

    /// Ends the walk where it concerns spaces that lose everything anyway.
    fn forget(&mut self, spaces: &PdSpaces) {
        self.walk.take_if(|walk| walk.spaces == NonNull::from(spaces));
    }

    /// Keeps the walk off a node that is about to go.
    fn leave(&mut self, node: Handle) {
        let Some(walk) = &mut self.walk else { return };
        if walk.root == Some(node) {
            walk.root = None;
            walk.at = None;
        } else if walk.at == Some(node) {
            walk.at = walk.root.and_then(|root| node.after(root));
        }
    }
}

// SAFETY: the pointer in a walk is used under the kernel lock, on whatever CPU.
unsafe impl Send for Revocations {}

/// One step of something restartable.
struct Step<'a> {
    frames: &'a mut Frames,
    revocations: &'a mut Revocations,
    out: Outcome,
    budget: u32,
}

/// Revokes what was derived from a range of `spaces`: takes the rights that `range` names from
/// everything that was delegated from there, recursively, and with "include self" from the
/// holder's own capabilities too. A capability without rights, and memory without the right to
/// read, is gone. Where nothing is held nothing is done.
///
/// A derived capability that overlaps the range is affected as a whole. With "include self" the
/// holder's own capabilities must lie within the range.
///
/// `budget` bounds the work of the call (about one unit per capability). After
/// [`Outcome::more`], call again with the same arguments. `ticket` belongs to the execution
/// context that calls: it is kept between the steps, and must be reset where the context does
/// anything else in between. A ticket for other arguments counts as none.
///
/// # Errors
/// `BadParam` where the range is malformed or misaligned, or cuts an own capability in two with
/// "include self"; `BadCap` for a selector that is out of range. Without effect.
pub fn revoke(
    frames: &mut Frames,
    revocations: &mut Revocations,
    spaces: &PdSpaces,
    range: Range,
    base: u64,
    ticket: &mut Ticket,
    budget: u32,
) -> Result<Outcome, Status> {
    let request = Request::new(range, base)?;
    if range.is_translate() {
        return Err(Status::BadParam);
    }
    let mut step = Step { frames, revocations, out: Outcome::default(), budget };
    if (ticket.range, ticket.base) != (range.0, base) {
        *ticket = Ticket::default();
    }
    let within = request.node(spaces);
    let whole = within.filter(|n| n.base == base && n.order == range.order());
    if ticket.walk == 0 {
        if range.is_include_self() && within.is_some() && whole.is_none() {
            return Err(Status::BadParam);
        }
        if let Some(node) = whole
            && node.without(range.rights()) == 0
        {
            let done = match range.is_include_self() {
                true => step.prune(node),
                false => step.prune_all(|| node.child.get()),
            };
            return Ok(step.end(done));
        }
    }
    loop {
        if step.revocations.is_complete(ticket.walk) {
            *ticket = Ticket::default();
            return Ok(step.end(true));
        }
        if ticket.walk == 0 && step.revocations.walk.is_none() {
            step.revocations.last += 1;
            *ticket = Ticket { walk: step.revocations.last, range: range.0, base };
            step.revocations.walk = Some(Walk {
                spaces: NonNull::from(spaces),
                request,
                from: base,
                root: None,
                targets: 0..0,
                at: None,
            });
        }
        if !step.advance() {
            return Ok(step.end(false));
        }
    }
}

/// Takes everything that a domain or guest holds, and what was derived from it. From the first call
/// on nothing can be put into the spaces. Call again after [`Outcome::more`].
pub fn destroy(
    frames: &mut Frames,
    revocations: &mut Revocations,
    owner: Owner<'_>,
    budget: u32,
) -> Outcome {
    owner.memory().closed.set(true);
    let mut step = Step { frames, revocations, out: Outcome::default(), budget };
    let mut done = true;
    if let Owner::Pd(spaces) = owner {
        step.revocations.forget(spaces);
        done = spaces.objects.nodes().all(|node| step.budget > 0 && step.prune(node))
            && step.prune_all(|| spaces.ports.index.root.get());
    }
    done = done && step.prune_all(|| owner.memory().index.root.get());
    step.end(done)
}

/// Removes a capability that nothing is derived from.
pub fn remove(frames: &mut Frames, revocations: &mut Revocations, node: Handle, out: &mut Outcome) {
    revocations.leave(node);
    detach(node, out);
    node.unlink();
    // SAFETY: the walk, the space and the forest have forgotten the node; `node` ends here, and
    // callers use theirs only to compare.
    unsafe { node.free(frames) };
}

impl Step<'_> {
    /// Counts work; whether there is budget left.
    fn spend(&mut self, work: u32) -> bool {
        self.budget = self.budget.saturating_sub(work);
        self.budget > 0
    }

    fn end(mut self, done: bool) -> Outcome {
        self.out.more = !done;
        self.out
    }

    /// Removes a node and everything below it, the deepest first. Whether that is complete.
    fn prune(&mut self, top: Handle) -> bool {
        let mut at = top;
        loop {
            while let Some(child) = at.child.get() {
                at = child;
            }
            let parent = at.parent.get();
            let last = at == top;
            let work = cost(at);
            remove(self.frames, self.revocations, at, &mut self.out);
            let go_on = self.spend(work);
            match parent {
                Some(parent) if !last && go_on => at = parent,
                _ => return last,
            }
        }
    }

    /// Removes nodes and everything below them while there are any. Whether that is complete.
    fn prune_all(&mut self, next: impl Fn() -> Option<Handle>) -> bool {
        while let Some(node) = next() {
            if self.budget == 0 || !self.prune(node) {
                return false;
            }
        }
        true
    }

    /// Goes on with the walk. Whether there is none any more.
    fn advance(&mut self) -> bool {
        while let Some(walk) = &mut self.revocations.walk {
            if self.budget == 0 {
                return false;
            }
            let Some((root, at)) = walk.root.zip(walk.at) else {
                if !walk.enter_next() {
                    self.revocations.walk = None;
                }
                self.spend(1);
                continue;
            };
            let targets = &walk.targets;
            let affected = at == root
                || at.parent.get() != Some(root)
                || at.space == Space::Object
                || (at.target < targets.end && targets.start < at.target + at.size());
            let left = at.without(walk.request.range.rights());
            if !affected {
                walk.at = at.after(root);
                self.spend(1);
            } else if left == 0 {
                // The walk moves on when the node goes.
                self.prune(at);
            } else {
                walk.at = at.child.get().or_else(|| at.after(root));
                self.downgrade(at, left);
            }
        }
        true
    }

    /// Leaves a node with fewer rights.
    fn downgrade(&mut self, node: Handle, rights: u8) {
        self.spend(cost(node));
        if node.rights() == rights {
            return;
        }
        node.rights.set(rights);
        self.out.taken = true;
        match (node.space, node.owner()) {
            (Space::Object, Owner::Pd(spaces)) => spaces.objects.update(node),
            (Space::Port, _) => {}
            (_, owner) => {
                owner.memory().space.protect(&node.mapping());
                self.out.flush = true;
            }
        }
    }
}

impl Walk {
    /// Goes to the next node of the range. Whether there is one.
    fn enter_next(&mut self) -> bool {
        // SAFETY: `forget` ends the walk before the spaces go.
        let spaces = unsafe { self.spaces.as_ref() };
        let (from, to) = (self.from, self.request.end());
        let next = spaces.next(self.request.space, from);
        let Some(root) = next.filter(|node| from < to && node.base < to) else {
            return false;
        };
        let (start, end) = (root.base.max(from), root.end().min(to));
        self.from = end;
        self.targets = root.target + (start - root.base)..root.target + (end - root.base);
        self.root = Some(root);
        self.at = if self.request.range.is_include_self() { Some(root) } else { root.child.get() };
        true
    }
}

/// Work that removing or changing a node is, in units of about one small node.
fn cost(node: Handle) -> u32 {
    match node.space {
        // Entries to write, in cache lines and a bit.
        Space::Memory => 1 + (1 << (node.order % 9)) / 32,
        Space::Object | Space::Port => 1,
    }
}
