//! A disk that does several things at a time and answers in any order.

use std::cell::RefCell;
use std::rc::Rc;

use core::sync::atomic::AtomicU64;
use proptest::prelude::*;
use virtio::chain::{Cursor, Segment};
use virtio::ram::Ram;

use super::world::{IoKind, World};
use super::{SECTORS, whole};
use crate::device::feature;
use crate::disk::{Disk, Piece};
use crate::medium::{Begun, Completion, Medium, PIECE, Remote, Sink, Source, Tag};
use crate::overlay::{Layout, Overlay};
use crate::request::Extent;

enum Op {
    Read(u64, u64),
    Write(u64, Vec<u8>),
    Flush,
}

/// What the test sees of the disk.
struct Platter {
    content: Vec<u8>,
    ops: Vec<(Tag, Op)>,
    room: usize,
    /// Most sectors of an operation.
    most: u64,
    /// Which of the operations ends next.
    order: u64,
    fail: bool,
    /// Writes that were finished since the last flush.
    unsafe_writes: usize,
}

#[derive(Clone)]
struct Late(Rc<RefCell<Platter>>);

impl Late {
    fn new(sectors: u64, room: usize) -> Self {
        let content = (0..sectors).flat_map(|s| [s as u8; 512]).collect();
        let ops = Vec::new();
        let (most, order, fail, unsafe_writes) = (PIECE, 0, false, 0);
        let platter = Platter { content, ops, room, most, order, fail, unsafe_writes };
        Self(Rc::new(RefCell::new(platter)))
    }

    fn medium(&self) -> Medium {
        Medium::Remote(Box::new(self.clone()))
    }

    fn is_busy(&self) -> bool {
        let platter = self.0.borrow();
        platter.ops.len() >= platter.room
    }

    fn start(&self, tag: Tag, op: impl FnOnce() -> Op) -> bool {
        let starts = !self.is_busy();
        if starts {
            self.0.borrow_mut().ops.push((tag, op()));
        }
        starts
    }

    /// How many of so many sectors it takes at a time.
    fn part(&self, count: u64) -> u64 {
        assert!((1..=PIECE).contains(&count));
        count.min(self.0.borrow().most)
    }

    fn set_room(&self, room: usize) {
        self.0.borrow_mut().room = room;
    }
}

impl Remote for Late {
    fn sectors(&self) -> u64 {
        self.0.borrow().content.len() as u64 / 512
    }

    fn is_read_only(&self) -> bool {
        false
    }

    fn read(&mut self, tag: Tag, sector: u64, count: u64) -> Begun {
        let count = self.part(count);
        let started = self.start(tag, || Op::Read(sector, count));
        if started { Begun::Yes(count) } else { Begun::Busy }
    }

