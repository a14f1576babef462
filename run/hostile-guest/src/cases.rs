//! Rules of virtio 1.2, and what breaks them: each time the device needs a reset, and works again
//! after it.

use virtio_numbers::flag::{INDIRECT, NEXT, WRITE};

use crate::device::{Device, Kind, Setup, feature};
use crate::memory::{RAM_END, REGISTERS};
use crate::request::{self, BLOCK_DATA, BLOCK_HEADER, NET_HEADER};
use crate::ring::{BUFFERS, Descriptor, Ring, SIZE, TABLE};

/// What a driver may do wrong.
pub enum Play {
    /// It puts something into its queue.
    Queue(fn(&mut Ring)),
    /// It puts the queue somewhere.
    Place(fn(&mut Setup)),
    /// As [`Self::Queue`], to a device of this kind.
    Of(Kind, fn(&mut Ring)),
    /// As [`Self::Queue`], without the feature.
    Without(u64, fn(&mut Ring)),
}

/// A case.
pub struct Case {
    /// What is wrong.
    pub name: &'static str,
    /// How it is done.
    pub play: Play,
}

const fn case(name: &'static str, play: Play) -> Case {
    Case { name, play }
}

/// A chain of one buffer.
fn one(ring: &mut Ring, descriptor: Descriptor) {
    ring.describe(0, descriptor);
    ring.offer(0);
}

/// A chain of a table, of which the first entry is this.
fn indirect(ring: &mut Ring, len: u32, first: Descriptor) {
    first.put(TABLE, 0);
    one(ring, Descriptor::last(TABLE, len, INDIRECT));
}

const GOOD: Descriptor = Descriptor::last(BUFFERS, 64, 0);
const ENTRY: u32 = Descriptor::BYTES;

use Play::{Of, Place, Queue, Without};

