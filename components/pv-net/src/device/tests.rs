//! Frames between drivers in memory of their own, and a wire.

mod world;

use core::sync::atomic::{AtomicBool, Ordering};

use super::FLOODS_AT_ONCE;
use crate::header::feature::{CSUM, GUEST_CSUM, GUEST_TSO4, HOST_TSO4, MRG_RXBUF};
use crate::header::{Checksum, Segmentation, Todo};
use crate::join::tests::cut;
use world::{BROADCAST, SECOND, World, frame, mac};

const OFFLOAD: u64 = CSUM | GUEST_CSUM | HOST_TSO4 | GUEST_TSO4;

#[test]
fn a_frame_goes_from_one_vm_to_the_other() {
    let mut world = World::new(&[("lan", 0), ("lan", 0), ("lan", 0)]);
    let sent = frame(mac(1), mac(0), 100);
    world.vms[1].room(2048, 4);
    world.vms[2].room(2048, 4);
    world.vms[0].send(Todo::default(), &sent);
    world.round();
    assert_eq!(world.vms[1].receive(), Some((Todo::default(), sent)));
    assert_eq!(world.vms[2].receive(), None);
    assert!(world.vms[0].is_sent());
}

#[test]
fn networks_are_separate() {
    let mut world = World::new(&[("red", 0), ("blue", 0), ("red", 0)]);
    for vm in &mut world.vms {
        vm.room(2048, 4);
    }
    let all = frame(BROADCAST, mac(0), 60);
    world.vms[0].send(Todo::default(), &all);
    world.vms[0].send(Todo::default(), &frame(mac(1), mac(0), 60));
    world.round();
    assert_eq!(world.vms[1].receive(), None);
    assert_eq!(world.vms[2].receive(), Some((Todo::default(), all)));
    assert_eq!(world.vms[2].receive(), None);
}

#[test]
fn spoofed_frames_are_dropped_and_counted() {
    let mut world = World::new(&[("lan", 0), ("lan", 0)]);
    world.vms[1].room(2048, 4);
    world.vms[0].send(Todo::default(), &frame(mac(1), mac(1), 60));
    world.round();
    assert_eq!(world.vms[1].receive(), None);
    assert!(world.vms[0].is_sent());
    assert_eq!(world.spoofed(0), 1);
}

#[test]
fn a_large_frame_is_spread_over_buffers() {
    let mut world = World::new(&[("lan", OFFLOAD | MRG_RXBUF), ("lan", OFFLOAD | MRG_RXBUF)]);
    world.vms[1].room(1500, 100);
    let sent = frame(mac(1), mac(0), 60_000);
    let todo = Todo {
        checksum: Some(Checksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { v6: false, size: 1448 }),
    };
    world.vms[0].send(todo, &sent);
    world.round();
    assert_eq!(world.vms[1].receive(), Some((todo, sent)));
}

/// Says so when it goes.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn the_buffers_of_a_frame_show_all_at_once() {
    const BUFFERS: u64 = 41;
    const ROUNDS: usize = 100;
    let mut world = World::new(&[("lan", OFFLOAD | MRG_RXBUF), ("lan", OFFLOAD | MRG_RXBUF)]);
    let sent = frame(mac(1), mac(0), 60_000);
    let seen = world.vms[1].receiver();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut parts = 0;
            while !done.load(Ordering::Relaxed) {
                parts += u64::from(!seen.used_index().is_multiple_of(BUFFERS));
            }
            parts
        });
        // It ends also where something fails here.
        let stop = Stop(&done);
        for _ in 0..ROUNDS {
            world.vms[1].room(1500, 41);
            world.vms[0].send(Todo::default(), &sent);
            world.round();
            assert!(world.vms[1].receive().unwrap().1 == sent);
        }
        drop(stop);
        assert_eq!(watch.join().unwrap(), 0);
    });
}

/// A frame of three segments.
fn large(to: [u8; 6], from: [u8; 6]) -> (Todo, Vec<u8>) {
    let mut sent = frame(to, from, 34);
    sent[14] = 0x45;
    sent.extend_from_slice(&[0; 20]);
    sent[46] = 0x50;
    sent.extend((0..3000u32).map(|n| n as u8));
    let todo = Todo {
        checksum: Some(Checksum { start: 34, offset: 16 }),
        segmentation: Some(Segmentation { v6: false, size: 1000 }),
    };
    (todo, sent)
}

