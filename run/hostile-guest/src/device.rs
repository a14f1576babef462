//! The driver's side of a virtio device over MMIO (virtio 1.2, 4.2), as bare as it can be.

pub use virtio_numbers::{MAGIC, feature, register, status};

use crate::arch;
use crate::memory::{PAGE, REGISTERS, read, write};

/// How long anything is waited for, in ticks: some 10 seconds, whatever the clock.
const PATIENCE: u64 = 1 << 35;

/// Waits for a condition; whether it came.
pub fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let start = arch::ticks();
    while !condition() {
        if arch::ticks().wrapping_sub(start) > PATIENCE {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

/// What a device is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Network card.
    Net,
    /// Disk.
    Block,
    /// Console.
    Console,
}

impl Kind {
    /// The queue that requests of the driver go to.
    pub const fn queue(self) -> u32 {
        match self {
            Self::Block => 0,
            Self::Net | Self::Console => 1,
        }
    }

    /// As it is printed.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Net => "net",
            Self::Block => "block",
            Self::Console => "console",
        }
    }
}

/// A queue as it is told to the device.
#[derive(Clone, Copy, Debug)]
pub struct Setup {
    pub size: u32,
    pub descriptors: u64,
    pub available: u64,
    pub used: u64,
}

/// A device.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    base: u64,
    pub kind: Kind,
}

impl Device {
    /// All devices of the machine.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..).map(|n| REGISTERS + n * PAGE).map_while(|base| {
            let kind = match read(base + register::DEVICE_ID) {
                1u32 => Kind::Net,
                2 => Kind::Block,
                3 => Kind::Console,
                _ => return None,
            };
            (read::<u32>(base + register::MAGIC) == MAGIC).then_some(Self { base, kind })
        })
    }

    /// Address of a register.
    pub const fn at(self, register: u64) -> u64 {
        self.base + register
    }

    pub fn get(self, register: u64) -> u32 {
        read(self.base + register)
    }

    pub fn set(self, register: u64, value: u32) {
        write(self.base + register, value);
    }

    /// Whether a status bit is set.
    pub fn is(self, bit: u8) -> bool {
        self.get(register::STATUS) & u32::from(bit) != 0
    }

    fn set_status(self, bits: u8) {
        self.set(register::STATUS, bits.into());
    }

    /// Resets it; whether it does.
    #[must_use]
    pub fn reset(self) -> bool {
        self.set_status(0);
        eventually(|| self.get(register::STATUS) == 0)
    }

    /// Features that it offers.
    pub fn offered(self) -> u64 {
        let half = |select| {
            self.set(register::DEVICE_FEATURES_SELECT, select);
            u64::from(self.get(register::DEVICE_FEATURES))
        };
        half(0) | half(1) << 32
    }

    /// Up to the agreement on features; whether there is one.
    #[must_use]
    pub fn agree(self, features: u64) -> bool {
        self.set_status(status::ACKNOWLEDGE);
        self.set_status(status::ACKNOWLEDGE | status::DRIVER);
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.set(register::DRIVER_FEATURES_SELECT, select);
            self.set(register::DRIVER_FEATURES, u32::try_from(half).unwrap_or(0));
        }
        self.set_status(status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.is(status::FEATURES_OK)
    }

    /// Sets a queue up; whether the device takes it.
    #[must_use]
    pub fn set_queue(self, queue: u32, setup: Setup) -> bool {
        self.set(register::QUEUE_SELECT, queue);
        self.set(register::QUEUE_SIZE, setup.size);
        for (low, address) in [
            (register::QUEUE_DESCRIPTORS, setup.descriptors),
            (register::QUEUE_AVAILABLE, setup.available),
            (register::QUEUE_USED, setup.used),
        ] {
            self.set(low, u32::try_from(address & 0xffff_ffff).unwrap_or(0));
            self.set(low + 4, u32::try_from(address >> 32).unwrap_or(0));
        }
        self.set(register::QUEUE_READY, 1);
        self.get(register::QUEUE_READY) == 1
    }

    /// The driver is ready.
    pub fn start(self) {
        self.set(register::STATUS, self.get(register::STATUS) | u32::from(status::DRIVER_OK));
    }

    /// There is something in a queue.
    pub fn notify(self, queue: u32) {
        self.set(register::QUEUE_NOTIFY, queue);
    }

    pub fn needs_reset(self) -> bool {
        self.is(status::NEEDS_RESET)
    }
}