/// The cases. What a back end logs of each is the host's to check.
pub const CASES: &[Case] = &[
    case("buffer behind the end of RAM", Queue(|r| one(r, Descriptor::last(RAM_END, 64, 0)))),
    case(
        "chain that loops",
        Queue(|r| {
            r.describe(1, Descriptor::then(BUFFERS, 8, 0, 0));
            one(r, Descriptor::then(BUFFERS, 8, 0, 1));
        }),
    ),
    case("available index jumps", Queue(|r| r.jump(SIZE + 1))),
    case("empty buffer", Queue(|r| one(r, Descriptor::last(BUFFERS, 0, 0)))),
    case("head is no descriptor", Queue(|r| r.offer(SIZE))),
    case(
        "indirect table in an indirect table",
        Queue(|r| {
            indirect(r, ENTRY, Descriptor::last(TABLE, ENTRY, INDIRECT));
        }),
    ),
    case("queue in registers", Place(|s| s.available = REGISTERS)),
    case("buffer over the end of RAM", Queue(|r| one(r, Descriptor::last(RAM_END - 32, 64, 0)))),
    case("buffer in registers", Queue(|r| one(r, Descriptor::last(REGISTERS, 64, 0)))),
    case("buffer in the local APIC", Queue(|r| one(r, Descriptor::last(0xfee0_0000, 64, WRITE)))),
    case(
        "buffer at the end of addresses",
        Queue(|r| {
            one(r, Descriptor::last(u64::MAX - 15, 64, 0));
        }),
    ),
    case("buffer of 4 GiB", Queue(|r| one(r, Descriptor::last(BUFFERS, u32::MAX, 0)))),
    case(
        "empty buffer behind another",
        Queue(|r| {
            r.describe(1, Descriptor::last(BUFFERS, 0, WRITE));
            one(r, Descriptor::then(BUFFERS, 64, 0, 1));
        }),
    ),
    case("descriptor that follows itself", Queue(|r| one(r, Descriptor::then(BUFFERS, 8, 0, 0)))),
    case("next is no descriptor", Queue(|r| one(r, Descriptor::then(BUFFERS, 8, 0, SIZE)))),
    case("next is far off", Queue(|r| one(r, Descriptor::then(BUFFERS, 8, 0, u16::MAX)))),
    case("head is far off", Queue(|r| r.offer(u16::MAX))),
    case("available index goes back", Queue(|r| r.jump(u16::MAX))),
    case("available index is half way round", Queue(|r| r.jump(0x8000))),
    case(
        "readable buffer behind a writable one",
        Queue(|r| {
            r.describe(1, GOOD);
            one(r, Descriptor::then(BUFFERS, 64, WRITE, 1));
        }),
    ),
    case(
        "more than 4 GiB in a chain",
        Queue(|r| {
            let most = u32::try_from(RAM_END - BUFFERS).unwrap_or(0);
            for n in 0..SIZE {
                Descriptor::then(BUFFERS, most, 0, (n + 1) % SIZE).put(TABLE, n);
            }
            one(r, Descriptor::last(TABLE, ENTRY * u32::from(SIZE), INDIRECT));
        }),
    ),
    case(
        "indirect table that goes on",
        Queue(|r| {
            GOOD.put(TABLE, 0);
            r.describe(1, GOOD);
            one(r, Descriptor::then(TABLE, ENTRY, INDIRECT, 1));
        }),
    ),
    case("indirect table of no bytes", Queue(|r| indirect(r, 0, GOOD))),
    case("indirect table of a part", Queue(|r| indirect(r, ENTRY + 1, GOOD))),
    case(
        "indirect table longer than the queue",
        Queue(|r| {
            indirect(r, ENTRY * (u32::from(SIZE) + 1), GOOD);
        }),
    ),
    case(
        "indirect table outside of RAM",
        Queue(|r| {
            one(r, Descriptor::last(RAM_END, ENTRY, INDIRECT));
        }),
    ),
    case(
        "indirect table in registers",
        Queue(|r| {
            one(r, Descriptor::last(REGISTERS, ENTRY, INDIRECT));
        }),
    ),
    case(
        "indirect next is no entry",
        Queue(|r| {
            indirect(r, ENTRY, Descriptor::then(BUFFERS, 64, 0, 1));
        }),
    ),
    case(
        "indirect table that loops",
        Queue(|r| {
            indirect(r, ENTRY, Descriptor::then(BUFFERS, 64, 0, 0));
        }),
    ),
    case(
        "indirect table without the feature",
        Without(feature::INDIRECT_DESC, |r| {
            indirect(r, ENTRY, GOOD);
        }),
    ),
    case("descriptors behind the end of RAM", Place(|s| s.descriptors = RAM_END)),
    case("descriptors over the end of RAM", Place(|s| s.descriptors = RAM_END - 16)),
    case("descriptors at the end of addresses", Place(|s| s.descriptors = u64::MAX - 15)),
    case("descriptors not aligned", Place(|s| s.descriptors += 8)),
    case("available ring not aligned", Place(|s| s.available += 1)),
    case("used ring not aligned", Place(|s| s.used += 2)),
    case("used ring in registers", Place(|s| s.used = REGISTERS)),
    case("used ring behind the end of RAM", Place(|s| s.used = RAM_END)),
    case(
        "short header",
        Of(Kind::Block, |r| {
            r.describe(1, Descriptor::last(BLOCK_DATA, 1, WRITE));
            one(r, Descriptor::then(BUFFERS, BLOCK_HEADER - 1, 0, 1));
        }),
    ),
    case(
        "no place for a status",
        Of(Kind::Block, |r| {
            request::block_header(1, 0);
            r.describe(1, Descriptor::last(BLOCK_DATA, 512, 0));
            one(r, Descriptor::then(BUFFERS, BLOCK_HEADER, 0, 1));
        }),
    ),
    case("short header", Of(Kind::Net, |r| one(r, Descriptor::last(BUFFERS, NET_HEADER - 1, 0)))),
    case(
        "frame in a writable buffer",
        Of(Kind::Net, |r| one(r, Descriptor::last(BUFFERS, 80, WRITE))),
    ),
];

impl Case {
    /// Whether it is for this kind of devices.
    pub fn suits(&self, kind: Kind) -> bool {
        !matches!(self.play, Of(of, _) if of != kind)
    }

    /// Sets a device up, and breaks the rule. Whether it came to that.
    #[must_use]
    pub fn play(&self, device: Device) -> bool {
        let mut ring = Ring::new(SIZE);
        let mut setup = ring.setup();
        let mut features = device.offered();
        match self.play {
            Place(spoil) => spoil(&mut setup),
            Without(feature, _) => features &= !feature,
            Queue(_) | Of(..) => {}
        }
        let queue = device.kind.queue();
        if !(device.agree(features) && device.set_queue(queue, setup)) {
            return false;
        }
        device.start();
        if let Queue(fill) | Of(_, fill) | Without(_, fill) = self.play {
            fill(&mut ring);
        }
        device.notify(queue);
        true
    }
}

/// Chains that go on are told so by a flag; the constant is used by tables that are random.
pub const ALL_FLAGS: u16 = NEXT | WRITE | INDIRECT;
