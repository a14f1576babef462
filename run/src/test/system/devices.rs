//! Disks, network cards and consoles of VMs, and back ends that die under load.

use super::Heard::{Counting, Times};
use super::Say::{Hear, Often, Together, Type};
use super::{Boot, Say, contents};
use crate::test::partition;

/// What two guests try when they start. The second one's console is attached later, and shows what
/// was printed until then.
const TWO_VMS: &[Say] = &[
    Hear("GUEST-UP one"),
    Hear("DISK-OK one"),
    Hear("NET-OK one"),
    Hear("# "),
    Type("cat /tmp/page\n"),
    Hear("this page comes from outside the machine"),
    Type("\x1d2"),
    Hear("GUEST-UP two"),
    Hear("DISK-OK two"),
    Hear("NET-OK two"),
    Hear("# "),
];

/// Two guests write, sync and read back 64 MiB of each disk, send each other files and have one
/// sent back from outside, and print, while disks and switch are ended 20 times each. A pass that finds a
/// difference is the last one. The second guest's console is attached to at the end.
const ALL_UNDER_KILLS: &[Say] = &[
    Hear("GUEST-UP one"),
    Hear("DISK-OK one"),
    Hear("NET-OK one"),
    Together(&[
        Times(20, "KILLED disks"),
        Times(20, "KILLED switch"),
        Counting(2000, "LINE one "),
        Times(1, "DISK-SAME one"),
        Times(2, "NET-SAME one"),
    ]),
    Together(&[Times(1, "DISK-SAME one"), Times(1, "NET-SAME one")]),
    Type("\x1d2"),
    Together(&[Times(1, "DISK-SAME two"), Times(1, "NET-SAME two")]),
];

/// A partition that is written elsewhere: the same one, read-only, stays as it is.
const PARTITION: &[Say] = &[
    Hear("DISK-OK one"),
    Hear("# "),
    Type(
        "echo \"[$(cat /sys/block/vda/serial) $(cat /sys/block/vd?/ro) $(cat /sys/block/vdb/size)]\"\n",
    ),
    Hear("[P-1 0"),
    Hear("1 32768]"),
    Type("mkdir /tmp/m; mount -t ext4 -o ro,noload /dev/vdb /tmp/m && ls -a /tmp/m /mnt\n"),
    Hear("/mnt:"),
    Hear("check"),
    Type("[ -e /tmp/m/check ] || dd if=/dev/zero of=/dev/vdb count=1 2>&1; echo END=$((40+3))\n"),
    Hear("Operation not permitted"),
    Hear("END=43"),
];

/// A back end that stays down: the VM that uses it waits, goes on when it is there again, and has
/// lost nothing.
const DOWN_AND_UP: &[Say] = &[
    Hear("DISK-OK one"),
    Hear("# "),
    Type(
        "n=0; while dd if=/dev/urandom of=/mnt/f bs=64k count=16 conv=fsync 2>/dev/null && \
         md5sum /mnt/f >/tmp/s && echo 3 >/proc/sys/vm/drop_caches && md5sum -c -s /tmp/s; do \
         n=$((n+1)); echo SAME-$n-; done\n",
    ),
    Hear("SAME-1-"),
    Hear("component \"disks\" stays down"),
    Hear("\"one\" waits until it is started again"),
    Hear("root: started disks"),
    Hear("KILLED disks: 1"),
    Often(3, "SAME-"),
];

/// A VM that is ended while it uses its disk; the next one finds the disk in order.
const DISK_AFTER_KILLS: &[Say] =
    &[Hear("KILLED one: 1"), Hear("KILLED one: 2"), Hear("GUEST-UP one"), Hear("DISK-OK one")];

/// The cases.
pub(super) const BOOTS: &[Boot] = &[
    Boot::new("two-vms-with-disks-network-and-consoles", "two-vms", TWO_VMS),
    Boot::new("guest-mounts-a-disk", "disk", &[Hear("GUEST-UP one"), Hear("DISK-OK one")]),
    Boot {
        damage: |plan| partition::pack(contents(plan, "disks.base")?),
        ..Boot::new("partition-with-changes-elsewhere", "test/partition", PARTITION)
    },
    Boot::new("killed-back-ends-lose-nothing", "test/kill-back-ends", ALL_UNDER_KILLS),
    Boot::new("back-end-that-stays-down-is-waited-for", "test/down", DOWN_AND_UP),
    Boot::new("disk-of-a-killed-vm-serves-the-next", "test/kill-vm", DISK_AFTER_KILLS),
];
