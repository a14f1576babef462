//! The block component: disks as the configuration names them, and their service.

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::sync::atomic::AtomicU64;

use ipc::proto::start::{Client, Device, Start};
use sysroot::num::usize_of;
use sysroot::{log, process};
use virtio::link::{self, Links};
use virtio::session::{Description, Desk, FIRST_BADGE};

use crate::device::{Block, describe};
use crate::disk::Disk;
use crate::gpt;
use crate::host::HostDisk;
use crate::medium::{Medium, Remote};
use crate::options::Options;
use crate::overlay::{Layout, Overlay};
use crate::request::{Extent, SERIAL};

/// Runs the component.
pub fn main() {
    let start = process::start();
    let mut plan = Plan { start, block: Block::default(), stores: Vec::new(), hosts: 0 };
    let desk = match Desk::open(start, |index, client| plan.serve(index, client)) {
        Ok(desk) => desk,
        Err(status) => {
            log!("cannot serve clients: {status}");
            process::exit(1);
        }
    };
    let Some(links) = Links::of(desk, start) else {
        log!("no page of orders from the root task");
        process::exit(1);
    };
    log!("{} disks", links.len());
    process::ready();
    link::run(links, &mut plan.block);
}

/// What a store is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// The medium with this index.
    Medium(usize),
    Overlay,
}

/// Disks as they are put together.
struct Plan {
    start: &'static Start<'static>,
    block: Block,
    /// Disks of the machine so far.
    hosts: u32,
    /// Stores and disks of the machine in use, by name.
    stores: Vec<(&'static str, Role)>,
}

impl Plan {
    /// Makes the disk of a client.
    fn serve(&mut self, index: usize, client: &Client<'static>) -> Result<Description, String> {
        let options = Options::parse(client.args).map_err(|e| e.to_string())?;
        let disk = self.disk(&options)?;
        if let Some(reason) = self.block.disks().find_map(|other| disk.conflict(other)) {
            return Err(reason.to_string());
        }
        let description = describe(&disk);
        self.block.attach(index, disk);
        Ok(description)
    }

    fn disk(&mut self, options: &Options<'static>) -> Result<Disk, String> {
        let index = self.medium(options.disk)?;
        let medium = self.block.media().get_mut(index).ok_or("no medium")?;
        let sectors = medium.sectors();
        let part = match options.partition {
            None => Extent { sector: 0, count: sectors },
            Some(number) => gpt::find(sectors, number, |sector, to| medium.read_now(sector, to))
                .map_err(|e| e.to_string())?,
        };
        let fixed = medium.is_read_only() && options.overlay.is_none();
        let overlay = options.overlay.map(|name| self.overlay(name, part.count)).transpose()?;
        let mut serial = [0; SERIAL];
        for (to, from) in serial.iter_mut().zip(options.serial.bytes()) {
            *to = from;
        }
        let read_only = options.read_only || fixed;
        Ok(Disk { medium: index, part, read_only, overlay, serial })
    }

    /// The medium of this name.
    fn medium(&mut self, name: &'static str) -> Result<usize, String> {
        match self.role(name) {
            Some(Role::Medium(index)) => return Ok(index),
            Some(Role::Overlay) => return Err("the store is an overlay".into()),
            None => {}
        }
        let medium = match process::device(name) {
            Some(device) => Medium::Remote(Box::new(self.host(device)?)),
            None => Medium::Memory(self.store(name)?),
        };
        let media = self.block.media();
        media.push(medium);
        let index = media.len() - 1;
        self.stores.push((name, Role::Medium(index)));
        Ok(index)
    }

    /// Takes over a disk of the machine.
    fn host(&mut self, device: &Device<'_>) -> Result<HostDisk, String> {
        let badge = 1 << self.hosts;
        if self.hosts >= FIRST_BADGE {
            return Err("too many disks of the machine".into());
        }
        self.hosts += 1;
        let disk = HostDisk::open(device, badge).map_err(|e| e.to_string())?;
        log!("{}: disk of the machine, {} MiB", device.name, disk.sectors() / 2048);
        Ok(disk)
    }

    /// The overlay in the store of this name, for a disk of `sectors`.
    fn overlay(&mut self, name: &'static str, sectors: u64) -> Result<Overlay<'static>, String> {
        if self.role(name).is_some() {
            return Err("the overlay's store is in use already".into());
        }
        let bytes = self.store(name)?;
        self.stores.push((name, Role::Overlay));
        let layout = Layout::new(sectors, sysroot::num::u64_of(bytes.len()));
        let layout = layout.map_err(|e| e.to_string())?;
        let split = bytes.split_at_mut_checked(usize_of(layout.words * 8));
        let (head, data) = split.ok_or("store too small")?;
        let data = data.get_mut(..usize_of(u64::from(layout.slots) * 4096)).unwrap_or_default();
        // SAFETY: the store is aligned to a page and `head` was `words` words of it; nobody else
        // has a reference to them.
        let head = unsafe {
            let words = head.as_mut_ptr().cast::<AtomicU64>().cast_const();
            core::slice::from_raw_parts(words, usize_of(layout.words))
        };
        Overlay::open(sectors, head, data).map_err(|e| e.to_string())
    }

    fn role(&self, name: &str) -> Option<Role> {
        self.stores.iter().find(|(n, _)| *n == name).map(|(_, role)| *role)
    }

    /// The bytes of a store, which has no role yet.
    fn store(&self, name: &str) -> Result<&'static mut [u8], String> {
        let store = self.start.stores.iter().find(|s| s.name == name);
        let area = store.ok_or_else(|| alloc::format!("no store {name}"))?.area;
        let base = core::ptr::with_exposed_provenance_mut::<u8>(usize_of(area.base));
        // SAFETY: the start block says that it is mapped there, readable and writable, for good and
        // for this component alone; each store gets one role, and this is called once for it.
        Ok(unsafe { core::slice::from_raw_parts_mut(base, usize_of(area.size)) })
    }
}
