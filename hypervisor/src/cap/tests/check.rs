//! Self-checks: the forest, the spaces and the page tables agree.

use core::sync::atomic::Ordering;

use ipc::cap::Space;

use crate::cap::index::Index;
use crate::cap::node::{Handle, Owner};
use crate::cap::revoke::Revocations;
use crate::cap::spaces::{GuestSpace, Memory, PdSpaces};
use crate::mem::paging::PageTable;
use crate::mem::pool::Page;
use crate::mem::space::PortSpace;

/// Space of a node, and whether it is a guest's.
type Kind = (Space, bool);

/// Checks everything about the spaces of a domain.
///
/// # Errors
/// What is wrong.
pub(super) fn check_spaces(
    spaces: &PdSpaces,
    revocations: &Revocations,
) -> Result<(), &'static str> {
    let busy = revocations.is_busy();
    spaces.objects.check()?;
    for node in spaces.objects.nodes() {
        check_node(node, (Space::Object, false), busy)?;
        if !node.is_owned_by(spaces) {
            return Err("node of another domain");
        }
    }
    check_memory(&spaces.memory, (Space::Memory, false), busy)?;
    check_index(&spaces.ports.index, (Space::Port, false), busy)?;
    match spaces.ports.space.bitmap() {
        None if spaces.ports.index.root.get().is_none() => Ok(()),
        Some(bitmap) => {
            let expected = (0..PortSpace::PORTS).step_by(64).map(|port| denied(spaces, port));
            // SAFETY: the bitmap stays while its domain does.
            let pages = bitmap.each_ref().map(|half| unsafe { half.as_ref() });
            let words = pages.iter().flat_map(|page| (0..Page::WORDS).map(|n| page.word(n)));
            if words.map(|word| word.load(Ordering::Relaxed)).eq(expected) {
                Ok(())
            } else {
                Err("bitmap differs from the port capabilities")
            }
        }
        None => Err("port capabilities without a bitmap"),
    }
}

/// The word of the I/O bitmap for 64 ports.
fn denied(spaces: &PdSpaces, port: u64) -> u64 {
    let mut word = u64::MAX;
    let mut next = spaces.ports.index.next(port);
    while let Some(node) = next
        && node.base < port + 64
    {
        if node.order >= 6 {
            return 0;
        }
        word &= !(((1 << node.size()) - 1) << (node.base - port));
        next = spaces.ports.index.next(node.end());
    }
    word
}

/// Checks everything about the space of a guest.
///
/// # Errors
/// What is wrong.
pub(super) fn check_guest(
    space: &GuestSpace,
    revocations: &Revocations,
) -> Result<(), &'static str> {
    check_memory(&space.memory, (Space::Memory, true), revocations.is_busy())
}

fn check_memory(memory: &Memory, kind: Kind, busy: bool) -> Result<(), &'static str> {
    let held = check_index(&memory.index, kind, busy)?;
    let table = &memory.space.table;
    let mut mapped = 0;
    let mut result = Ok(());
    table.check(&mut |page, level, entry| {
        if PageTable::is_kernel(entry) {
            return;
        }
        mapped += 1 << (9 * level);
        let node = memory.index.next(page).filter(|n| n.base <= page);
        let expected = node.map(|n| table.expected(&n.mapping(), level, page));
        if expected != Some(entry) {
            result = Err("page table differs from the memory capabilities");
        }
    })?;
    result?;
    if mapped == held { Ok(()) } else { Err("memory capability without a mapping") }
}

/// Checks an index and its nodes. Returns the number of units held.
pub(super) fn check_index(index: &Index, kind: Kind, busy: bool) -> Result<u64, &'static str> {
    check_tree(index.root.get())?;
    let mut units = 0;
    let mut end = 0;
    let mut next = index.next(0);
    while let Some(node) = next {
        if node.base < end {
            return Err("overlapping ranges");
        }
        end = node.end();
        units += node.size();
        check_node(node, kind, busy)?;
        next = index.next(end);
    }
    Ok(units)
}

fn check_node(node: Handle, kind: Kind, busy: bool) -> Result<(), &'static str> {
    let (space, guest) = kind;
    if node.space != space || node.rights() == 0 {
        return Err("node of another kind or without rights");
    }
    if node.base & (node.size() - 1) != 0
        || (space != Space::Object && node.target & (node.size() - 1) != 0)
    {
        return Err("misaligned node");
    }
    match node.owner() {
        Owner::Pd(_) if guest => return Err("node with the wrong owner"),
        Owner::Guest(_) if !guest => return Err("node with the wrong owner"),
        _ => {}
    }
    if let Some(parent) = node.parent.get() {
        let within = match space {
            Space::Object => node.target == parent.target,
            _ => {
                parent.target <= node.target
                    && node.target + node.size() <= parent.target + parent.size()
            }
        };
        let same = parent.space == space && matches!(parent.owner(), Owner::Pd(_));
        if !within || !same || node.depth != parent.depth + 1 {
            return Err("node outside its parent");
        }
        if !busy && node.rights() & !parent.rights() != 0 {
            return Err("node with more rights than its parent");
        }
        if parent.badge() != 0 && node.badge() != parent.badge() {
            return Err("badge changed");
        }
        if node.prev.get().is_none() && parent.child.get() != Some(node) {
            return Err("first child is not its parent's");
        }
    } else if node.depth != 0 || node.next.get().is_some() || node.prev.get().is_some() {
        return Err("root with siblings or depth");
    }
    if node.child.get().is_some_and(|c| c.parent.get() != Some(node) || c.prev.get().is_some()) {
        return Err("child of another parent");
    }
    if node
        .next
        .get()
        .is_some_and(|n| n.prev.get() != Some(node) || n.parent.get() != node.parent.get())
    {
        return Err("broken list of siblings");
    }
    Ok(())
}

/// Checks order and balance below a node. Returns the height.
pub(super) fn check_tree(top: Option<Handle>) -> Result<u8, &'static str> {
    let Some(node) = top else { return Ok(0) };
    let (left, right) = (node.left.get(), node.right.get());
    if left.is_some_and(|n| n.end() > node.base) || right.is_some_and(|n| n.base < node.end()) {
        return Err("index out of order");
    }
    let (left, right) = (check_tree(left)?, check_tree(right)?);
    if left.abs_diff(right) > 1 || node.height.get() != 1 + left.max(right) {
        return Err("index out of balance");
    }
    Ok(1 + left.max(right))
}
