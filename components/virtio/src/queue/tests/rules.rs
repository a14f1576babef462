use super::{EVENT_IDX, INDIRECT_DESC, Queue, QueueError, SIZE, at, open, pair, take};
use crate::driver::{Driver, INDIRECT, NEXT, WRITE};
use crate::queue::{NO_INTERRUPT, NO_NOTIFY, Part, crosses};
use crate::ram::{NotRam, Ram};

fn set_up(
    change: impl FnOnce(&mut ipc::proto::virtio::Queue),
) -> Result<Option<Queue>, QueueError> {
    let ram = Ram::for_test(1 << 20);
    let mut driver = Driver::new(&ram, 0x1000, SIZE);
    change(&mut driver.queue);
    Queue::new(ram, &driver.queue, 0, 256)
}

#[test]
fn queue_size_is_a_power_of_two() {
    assert_eq!(set_up(|q| q.size = 6).err(), Some(QueueError::SizeNotPowerOfTwo(6)));
    assert!(set_up(|q| q.size = 1).unwrap().is_some());
}

#[test]
fn queue_size_is_at_most_what_the_device_offers() {
    assert_eq!(set_up(|q| q.size = 512).err(), Some(QueueError::SizeTooLarge(512)));
    assert!(set_up(|q| q.size = 256).unwrap().is_some());
}

#[test]
fn a_queue_of_size_zero_is_not_used() {
    assert!(set_up(|q| q.size = 0).unwrap().is_none());
}

#[test]
fn descriptor_table_is_aligned_to_16() {
    let error = set_up(|q| q.descriptors += 8).err();
    assert_eq!(error, Some(QueueError::Misaligned(Part::Descriptors)));
}

#[test]
fn available_ring_is_aligned_to_2() {
    let error = set_up(|q| q.available += 1).err();
    assert_eq!(error, Some(QueueError::Misaligned(Part::Available)));
}

#[test]
fn used_ring_is_aligned_to_4() {
    assert_eq!(set_up(|q| q.used += 2).err(), Some(QueueError::Misaligned(Part::Used)));
}

#[test]
fn every_part_lies_in_ram() {
    let end = 1 << 20;
    let error = set_up(|q| q.descriptors = end - 16).err();
    assert_eq!(error, Some(QueueError::NotRam(Part::Descriptors)));
    let error = set_up(|q| q.available = end - 4).err();
    assert_eq!(error, Some(QueueError::NotRam(Part::Available)));
    let error = set_up(|q| q.used = end - 64).err();
    assert_eq!(error, Some(QueueError::NotRam(Part::Used)));
    let error = set_up(|q| q.used = u64::MAX - 3).err();
    assert_eq!(error, Some(QueueError::NotRam(Part::Used)));
}

#[test]
fn chains_come_in_the_order_of_availability() {
    let (mut driver, mut queue) = pair(0);
    let a = driver.offer(&[at(0x8000, 16)], &[at(0x9000, 1)]);
    let b = driver.offer(&[], &[at(0xa000, 512), at(0xb000, 1)]);
    let first = take(&mut queue);
    assert_eq!((first.head, first.readable().left(), first.writable().left()), (a, 16, 1));
    let second = take(&mut queue);
    assert_eq!((second.head, second.readable().left(), second.writable().left()), (b, 0, 513));
    assert_eq!(queue.pop(), Ok(None));
    queue.complete(first, 1).unwrap();
    queue.complete(second, 513).unwrap();
    assert_eq!(driver.reap(), Some((a.into(), 1)));
    assert_eq!(driver.reap(), Some((b.into(), 513)));
    assert_eq!(driver.reap(), None);
}

#[test]
fn indices_wrap() {
    let (mut driver, mut queue) = pair(0);
    for n in 0..70_000u32 {
        let head = driver.offer(&[at(0x8000, 1)], &[]);
        let chain = take(&mut queue);
        queue.complete(chain, n).unwrap();
        assert_eq!(driver.reap(), Some((head.into(), n.into())));
    }
}

#[test]
fn completion_out_of_order_is_published_in_order() {
    let (mut driver, mut queue) = pair(0);
    let heads: Vec<u16> = (0..3).map(|_| driver.offer(&[at(0x8000, 1)], &[])).collect();
    let [a, b, c] = [take(&mut queue), take(&mut queue), take(&mut queue)];
    queue.complete(c, 3).unwrap();
    assert_eq!(driver.used_index(), 0);
    queue.complete(a, 1).unwrap();
    assert_eq!(driver.used_index(), 1);
    queue.complete(b, 2).unwrap();
    for (n, head) in (1..).zip(heads) {
        assert_eq!(driver.reap(), Some((head.into(), n)));
    }
    assert_eq!(queue.in_flight(), 0);
}

