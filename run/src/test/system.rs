//! Whole systems: the shipped configuration from firmware to the guest's shell, and what the
//! system says where a part of it is bad.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::lane::{Lane, with_model};
use super::{Context, Job, partition};
use crate::bochs::Model;
use crate::expect::Step;
use crate::iso::{Contents, Medium, Plan};
use crate::machine::Machine;
use crate::qemu::{self, Firmware};
use crate::session::{End, Session};
use crate::{exits, system};

const MEMORY: u64 = 2 << 30;
/// Bochs takes its time, the more so beside others.
const TIMEOUT: Duration = Duration::from_secs(900);

/// Waits for and sends; the texts of a case.
enum Say {
    Hear(&'static str),
    /// Hears it so many times.
    Often(usize, &'static str),
    Type(&'static str),
    /// The machine ends by itself, without an error.
    Off,
}
use Say::{Hear, Off, Often, Type};

/// A machine that boots and what is said.
struct Boot {
    lane: Lane,
    /// A CPU that is not the lane's usual one, in Bochs.
    model: Option<Model>,
    /// The same in QEMU.
    cpu: Option<&'static str>,
    name: &'static str,
    config: &'static str,
    /// In QEMU.
    firmware: Firmware,
    /// In QEMU.
    medium: Medium,
    smp: u16,
    /// RAM of the machine, where it is not what the configuration was checked against.
    memory: u64,
    /// Changes the boot image before it is packed.
    damage: fn(&mut Plan) -> Result<()>,
    script: &'static [Say],
}

impl Boot {
    const fn new(name: &'static str, config: &'static str, script: &'static [Say]) -> Self {
        Self {
            lane: Lane::QemuAmd,
            model: None,
            cpu: None,
            name,
            config,
            firmware: Firmware::Bios,
            medium: Medium::Disc,
            smp: 2,
            memory: MEMORY,
            damage: |_| Ok(()),
            script,
        }
    }

    /// A quiet guest to its shell on a lane's usual machine.
    const fn shell(lane: Lane, name: &'static str, smp: u16) -> Self {
        Self { lane, smp, ..Self::new(name, "quiet", TO_SHELL_QUIET) }
    }

    fn name(&self) -> String {
        format!("system/{}/{}", self.lane.name(), self.name)
    }

    fn machine(&self) -> Result<Machine> {
        match (self.lane, self.model) {
            (_, Some(model)) => with_model(model, self.smp, self.memory),
            (Lane::QemuAmd, None) => Ok(Machine::Qemu(qemu::Machine {
                firmware: self.firmware,
                medium: self.medium,
                // The last one counts.
                extra: self.cpu.iter().flat_map(|cpu| ["-cpu".into(), (*cpu).into()]).collect(),
                ..qemu::Machine::plain(self.smp, self.memory)
            })),
            (lane, None) => lane.machine(self.smp, self.memory),
        }
    }
}

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
const TO_SHELL_QUIET: &[Say] = &[
    Hear("Portico"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
];

/// The VM comes up beside a component that goes down.
const BESIDE_A_CRASH: &[Say] = &[
    Hear("component \"faulty\" failed"),
    Hear("component \"faulty\" stays down: it failed 3 times in a row"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
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

const REBOOT: &[Say] = &[
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("reboot -f\n"),
    Hear("GUEST-UP linux"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
];

/// Passes of 64 MiB that are written, synced and read back while the back end is ended 20 times. A
/// pass that reads something else ends the load.
const DISK_UNDER_KILLS: &[Say] = &[
    Hear("DISK-OK one"),
    Hear("# "),
    Type(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=64 2>/dev/null; \
         while dd if=/tmp/a of=/dev/vdb bs=64k conv=fsync 2>/dev/null; \
         echo 3 >/proc/sys/vm/drop_caches; \
         head -c 67108864 /dev/vdb | cmp - /tmp/a; do echo SAME-$((40+1)); done\n",
    ),
    Often(20, "KILLED disks"),
    Often(2, "SAME-41"),
];

/// The same with a disk of the machine.
const HOST_DISK_UNDER_KILLS: &[Say] = &[
    Hear("disk of the machine, 96 MiB"),
    Hear("GUEST-UP one"),
    Hear("# "),
    Type(
        "dd if=/dev/urandom of=/tmp/a bs=1M count=32 2>/dev/null; \
         while dd if=/tmp/a of=/dev/vda bs=64k conv=fsync 2>/dev/null; \
         echo 3 >/proc/sys/vm/drop_caches; \
         head -c 33554432 /dev/vda | cmp - /tmp/a; do echo SAME-$((40+1)); done\n",
    ),
    Often(20, "KILLED disks"),
    Often(2, "SAME-41"),
];

/// A file that goes from one guest to the other while the switch between them is ended 20 times.
const NET_UNDER_KILLS: &[Say] = &[
    Hear("NET-OK one"),
    Type("\x1d2"),
    Hear("NET-OK two"),
    Hear("# "),
    Type(
        "head -c 8388608 /dev/urandom >/tmp/a; sha256sum </tmp/a >/tmp/s; \
         httpd -h /tmp; echo SERVES-$((40+1))\n",
    ),
    Hear("SERVES-41"),
    Type("\x1d1"),
    Type(
        "while wget -q -O /tmp/a http://10.0.2.12/a && wget -q -O /tmp/s http://10.0.2.12/s && \
         sha256sum </tmp/a | cmp - /tmp/s; do echo SAME-$((40+1)); done\n",
    ),
    Often(20, "KILLED switch"),
    Often(2, "SAME-41"),
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

/// A VM that is ended while it uses its disk; the next one finds the disk in order.
const DISK_AFTER_KILLS: &[Say] =
    &[Hear("KILLED one: 1"), Hear("KILLED one: 2"), Hear("GUEST-UP one"), Hear("DISK-OK one")];

const BOOTS: &[Boot] = &[
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
    Boot::new("faulting-component-is-given-up", "test/crash", BESIDE_A_CRASH),
    Boot::new("guest-mounts-a-disk", "disk", &[Hear("GUEST-UP one"), Hear("DISK-OK one")]),
    Boot {
        damage: |plan| partition::pack(contents(plan, "disks.base")?),
        ..Boot::new("partition-with-changes-elsewhere", "test/partition", PARTITION)
    },
    Boot::new("killed-block-back-end-loses-nothing", "test/kill-disks", DISK_UNDER_KILLS),
    Boot::new(
        "killed-driver-of-a-disk-loses-nothing",
        "test/kill-host-disk",
        HOST_DISK_UNDER_KILLS,
    ),
    Boot::new("killed-switch-loses-nothing", "test/kill-net", NET_UNDER_KILLS),
    Boot::new("disk-of-a-killed-vm-serves-the-next", "test/kill-vm", DISK_AFTER_KILLS),
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
        damage: |plan| remove(plan, "linux.kernel"),
        ..Boot::new(
            "missing-kernel-module-is-told",
            "quiet",
            &[Hear("no boot module \"linux.kernel\"")],
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

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    let boots = BOOTS.iter().map(|boot| Job::case(boot.name(), move |context| run(context, boot)));
    let host = [
        Job::case("system/exits-to-init-are-within-budget", exits_to_init),
        Job::case("system/missing-kernel-file-is-told", missing_kernel),
        Job::case("system/shipped-configurations-are-good", shipped),
    ];
    boots.chain(host).collect()
}

fn run(context: &Context, boot: &Boot) -> Result<String> {
    let config = context.repo.config(boot.config);
    let compiled = system::check(&context.repo, &config, boot.smp, MEMORY)?;
    let mut plan = system::assemble(&context.repo, context.images()?, &compiled)?;
    (boot.damage)(&mut plan)?;
    let iso = context.scratch(&boot.name().replace('/', "-"))?.with_extension("iso");
    plan.pack_for(boot.medium, &iso)?;

    let mut script = Vec::new();
    let mut off = false;
    for say in boot.script {
        match say {
            Hear(text) => script.push(Step::Expect((*text).to_owned())),
            Often(count, text) => {
                script.extend((0..*count).map(|_| Step::Expect((*text).to_owned())));
            }
            Type(text) => script.push(Step::Send((*text).to_owned())),
            Off => off = true,
        }
    }
    let log = iso.with_extension("log");
    let session =
        Session { timeout: Some(TIMEOUT), log: Some(&log), to_the_end: off, ..Session::default() };
    let mut machine = boot.machine()?;
    machine.plug_in(compiled.hardware.arguments(&context.repo, &compiled.system.name)?)?;
    let finished = machine.run(&session, &iso, script)?;
    // Only failures are worth keeping the image for.
    let keep = |result: Result<String>| {
        if result.is_ok() {
            let _ = std::fs::remove_file(&iso);
        }
        result
    };
    if off && finished.end == End::Exit(Some(0)) && finished.conversation.done() {
        return keep(Ok(String::new()));
    }
    keep(finished.require_done().map(|()| String::new()))
}

fn contents<'p>(plan: &'p mut Plan, name: &str) -> Result<&'p mut Contents> {
    let module = plan.modules.iter_mut().find(|(module, _)| module == name);
    module.map(|(_, contents)| contents).with_context(|| format!("there is no module {name}"))
}

fn bytes(contents: &Contents) -> Result<Vec<u8>> {
    match contents {
        Contents::Bytes(bytes) => Ok(bytes.clone()),
        Contents::File(path) => Ok(std::fs::read(path)?),
    }
}

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

fn remove(plan: &mut Plan, name: &str) -> Result<()> {
    contents(plan, name)?;
    plan.modules.retain(|(module, _)| module != name);
    Ok(())
}

fn exits_to_init(context: &Context) -> Result<String> {
    let iso = context.scratch("exits-to-init.iso")?;
    let exits = exits::until_init(&context.repo, context.images()?, &iso)?;
    let all: Vec<String> = exits.iter().map(|(reason, n)| format!("{reason} {n}")).collect();
    let all = all.join(", ");
    let total = exits.iter().find(|(reason, _)| reason == exits::TOTAL);
    if total.is_none_or(|(_, count)| *count > exits::BUDGET) {
        bail!("more than {} exits: {all}", exits::BUDGET);
    }
    Ok(all)
}

fn missing_kernel(context: &Context) -> Result<String> {
    let path = context.scratch("missing-kernel.toml")?;
    std::fs::write(&path, "[[vm]]\nname = \"a\"\nmemory = \"64M\"\nkernel = \"no/vmlinuz\"\n")?;
    let Err(error) = system::check(&context.repo, &path, 2, MEMORY) else {
        bail!("a configuration without its kernel passed the check");
    };
    let text = error.to_string();
    let missing = path.with_file_name("no/vmlinuz");
    for part in [format!("{}:4:10", path.display()), missing.display().to_string()] {
        if !text.contains(&part) {
            bail!("`{part}` is not in the message:\n{text}");
        }
    }
    Ok(String::new())
}

fn shipped(context: &Context) -> Result<String> {
    let mut count = 0;
    for folder in ["run/configs", "run/configs/test"] {
        for entry in context.repo.root.join(folder).read_dir()? {
            let path = entry?.path();
            if path.extension().is_some_and(|e| e == "toml") {
                system::check(&context.repo, &path, 2, MEMORY)?;
                count += 1;
            }
        }
    }
    Ok(format!("{count} configurations"))
}
