//! Requests that are in order: they show that a device works.

use crate::device::{Device, Kind, register};
use crate::memory::{read, write};
use crate::ring::{BUFFERS, Descriptor, Ring, WRITE};

/// Bytes of a disk's request header.
pub const BLOCK_HEADER: u32 = 16;
/// Bytes of a sector.
const SECTOR: u32 = 512;
/// Bytes in front of a frame (virtio 1.2, 5.1.6).
pub const NET_HEADER: u32 = 12;
/// Bytes of the shortest frame.
const FRAME: u32 = 60;

/// Where the status of a disk's request goes.
pub const BLOCK_STATUS: u64 = BUFFERS + 0x800;
/// Where the data of a disk's request goes.
pub const BLOCK_DATA: u64 = BUFFERS + 0x400;

/// Writes a header for a disk.
pub fn block_header(kind: u32, sector: u64) {
    write(BUFFERS, kind);
    write(BUFFERS + 4, 0u32);
    write(BUFFERS + 8, sector);
}

/// Descriptors of a request whose header is written: a sector that is read from the disk.
pub fn block_read(ring: Ring) {
    write(BLOCK_STATUS, 0xffu8);
    ring.describe(0, Descriptor::then(BUFFERS, BLOCK_HEADER, 0, 1));
    ring.describe(1, Descriptor::then(BLOCK_DATA, SECTOR, WRITE, 2));
    ring.describe(2, Descriptor::last(BLOCK_STATUS, 1, WRITE));
}

/// A broadcast from this address.
pub fn frame(ring: Ring, source: [u8; 6]) {
    let header = u64::from(NET_HEADER);
    for at in 0..header + u64::from(FRAME) {
        write(BUFFERS + at, 0u8);
    }
    for (at, byte) in (header..).zip([0xff; 6].into_iter().chain(source).chain([0x88, 0xb5])) {
        write(BUFFERS + at, byte);
    }
    ring.describe(0, Descriptor::last(BUFFERS, NET_HEADER + FRAME, 0));
}

/// The address of a card.
pub fn address(device: Device) -> [u8; 6] {
    let mut at = device.at(register::CONFIG);
    [(); 6].map(|()| {
        at += 1;
        read(at - 1)
    })
}

/// Asks the device, which is set up, for something ordinary; whether it does it.
#[must_use]
pub fn serves(device: Device, ring: &mut Ring) -> bool {
    match device.kind {
        Kind::Block => {
            block_header(0, 0);
            block_read(*ring);
        }
        Kind::Net => frame(*ring, address(device)),
        Kind::Console => {
            // Nothing that one would see.
            write(BUFFERS, b'\r');
            ring.describe(0, Descriptor::last(BUFFERS, 1, 0));
        }
    }
    ring.offer(0);
    device.notify(device.kind.queue());
    ring.done() && (device.kind != Kind::Block || read::<u8>(BLOCK_STATUS) == 0)
}