#[test]
fn a_restarted_device_goes_on_at_the_used_index() {
    let (mut driver, mut queue) = pair(0);
    for _ in 0..5 {
        driver.offer(&[at(0x8000, 1)], &[]);
    }
    let first = take(&mut queue);
    let _second = take(&mut queue);
    let third = take(&mut queue);
    queue.complete(third, 0).unwrap();
    queue.complete(first, 0).unwrap();
    // It dies here: only the first was acknowledged.
    let mut queue = open(&driver, 0);
    let heads: Vec<u16> = (0..4).map(|_| take(&mut queue).head).collect();
    assert_eq!(heads, [1, 2, 3, 4]);
    assert_eq!(queue.pop(), Ok(None));
}

#[test]
fn a_chain_of_another_life_of_the_queue_is_dropped() {
    let (mut driver, mut queue) = pair(0);
    driver.offer(&[at(0x8000, 1)], &[]);
    let old = take(&mut queue);
    let mut queue = open(&driver, 0);
    let new = take(&mut queue);
    queue.complete(old, 7).unwrap();
    assert_eq!(driver.used_index(), 0);
    queue.complete(new, 9).unwrap();
    assert_eq!(driver.reap(), Some((0, 9)));
}

#[test]
fn what_was_put_back_comes_again() {
    let (mut driver, mut queue) = pair(0);
    let head = driver.offer(&[at(0x8000, 1)], &[]);
    let other = driver.offer(&[at(0x8000, 1)], &[]);
    let first = take(&mut queue);
    let second = take(&mut queue);
    queue.put_back(second);
    let again = take(&mut queue);
    assert_eq!((first.head, again.head), (head, other));
    assert_eq!(queue.in_flight(), 2);
}

#[test]
fn available_index_runs_ahead_by_at_most_the_queue_size() {
    let (driver, mut queue) = pair(0);
    driver.set_available(SIZE + 1);
    assert_eq!(queue.pop(), Err(QueueError::AvailableJump { index: SIZE + 1, used: 0 }));
}

#[test]
fn available_index_never_goes_back() {
    let (mut driver, mut queue) = pair(0);
    driver.offer(&[at(0x8000, 1)], &[]);
    driver.offer(&[at(0x8000, 1)], &[]);
    let _held = (take(&mut queue), take(&mut queue));
    driver.set_available(1);
    assert_eq!(queue.pop(), Err(QueueError::AvailableJump { index: 1, used: 0 }));
    driver.set_available(0xffff);
    assert_eq!(queue.pop(), Err(QueueError::AvailableJump { index: 0xffff, used: 0 }));
}

#[test]
fn a_head_is_a_descriptor_of_the_queue() {
    let (mut driver, mut queue) = pair(0);
    driver.publish(SIZE);
    assert_eq!(queue.pop(), Err(QueueError::Head(SIZE)));
}

#[test]
fn next_is_a_descriptor_of_the_queue() {
    let (mut driver, mut queue) = pair(0);
    driver.own(0, 0x8000, 1, NEXT, SIZE);
    driver.publish(0);
    assert_eq!(queue.pop(), Err(QueueError::Next(SIZE)));
}

#[test]
fn a_chain_does_not_loop() {
    let (mut driver, mut queue) = pair(0);
    driver.own(0, 0x8000, 1, NEXT, 1);
    driver.own(1, 0x8000, 1, NEXT, 0);
    driver.publish(0);
    assert_eq!(queue.pop(), Err(QueueError::ChainTooLong));
}

#[test]
fn a_chain_may_be_as_long_as_the_queue() {
    let (mut driver, mut queue) = pair(0);
    driver.offer(&[at(0x8000, 1); SIZE as usize], &[]);
    assert_eq!(take(&mut queue).readable().left(), u64::from(SIZE));
}

#[test]
#[expect(unsafe_code, reason = "more memory than a test has")]
fn a_chain_has_at_most_4_gib() {
    let base = core::ptr::NonNull::from(Box::leak(Box::new([0u64; 1 << 12]))).cast();
    // SAFETY: only the queue, in the first 32 KiB, is accessed.
    let ram = unsafe { Ram::new(base, 0x8000_0000) };
    let mut driver = Driver::new(&ram, 0x1000, SIZE);
    let mut queue = open(&driver, 0);
    driver.offer(&[at(0, 0x8000_0000), at(0, 0x8000_0000)], &[]);
    assert_eq!(take(&mut queue).readable().left(), 1 << 32);
    driver.offer(&[at(0, 0x8000_0000), at(0, 0x8000_0000), at(0, 1)], &[]);
    assert_eq!(queue.pop(), Err(QueueError::ChainTooLarge));
}

#[test]
fn writable_descriptors_follow_readable_ones() {
    let (mut driver, mut queue) = pair(0);
    driver.own(0, 0x8000, 1, WRITE | NEXT, 1);
    driver.own(1, 0x8000, 1, 0, 0);
    driver.publish(0);
    assert_eq!(queue.pop(), Err(QueueError::ReadAfterWrite));
}

