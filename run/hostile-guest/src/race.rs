//! Memory that changes while a device reads it, resets while it works, and rings of random words.

use virtio_numbers::flag::{INDIRECT, WRITE};

use crate::arch;
use crate::cases::ALL_FLAGS;
use crate::device::{Device, Kind, eventually};
use crate::memory::{ARENA, RAM_END, REGISTERS, fill, read, write};
use crate::request::{self, BLOCK_HEADER, block_header, serves};
use crate::ring::{BUFFERS, Descriptor, ROOM, Ring, SIZE, TABLE};

/// Numbers that are the same for the same seed (xorshift64*).
pub struct Random(u64);

impl Random {
    pub const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(2).wrapping_add(1))
    }

    pub const fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// Less than `bound`, which is not 0.
    pub const fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn word(&mut self) -> u16 {
        u16::try_from(self.below(0x1_0000)).unwrap_or(0)
    }

    /// Whether, once in so many times.
    const fn once_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    fn small(&mut self) -> u16 {
        if self.once_in(16) { self.word() } else { self.word() % (SIZE + 1) }
    }

    /// Somewhere a device may write without hurting this program, or nowhere.
    fn gpa(&mut self) -> u64 {
        match self.below(12) {
            0 => RAM_END - self.below(0x1000),
            1 => REGISTERS + self.below(0x1_0000),
            2 => u64::MAX - self.below(0x1000),
            3 => 0xfec0_0000 + self.below(0x40_0000),
            4 => ARENA + self.below(0x4000),
            _ => BUFFERS + self.below(ROOM),
        }
    }

    fn descriptor(&mut self) -> Descriptor {
        let len = match self.below(8) {
            0 => 0,
            1 => u32::MAX,
            2 => BLOCK_HEADER,
            3 => u32::from(self.word()),
            _ => u32::from(self.word() % 1024),
        };
        let (mut gpa, mut len) = (self.gpa(), len);
        let flags = if self.once_in(16) { self.word() } else { self.word() & ALL_FLAGS };
        if flags & INDIRECT != 0 && !self.once_in(8) {
            (gpa, len) = (TABLE, Descriptor::BYTES * u32::from(self.small()));
        }
        Descriptor { gpa, len, flags, next: self.small() }
    }
}

/// Sets a device up with an empty ring.
fn fresh(device: Device, features: u64) -> Option<Ring> {
    // The device may write to the old queue until then.
    if !device.reset() {
        return None;
    }
    let ring = Ring::new(SIZE);
    let good = device.agree(features) && device.set_queue(device.kind.queue(), ring.setup());
    device.start();
    good.then_some(ring)
}

/// Many requests of a disk are under way when it is reset: afterwards it does not touch memory any
/// more.
#[must_use]
pub fn resets_in_the_middle(device: Device, rounds: u64) -> bool {
    const LEN: u64 = 0x8000;
    const PATTERN: u8 = 0xa5;
    /// How long is waited for what must not come.
    const WATCH: u64 = 1 << 22;
    for _ in 0..rounds {
        let Some(mut ring) = fresh(device, device.offered()) else { return false };
        // Header and status in the first page, the data of five requests behind it.
        block_header(0, 0);
        for n in 0..SIZE / 3 {
            let data = BUFFERS + 0x1000 + u64::from(n) * LEN;
            let head = 3 * n;
            ring.describe(head, Descriptor::then(BUFFERS, BLOCK_HEADER, 0, head + 1));
            ring.describe(head + 1, Descriptor::then(data, 0x8000, WRITE, head + 2));
            ring.describe(head + 2, Descriptor::last(BUFFERS + 0x800 + u64::from(n), 1, WRITE));
            ring.offer(head);
        }
        device.notify(device.kind.queue());
        if !device.reset() {
            return false;
        }
        let end = 0x1000 + u64::from(SIZE / 3) * LEN;
        fill(BUFFERS, end, PATTERN);
        let start = arch::ticks();
        while arch::ticks().wrapping_sub(start) < WATCH {
            core::hint::spin_loop();
        }
        let word = u64::from_le_bytes([PATTERN; 8]);
        if (0..end).step_by(8).any(|at| read::<u64>(BUFFERS + at) != word) {
            return false;
        }
    }
    true
}

/// A request changes in all its parts while the device looks at it: the device does it, one way or
/// the other, or needs a reset. Returns how often that was, or none where it got stuck.
#[must_use]
pub fn changes(device: Device, random: &mut Random, rounds: u64) -> Option<u64> {
    let mut broken = 0;
    for _ in 0..rounds {
        let mut ring = fresh(device, device.offered())?;
        for index in 0..SIZE {
            let (gpa, next) = (BUFFERS + u64::from(index) * 0x1000, (index + 1) % SIZE);
            ring.describe(index, Descriptor { gpa, len: 512, flags: u16::from(index < 3), next });
            Descriptor::last(gpa, 512, 0).put(TABLE, index);
        }
        ring.offer(0);
        device.notify(device.kind.queue());
        for _ in 0..random.below(200) {
            let index = random.word() % SIZE;
            let at = ARENA + u64::from(index) * u64::from(Descriptor::BYTES);
            match random.below(5) {
                0 => write(at, random.gpa()),
                1 => write(at + 8, u32::from(random.word())),
                2 => write(at + 12, random.word() & ALL_FLAGS),
                3 => write(at + 14, random.small()),
                _ => ring.jump(random.word() % 2),
            }
        }
        // What is under way may have no end that is reported; a reset has to do in any case.
        broken += u64::from(device.needs_reset());
    }
    Some(broken)
}

/// Random words in all parts of a queue. Returns how often the device needed a reset, or none where
/// it got stuck.
#[must_use]
pub fn fuzz(device: Device, random: &mut Random, rounds: u64) -> Option<u64> {
    let mut broken = 0;
    for _ in 0..rounds {
        let features = device.offered();
        let fewer = features & !(random.next() & (3 << 28));
        let mut ring = fresh(device, fewer)?;
        for index in 0..SIZE {
            random.descriptor().put(TABLE, index);
            ring.describe(index, random.descriptor());
        }
        if device.kind == Kind::Block {
            block_header(u32::from(random.small()), random.below(100));
        }
        for _ in 0..=random.below(4) {
            ring.offer(random.small());
            if random.once_in(20) {
                ring.jump(random.word());
            }
            device.notify(u32::from(random.small()));
            device.notify(device.kind.queue());
        }
        let end = arch::ticks() + random.below(1 << 20);
        // Some are reset while they are looked at.
        while arch::ticks() < end && !device.needs_reset() {
            core::hint::spin_loop();
        }
        broken += u64::from(device.needs_reset());
    }
    Some(broken)
}

/// A disk refuses what it does not have.
#[must_use]
pub fn refuses(device: Device) -> bool {
    fresh(device, device.offered()).is_some_and(|mut ring| request::refuses(device, &mut ring))
}

/// The device works, from its reset on.
#[must_use]
pub fn works(device: Device) -> bool {
    let offered = device.offered();
    let ready = fresh(device, offered);
    ready.is_some_and(|mut ring| serves(device, &mut ring)) && !device.needs_reset()
}

/// Waits until the device needs a reset.
#[must_use]
pub fn gives_up(device: Device) -> bool {
    eventually(|| device.needs_reset())
}
