//! The start block: how the root task tells a component what it was given.
//!
//! It is mapped read-only right behind the UTCB of the component's main thread, whose address the
//! thread finds in `rdi` when it starts. Nothing that is not named here is in the component's
//! spaces.

use heapless::Vec;
use serde::{Deserialize, Serialize};

use crate::{ABI_VERSION, PAGE_SIZE};

/// First bytes of the block.
pub const MAGIC: [u8; 4] = *b"PSTA";

/// Pages that the block takes, used or not.
pub const PAGES: usize = 4;

/// Name of the ELF note in an image, the root task's too, that tells the ABI version it was built for.
pub const NOTE_NAME: &[u8; 8] = b"Portico\0";
/// Type of that note; its content is the version, a word.
pub const NOTE_VERSION: u32 = 1;
/// The note of an image that is built for this version.
pub const NOTE: [u32; 6] = {
    let [a, b, c, d, e, f, g, h] = *NOTE_NAME;
    let name = [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])];
    [8, 4, NOTE_VERSION, name[0], name[1], ABI_VERSION]
};

/// Bytes of magic, ABI version and length before the encoded block.
const HEADER: usize = 12;

/// Largest number of services a component uses.
pub const MAX_USES: usize = 16;
/// Largest number of sessions a component serves.
pub const MAX_CLIENTS: usize = 32;
/// Largest number of devices of a component.
pub const MAX_DEVICES: usize = 8;
/// Largest number of stores of a component.
pub const MAX_STORES: usize = 16;
/// Largest number of ranges of one kind in a device.
pub const MAX_RANGES: usize = 8;
/// Largest number of virtual CPUs of a VM.
pub const MAX_VCPUS: usize = 64;

/// Where things are in the memory space of every component. Only [`layout::IMAGE`] is part of the
/// interface, as images are linked to it; the start block says where everything else is.
pub mod layout {
    use super::Area;

    /// Images are linked and loaded here; what lies outside is refused.
    pub const IMAGE: Area = Area { base: 0x1000_0000, size: 0x1000_0000 };
    /// Thread blocks: see [`super::THREAD_BLOCK`].
    pub const THREADS: Area = Area { base: 0x2000_0000, size: 0x1000_0000 };
    /// Device memory.
    pub const DEVICES: Area = Area { base: 0x3000_0000, size: 0x0fff_0000 };
    /// One page of code that parks a thread for good.
    pub const PARK: u64 = 0x3fff_f000;
    /// Heap.
    pub const HEAP: Area = Area { base: 0x4000_0000, size: 0x4000_0000 };
    /// Left to the component for memory that others hand to it.
    pub const WINDOWS: Area = Area { base: 0x8000_0000, size: 0x8000_0000 };
    /// RAM of the VM that the component runs.
    pub const GUEST_RAM: Area = Area { base: 0x1_0000_0000, size: 0x7f_0000_0000 };
    /// RAM of the VMs that the component serves.
    pub const CLIENT_RAM: Area = Area { base: 0x100_0000_0000, size: 0x100_0000_0000 };
    /// Stores of the component.
    pub const STORES: Area = Area { base: 0x200_0000_0000, size: 0x100_0000_0000 };
    /// Boot modules that the component may read.
    pub const MODULES: Area = Area { base: 0x80_0000_0000, size: 0x80_0000_0000 };
}

/// Size and alignment of the address range of one thread: its UTCB is the first page, its stack
/// ends at the end; what lies between stack and UTCB is not mapped. So a thread finds its UTCB by
/// rounding its stack pointer down, and a stack that overflows faults.
pub const THREAD_BLOCK: u64 = 128 * 1024;

/// Selector of a semaphore that is never signalled: to wait on it is to stop for good.
pub const PARK_SELECTOR: u32 = 4;

/// Badge bit with which the root task signals the component's main semaphore: its log ring has
/// lines, or a service that went away is back.
pub const NOTIFY: u64 = 1 << 63;

