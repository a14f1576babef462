//! Requests that are in order: they show that a device works.

use virtio_numbers::flag::WRITE;

use crate::device::{Device, Kind, register};
use crate::memory::{read, write};
use crate::ring::{BUFFERS, Descriptor, Ring};

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

/// A broadcast from this address: an Ethernet type and what follows it.
fn broadcast(ring: Ring, source: [u8; 6], rest: impl IntoIterator<Item = u8>) {
    let header = u64::from(NET_HEADER);
    for at in 0..header + u64::from(FRAME) {
        write(BUFFERS + at, 0u8);
    }
    for (at, byte) in (header..).zip([0xff; 6].into_iter().chain(source).chain(rest)) {
        write(BUFFERS + at, byte);
    }
    ring.describe(0, Descriptor::last(BUFFERS, NET_HEADER + FRAME, 0));
}

/// A frame from this address that nobody answers.
pub fn frame(ring: Ring, source: [u8; 6]) {
    broadcast(ring, source, [0x88, 0xb5]);
}

/// A frame that is answered: who on the network outside has the host's address (ARP, RFC 826).
pub fn question(ring: Ring, source: [u8; 6]) {
    const ASKS: [u8; 10] = [0x08, 0x06, 0, 1, 0x08, 0x00, 6, 4, 0, 1];
    const OWN: [u8; 4] = [10, 0, 2, 66];
    const HOST: [u8; 4] = [10, 0, 2, 2];
    let parts = ASKS.into_iter().chain(source).chain(OWN);
    broadcast(ring, source, parts.chain([0; 6]).chain(HOST));
}

/// The address of a card.
pub fn address(device: Device) -> [u8; 6] {
    let mut at = device.at(register::CONFIG);
    [(); 6].map(|()| {
        at += 1;
        read(at - 1)
    })
}

/// Asks a disk, which is set up, for sectors that it does not have, and for things that nobody can
/// do; whether it refuses them all. Capacity is that of its configuration (virtio 1.2, 5.2.4).
#[must_use]
pub fn refuses(device: Device, ring: &mut Ring) -> bool {
    const UNTOUCHED: u8 = 0x5a;
    let half = |at| u64::from(device.get(register::CONFIG + at));
    let sectors = half(0) | half(4) << 32;
    let (read_sector, write_sector, no_such) = (0, 1, 0x7777);
    let mut refused = |kind, sector| {
        block_header(kind, sector);
        block_read(*ring);
        if kind == write_sector {
            ring.describe(1, Descriptor::then(BLOCK_DATA, SECTOR, 0, 2));
        }
        write(BLOCK_DATA, UNTOUCHED);
        ring.offer(0);
        device.notify(device.kind.queue());
        ring.done() && read::<u8>(BLOCK_STATUS) != 0 && read::<u8>(BLOCK_DATA) == UNTOUCHED
    };
    [
        (read_sector, sectors),
        (read_sector, sectors + 1),
        (read_sector, u64::MAX),
        (read_sector, u64::MAX / 512 + 1),
        (write_sector, sectors),
        (write_sector, u64::MAX),
        (no_such, 0),
    ]
    .into_iter()
    .all(|(kind, sector)| refused(kind, sector))
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
