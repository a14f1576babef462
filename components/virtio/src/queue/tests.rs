//! The rules of virtio 1.2, 2.7, one by one, and drivers that keep to none of them.

mod hostile;
mod rules;

use super::{EVENT_IDX, INDIRECT_DESC, Queue, QueueError, VERSION_1};
use crate::chain::{Chain, Segment};
use crate::driver::Driver;
use crate::ram::Ram;

const SIZE: u16 = 8;

/// A driver with a queue of 8, and the device's side.
fn pair(features: u64) -> (Driver, Queue) {
    let ram = Ram::for_test(1 << 20);
    let driver = Driver::new(&ram, 0x1000, SIZE);
    let queue = open(&driver, features);
    (driver, queue)
}

fn open(driver: &Driver, features: u64) -> Queue {
    Queue::new(driver.ram.clone(), &driver.queue, features | VERSION_1, 256).unwrap().unwrap()
}

const fn at(gpa: u64, len: u32) -> Segment {
    Segment { gpa, len }
}

/// The next chain, which has to be there.
fn take(queue: &mut Queue) -> Chain {
    queue.pop().unwrap().unwrap()
}
