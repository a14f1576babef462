//! The index against an ordered map.

use std::collections::BTreeMap;

use ipc::cap::Space;
use proptest::prelude::*;

use super::check::check_tree;
use super::world::World;
use crate::cap::Owner;
use crate::cap::index::Index;
use crate::cap::node::{Handle, Seed};

fn node(w: &mut World, base: u64, order: u8) -> Handle {
    let (owner, parent) = (Owner::Pd(&w.pds[0]), None);
    let (space, rights, target, extra) = (Space::Port, 1, base, 0);
    let seed = Seed { owner, parent, space, order, rights, base, target, extra };
    Handle::alloc(&mut w.region.frames, &seed).unwrap()
}

fn free(w: &mut World, node: Handle) {
    // SAFETY: nothing links to the node.
    unsafe { node.free(&mut w.region.frames) };
}

#[test]
fn sorted_input_stays_balanced() {
    let mut w = World::new(1, 0);
    let index = Index::default();
    let nodes: Vec<_> = (0..1000).map(|i| node(&mut w, i, 0)).collect();
    for &node in &nodes {
        index.insert(node);
        check_tree(index.root.get()).unwrap();
    }
    assert!(check_tree(index.root.get()).unwrap() <= 11);
    assert_eq!(index.next(0).unwrap().base, 0);
    assert!(index.next(999).unwrap().base == 999 && index.next(1000).is_none());
    for &node in nodes.iter().rev() {
        index.remove(node);
        check_tree(index.root.get()).unwrap();
        free(&mut w, node);
    }
    assert!(index.root.get().is_none() && index.next(0).is_none());
    w.finish();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn like_an_ordered_map(
        steps in prop::collection::vec((0..60_u64, 0..3_u8, 0..250_u64), 1..300),
    ) {
        let mut w = World::new(1, 0);
        let index = Index::default();
        let mut model = BTreeMap::new();
        // Slots of four units, each with a range of up to four or nothing.
        for (slot, order, probe) in steps {
            if let Some(node) = model.remove(&slot) {
                index.remove(node);
                free(&mut w, node);
            } else {
                let node = node(&mut w, 4 * slot, order);
                model.insert(slot, node);
                index.insert(node);
            }
            prop_assert!(check_tree(index.root.get()).is_ok());
            let next = model.values().find(|n| n.end() > probe).copied();
            prop_assert_eq!(index.next(probe), next);
            prop_assert_eq!(index.root.get().is_none(), model.is_empty());
            let mut at = index.next(0);
            for node in model.values() {
                prop_assert_eq!(at, Some(*node));
                at = index.next(node.end());
            }
            prop_assert_eq!(at, None);
        }
        for node in model.into_values() {
            index.remove(node);
            free(&mut w, node);
        }
        w.finish();
    }
}
