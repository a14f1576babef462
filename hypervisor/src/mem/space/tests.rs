#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use ipc::cap::MemRights;
use ipc::status::Status;

use super::{AddressSpace, HostLayout, KERNEL_ENTRIES, PortSpace, Stale};
use crate::mem::frames::PageList;
use crate::mem::paging::{Format, LeafSize};
use crate::mem::pool::{self, Page};
use crate::mem::testing::Region;

const LAYOUT: HostLayout = HostLayout { kernel: [11, 12, 13], max_leaf: LeafSize::Huge };

#[test]
fn kernel_frames() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let space = AddressSpace::host(frames, root, &LAYOUT).unwrap();
    // SAFETY: the root is a valid page.
    let table = unsafe { pool::ptr::<Page>(space.root()).as_ref() };
    for i in 0..3 {
        let entry = table.word(KERNEL_ENTRIES + i).load(super::Ordering::Relaxed);
        assert_eq!(entry, LAYOUT.kernel[i]);
    }
    let utcb = root.alloc_page(frames).unwrap();
    let phys = pool::phys(utcb);
    let rw = MemRights::RW;
    for (addr, status) in [
        (0, Status::BadParam),
        (0x1001, Status::BadParam),
        (0x7fff_ffff_f000, Status::BadParam),
        (0x8000_0000_0000, Status::BadParam),
        (0xffff_8000_0000_0000, Status::BadParam),
    ] {
        assert_eq!(space.map_kernel_frame(frames, root, addr, phys, rw), Err(status));
    }
    let used = root.used();
    for addr in [0x1000, 0x7fff_ffff_e000] {
        for n in 0..3 {
            frames.fail_after = Some(n);
            let result = space.map_kernel_frame(frames, root, addr, phys, rw);
            assert_eq!(result, Err(Status::Quota));
            assert_eq!(root.used(), used);
        }
        frames.fail_after = None;
        space.map_kernel_frame(frames, root, addr, phys, rw).unwrap();
        let again = space.map_kernel_frame(frames, root, addr, phys, rw);
        assert_eq!(again, Err(Status::Exists));
        assert_eq!(space.table().kernel_page(addr >> 12), Some(phys >> 12));
        assert!(!space.stale.take(0));
        let mut out = PageList::new();
        space.unmap_kernel_frame(root, addr, &mut out);
        space.unmap_kernel_frame(root, addr, &mut out);
        assert!(space.stale.take(0) && space.stale.take(63) && !space.stale.take(0));
        space.stale.mark();
        for cpu in 0..64 {
            assert!(space.stale.take(cpu));
        }
        // SAFETY: nothing walks these tables.
        unsafe { out.free(frames) };
        assert_eq!(root.used(), used);
    }
    // SAFETY: nothing is mapped or used any more.
    unsafe {
        space.destroy(frames, root);
        root.free_page(frames, utcb);
    }
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
        assert!(space.stale.take(3));
        for p in 0..=PortSpace::PORTS {
            assert_eq!(space.allows(p), p >= port && p < port + (1 << order), "{p:#x}");
        }
        assert_eq!(root.used(), 2);
        space.deny(port, order);
        assert!(space.stale.take(3));
        assert!((0..PortSpace::PORTS).all(|p| !space.allows(p)));
    }
    // SAFETY: no CPU reads the bitmap.
    unsafe { space.destroy(frames, root) };
    assert!(space.bitmap().is_none() && root.used() == 0);
}

#[test]
fn stale_cpus_flush_once() {
    let stale = Stale::default();
    assert!(!stale.take(5));
    stale.mark();
    assert!(stale.take(5) && !stale.take(5) && stale.take(6));
}
