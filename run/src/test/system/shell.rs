//! From firmware to the guest's shell, and what is said where a part of the boot image is bad.

use anyhow::{Context as _, Result, ensure};
use ipc::proto::start::NOTE;

use super::Say::{Hear, Off, Often, Type};
use super::{Boot, Say, bytes, contents};
use crate::bochs::Model;
use crate::iso::{Contents, Medium, Plan};
use crate::qemu::Firmware;
use crate::test::lane::Lane;

/// From the first line to an answer of the guest's shell.
const TO_SHELL: &[Say] = &[
    Hear("Portico"),
    Hear("Linux version"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
];

/// The same where the guest's kernel is silent.
pub(super) const TO_SHELL_QUIET: &[Say] = &[
    Hear("Portico"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
];

/// A VM comes up beside a component that goes down, and waits for another one that goes down whenever
/// it is asked for something: the VM goes on besides, and ends in order. The operator can try that one
/// again.
const BESIDE_A_CRASH: &[Say] = &[
    Hear("component \"faulty\" failed"),
    Hear("component \"faulty\" stays down: it failed 3 times in a row"),
    Hear("component \"needy\" not started: its provider \"faulty\" does not run"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("ip link set eth0 up; echo SUM=$((40+2))\n"),
    Hear("component \"poisoned\" stays down: it failed 3 times in a row"),
    Hear("\"linux\" waits until it is started again"),
    Type("echo SUM=$((50+2))\n"),
    Hear("SUM=52"),
    Type("\x1dorestart poisoned\n"),
    Hear("component \"poisoned\" stays down: it failed 3 times in a row"),
    Hear("\"linux\" waits until it is started again"),
    Hear("portico> "),
    Type("show poisoned\n"),
    Hear("failed"),
    Type("\x1d1"),
    Hear("--- console 1: linux ---"),
    Type("echo SUM=$((60+2)); poweroff -f\n"),
    Hear("SUM=62"),
    Off,
];

const POWEROFF: &[Say] = &[Hear("GUEST-UP linux"), Hear("# "), Type("poweroff -f\n"), Off];

/// To the shell, and from there to the machine's end.
const TO_SHELL_AND_OFF: &[Say] = &[
    Hear("Portico"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
    Type("poweroff -f\n"),
    Off,
];

/// The example of the documentation, killed: it counts on.
const EXAMPLE: &[Say] = &[
    Hear("portico> "),
    Hear("[asker] counted to 3"),
    Type("kill counter\n"),
    Hear("component \"counter\" starts again"),
    Hear("root: started counter"),
    Often(2, "[asker] counted to "),
];

/// Whether each count is more than the one before; the last line may not be whole.
fn counts_on(text: &str) -> Result<String> {
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    let counts: Vec<u64> = whole
        .lines()
        .filter_map(|line| line.split_once("counted to ")?.1.trim().parse().ok())
        .collect();
    ensure!(counts.is_sorted_by(|a, b| a < b), "counted {counts:?}");
    Ok(String::new())
}

const REBOOT: &[Say] = &[
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("reboot -f\n"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
];

/// The cases.
pub(super) const BOOTS: &[Boot] = &[
    Boot::new("bios-2-cpus-to-shell", "linux", TO_SHELL),
    Boot { smp: 1, ..Boot::new("bios-1-cpu-to-shell", "quiet", TO_SHELL_QUIET) },
    Boot { smp: 4, ..Boot::new("bios-4-cpus-to-shell", "quiet", TO_SHELL_QUIET) },
    Boot { firmware: Firmware::Uefi, ..Boot::new("uefi-2-cpus-to-shell", "linux", TO_SHELL) },
    Boot {
        firmware: Firmware::Uefi,
        smp: 4,
        ..Boot::new("uefi-4-cpus-to-shell", "quiet", TO_SHELL_QUIET)
    },
    Boot::shell(Lane::BochsIntel, "1-cpu-to-shell", 1),
    Boot {
        lane: Lane::BochsIntel,
        ..Boot::new("2-cpus-to-shell-and-off", "quiet", TO_SHELL_AND_OFF)
    },
    Boot {
        model: Some(Model::Haswell),
        ..Boot::shell(Lane::BochsIntel, "haswell-1-cpu-to-shell", 1)
    },
    Boot {
        model: Some(Model::Tigerlake),
        ..Boot::shell(Lane::BochsIntel, "tigerlake-1-cpu-to-shell", 1)
    },
    Boot::shell(Lane::BochsAmd, "1-cpu-to-shell", 1),
    Boot {
        lane: Lane::BochsAmd,
        ..Boot::new("2-cpus-to-shell-and-off", "quiet", TO_SHELL_AND_OFF)
    },
    Boot { medium: Medium::Stick, ..Boot::shell(Lane::QemuAmd, "usb-stick-bios-to-shell", 2) },
    Boot {
        firmware: Firmware::Uefi,
        medium: Medium::Stick,
        ..Boot::shell(Lane::QemuAmd, "usb-stick-uefi-to-shell", 2)
    },
    Boot::new("guest-poweroff-ends-the-machine", "quiet", POWEROFF),
    Boot::new("guest-reboot-starts-it-again", "quiet", REBOOT),
    Boot::new("example-goes-on-where-it-was", "example", EXAMPLE).checked(counts_on),
    Boot::new("faulting-components-are-given-up", "test/crash", BESIDE_A_CRASH),
    Boot {
        damage: |plan| flip_last_byte(plan, config::MODULE_NAME),
        ..Boot::new(
            "damaged-configuration-is-told",
            "quiet",
            &[Hear("configuration module is damaged")],
        )
    },
    Boot {
        damage: |plan| halve(plan, "vmm"),
        ..Boot::new(
            "truncated-elf-is-told",
            "quiet",
            &[Hear("component \"linux\" not started: image \"vmm\": ")],
        )
    },
    Boot {
        damage: |plan| of_another_version(plan, "vmm"),
        ..Boot::new(
            "image-for-another-abi-is-told",
            "quiet",
            &[Hear("not started: image \"vmm\": built for version 99 of the ABI")],
        )
    },
    Boot {
        damage: |plan| of_another_version(plan, "roottask"),
        ..Boot::new(
            "root-task-for-another-abi-is-told",
            "quiet",
            &[Hear("root task: no note that it was built for this version of the ABI")],
        )
    },
    Boot {
        damage: |plan| remove(plan, "linux.kernel"),
        ..Boot::new(
            "missing-kernel-module-is-told",
            "quiet",
            &[Hear("no boot module \"linux.kernel\"")],
        )
    },
    Boot {
        cpu: Some("EPYC,-svm,check=off"),
        ..Boot::new(
            "processor-that-runs-no-guests-is-told",
            "quiet",
            &[Hear("component \"linux\" not started: this machine runs no guests")],
        )
    },
    Boot {
        cpu: Some("EPYC,-xsave,check=off"),
        ..Boot::new("processor-without-xsave-is-told", "quiet", &[Hear("processor has no XSAVE")])
    },
    Boot {
        cpu: Some("EPYC,-lm,check=off"),
        ..Boot::new("32-bit-processor-is-told", "quiet", &[Hear("no 64-bit mode, or no NX")])
    },
    Boot {
        memory: 256 << 20,
        ..Boot::new("too-little-memory-is-told", "quiet", &[Hear("too little memory")])
    },
];

fn flip_last_byte(plan: &mut Plan, name: &str) -> Result<()> {
    let contents = contents(plan, name)?;
    let mut bytes = bytes(contents)?;
    *bytes.last_mut().context("the module is empty")? ^= 1;
    *contents = Contents::Bytes(bytes);
    Ok(())
}

fn halve(plan: &mut Plan, name: &str) -> Result<()> {
    let contents = contents(plan, name)?;
    let mut bytes = bytes(contents)?;
    bytes.truncate(bytes.len() / 2);
    *contents = Contents::Bytes(bytes);
    Ok(())
}

/// Changes the version in the note that tells it.
fn of_another_version(plan: &mut Plan, name: &str) -> Result<()> {
    let contents = contents(plan, name)?;
    let mut bytes = bytes(contents)?;
    let note: Vec<u8> = NOTE.iter().flat_map(|word| word.to_le_bytes()).collect();
    let at = bytes.windows(note.len()).position(|found| found == note);
    let version = at.and_then(|at| bytes.get_mut(at + 20..at + 24));
    version.context("the image has no note")?.copy_from_slice(&99_u32.to_le_bytes());
    *contents = Contents::Bytes(bytes);
    Ok(())
}

fn remove(plan: &mut Plan, name: &str) -> Result<()> {
    contents(plan, name)?;
    plan.modules.retain(|(module, _)| module != name);
    Ok(())
}