#[test]
fn what_the_receiver_does_not_take_is_done_for_it() {
    let mut world = World::new(&[("lan", OFFLOAD), ("lan", 0)]);
    world.vms[1].room(2048, 8);
    let (todo, sent) = large(mac(1), mac(0));
    world.vms[0].send(todo, &sent);
    world.round();
    for n in 0..3 {
        let (todo, got) = world.vms[1].receive().unwrap();
        assert_eq!(todo, Todo::default());
        assert_eq!(got[54..], sent[54 + n * 1000..54 + (n + 1) * 1000]);
    }
    assert_eq!(world.vms[1].receive(), None);
}

#[test]
fn segments_arrive_once_where_there_is_room_for_some() {
    let mut world = World::new(&[("lan", OFFLOAD)]);
    let wire = world.uplink("lan");
    let there = [2, 0, 0, 0, 0, 99];
    wire.bring(&frame(BROADCAST, there, 60));
    world.round();
    let (todo, sent) = large(there, mac(0));
    wire.limit(2);
    world.vms[0].send(todo, &sent);
    world.round();
    let first = wire.sent();
    assert_eq!(first.len(), 2);
    assert!(!world.vms[0].is_sent());
    world.round();
    let last = wire.sent();
    assert!(world.vms[0].is_sent());
    let payload: Vec<u8> = first.iter().chain(&last).flat_map(|f| f[54..].to_vec()).collect();
    assert_eq!(payload, sent[54..]);
    // The next frame begins at its start.
    world.vms[0].send(todo, &sent);
    world.round();
    assert_eq!(wire.sent(), first);
}

#[test]
fn a_sender_waits_for_room_and_then_loses_the_frame() {
    let mut world = World::new(&[("lan", 0), ("lan", 0), ("lan", 0)]);
    let sent = frame(mac(1), mac(0), 100);
    world.vms[0].send(Todo::default(), &sent);
    world.round();
    assert!(!world.vms[0].is_sent());
    world.vms[1].room(2048, 1);
    world.round();
    assert!(world.vms[0].is_sent());
    assert_eq!(world.vms[1].receive(), Some((Todo::default(), sent.clone())));
    // Nobody makes room: the next frame gets its turn in the end.
    world.vms[2].room(2048, 1);
    let other = frame(mac(2), mac(0), 80);
    world.vms[0].send(Todo::default(), &sent);
    world.vms[0].send(Todo::default(), &other);
    world.round();
    assert_eq!(world.vms[2].receive(), None);
    let wake = world.deadline().unwrap();
    world.set_time(wake);
    world.round();
    assert_eq!(world.vms[2].receive(), Some((Todo::default(), other)));
    assert_eq!(world.deadline(), None);
}

#[test]
fn a_frame_that_can_never_fit_is_lost() {
    let mut world = World::new(&[("lan", 0), ("lan", 0)]);
    world.vms[1].room(64, 4);
    world.vms[0].send(Todo::default(), &frame(mac(1), mac(0), 100));
    world.round();
    assert!(world.vms[0].is_sent());
    assert_eq!(world.vms[1].receive(), None);
}

#[test]
fn storms_are_bounded() {
    let mut world = World::new(&[("lan", 0), ("lan", 0)]);
    world.vms[1].room(128, 250);
    for _ in 0..3 {
        for _ in 0..80 {
            world.vms[0].send(Todo::default(), &frame(BROADCAST, mac(0), 60));
        }
        while world.round() {}
    }
    let got = core::iter::from_fn(|| world.vms[1].receive()).count();
    assert_eq!(got as u64, FLOODS_AT_ONCE);
    assert!(world.vms[0].is_sent());
}

#[test]
fn a_rate_limit_slows_down_and_loses_nothing() {
    let mut world = World::with_rate(&[("lan", 0), ("lan", 0)], 0, 1_000_000);
    world.vms[1].room(2048, 250);
    let mut sent = 0;
    let mut waits = 0;
    while sent < 200 || !world.vms[0].is_sent() {
        if sent < 200 {
            world.vms[0].send(Todo::default(), &frame(mac(1), mac(0), 1000));
            sent += 1;
        }
        while world.round() {}
        if let Some(wake) = world.deadline() {
            world.set_time(wake);
            waits += 1;
        }
    }
    assert_eq!(core::iter::from_fn(|| world.vms[1].receive()).count(), 200);
    assert!(waits > 10);
    // 200 kB, of which 100 kB at once, at 1 MB/s.
    let passed = world.time();
    assert!((SECOND / 12..SECOND / 8).contains(&passed), "{passed}");
}

