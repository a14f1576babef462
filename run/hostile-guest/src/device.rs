//! The driver's side of a virtio device over MMIO (virtio 1.2, 4.2), as bare as it can be.

use crate::arch;
use crate::memory::{PAGE, REGISTERS, read, write};

/// Registers (virtio 1.2, 4.2.2).
pub mod register {
    pub const MAGIC: u64 = 0x00;
    pub const DEVICE_ID: u64 = 0x08;
    pub const DEVICE_FEATURES: u64 = 0x10;
    pub const DEVICE_FEATURES_SELECT: u64 = 0x14;
    pub const DRIVER_FEATURES: u64 = 0x20;
    pub const DRIVER_FEATURES_SELECT: u64 = 0x24;
    pub const QUEUE_SELECT: u64 = 0x30;
    pub const QUEUE_SIZE_MAX: u64 = 0x34;
    pub const QUEUE_SIZE: u64 = 0x38;
    pub const QUEUE_READY: u64 = 0x44;
    pub const QUEUE_NOTIFY: u64 = 0x50;
    pub const INTERRUPT_STATUS: u64 = 0x60;
    pub const STATUS: u64 = 0x70;
    pub const QUEUE_DESCRIPTORS: u64 = 0x80;
    pub const QUEUE_AVAILABLE: u64 = 0x90;
    pub const QUEUE_USED: u64 = 0xa0;
    pub const CONFIG_GENERATION: u64 = 0xfc;
    pub const CONFIG: u64 = 0x100;
}

/// Device status (virtio 1.2, 2.1).
pub mod status {
    pub const ACKNOWLEDGE: u32 = 1;
    pub const DRIVER: u32 = 2;
    pub const DRIVER_OK: u32 = 4;
    pub const FEATURES_OK: u32 = 8;
    pub const NEEDS_RESET: u32 = 64;
}

/// Features (virtio 1.2, 6).
pub mod feature {
    pub const INDIRECT: u64 = 1 << 28;
    pub const VERSION_1: u64 = 1 << 32;
}

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
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

    pub fn status(self) -> u32 {
        self.get(register::STATUS)
    }

    /// Resets it; whether it does.
    #[must_use]
    pub fn reset(self) -> bool {
        self.set(register::STATUS, 0);
        eventually(|| self.status() == 0)
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
        self.set(register::STATUS, status::ACKNOWLEDGE);
        self.set(register::STATUS, status::ACKNOWLEDGE | status::DRIVER);
        for (select, half) in [(0, features & 0xffff_ffff), (1, features >> 32)] {
            self.set(register::DRIVER_FEATURES_SELECT, select);
            self.set(register::DRIVER_FEATURES, u32::try_from(half).unwrap_or(0));
        }
        self.set(register::STATUS, status::ACKNOWLEDGE | status::DRIVER | status::FEATURES_OK);
        self.status() & status::FEATURES_OK != 0
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
        self.set(register::STATUS, self.status() | status::DRIVER_OK);
    }

    /// There is something in a queue.
    pub fn notify(self, queue: u32) {
        self.set(register::QUEUE_NOTIFY, queue);
    }

    pub fn needs_reset(self) -> bool {
        self.status() & status::NEEDS_RESET != 0
    }
}