#[test]
fn a_buffer_has_bytes() {
    let (mut driver, mut queue) = pair(0);
    driver.offer(&[at(0x8000, 0)], &[]);
    assert_eq!(queue.pop(), Err(QueueError::Empty));
}

#[test]
fn a_buffer_lies_in_ram() {
    for (gpa, len) in [(1 << 20, 1), ((1 << 20) - 1, 2), (u64::MAX, 1), (0xc000_0000, 4)] {
        let (mut driver, mut queue) = pair(0);
        driver.offer(&[at(gpa, len)], &[]);
        let not = NotRam { gpa, len: len.into() };
        assert_eq!(queue.pop(), Err(QueueError::Buffer(not)));
    }
}

#[test]
fn indirect_tables_hold_the_chain() {
    let (mut driver, mut queue) = pair(INDIRECT_DESC);
    let head = driver.offer_indirect(0x4000, &[at(0x8000, 16), at(0x8100, 4)], &[at(0x9000, 1)]);
    let chain = take(&mut queue);
    assert_eq!((chain.head, chain.readable().left(), chain.writable().left()), (head, 20, 1));
}

#[test]
fn an_indirect_descriptor_may_end_a_chain_of_others() {
    let (mut driver, mut queue) = pair(INDIRECT_DESC);
    driver.descriptor(0x4000, 0, at(0x9000, 1), WRITE, 0);
    driver.own(0, 0x8000, 16, NEXT, 3);
    driver.own(3, 0x4000, 16, INDIRECT, 0);
    driver.publish(0);
    let chain = take(&mut queue);
    assert_eq!((chain.readable().left(), chain.writable().left()), (16, 1));
}

#[test]
fn the_write_flag_of_an_indirect_descriptor_means_nothing() {
    let (mut driver, mut queue) = pair(INDIRECT_DESC);
    driver.descriptor(0x4000, 0, at(0x9000, 5), 0, 0);
    driver.own(0, 0x4000, 16, INDIRECT | WRITE, 0);
    driver.publish(0);
    assert_eq!(take(&mut queue).readable().left(), 5);
}

/// What comes of an indirect descriptor.
fn indirect(features: u64, gpa: u64, len: u32, flags: u16) -> Option<QueueError> {
    let (mut driver, mut queue) = pair(features);
    for n in 0..SIZE {
        driver.descriptor(0x4000, n, at(0x9000, 5), NEXT, n + 1);
    }
    driver.own(0, gpa, len, flags, 1);
    driver.publish(0);
    queue.pop().err()
}

#[test]
fn indirect_needs_its_feature() {
    assert_eq!(indirect(0, 0x4000, 16, INDIRECT), Some(QueueError::IndirectNotNegotiated));
}

#[test]
fn indirect_does_not_go_on_at_next() {
    let error = indirect(INDIRECT_DESC, 0x4000, 16, INDIRECT | NEXT);
    assert_eq!(error, Some(QueueError::IndirectNext));
}

#[test]
fn indirect_tables_do_not_nest() {
    let (mut driver, mut queue) = pair(INDIRECT_DESC);
    driver.descriptor(0x4000, 0, at(0x4000, 16), INDIRECT, 0);
    driver.own(0, 0x4000, 16, INDIRECT, 0);
    driver.publish(0);
    assert_eq!(queue.pop(), Err(QueueError::IndirectNested));
}

#[test]
fn indirect_tables_hold_whole_descriptors() {
    for len in [0, 15, 17, 16 * 9, u32::MAX] {
        let error = indirect(INDIRECT_DESC, 0x4000, len, INDIRECT);
        assert_eq!(error, Some(QueueError::IndirectLength(len)));
    }
}

#[test]
fn indirect_tables_lie_in_ram() {
    let gpa = (1 << 20) - 16;
    let error = indirect(INDIRECT_DESC, gpa, 32, INDIRECT);
    assert_eq!(error, Some(QueueError::Buffer(NotRam { gpa, len: 32 })));
}

#[test]
fn next_is_a_descriptor_of_the_indirect_table() {
    assert_eq!(indirect(INDIRECT_DESC, 0x4000, 32, INDIRECT), Some(QueueError::Next(2)));
}

#[test]
fn a_chain_with_its_indirect_part_is_no_longer_than_the_queue() {
    assert_eq!(indirect(INDIRECT_DESC, 0x4000, 16 * 8, INDIRECT), Some(QueueError::Next(8)));
    let (mut driver, mut queue) = pair(INDIRECT_DESC);
    driver.descriptor(0x4000, 0, at(0x9000, 5), NEXT, 0);
    driver.own(0, 0x4000, 16, INDIRECT, 0);
    driver.publish(0);
    assert_eq!(queue.pop(), Err(QueueError::ChainTooLong));
}

