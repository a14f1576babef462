//! Disks, network cards and consoles of VMs, and back ends that die under load.

use anyhow::{Context as _, Result, ensure};

use super::Say::{Hear, Often, Together, Type};
use super::{Boot, Say, Times, contents};
use crate::test::operator::without_log;
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
/// sent back from outside, and print, while disks, switch and console are ended 20 times each. A pass
/// that finds a difference is the last one. The second guest's console is attached to at the end.
const ALL_UNDER_KILLS: &[Say] = &[
    Hear("GUEST-UP one"),
    Hear("DISK-OK one"),
    Hear("NET-OK one"),
    Together(&[
        Times(20, "KILLED disks"),
        Times(20, "KILLED switch"),
        Times(20, "KILLED console"),
        Times(2000, LINE),
        Times(1, "DISK-SAME one"),
        Times(2, "NET-SAME one"),
    ]),
    Together(&[Times(1, "DISK-SAME one"), Times(1, "NET-SAME one")]),
    Type("\x1d2"),
    Hear("--- console 2: two ---"),
    Together(&[Times(1, "DISK-SAME two"), Times(1, "NET-SAME two")]),
];

/// Begins each of the numbered lines that the first guest prints.
const LINE: &str = "LINE one ";

/// No line is missing of those that the first guest printed while its console was shown.
fn lines_in_order(text: &str) -> Result<String> {
    let (shown, _) = text.split_once("--- console 2").context("no other console")?;
    let shown = without_log(shown);
    let mut last = 0;
    for line in shown.split(LINE).skip(1) {
        // What was just being written when the other console was attached to.
        let Some((number, _)) = line.split_once(" on the console") else { break };
        last += 1;
        ensure!(number == last.to_string(), "{LINE}{last} is missing; there is: {number}");
    }
    ensure!(last >= 2000, "only {last} lines");
    Ok(format!("{last} lines"))
}

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
    Boot::new("killed-back-ends-lose-nothing", "test/kill-back-ends", ALL_UNDER_KILLS)
        .checked(lines_in_order),
    Boot::new("back-end-that-stays-down-is-waited-for", "test/down", DOWN_AND_UP),
    Boot::new("disk-of-a-killed-vm-serves-the-next", "test/kill-vm", DISK_AFTER_KILLS),
];

#[cfg(test)]
mod tests {
    use super::lines_in_order;

    #[test]
    fn a_line_that_is_missing_or_out_of_order_is_found() {
        let log = "[   10.001] [operator] KILLED console: 1\n";
        let lines = |numbers: &mut dyn Iterator<Item = u32>| -> String {
            numbers.map(|n| format!("LINE one {n} on {log}the console\nDISK-SAME one\n")).collect()
        };
        let shown =
            |lines: &str| format!("{log}{lines}LINE one 30\n--- console 2: two ---\nLINE one 7 ");
        assert!(lines_in_order(&shown(&lines(&mut (1..=2000)))).is_ok());
        assert!(lines_in_order(&shown(&lines(&mut (1..=1999)))).is_err());
        assert!(lines_in_order(&shown(&lines(&mut (1..=3000).filter(|&n| n != 17)))).is_err());
        assert!(lines_in_order(&shown(&lines(&mut (1..=1500).chain(1500..=2500)))).is_err());
        assert!(lines_in_order(&lines(&mut (1..=2000))).is_err());
    }
}
