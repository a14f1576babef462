use core::sync::atomic::{AtomicBool, Ordering};

use proptest::prelude::*;

use super::{EVENT_IDX, INDIRECT_DESC, SIZE, open};
use crate::driver::Driver;
use crate::queue::{Queue, VERSION_1};
use crate::ram::Ram;

const PAGES: u64 = 16;

/// Takes and completes chains until an error; whatever was taken lies in RAM and is bounded.
fn exhaust(queue: &mut Queue, ram: &Ram, rounds: usize) -> Result<(), TestCaseError> {
    for _ in 0..rounds {
        let Ok(Some(chain)) = queue.pop() else { return Ok(()) };
        prop_assert!(chain.segments.len() <= usize::from(SIZE));
        prop_assert!(chain.readable <= chain.segments.len());
        for segment in &chain.segments {
            prop_assert!(segment.len > 0 && ram.contains(segment.gpa, segment.len.into()));
        }
        let written = u32::try_from(chain.writable().left()).unwrap_or(u32::MAX);
        prop_assert!(queue.complete(chain, written).is_ok());
        prop_assert!(queue.in_flight() <= SIZE);
        prop_assert!(queue.wants_interrupt(0).is_ok());
    }
    Ok(())
}

proptest! {
    /// Random bytes everywhere: every pop ends with a chain in RAM, nothing, or an error.
    #[test]
    fn random_rings(
        bytes in proptest::collection::vec(any::<u8>(), 0x400),
        features in prop_oneof![Just(0), Just(INDIRECT_DESC), Just(INDIRECT_DESC | EVENT_IDX)],
    ) {
        let ram = Ram::for_test(PAGES << 12);
        ram.write(0x1000, &bytes).unwrap();
        let driver = Driver::new(&ram, 0x1000, SIZE);
        let mut queue = open(&driver, features);
        exhaust(&mut queue, &ram, 100)?;
    }

    /// Rings that are nearly right: small numbers in every field.
    #[test]
    fn nearly_right_rings(
        descriptors in proptest::collection::vec(
            (0u64..PAGES << 12, 0u32..600, 0u16..8, 0u16..SIZE + 1), 2 * usize::from(SIZE)),
        heads in proptest::collection::vec(0u16..SIZE, usize::from(SIZE)),
        available in 0u16..SIZE + 1,
    ) {
        let ram = Ram::for_test(PAGES << 12);
        let mut driver = Driver::new(&ram, 0x1000, SIZE);
        for (n, &(gpa, len, flags, next)) in descriptors.iter().enumerate() {
            let n = n as u16;
            // The second half is a table that some of the first half may refer to.
            if n < SIZE {
                let (gpa, len) = if flags & 4 != 0 { (0x4000, 16 * u32::from(next)) } else { (gpa, len) };
                driver.own(n, gpa, len, flags, next);
            } else {
                let segment = crate::chain::Segment { gpa, len };
                driver.descriptor(0x4000, n - SIZE, segment, flags & 3, next);
            }
        }
        for &head in &heads {
            driver.publish(head);
        }
        driver.set_available(available);
        let mut queue = open(&driver, INDIRECT_DESC);
        exhaust(&mut queue, &ram, 100)?;
    }

    /// Any set-up is refused or works.
    #[test]
    fn random_set_up(
        size in any::<u16>(), descriptors in any::<u64>(), available in any::<u64>(),
        used in any::<u64>(), small in any::<bool>(),
    ) {
        let ram = Ram::for_test(PAGES << 12);
        let mask = if small { 0xffff } else { u64::MAX };
        let setup = ipc::proto::virtio::Queue {
            size: if small { 1 << (size % 9) } else { size },
            descriptors: descriptors & mask & !15,
            available: available & mask & !1,
            used: used & mask & !3,
        };
        if let Ok(Some(mut queue)) = Queue::new(ram, &setup, VERSION_1 | INDIRECT_DESC, 256) {
            for _ in 0..10 {
                let Ok(Some(chain)) = queue.pop() else { break };
                prop_assert!(queue.complete(chain, 0).is_ok());
            }
        }
    }

    /// Chains that are completed in any order are published in the order of availability.
    #[test]
    fn any_order_of_completion(keys in proptest::collection::vec(any::<u32>(), 1..200)) {
        let ram = Ram::for_test(PAGES << 12);
        let mut driver = Driver::new(&ram, 0x1000, SIZE);
        let mut queue = open(&driver, EVENT_IDX);
        let segment = crate::chain::Segment { gpa: 0x8000, len: 1 };
        let mut sent = 0u32;
        let mut received = 0u64;
        let mut held = Vec::new();
        for key in keys {
            if held.len() < usize::from(SIZE) && sent.wrapping_sub(received as u32) < SIZE.into() {
                driver.offer(&[segment], &[]);
                held.push((sent, queue.pop().unwrap().unwrap()));
                sent += 1;
            }
            if key & 1 == 0 && !held.is_empty() {
                let (number, chain) = held.swap_remove(key as usize % held.len());
                queue.complete(chain, number).unwrap();
            }
            while let Some((_, number)) = driver.reap() {
                prop_assert_eq!(number, received);
                received += 1;
            }
        }
        for (number, chain) in held {
            queue.complete(chain, number).unwrap();
        }
        while let Some((_, number)) = driver.reap() {
            prop_assert_eq!(number, received);
            received += 1;
        }
        prop_assert_eq!(received, u64::from(sent));
    }
}

/// Memory that changes while it is read: nothing that was checked is read again.
#[test]
fn memory_that_changes_while_it_is_read() {
    let ram = Ram::for_test(PAGES << 12);
    let driver = Driver::new(&ram, 0x1000, SIZE);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (mut hostile, stop_seen) = (driver.clone(), &stop);
        scope.spawn(move || {
            let mut n = 0u64;
            while !stop_seen.load(Ordering::Relaxed) {
                n = n.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let [a, b, c, d, ..] = n.to_be_bytes();
                let good = a & 1 == 0;
                let gpa = if good { 0x8000 } else { u64::MAX << (b & 63) };
                hostile.own(
                    u16::from(c) % SIZE,
                    gpa,
                    u32::from(d) << (a & 24),
                    u16::from(b & 7),
                    u16::from(d & 15),
                );
                hostile.publish(u16::from(a) % (SIZE + 1));
            }
        });
        let mut features = 0;
        for _ in 0..20_000 {
            features ^= INDIRECT_DESC;
            let mut queue = open(&driver, features);
            assert!(exhaust(&mut queue, &ram, 64).is_ok());
        }
        stop.store(true, Ordering::Relaxed);
    });
}
