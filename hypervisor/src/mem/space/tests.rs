#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use ipc::status::Status;

use super::{AddressSpace, Epoch, HostLayout, KERNEL_ENTRIES, Ordering, PortSpace};
use crate::mem::paging::{Format, LeafSize};
use crate::mem::pool::{self, Page};
use crate::mem::tests::Region;

impl PortSpace {
    /// Whether a port may be accessed.
    pub(crate) fn allows(&self, port: u64) -> bool {
        let word = self.word(port).filter(|_| port < Self::PORTS);
        word.is_some_and(|w| w.load(Ordering::Relaxed) & 1 << (port % 64) == 0)
    }
}

const LAYOUT: HostLayout = HostLayout { kernel: [11, 12, 13], max_leaf: LeafSize::Huge };

#[test]
fn kernel_entries() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let space = AddressSpace::host(frames, root, &LAYOUT).unwrap();
    // SAFETY: the root is a valid page.
    let table = unsafe { pool::ptr::<Page>(space.root).as_ref() };
    for i in 0..3 {
        let entry = table.word(KERNEL_ENTRIES + i).load(Ordering::Relaxed);
        assert_eq!(entry, LAYOUT.kernel[i]);
    }
    // SAFETY: nothing is mapped.
    unsafe { space.destroy(frames, root) };
    assert_eq!(root.used(), 0);
}

#[test]
fn limits() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let host = AddressSpace::host(frames, root, &LAYOUT).unwrap();
    let guest = AddressSpace::guest(frames, root, Format::Ept, LeafSize::Large).unwrap();
    let last = 0x7_ffff_ffff;
    assert!(host.admits(1, 0) && host.admits(2, 1) && host.admits(last - 1, 0));
    assert!(!host.admits(0, 0) && !host.admits(0, 18) && !host.admits(last, 0));
    assert!(!host.admits(1, 1) && !host.admits(u64::MAX, 0) && !host.admits(0, 63));
    assert!(!host.admits(last + 1 - (1 << 18), 18));
    assert!(guest.admits(0, 18) && guest.admits((1 << 36) - 1, 0) && !guest.admits(1 << 36, 0));
}

#[test]
fn ports() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let space = PortSpace::default();
    assert!(space.bitmap().is_none() && !space.allows(0) && !space.allows(1 << 16));
    frames.fail_after = Some(0);
    assert_eq!(space.allow(frames, root, 0x3f8, 3), Err(Status::Quota));
    assert!(space.bitmap().is_none());
    for (port, order) in [(0_u64, 0_u8), (0x3f8, 3), (0x40, 6), (0x80, 7), (0xffff, 0), (0, 16)] {
        space.allow(frames, root, port, order).unwrap();
        for p in 0..=PortSpace::PORTS {
            assert_eq!(space.allows(p), p >= port && p < port + (1 << order), "{p:#x}");
        }
        assert_eq!(root.used(), 2);
        space.set(port, order, true);
        assert!((0..PortSpace::PORTS).all(|p| !space.allows(p)));
    }
    // SAFETY: no CPU reads the bitmap.
    unsafe { space.destroy(frames, root) };
    assert!(space.bitmap().is_none() && root.used() == 0);
}

#[test]
fn every_epoch_is_new() {
    let (one, other) = (Epoch::default(), Epoch::default());
    let before = one.number();
    assert!(before != 0 && before != other.number() && before == one.number());
    one.end();
    assert!(![before, other.number(), 0].contains(&one.number()));
}
