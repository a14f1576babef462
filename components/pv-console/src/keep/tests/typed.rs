//! What was typed, when the component dies at any store.

use std::cell::RefCell;

use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{Memory, burn, with_fuse};
use crate::keep::Keep;

/// What the outside sees.
#[derive(Default)]
struct World {
    /// Characters that came in and were noted: their call returned.
    noted: Vec<u8>,
    /// What was handed to the VM, in pieces; whether it was noted that the VM took it.
    handed: Vec<(Vec<u8>, bool)>,
}

/// One character comes in from the port.
fn arrives(keep: &Keep, world: &RefCell<World>, byte: u8) {
    keep.type_to(0, byte);
    world.borrow_mut().noted.push(byte);
}

/// The VM, which takes up to `room` characters, gets what there is.
fn hand_over(keep: &Keep, world: &RefCell<World>, room: usize) {
    let mut keys = [0; 16];
    let count = keep.typed(0, &mut keys[..room]);
    if count == 0 {
        return;
    }
    world.borrow_mut().handed.push((keys[..count].to_vec(), false));
    burn();
    keep.taken(0, count);
    world.borrow_mut().handed.last_mut().unwrap().1 = true;
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// What was noted reaches the VM in order. Twice comes only what was being handed over when the
    /// component died, and then it comes again at once. Lost is only what was not noted.
    #[test]
    fn what_was_noted_reaches_the_vm(
        steps in prop::collection::vec((any::<u8>(), 0usize..16, prop::option::of(0u32..4)), 1..300),
    ) {
        let memory = Memory::new(1, 8);
        let world = RefCell::new(World::default());
        let mut keep = memory.open();
        for (byte, room, fuse) in steps {
            let step = || {
                arrives(&keep, &world, byte);
                hand_over(&keep, &world, room);
            };
            match fuse {
                None => step(),
                // Another life.
                Some(fuse) => if !with_fuse(fuse, step) { keep = memory.open() },
            }
        }
        while keep.typed(0, &mut [0]) > 0 {
            hand_over(&keep, &world, 16);
        }
        let World { noted, handed } = world.into_inner();
        let taken: Vec<u8> = handed.iter().filter(|h| h.1).flat_map(|h| h.0.clone()).collect();
        prop_assert_eq!(taken, noted);
        for pair in handed.windows(2) {
            let ((again, false), (next, _)) = (&pair[0], &pair[1]) else { continue };
            let common = again.len().min(next.len());
            prop_assert!(common > 0 && again[..common] == next[..common]);
        }
    }
}