#[test]
fn malformed_frames_do_no_harm() {
    let mut world = World::new(&[("lan", CSUM), ("lan", 0)]);
    world.vms[1].room(2048, 4);
    // Shorter than its own header; asking for what was not agreed on.
    world.vms[0].send(Todo::default(), &[1; 13]);
    let checksum = Some(Checksum { start: 90, offset: 90 });
    world.vms[0].send(Todo { checksum, ..Todo::default() }, &frame(mac(1), mac(0), 100));
    world.round();
    assert!(world.vms[0].is_sent() && !world.vms[0].is_broken());
    assert_eq!(world.vms[1].receive(), None);
    // Shorter than the header of the virtqueue: that is no frame at all.
    world.vms[0].send_raw(&[0; 11]);
    world.round();
    assert!(world.vms[0].is_broken());
    assert!(!world.vms[1].is_broken());
}

#[test]
fn the_uplink_is_another_station() {
    let mut world = World::new(&[("lan", 0), ("lan", 0), ("other", 0)]);
    let wire = world.uplink("lan");
    for vm in &mut world.vms {
        vm.room(2048, 8);
    }
    let host = [2, 9, 9, 9, 9, 9];
    let out = frame(host, mac(0), 70);
    world.vms[0].send(Todo::default(), &out);
    world.vms[2].send(Todo::default(), &frame(host, mac(2), 70));
    world.round();
    assert_eq!(wire.sent(), [out]);
    let back = frame(mac(1), host, 90);
    let all = frame(BROADCAST, host, 60);
    wire.bring(&back);
    wire.bring(&all);
    world.round();
    assert_eq!(world.vms[1].receive(), Some((Todo::default(), back)));
    assert_eq!(world.vms[1].receive(), Some((Todo::default(), all.clone())));
    assert_eq!(world.vms[0].receive(), Some((Todo::default(), all)));
    assert_eq!(world.vms[2].receive(), None);
    assert_eq!(wire.sent().len(), 0);
}

#[test]
fn the_wire_gets_finished_frames() {
    let mut world = World::new(&[("lan", OFFLOAD)]);
    let wire = world.uplink("lan");
    let checksum = Some(Checksum { start: 20, offset: 10 });
    world.vms[0]
        .send(Todo { checksum, segmentation: None }, &frame([2, 9, 9, 9, 9, 9], mac(0), 60));
    world.round();
    let sent = wire.sent();
    assert_eq!(sent.len(), 1);
    assert_ne!(sent[0][30..32], [30, 31]);
}

#[test]
fn segments_from_the_wire_come_as_one_frame_to_whom_takes_it() {
    let mut world = World::new(&[("lan", OFFLOAD | MRG_RXBUF), ("lan", 0)]);
    let wire = world.uplink("lan");
    let mut last = frame(mac(0), [2, 9, 9, 9, 9, 9], 80);
    for (n, vm) in world.vms.iter_mut().enumerate() {
        vm.room(2048, 8);
        let mut segments = cut(false, 12, &[7; 3000], 1200);
        for segment in &mut segments {
            segment[..6].copy_from_slice(&mac(n));
            segment[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
            wire.bring(segment);
        }
        last[..6].copy_from_slice(&mac(n));
        wire.bring(&last);
    }
    world.round();
    let (todo, joined) = world.vms[0].receive().unwrap();
    assert_eq!(todo.segmentation, Some(Segmentation { v6: false, size: 1200 }));
    assert_eq!(joined.len(), 14 + 20 + 32 + 3000);
    assert_eq!(world.vms[0].receive().map(|(_, frame)| frame.len()), Some(last.len()));
    let plain: Vec<(Todo, usize)> = core::iter::from_fn(|| world.vms[1].receive())
        .map(|(todo, frame)| (todo, frame.len()))
        .collect();
    let headers = 14 + 20 + 32;
    let lengths = [headers + 1200, headers + 1200, headers + 600, last.len()];
    assert_eq!(plain, lengths.map(|len| (Todo::default(), len)));
}