/// A range of addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Area {
    /// First byte.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Area {
    /// The first address behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base.saturating_add(self.size)
    }

    /// Whether `other` lies in it entirely.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        match other.base.checked_add(other.size) {
            Some(end) => other.base >= self.base && end <= self.end(),
            None => false,
        }
    }

    /// Whether both have a byte in common.
    #[must_use]
    pub const fn overlaps(self, other: Self) -> bool {
        self.base < other.end() && other.base < self.end()
    }
}

/// Everything a component was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Start<'a> {
    /// Name in the configuration.
    pub name: &'a str,
    /// Argument string of the configuration.
    pub args: &'a str,
    /// TSC ticks per millisecond.
    pub tsc_khz: u64,
    /// TSC value when the machine started.
    pub boot_tsc: u64,
    /// Milliseconds from 1970 to then; 0 where the machine does not know.
    pub wall_ms: u64,
    /// Number of CPUs of the machine.
    pub cpus: u16,
    /// CPU that the main thread runs on.
    pub cpu: u16,
    /// Its priority.
    pub priority: u8,
    /// Object capabilities.
    pub objects: Objects,
    /// Heap: mapped, zeroed.
    pub heap: Area,
    /// Room for thread blocks behind the main thread's.
    pub threads: Area,
    /// Addresses that are free for memory from others.
    pub windows: Area,
    /// Services that it uses.
    #[serde(borrow)]
    pub uses: Vec<Used<'a>, MAX_USES>,
    /// Sessions that it has to serve: one for each user of one of its services.
    #[serde(borrow)]
    pub clients: Vec<Client<'a>, MAX_CLIENTS>,
    /// Devices that it may touch.
    #[serde(borrow)]
    pub devices: Vec<Device<'a>, MAX_DEVICES>,
    /// Its memory that stays.
    #[serde(borrow)]
    pub stores: Vec<Store<'a>, MAX_STORES>,
    /// The root task's [`super::board::Orders`], read-only.
    pub orders: Area,
    /// The component's [`super::board::Figures`].
    pub figures: Area,
    /// The VM that it runs.
    #[serde(borrow)]
    pub vm: Option<Vm<'a>>,
    /// The root task's log lines, for the component that provides the console: a
    /// [`super::console::LogRing`].
    pub log: Option<Area>,
}

/// Selectors in the component's object space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Objects {
    /// Its protection domain.
    pub pd: u32,
    /// Its main execution context.
    pub ec: u32,
    /// The scheduling context of that.
    pub sc: u32,
    /// Its main semaphore: all rights, no badge.
    pub semaphore: u32,
    /// Portals to the root task's service, one per CPU.
    pub root: u32,
    /// Event portals: [`crate::event::HOST_EVENTS`] selectors per CPU. What faults there ends in the
    /// root task, which stops the component.
    pub events: u32,
    /// First free selector.
    pub free: u32,
    /// Number of free selectors from there on.
    pub free_count: u32,
}

/// A service that the component uses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Name of the provider.
    pub provider: &'a str,
    /// Session portals, one selector per CPU; empty while the provider is not there, and for CPUs
    /// that no thread of the component was said to run on.
    pub portals: u32,
    /// Memory shared with the provider, as its protocol says. It is the root task's, so it stays
    /// when the provider dies.
    pub shared: Option<Area>,
}

/// A session that the component serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Client<'a> {
    /// Name of the service.
    pub service: &'a str,
    /// Name of the component that uses it.
    pub name: &'a str,
    /// CPUs on which it needs a session portal, one bit each.
    pub cpus: u64,
    /// Whether it runs a VM.
    pub vm: bool,
    /// Memory shared with the client; see [`Used::shared`].
    pub shared: Option<Area>,
    /// What the configuration says about the session, as `key=value` words.
    pub args: &'a str,
    /// Where the RAM of the client's VM is mapped, readable and writable, while
    /// [`super::board::Orders::life`] says so; for services that work on it.
    pub ram: Option<Area>,
}

