use proptest::prelude::*;

use super::{Dma, Ring, Segment, Used};
use crate::queue::{Queue, VERSION_1};
use crate::ram::Ram;

const SIZE: u16 = 16;

/// A driver, and a device on the same memory. It starts at another address for the device.
fn pair() -> (Ring, Queue, Ram) {
    let memory = Ram::for_test(1 << 16);
    let ring = Ring::new(Dma { memory: memory.clone(), physical: 0 }, 0x100, SIZE, 3).unwrap();
    let queue = Queue::new(memory.clone(), &ring.place(), VERSION_1, 256).unwrap().unwrap();
    (ring, queue, memory)
}

const fn at(gpa: u64, len: u32) -> Segment {
    Segment { gpa, len }
}

#[test]
fn a_device_sees_what_the_driver_adds() {
    let (mut ring, mut queue, _) = pair();
    let slot = ring.free().unwrap();
    ring.add(slot, &[at(0x8000, 16), at(0x9000, 512)], &[at(0xa000, 1)]).unwrap();
    assert!(ring.should_notify());
    assert_eq!(ring.reap(), None);
    let chain = queue.pop().unwrap().unwrap();
    assert_eq!((chain.readable().left(), chain.writable().left()), (528, 1));
    queue.complete(chain, 1).unwrap();
    assert_eq!(ring.reap(), Some(Used { slot, written: 1 }));
    assert_eq!(ring.reap(), None);
}

#[test]
fn a_busy_device_is_not_notified() {
    let (mut ring, mut queue, _) = pair();
    assert!(queue.pop().unwrap().is_none());
    ring.add(0, &[at(0x8000, 16)], &[]).unwrap();
    assert!(ring.should_notify());
    let _chain = queue.pop().unwrap().unwrap();
    ring.add(1, &[at(0x8000, 16)], &[]).unwrap();
    assert!(!ring.should_notify());
}

#[test]
fn a_driver_that_looks_is_not_interrupted_and_misses_nothing() {
    let (mut ring, mut queue, _) = pair();
    let mut end = |ring: &mut Ring, slot| {
        ring.add(slot, &[at(0x8000, 16)], &[]).unwrap();
        let chain = queue.pop().unwrap().unwrap();
        queue.complete(chain, 0).unwrap();
        queue.wants_interrupt(0).unwrap()
    };
    assert!(end(&mut ring, 0));
    ring.ignore();
    assert!(!end(&mut ring, 1));
    assert!(ring.listen(), "what ended meanwhile is told at once");
    assert!(ring.reap().is_some() && ring.reap().is_some());
    assert!(!ring.listen());
    assert!(end(&mut ring, 0));
}

#[test]
fn slots_are_used_once_at_a_time() {
    let (mut ring, mut queue, _) = pair();
    assert_eq!(ring.slots(), 5);
    for expected in 0..5 {
        assert_eq!(ring.free(), Some(expected));
        ring.add(expected, &[at(0x8000, 16)], &[]).unwrap();
    }
    assert_eq!(ring.free(), None);
    assert!(ring.add(2, &[at(0x8000, 16)], &[]).is_err());
    let chain = queue.pop().unwrap().unwrap();
    queue.complete(chain, 0).unwrap();
    assert_eq!(ring.reap().map(|u| u.slot), Some(0));
    assert_eq!(ring.free(), Some(0));
}

#[test]
fn requests_that_make_no_sense_are_refused() {
    let (mut ring, _, _) = pair();
    assert!(ring.add(5, &[at(0, 1)], &[]).is_err());
    assert!(ring.add(0, &[], &[]).is_err());
    assert!(ring.add(0, &[at(0, 1); 2], &[at(0, 1); 2]).is_err());
    assert!(ring.add(0, &[at(0xffff, 2)], &[]).is_err());
    assert_eq!(ring.free(), Some(0));
}

#[test]
fn the_device_sees_its_own_addresses() {
    let memory = Ram::for_test(1 << 16);
    let dma = Dma { memory: memory.clone(), physical: 0x7000_0000 };
    let mut ring = Ring::new(dma, 0, SIZE, 1).unwrap();
    assert_eq!(ring.place().descriptors, 0x7000_0000);
    ring.add(0, &[at(0x8000, 16)], &[]).unwrap();
    assert_eq!(memory.read_word(0, 8).unwrap(), 0x7000_8000);
}

#[test]
fn it_must_fit() {
    let dma = Dma { memory: Ram::for_test(4096), physical: 0 };
    assert!(Ring::new(dma.clone(), 8, SIZE, 1).is_err());
    assert!(Ring::new(dma.clone(), 4096 - Ring::bytes(SIZE) + 16, SIZE, 1).is_err());
    assert!(Ring::new(dma, 0, SIZE, 1).is_ok());
}

proptest! {
    /// A device that writes anything into the used ring: no slot comes back that it does not have.
    #[test]
    fn hostile_device(
        entries in proptest::collection::vec((0u64..20, any::<bool>()), 1..SIZE as usize),
        adds in 0u16..5,
    ) {
        let (mut ring, _, memory) = pair();
        for slot in 0..adds {
            ring.add(slot, &[at(0x8000, 16)], &[]).unwrap();
        }
        let used = ring.place().used;
        for (n, &(id, wild)) in entries.iter().enumerate() {
            let id = if wild { id << 20 } else { id };
            memory.write_word(used + 4 + 8 * n as u64, 4, id).unwrap();
        }
        memory.store_u16(used + 2, entries.len() as u16).unwrap();
        let mut seen = Vec::new();
        while let Some(Used { slot, .. }) = ring.reap() {
            prop_assert!(slot < adds && !seen.contains(&slot));
            seen.push(slot);
        }
    }
}
