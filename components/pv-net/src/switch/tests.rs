//! The switch against a naive one, and its rules one by one.

use proptest::prelude::*;

use super::{AGE, Place, Reason, Switch, TABLE, Verdict};
use crate::frame::Mac;

const BROADCAST: Mac = Mac([0xff; 6]);

fn vm(n: u8) -> Mac {
    Mac([0x52, 0x54, 0, 0, 0, n])
}

fn host(n: u16) -> Mac {
    let [a, b] = n.to_be_bytes();
    Mac([0x02, 0, 0, 1, a, b])
}

/// VMs 1 and 2 and uplinks 2 and 3 in network 0; VM 3 and uplink 5 in network 1.
fn switch() -> Switch {
    let mut switch = Switch::default();
    for (network, mac) in
        [(0, Some(vm(1))), (0, Some(vm(2))), (0, None), (0, None), (1, Some(vm(3))), (1, None)]
    {
        switch.add(Place { network, mac });
    }
    switch
}

#[test]
fn frames_go_to_the_vm_that_they_are_for() {
    assert_eq!(switch().forward(0, vm(1), vm(2), 0), Verdict::To(1));
    assert_eq!(switch().forward(2, host(1), vm(2), 0), Verdict::To(1));
}

#[test]
fn networks_are_separate() {
    let mut switch = switch();
    assert_eq!(switch.forward(0, vm(1), vm(3), 0), Verdict::Uplinks);
    let others =
        |from, uplinks| (0..6).filter(|&to| switch.is_other(from, to, uplinks)).collect::<Vec<_>>();
    assert_eq!(others(0, true), [2, 3]);
    assert_eq!(others(0, false), [1, 2, 3]);
    assert_eq!(others(4, false), [5]);
    // The same address behind an uplink of another network is another station.
    assert_eq!(switch.forward(2, host(1), vm(1), 0), Verdict::To(0));
    assert_eq!(switch.forward(4, vm(3), host(1), 0), Verdict::Uplinks);
    assert_eq!(switch.forward(0, vm(1), host(1), 0), Verdict::To(2));
}

#[test]
fn spoofed_sources_are_dropped() {
    let mut switch = switch();
    for source in [vm(2), vm(3), host(1), BROADCAST, Mac([0; 6])] {
        assert_eq!(switch.forward(0, source, vm(2), 0), Verdict::Drop(Reason::Spoofed));
    }
    assert_eq!(switch.forward(2, vm(1), vm(2), 0), Verdict::Drop(Reason::Spoofed));
    assert_eq!(switch.forward(2, BROADCAST, vm(2), 0), Verdict::Drop(Reason::Spoofed));
}

#[test]
fn groups_go_to_all_and_the_bridge_keeps_its_own() {
    let mut switch = switch();
    assert_eq!(switch.forward(0, vm(1), BROADCAST, 0), Verdict::All);
    let stp = Mac([0x01, 0x80, 0xc2, 0, 0, 0]);
    assert_eq!(switch.forward(0, vm(1), stp, 0), Verdict::Drop(Reason::Local));
    assert_eq!(switch.forward(0, vm(1), vm(1), 0), Verdict::Drop(Reason::Local));
}

#[test]
fn addresses_behind_uplinks_are_learned_and_forgotten() {
    let mut switch = switch();
    assert_eq!(switch.forward(0, vm(1), host(1), 0), Verdict::Uplinks);
    switch.forward(2, host(1), vm(1), 10);
    assert_eq!(switch.forward(0, vm(1), host(1), 11), Verdict::To(2));
    switch.forward(3, host(1), vm(1), 12);
    assert_eq!(switch.forward(0, vm(1), host(1), 13), Verdict::To(3));
    assert_eq!(switch.forward(3, host(9), host(1), 13), Verdict::Drop(Reason::Local));
    assert_eq!(switch.forward(0, vm(1), host(1), 13 + AGE), Verdict::Uplinks);
}

#[test]
fn the_table_is_bounded() {
    let mut switch = switch();
    for n in 0..u16::MAX {
        switch.forward(2, host(n), vm(1), 0);
    }
    assert_eq!(switch.table.len(), TABLE);
    assert_eq!(switch.forward(0, vm(1), host(u16::MAX - 1), 0), Verdict::Uplinks);
    // When the old ones have aged there is room again.
    switch.forward(2, host(60_000), vm(1), AGE + 1);
    assert_eq!(switch.forward(0, vm(1), host(60_000), AGE + 1), Verdict::To(2));
}

proptest! {
    #[test]
    fn no_frame_leaves_its_network_or_comes_back(
        steps in proptest::collection::vec((0usize..6, 0u8..8, 0u8..8, 0u64..50), 1..200)
    ) {
        let mut switch = switch();
        let mac = |n: u8| match n {
            0..=3 => vm(n),
            4..=6 => host(n.into()),
            _ => BROADCAST,
        };
        let mut now = 0;
        // Last uplink on which each address was heard: the naive table.
        let mut heard: Vec<(usize, Mac, usize, u64)> = Vec::new();
        for (from, source, destination, pause) in steps {
            now += pause;
            let (source, destination) = (mac(source), mac(destination));
            let place = switch.place(from).unwrap();
            let verdict = switch.forward(from, source, destination, now);
            let is_vm = |m: Mac| (0..6).find(|&p| {
                switch.place(p).unwrap() == Place { network: place.network, mac: Some(m) }
            });
            let spoofed = source.is_group() || match place.mac {
                Some(own) => own != source,
                None => is_vm(source).is_some(),
            };
            prop_assert_eq!(spoofed, verdict == Verdict::Drop(Reason::Spoofed));
            if spoofed {
                continue;
            }
            if place.mac.is_none() {
                heard.retain(|h| (h.0, h.1) != (place.network, source));
                heard.push((place.network, source, from, now));
            }
            let known = is_vm(destination).or_else(|| {
                heard.iter().find(|h| (h.0, h.1) == (place.network, destination) && now - h.3 <= AGE)
                    .map(|h| h.2)
            });
            let expected = match known {
                _ if destination.is_group() => Verdict::All,
                Some(to) if to == from => Verdict::Drop(Reason::Local),
                Some(to) => Verdict::To(to),
                None => Verdict::Uplinks,
            };
            prop_assert_eq!(verdict, expected);
            if let Verdict::To(to) = verdict {
                prop_assert_eq!(switch.place(to).unwrap().network, place.network);
            }
        }
    }
}