    fn write(
        &mut self,
        tag: Tag,
        sector: u64,
        count: u64,
        fill: &mut dyn FnMut(Sink<'_>) -> bool,
    ) -> Begun {
        let count = self.part(count);
        let mut bytes = vec![0; count as usize * 512];
        if self.is_busy() {
            return Begun::Busy;
        }
        if !fill(Sink::Bytes(&mut bytes)) {
            return Begun::NoData;
        }
        self.start(tag, || Op::Write(sector, bytes));
        Begun::Yes(count)
    }

    fn flush(&mut self, tag: Tag) -> bool {
        self.start(tag, || Op::Flush)
    }

    fn finish(&mut self, done: &mut dyn FnMut(Completion<'_>)) -> bool {
        let mut platter = self.0.borrow_mut();
        let Platter { content, ops, order, fail, unsafe_writes, .. } = &mut *platter;
        if ops.is_empty() || *order == u64::MAX {
            return false;
        }
        *order = order.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(11) >> 1;
        let (tag, op) = ops.swap_remove(*order as usize % ops.len());
        let data = match op {
            Op::Read(sector, count) => {
                content[sector as usize * 512..][..count as usize * 512].to_vec()
            }
            Op::Write(sector, bytes) => {
                content[sector as usize * 512..][..bytes.len()].copy_from_slice(&bytes);
                *unsafe_writes += 1;
                vec![]
            }
            Op::Flush => {
                *unsafe_writes = 0;
                vec![]
            }
        };
        done(Completion { tag, ok: !*fail, data: Source::Bytes(&data) });
        true
    }

    fn rest(&mut self) -> bool {
        !self.0.borrow().ops.is_empty()
    }

    fn read_now(&mut self, sector: u64, to: &mut [u8]) -> bool {
        to.copy_from_slice(&self.0.borrow().content[sector as usize * 512..][..to.len()]);
        true
    }
}

fn overlay(sectors: u64) -> Option<Overlay<'static>> {
    let layout = Layout::new(sectors, 1 << 20).unwrap();
    let head: Vec<AtomicU64> = (0..layout.words).map(|_| AtomicU64::new(0)).collect();
    let data = vec![0; layout.slots as usize * 4096];
    Some(Overlay::open(sectors, head.leak(), data.leak()).unwrap())
}

/// Rounds until the disk has nothing left to do.
fn drain(world: &mut World, late: &Late) -> u8 {
    loop {
        let more = world.round();
        if !more && late.0.borrow().ops.is_empty() {
            break;
        }
    }
    world.round();
    world.status().unwrap_or(0xff)
}

/// A write whose data a guest does not have: it fails, and the disk is asked for nothing.
#[test]
fn what_cannot_be_had_is_not_written() {
    let late = Late::new(SECTORS, 4);
    let mut disk = whole(false);
    let ram = Ram::for_test(1 << 20);
    let tag = Tag { drive: 0, generation: 0, job: 0, offset: 0 };
    let short = [Segment { gpa: 0x1000, len: 1023 }];
    let piece = Extent { sector: 0, count: 2 };
    let mut write =
        |medium: &mut Medium| disk.write(medium, &ram, &mut Cursor::new(&short), piece, tag);
    assert_eq!(write(&mut late.medium()), Piece::Failed);
    assert!(late.0.borrow().ops.is_empty());
    assert_eq!(write(&mut Medium::Memory(vec![0; 1024].leak())), Piece::Failed);
}

#[test]
fn reads_arrive_later() {
    let late = Late::new(SECTORS, 4);
    let mut world = World::new(late.medium(), whole(false));
    late.0.borrow_mut().order = u64::MAX;
    world.begin_read(3, 1);
    assert!(!world.round());
    assert_eq!(world.status(), None);
    late.0.borrow_mut().order = 0;
    assert_eq!(drain(&mut world, &late), 0);
    assert_eq!(world.data(0, 512), [3; 512]);
}

#[test]
fn several_requests_are_in_flight_and_answered_in_order() {
    let late = Late::new(SECTORS, 16);
    let mut world = World::new(late.medium(), whole(false));
    late.0.borrow_mut().order = u64::MAX;
    for slot in 0..8 {
        world.send(0, slot, slot, &[], 512);
    }
    assert!(!world.round());
    assert_eq!(late.0.borrow().ops.len(), 8);
    late.0.borrow_mut().order = 5;
    while world.round() {}
    let heads: Vec<u64> = core::iter::from_fn(|| world.driver.reap()).map(|(h, _)| h).collect();
    assert_eq!(heads.len(), 8);
    assert!(heads.is_sorted());
    for slot in 0..8 {
        assert_eq!(world.data(slot, 512), [slot as u8; 512]);
    }
}

#[test]
fn a_busy_disk_is_asked_again() {
    let late = Late::new(2048, 1);
    late.0.borrow_mut().most = 256;
    let part = Extent { sector: 0, count: 2048 };
    let mut world = World::new(late.medium(), Disk { part, ..whole(false) });
    world.begin_read(0, 3 * 256);
    assert_eq!(drain(&mut world, &late), 0);
    let data = world.data(0, 3 * 256 * 512);
    for (n, sector) in data.chunks(512).enumerate() {
        assert!(sector.iter().all(|b| *b == n as u8));
    }
}

#[test]
fn failures_are_told() {
    let late = Late::new(SECTORS, 4);
    let mut world = World::new(late.medium(), whole(false));
    late.0.borrow_mut().fail = true;
    world.begin_read(3, 1);
    assert_eq!(drain(&mut world, &late), 1);
    world.send(4, 0, 0, &[], 0);
    assert_eq!(drain(&mut world, &late), 1);
}

#[test]
fn flush_reaches_the_disk() {
    let late = Late::new(SECTORS, 4);
    let mut world = World::new(late.medium(), whole(false));
    world.send(1, 3, 0, &[8; 512], 0);
    assert_eq!(drain(&mut world, &late), 0);
    assert_eq!(late.0.borrow().unsafe_writes, 1);
    world.send(4, 0, 0, &[], 0);
    assert_eq!(drain(&mut world, &late), 0);
    assert_eq!(late.0.borrow().unsafe_writes, 0);
}

#[test]
fn without_flush_a_write_is_permanent_when_it_is_answered() {
    let late = Late::new(SECTORS, 1);
    let mut world = World::with_features(late.medium(), whole(false), 0);
    world.send(1, 3, 0, &[8; 512], 0);
    assert_eq!(drain(&mut world, &late), 0);
    assert_eq!(late.0.borrow().unsafe_writes, 0);
    assert_eq!(late.0.borrow().content[3 * 512], 8);
}

#[test]
fn a_reset_waits_for_what_is_under_way() {
    let late = Late::new(SECTORS, 4);
    let mut world = World::new(late.medium(), whole(false));
    late.0.borrow_mut().order = u64::MAX;
    world.send(1, 3, 0, &[8; 512], 0);
    world.send(0, 3, 1, &[], 512);
    world.round();
    let before = world.data(1, 512);
    let epoch = world.shared.deactivate();
    world.round();
    assert_ne!(world.shared.reached(), epoch);
    late.0.borrow_mut().order = 0;
    world.round();
    assert_eq!(world.shared.reached(), epoch);
    assert_eq!(world.driver.reap(), None);
    assert_eq!(world.data(1, 512), before, "memory is not touched after the reset");
}

#[test]
fn an_overlay_keeps_the_disk_as_it_is() {
    let late = Late::new(SECTORS, 4);
    let mut world = World::new(late.medium(), Disk { overlay: overlay(SECTORS), ..whole(false) });
    world.send(1, 3, 0, &[8; 1024], 0);
    assert_eq!(drain(&mut world, &late), 0);
    assert_eq!(world.clear(IoKind::WriteZeroes, 6, 1), 0);
    assert_eq!(late.0.borrow().content[3 * 512], 3);
    world.begin_read(2, 6);
    assert_eq!(drain(&mut world, &late), 0);
    let expect = [[2; 512], [8; 512], [8; 512], [5; 512], [0; 512], [7; 512]].concat();
    assert_eq!(world.data(0, 6 * 512), expect);
    assert_eq!(world.read(3, 2), (0, [8; 1024].to_vec()), "the disk is not asked for that");
}

proptest! {
    /// One request after the other, on a disk with little room that answers in any order, with and
    /// without an overlay: like an array of sectors.
    #[test]
    fn behaves_like_an_array(
        steps in proptest::collection::vec(
            (0u8..3, 0..SECTORS, 1u64..20, any::<u8>()), 1..40),
        room in 1usize..5, most in 1u64..20, with_overlay in any::<bool>(), order in 0u64..1000, flush in any::<bool>(),
    ) {
        let late = Late::new(SECTORS, room);
        late.0.borrow_mut().order = order;
        late.0.borrow_mut().most = most;
        let disk = Disk {
            overlay: if with_overlay { overlay(SECTORS) } else { None },
            ..whole(false)
        };
        let features = if flush { feature::FLUSH } else { 0 };
        let mut world = World::with_features(late.medium(), disk, features);
        let mut model: Vec<u8> = late.0.borrow().content.clone();
        for (kind, sector, count, value) in steps {
            let count = count.min(SECTORS - sector);
            let area = sector as usize * 512..(sector + count) as usize * 512;
            late.set_room(room);
            let status = match kind {
                0 => {
                    world.begin_read(sector, count);
                    let status = drain(&mut world, &late);
                    prop_assert_eq!(&world.data(0, count as usize * 512)[..], &model[area]);
                    status
                }
                1 => {
                    model[area].fill(value);
                    world.send(1, sector, 0, &vec![value; count as usize * 512], 0);
                    drain(&mut world, &late)
                }
                _ => {
                    model[area].fill(0);
                    let mut range = sector.to_le_bytes().to_vec();
                    range.extend((count as u32).to_le_bytes());
                    range.extend([0; 4]);
                    world.send(13, 0, 0, &range, 0);
                    drain(&mut world, &late)
                }
            };
            prop_assert_eq!(status, 0);
        }
        if with_overlay {
            prop_assert!((0..).zip(late.0.borrow().content.chunks(512)).all(|(n, s)| s == [n; 512]));
        }
    }
}
