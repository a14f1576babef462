//! Named after the rules of virtio 1.2, whose sections they cite.

use ipc::proto::virtio::Queue;

use super::{Device, Request, feature, status};
use crate::devices::virtio::page::{Page, offset};
use crate::devices::virtio::slot::tests::{disk, drive};

struct Bench {
    page: Page,
    device: Device,
}

impl Bench {
    fn new() -> Self {
        let page = Page::default();
        let mut device = Device::new(&page);
        device.identify(&page, disk());
        Self { page, device }
    }

    fn write(&mut self, at: u64, value: u32) -> Request {
        self.device.write(&self.page, at, 4, value.into())
    }

    fn read(&self, at: u64) -> u32 {
        self.page.get(at)
    }

    fn features(&mut self, value: u64) {
        for (select, value) in [(0, value as u32), (1, (value >> 32) as u32)] {
            self.write(offset::DRIVER_FEATURES_SELECT, select);
            self.write(offset::DRIVER_FEATURES, value);
        }
    }

    fn running() -> (Self, Vec<Request>) {
        let mut b = Self::new();
        let mut asked = vec![];
        drive(|at, value| asked.push(b.write(at, value)));
        (b, asked)
    }
}

/// 4.2.2.1
#[test]
fn magic_version_and_ids() {
    let b = Bench::new();
    assert_eq!(b.read(offset::MAGIC), 0x7472_6976);
    assert_eq!(b.read(offset::VERSION), 2);
    assert_eq!(b.read(offset::DEVICE_ID), 2);
    let page = Page::default();
    let _ = Device::new(&page);
    assert_eq!(page.get(offset::DEVICE_ID), 0, "a placeholder has no id");
}

/// 4.2.2: a region that does not exist has a length of all ones.
#[test]
fn there_is_no_shared_memory() {
    let b = Bench::new();
    assert_eq!(b.page.read(offset::SHARED_MEMORY, 8), u64::MAX);
}

/// 4.2.2: features are read by halves; 6.1: VERSION_1 is always offered.
#[test]
fn device_features_follow_the_selector() {
    let mut b = Bench::new();
    b.write(offset::DEVICE_FEATURES_SELECT, 0);
    assert_eq!(b.read(offset::DEVICE_FEATURES), 1 << 28 | 1 << 9);
    b.write(offset::DEVICE_FEATURES_SELECT, 1);
    assert_eq!(b.read(offset::DEVICE_FEATURES), 1);
    b.write(offset::DEVICE_FEATURES_SELECT, 2);
    assert_eq!(b.read(offset::DEVICE_FEATURES), 0);
}

/// 6: bits of the transport and of packed rings are not a back end's to offer.
#[test]
fn only_a_devices_own_features_pass() {
    let mut b = Bench::new();
    let mut all = disk();
    all.features = u64::MAX;
    b.device.identify(&b.page, all);
    let transport = [33, 34, 36, 37, 38, 39, 40, 24, 27, 30, 49];
    assert!(transport.iter().all(|bit| b.device.offered() >> bit & 1 == 0));
    assert!([0, 23, 28, 29, 32, 35, 50, 63].iter().all(|bit| b.device.offered() >> bit & 1 == 1));
}

/// 2.2.2: the device does not agree to features that it did not offer.
#[test]
fn features_beyond_the_offer_are_refused() {
    let mut b = Bench::new();
    b.features(feature::VERSION_1 | 1 << 10);
    b.write(offset::STATUS, 0xb);
    assert_eq!(b.page.status(), 3);
    b.features(feature::VERSION_1 | 1 << 9);
    b.write(offset::STATUS, 0xb);
    assert_eq!(b.page.status(), 0xb);
}

/// 6.2: a device may refuse a driver that does not take VERSION_1.
#[test]
fn legacy_drivers_are_refused() {
    let mut b = Bench::new();
    b.features(1 << 9);
    b.write(offset::STATUS, 0xb);
    assert_eq!(b.page.status(), 3);
}

/// 3.1.1: features do not change once they are agreed on.
#[test]
fn features_stay_after_features_ok() {
    let mut b = Bench::new();
    b.features(feature::VERSION_1);
    b.write(offset::STATUS, 0xb);
    b.features(feature::VERSION_1 | 1 << 10);
    assert_eq!(b.write(offset::STATUS, 0xf), Request::Activate);
    assert_eq!(b.device.setup().features, feature::VERSION_1);
}

/// 2.1.1: the driver does not clear bits of the status.
#[test]
fn status_bits_stay_until_reset() {
    let (mut b, _) = Bench::running();
    b.write(offset::STATUS, 1);
    assert_eq!(b.page.status(), 0xf);
    b.write(offset::STATUS, 0xff);
    assert_eq!(b.page.status(), 0xf | status::FAILED, "the rest is the device's");
}

/// 2.1.2: no queue is used before DRIVER_OK; 3.1.1: nor without agreement on features.
#[test]
fn driver_ok_needs_features_ok() {
    let mut b = Bench::new();
    assert_eq!(b.write(offset::STATUS, 7), Request::None);
    assert_eq!(b.page.status(), 3);
}

/// 3.1.1
#[test]
fn driver_ok_hands_over_the_queues_once() {
    let (mut b, asked) = Bench::running();
    assert_eq!(asked.iter().filter(|r| **r == Request::Activate).count(), 1);
    let setup = b.device.setup();
    let queue = Queue { size: 64, descriptors: 0x1000, available: 0x2000, used: 0x3000 };
    assert_eq!(setup.queues[0], queue);
    assert_eq!(setup.queues[1], Queue::default());
    assert_eq!(b.write(offset::STATUS, 0xf), Request::None);
}

