//! Self-checks: the forest, the spaces and the page tables agree. Unbounded; for tests and for a
//! check of the running kernel. All under the kernel lock.

use core::sync::atomic::Ordering;

use super::index::Index;
use super::node::{Handle, Kind, Owner};
use super::revoke::Revocations;
use super::spaces::{GuestSpace, Memory, PdSpaces};
use crate::mem::paging::PageTable;
use crate::mem::space::PortSpace;

/// Checks everything about the spaces of a domain.
///
/// # Errors
/// What is wrong.
pub fn check_spaces(spaces: &PdSpaces, revocations: &Revocations) -> Result<(), &'static str> {
    let busy = revocations.is_busy();
    spaces.objects.check()?;
    for node in spaces.objects.nodes(0) {
        check_node(node, Kind::Object, busy)?;
        if !node.is_owned_by(spaces) {
            return Err("node of another domain");
        }
    }
    check_memory(&spaces.memory, Kind::Host, busy)?;
    check_index(&spaces.ports.index, Kind::Port, busy)?;
    match spaces.ports.space.bitmap() {
        None if spaces.ports.index.any().is_none() => Ok(()),
        Some(bitmap) => {
            let expected = (0..PortSpace::PORTS).step_by(64).map(|port| denied(spaces, port));
            if bitmap.iter().map(|word| word.load(Ordering::Relaxed)).eq(expected) {
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
    let mut next = spaces.ports.covering(port).or_else(|| spaces.ports.index.ceil(port));
    while let Some(node) = next
        && node.base < port + 64
    {
        if node.order >= 6 {
            return 0;
        }
        word &= !(((1 << node.size()) - 1) << (node.base - port));
        next = spaces.ports.index.ceil(node.end());
    }
    word
}

/// Checks everything about the space of a guest.
///
/// # Errors
/// What is wrong.
pub fn check_guest(space: &GuestSpace, revocations: &Revocations) -> Result<(), &'static str> {
    check_memory(&space.memory, Kind::Guest, revocations.is_busy())
}

fn check_memory(memory: &Memory, kind: Kind, busy: bool) -> Result<(), &'static str> {
    let held = check_index(&memory.index, kind, busy)?;
    let table = memory.space.table();
    let mut mapped = 0;
    let mut result = Ok(());
    table.check(&mut |page, level, entry| {
        if PageTable::is_kernel(entry) {
            return;
        }
        mapped += 1 << (9 * level);
        let expected = memory.covering(page).map(|n| table.expected(&n.mapping(), level, page));
        if expected != Some(entry) {
            result = Err("page table differs from the memory capabilities");
        }
    })?;
    result?;
    if mapped == held { Ok(()) } else { Err("memory capability without a mapping") }
}

/// Checks an index and its nodes. Returns the number of units held.
fn check_index(index: &Index<Handle>, kind: Kind, busy: bool) -> Result<u64, &'static str> {
    index.check()?;
    let mut units = 0;
    let mut end = 0;
    let mut next = index.first();
    while let Some(node) = next {
        if node.base < end {
            return Err("overlapping ranges");
        }
        end = node.end();
        units += node.size();
        check_node(node, kind, busy)?;
        next = index.ceil(end);
    }
    Ok(units)
}

fn check_node(node: Handle, kind: Kind, busy: bool) -> Result<(), &'static str> {
    if node.kind != kind || node.rights() == 0 {
        return Err("node of another kind or without rights");
    }
    if node.base & (node.size() - 1) != 0
        || (kind != Kind::Object && node.target & (node.size() - 1) != 0)
    {
        return Err("misaligned node");
    }
    match node.owner() {
        Owner::Pd(_) if kind == Kind::Guest => return Err("node with the wrong owner"),
        Owner::Guest(_) if kind != Kind::Guest => return Err("node with the wrong owner"),
        _ => {}
    }
    if let Some(parent) = node.parent.get() {
        let within = match kind {
            Kind::Object => node.target == parent.target,
            _ => {
                parent.target <= node.target
                    && node.target + node.size() <= parent.target + parent.size()
            }
        };
        let same = match kind {
            Kind::Host | Kind::Guest => parent.kind == Kind::Host,
            _ => parent.kind == kind,
        };
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