/// A chain is made available and used.
fn publish(driver: &mut Driver, queue: &mut Queue) {
    driver.offer(&[at(0x8000, 1)], &[]);
    let chain = take(queue);
    queue.complete(chain, 0).unwrap();
}

#[test]
fn without_event_index_the_flag_suppresses_interrupts() {
    let (mut driver, mut queue) = pair(0);
    driver.offer(&[at(0x8000, 1)], &[]);
    driver.offer(&[at(0x8000, 1)], &[]);
    assert!(!queue.wants_interrupt(0).unwrap(), "nothing was published");
    let chain = take(&mut queue);
    queue.complete(chain, 0).unwrap();
    assert!(queue.wants_interrupt(0).unwrap());
    assert!(!queue.wants_interrupt(0).unwrap(), "it had its interrupt");
    driver.set_flags(NO_INTERRUPT);
    let chain = take(&mut queue);
    queue.complete(chain, 0).unwrap();
    assert!(!queue.wants_interrupt(0).unwrap());
}

#[test]
fn with_event_index_the_interrupt_comes_when_it_is_passed() {
    let (mut driver, mut queue) = pair(EVENT_IDX);
    driver.set_flags(NO_INTERRUPT);
    driver.set_used_event(1);
    for expected in [false, true, false] {
        publish(&mut driver, &mut queue);
        assert_eq!(queue.wants_interrupt(0).unwrap(), expected);
    }
}

#[test]
fn one_interrupt_serves_all_that_was_published() {
    let (mut driver, mut queue) = pair(EVENT_IDX);
    driver.set_used_event(2);
    for _ in 0..5 {
        publish(&mut driver, &mut queue);
    }
    assert!(queue.wants_interrupt(0).unwrap());
    assert!(!queue.wants_interrupt(0).unwrap());
}

#[test]
fn an_index_passes_an_event() {
    assert!(crosses(5, 6, 5));
    assert!(!crosses(6, 6, 5));
    assert!(!crosses(4, 6, 5));
    assert!(crosses(0xffff, 0, 0xffff));
    assert!(crosses(0xfffe, 3, 0xfff0));
    assert!(!crosses(5, 5, 5));
}

#[test]
fn without_event_index_the_flag_suppresses_notifications_while_chains_are_taken() {
    let (mut driver, mut queue) = pair(0);
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!(driver.used_flags(), 0);
    driver.offer(&[at(0x8000, 1)], &[]);
    let _chain = take(&mut queue);
    assert_eq!(driver.used_flags(), NO_NOTIFY.into());
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!(driver.used_flags(), 0);
}

#[test]
fn a_device_that_starts_takes_back_the_suppression_of_its_predecessor() {
    let (mut driver, mut queue) = pair(0);
    assert_eq!(queue.pop(), Ok(None));
    driver.offer(&[at(0x8000, 1)], &[]);
    let chain = take(&mut queue);
    queue.complete(chain, 0).unwrap();
    assert_eq!(driver.used_flags(), NO_NOTIFY.into());
    let mut queue = open(&driver, 0);
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!(driver.used_flags(), 0);
}

#[test]
fn with_event_index_the_device_asks_for_the_next_chain_before_it_sleeps() {
    let (mut driver, mut queue) = pair(EVENT_IDX);
    driver.offer(&[at(0x8000, 1)], &[]);
    driver.offer(&[at(0x8000, 1)], &[]);
    let _held = (take(&mut queue), take(&mut queue));
    assert_eq!(driver.available_event(), 0, "it is awake");
    assert_eq!(queue.pop(), Ok(None));
    assert_eq!(driver.available_event(), 2);
    assert_eq!(driver.used_flags(), 0);
}

#[test]
fn patient_queue_asks_again_before_it_interrupts() {
    let (mut driver, mut queue) = pair(EVENT_IDX);
    queue.be_patient(100);
    publish(&mut driver, &mut queue);
    publish(&mut driver, &mut queue);
    assert!(!queue.wants_interrupt(1000).unwrap());
    assert_eq!(queue.due(), Some(1100));
    driver.set_used_event(1);
    assert!(!queue.wants_interrupt(1050).unwrap(), "it has seen one of two");
    assert_eq!(queue.due(), Some(1100), "patience does not begin anew");
    driver.set_used_event(2);
    assert!(!queue.wants_interrupt(1100).unwrap(), "it has seen both");
    assert_eq!(queue.due(), None);
    publish(&mut driver, &mut queue);
    assert!(!queue.wants_interrupt(2000).unwrap());
    assert!(queue.wants_interrupt(2100).unwrap(), "it does not look");
    assert!(!queue.wants_interrupt(2200).unwrap());
}
