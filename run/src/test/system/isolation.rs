//! What VMs do not see of each other.

use super::Say::{Hear, Type};
use super::{Boot, Say};

/// The first VM calls the two others, by address and with broadcasts; its neighbour hears it, the VM
/// on the other network not a single frame. It fills its disk, of which the others find nothing on
/// theirs. Then it takes an address that is not its own, and its neighbour hears nothing more.
const THREE_VMS: &[Say] = &[
    Hear("NET-OK one"),
    Type("\x1d3"),
    Hear("NET-OK three"),
    Type("\x1d2"),
    Hear("NET-OK two"),
    Hear("# "),
    Type("\x1d1"),
    Type(
        "ping -c 3 -W 5 10.0.2.13 >/dev/null && echo NEIGHBOUR-$((40+1)); \
         ping -c 3 -W 3 10.0.2.12 >/dev/null || echo NOBODY-$((40+1)); \
         arping -b -c 5 -w 5 -I eth0 10.0.2.12 >/dev/null || echo SILENCE-$((40+1))\n",
    ),
    Hear("NEIGHBOUR-41"),
    Hear("NOBODY-41"),
    Hear("SILENCE-41"),
    Type(
        "yes of-one-only | dd of=/dev/vda bs=64k 2>/dev/null; sync; \
         grep -c of-one-only /dev/vda; ls -d /sys/block/vd*; echo DISK-$((40+1))\n",
    ),
    Hear("\n349"),
    Hear("\n/sys/block/vda\nDISK-41"),
    Type("\x1d2"),
    Type(
        "echo \"[$(cat /sys/class/net/eth0/statistics/rx_packets) frames] \
         [$(cat /sys/block/vd*/serial) $(grep -c of-one-only /dev/vda)]\"\n",
    ),
    Hear("[0 frames]"),
    Hear("[of-two 0]"),
    Type("\x1d3"),
    Type(
        "rx() { cat /sys/class/net/eth0/statistics/rx_packets; }; [ $(rx) -ge 8 ] && \
         echo \"[HEARD] [$(cat /sys/block/vd*/serial) $(grep -c of-one-only /dev/vda)]\"; \
         ip neigh flush dev eth0; before=$(rx); echo BEFORE-$((40+1))\n",
    ),
    Hear("[HEARD] [of-three 0]"),
    Hear("BEFORE-41"),
    Type("\x1d1"),
    Type(
        "ip link set eth0 down; ip link set eth0 address 52:54:00:00:00:03; ip link set eth0 up; \
         arping -b -c 5 -w 5 -I eth0 10.0.2.13 >/dev/null || echo SPOOFED-$((40+1))\n",
    ),
    Hear("one: 4 frames from 52:54:00:00:00:03, not its own address"),
    Hear("SPOOFED-41"),
    Type("\x1d3"),
    Type("echo AFTER-$(($(rx) - before))\n"),
    Hear("AFTER-0"),
];

/// The cases.
pub(super) const BOOTS: &[Boot] =
    &[Boot::new("vms-see-nothing-of-each-other", "test/isolation", THREE_VMS)];