/// Memory of the component that stays when it dies: a disk, for example.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store<'a> {
    /// Name in the configuration.
    pub name: &'a str,
    /// Where it is mapped, readable and writable.
    pub area: Area,
}

/// A device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device<'a> {
    /// Name in the configuration.
    pub name: &'a str,
    /// Port ranges: first port and count.
    pub ports: Vec<(u16, u16), MAX_RANGES>,
    /// Device memory.
    pub mmio: Vec<Mmio, MAX_RANGES>,
    /// Interrupts.
    pub interrupts: Vec<Interrupt, MAX_RANGES>,
    /// Set where it is a PCI function.
    pub pci: Option<Pci>,
}

/// A PCI function. Its BARs are the device's `mmio`, in the order of their numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pci {
    /// Its configuration space: 4 KiB, mapped readable and writable.
    pub config: Area,
    /// Number of the BAR behind each entry of the device's `mmio`.
    pub bars: Vec<u8, MAX_RANGES>,
    /// Memory that it may access by itself: contiguous, and the root task's, so it stays.
    pub dma: Option<Mmio>,
    /// Selectors of interrupt capabilities for its MSI-X vectors.
    pub vectors: Vec<u32, MAX_RANGES>,
}

/// Memory of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mmio {
    /// Where it is mapped.
    pub mapped: Area,
    /// Its physical address.
    pub physical: u64,
}

/// Interrupt of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interrupt {
    /// ISA line that the configuration names.
    pub line: u8,
    /// Selector of the interrupt capability.
    pub selector: u32,
    /// Trigger flags to bind it with.
    pub trigger: u64,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm<'a> {
    /// Guest RAM, mapped readable and writable, zeroed; base and size are multiples of 2 MiB.
    pub ram: Area,
    /// Kernel image, mapped read-only; not a whole number of pages.
    pub kernel: Area,
    /// Initial RAM disk, likewise.
    pub initrd: Option<Area>,
    /// Kernel command line.
    pub cmdline: &'a str,
    /// CPU of each virtual CPU.
    pub vcpus: Vec<u16, MAX_VCPUS>,
}

/// The block does not fit or is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Error;

impl<'a> Start<'a> {
    /// Writes the block into `page`.
    ///
    /// # Errors
    /// It does not fit.
    pub fn encode(&self, pages: &mut [u8]) -> Result<(), Error> {
        let (header, body) = pages.split_at_mut_checked(HEADER).ok_or(Error)?;
        let len = postcard::to_slice(self, body).map_err(|_| Error)?.len();
        let len = u32::try_from(len).map_err(|_| Error)?;
        let parts = [MAGIC, ABI_VERSION.to_le_bytes(), len.to_le_bytes()];
        for (to, from) in header.chunks_exact_mut(4).zip(parts) {
            to.copy_from_slice(&from);
        }
        Ok(())
    }

    /// Reads the block that starts `pages`.
    ///
    /// # Errors
    /// It is none, or one of another version.
    pub fn decode(pages: &'a [u8]) -> Result<Self, Error> {
        let (header, body) = pages.split_at_checked(HEADER).ok_or(Error)?;
        let mut words = header.chunks_exact(4).filter_map(|c| <[u8; 4]>::try_from(c).ok());
        let [Some(magic), Some(version), Some(len)] = [words.next(), words.next(), words.next()]
        else {
            return Err(Error);
        };
        if magic != MAGIC || u32::from_le_bytes(version) != ABI_VERSION {
            return Err(Error);
        }
        let len = usize::try_from(u32::from_le_bytes(len)).map_err(|_| Error)?;
        postcard::from_bytes(body.get(..len).ok_or(Error)?).map_err(|_| Error)
    }
}

const _: () = assert!(THREAD_BLOCK > (1 + PAGES as u64) * PAGE_SIZE as u64);