/// 4.2.2: the size of a queue that is not there reads as 0.
#[test]
fn queues_that_are_not_there() {
    let mut b = Bench::new();
    assert_eq!(b.read(offset::QUEUE_SIZE_MAX), 128);
    for select in [1, 7, 8, u32::MAX] {
        b.write(offset::QUEUE_SELECT, select);
        assert_eq!(b.read(offset::QUEUE_SIZE_MAX), 0);
        b.write(offset::QUEUE_SIZE, 16);
        b.write(offset::QUEUE_READY, 1);
        assert_eq!(b.read(offset::QUEUE_READY), 0);
    }
}

/// 2.7: sizes are powers of two; 4.2.2: and at most what the device says.
#[test]
fn queues_of_a_bad_size_do_not_become_ready() {
    for size in [0, 3, 127, 256, 0x1_0080, u32::MAX] {
        let mut b = Bench::new();
        b.write(offset::QUEUE_SIZE, size);
        b.write(offset::QUEUE_READY, 1);
        assert_eq!(b.read(offset::QUEUE_READY), 0, "{size}");
    }
}

/// 4.2.2.2: a queue that is ready is not changed.
#[test]
fn a_ready_queue_stays_as_it_is() {
    let mut b = Bench::new();
    b.features(feature::VERSION_1);
    b.write(offset::STATUS, 0xb);
    b.write(offset::QUEUE_SIZE, 32);
    b.write(offset::QUEUE_USED_HIGH, 1);
    b.write(offset::QUEUE_READY, 1);
    assert_eq!(b.read(offset::QUEUE_READY), 1);
    b.write(offset::QUEUE_SIZE, 64);
    b.write(offset::QUEUE_USED, 0x5000);
    assert_eq!(b.write(offset::STATUS, 0xf), Request::Activate);
    let setup = b.device.setup();
    assert_eq!((setup.queues[0].size, setup.queues[0].used), (32, 1 << 32));
    // Not while the device runs, either.
    b.write(offset::QUEUE_READY, 0);
    assert_eq!(b.read(offset::QUEUE_READY), 1);
}

/// 2.4: a reset brings the device into its initial state.
#[test]
fn reset_is_asked_for_and_then_complete() {
    let (mut b, _) = Bench::running();
    b.page.raise(1);
    assert_eq!(b.write(offset::STATUS, 0), Request::Reset);
    assert_eq!(b.page.status(), 0xf);
    b.device.reset(&b.page);
    assert_eq!((b.page.status(), b.read(offset::INTERRUPT_STATUS)), (0, 0));
    assert_eq!((b.read(offset::QUEUE_READY), b.read(offset::QUEUE_SIZE_MAX)), (0, 128));
    b.features(feature::VERSION_1);
    b.write(offset::STATUS, 0xb);
    assert_eq!(b.write(offset::STATUS, 0xf), Request::Activate);
    let setup = b.device.setup();
    assert!(setup.queues.iter().all(|q| *q == Queue::default()));
}

/// 4.2.2.2: registers are accessed by 32 bits, aligned.
#[test]
fn other_accesses_have_no_effect() {
    let mut b = Bench::new();
    for (at, size) in [(offset::STATUS, 1), (offset::STATUS, 8), (offset::STATUS + 2, 4)] {
        assert_eq!(b.device.write(&b.page, at, size, 1), Request::None);
    }
    assert_eq!(b.page.status(), 0);
}

/// 4.2.2.2: the configuration is read in pieces of any size.
#[test]
fn configuration_reads_and_cannot_be_written() {
    let mut b = Bench::new();
    assert_eq!(b.page.read(offset::CONFIG, 8), 0x5_0403_0201);
    assert_eq!(b.page.read(offset::CONFIG + 1, 2), 0x302);
    assert_eq!(b.page.read(offset::CONFIG + 4, 1), 5);
    b.device.write(&b.page, offset::CONFIG, 1, 9);
    b.write(offset::CONFIG, 9);
    assert_eq!(b.page.read(offset::CONFIG, 1), 1);
}

/// 2.5.1: the generation changes with the configuration, and only then.
#[test]
fn generation_counts_changes() {
    let mut b = Bench::new();
    let before = b.read(offset::CONFIG_GENERATION);
    assert!(!b.device.identify(&b.page, disk()));
    assert_eq!(b.read(offset::CONFIG_GENERATION), before);
    let mut other = disk();
    other.config[4] = 6;
    assert!(b.device.identify(&b.page, other));
    assert_ne!(b.read(offset::CONFIG_GENERATION), before);
    assert_eq!(b.page.read(offset::CONFIG + 4, 1), 6);
}

/// 2.1.2: a device that cannot go on says so.
#[test]
fn a_device_that_became_another_needs_a_reset() {
    let (mut b, _) = Bench::running();
    assert!(!b.device.identify(&b.page, disk()));
    assert_eq!(b.page.status(), 0xf);
    let mut other = disk();
    other.device = 1;
    assert!(b.device.identify(&b.page, other));
    assert_eq!(b.page.status(), 0xf | status::NEEDS_RESET);
}

/// 2.1.2: nor one that lost a feature in use; what is not in use may go.
#[test]
fn a_device_that_lost_a_feature_in_use_needs_a_reset() {
    for (lost, broken) in [(1 << 9, true), (1 << 28, false)] {
        let mut b = Bench::new();
        b.features(feature::VERSION_1 | 1 << 9);
        b.write(offset::STATUS, 0xb);
        let mut less = disk();
        less.features &= !lost;
        b.device.identify(&b.page, less);
        assert_eq!(b.page.status() & status::NEEDS_RESET != 0, broken);
    }
}
