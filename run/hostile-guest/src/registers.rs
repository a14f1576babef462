//! What the registers of a device do not let a driver do (virtio 1.2, 4.2.2 and 3.1.1).

use crate::device::{Device, feature, register, status};
use crate::memory::{read, write};
use crate::ring::{Ring, SIZE};

/// A feature of the transport that no device here has, and one that is not a device's to offer.
const NOT_OFFERED: [u64; 2] = [1 << 33, 1 << 40];

/// Features that were not offered, or not those that a driver has to take, are not agreed on; and
/// without agreement a device does not start.
#[must_use]
pub fn features_are_bounded(device: Device) -> bool {
    let offered = device.offered();
    let refused = |features| {
        let agreed = device.agree(features);
        device.start();
        let started = device.is(status::DRIVER_OK);
        device.reset() && !agreed && !started
    };
    NOT_OFFERED.into_iter().all(|more| refused(offered | more))
        && refused(offered & !feature::VERSION_1)
        && refused(0)
}

/// A queue of an impossible size does not become ready, and neither does one that is not there. The
/// device starts without, and a doorbell does nothing.
#[must_use]
pub fn sizes_are_bounded(device: Device) -> bool {
    let most = u16::try_from(device.get(register::QUEUE_SIZE_MAX)).unwrap_or(0);
    let queue = device.kind.queue();
    let good = Ring::new(SIZE).setup();
    if !device.agree(device.offered()) {
        return false;
    }
    for size in [0, 3, u32::from(SIZE) - 1, u32::from(most) * 2, 0x1_0010, u32::MAX] {
        if device.set_queue(queue, crate::device::Setup { size, ..good }) {
            return false;
        }
    }
    for missing in [7, 8, 1000, u32::MAX] {
        if device.set_queue(missing, good) {
            return false;
        }
    }
    device.start();
    for doorbell in [queue, 7, 1000, u32::MAX] {
        device.notify(doorbell);
    }
    !device.needs_reset() && device.reset()
}

/// What can only be read stays as it is, however wide it is written.
#[must_use]
pub fn read_only_registers_stay(device: Device) -> bool {
    use register::{CONFIG, CONFIG_GENERATION, DEVICE_ID, INTERRUPT_STATUS, MAGIC};
    let all = || {
        let words = [MAGIC, DEVICE_ID, INTERRUPT_STATUS, CONFIG_GENERATION, CONFIG, CONFIG + 4];
        words.map(|at| device.get(at))
    };
    let before = all();
    for at in [MAGIC, DEVICE_ID, INTERRUPT_STATUS, CONFIG_GENERATION, CONFIG, CONFIG + 4, 0x200] {
        write(device.at(at), u32::MAX);
        write(device.at(at), u8::MAX);
        write(device.at(at), u16::MAX);
    }
    write(device.at(CONFIG), u64::MAX);
    // Nothing is behind the registers, up to the end of the page.
    write(device.at(0xff8), u64::MAX);
    before == all() && read::<u64>(device.at(0xff8)) == 0 && !device.needs_reset()
}

/// A queue in use stays where it is, until the device is reset.
#[must_use]
pub fn queues_stay_in_use(device: Device) -> bool {
    let ring = Ring::new(SIZE);
    let queue = device.kind.queue();
    if !(device.agree(device.offered()) && device.set_queue(queue, ring.setup())) {
        return false;
    }
    device.start();
    device.set(register::QUEUE_READY, 0);
    let elsewhere = crate::device::Setup { descriptors: 0, ..ring.setup() };
    let ready = device.set_queue(queue, elsewhere);
    let mut ring = ring;
    ready && crate::request::serves(device, &mut ring) && device.reset()
}
