//! Configurations with errors are in `fixtures/`; each says at its end, as `#~ LINE:COLUMN text`,
//! which errors it must bring, and it must bring no others.

use std::collections::BTreeSet;
use std::path::Path;

use config::{MachineAction, Pci, Restart, Which};

use super::check::Surroundings;
use super::compile::Compiled;
use super::payload::Payload;
use super::source::Source;
use super::{Checked, process, units, virtio};

fn read(source: &Source, smp: u16, memory: u64) -> Checked {
    let images = ["pv-console", "vmm"].map(String::from).into_iter().collect::<BTreeSet<_>>();
    let around = Surroundings { smp, memory, folder: source.folder(), images: &images };
    process(source, &around).unwrap()
}

fn text(text: &str) -> Source {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/fixtures");
    Source { path: folder.join("inline.toml"), text: text.to_owned() }
}

fn good(source: &Source, smp: u16) -> Compiled {
    match read(source, smp, 2 << 30) {
        Checked::Good(compiled) => *compiled,
        Checked::Bad(errors) => panic!("{}", source.render(&errors, false)),
    }
}

fn fixture(name: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/config/fixtures");
    let source = Source::read(&folder.join(name).with_extension("toml")).unwrap();
    let Checked::Bad(mut errors) = read(&source, 2, 2 << 30) else { panic!("{name} is good") };
    errors.sort_by_key(|e| e.span.start);
    let found: Vec<String> = errors
        .iter()
        .map(|e| {
            let (line, column) = source.position(e.span.start);
            format!("{line}:{column} {}", e.message)
        })
        .collect();
    let expected: Vec<&str> = source.text.lines().filter_map(|l| l.strip_prefix("#~ ")).collect();
    let mut rest = found.clone();
    for want in &expected {
        let (place, part) = want.split_once(' ').unwrap();
        let place = format!("{place} ");
        let hit = rest.iter().position(|f| f.starts_with(&place) && f.contains(part));
        match hit {
            Some(index) => drop(rest.remove(index)),
            None => panic!("{name}: no error `{want}` among\n{}", found.join("\n")),
        }
    }
    assert!(rest.is_empty(), "{name}: unexpected\n{}", rest.join("\n"));
    // Every error can be drawn.
    let drawn = source.render(&errors, false);
    assert_eq!(drawn.matches(": error: ").count(), errors.len());
}

#[test]
fn syntax_errors_are_all_found() {
    fixture("syntax");
}

#[test]
fn unknown_keys_are_found() {
    fixture("keys");
}

#[test]
fn wrong_types_and_values_are_found() {
    fixture("types");
}

#[test]
fn wrong_names_and_shared_devices_are_found() {
    fixture("names");
}

#[test]
fn undeclared_services_and_cycles_are_found() {
    fixture("services");
}

#[test]
fn what_the_machine_lacks_is_found() {
    fixture("machine");
}

#[test]
fn empty_system_is_refused() {
    fixture("empty");
}

#[test]
fn wrong_stores_functions_and_virtio_devices_are_found() {
    fixture("devices");
}

#[test]
fn what_does_not_fit_is_found() {
    fixture("limits");
}

#[test]
fn shipped_configurations_are_good() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("configs");
    for name in ["linux", "quiet"] {
        for smp in [1, 2, 4] {
            let source = Source::read(&folder.join(name).with_extension("toml")).unwrap();
            let compiled = good(&source, smp);
            assert_eq!(compiled.system.name, name);
            assert_eq!(compiled.images, ["pv-console", "vmm"]);
        }
    }
}

const TWO_VMS: &str = r#"
[system]
kernel-args = "trace=ipc"
[device.com1]
ports = ["0x3f8-0x3ff", "0x80"]
mmio = ["0xfed40000-0xfed40fff"]
irqs = [4]
[[vm]]
name = "one"
memory = "64M"
vcpus = ["auto", "auto"]
kernel = "keys.toml"
initrd = "demo"
cmdline = "quiet"
uses = { console = "console" }
[[vm]]
name = "two"
memory = "64M"
kernel = "./keys.toml"
initrd = "types.toml"
restart = "on-failure"
[[component]]
name = "console"
image = "pv-console"
devices = ["com1"]
provides = ["console"]
max-restarts = 3
"#;

#[test]
fn everything_said_is_compiled() {
    let compiled = good(&text(TWO_VMS), 4);
    let system = &compiled.system;
    assert_eq!(system.name, "inline");
    assert_eq!(system.on_last_vm_off, MachineAction::PowerOff);
    assert_eq!(compiled.kernel_args, "kernel-memory=33554432 trace=ipc");
    let names: Vec<&str> = system.components.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["console", "one", "two"]);
    let console = &system.components[0];
    assert_eq!(console.devices[0].ports, [(0x3f8, 8), (0x80, 1)]);
    assert_eq!(console.devices[0].mmio, [(0xfed4_0000, 0x1000)]);
    assert_eq!(console.restart, Restart::OnFailure { max: 3 });
    assert_eq!((console.cpu, console.quota, console.memory), (0, 256, 1 << 20));
    let one = &system.components[1];
    assert_eq!((one.uses[0].service.as_str(), one.uses[0].provider), ("console", 0));
    assert_eq!(one.image, "vmm");
    assert_eq!(config::decode(&config::encode(system).unwrap()).as_ref(), Ok(system));
}

const DEVICES: &str = r#"
[device.nic]
pci = "1af4:1041"
dma = "2M"
[device.drive]
pci = "00:1f.2"
[[component]]
name = "disks"
image = "pv-console"
provides = ["virtio"]
devices = ["drive"]
trusted = true
stores = { one = { size = "1M", file = "keys.toml" }, changes = { size = "2M" } }
[[component]]
name = "switch"
image = "pv-console"
devices = ["nic"]
trusted = true
operator = true
provides = ["virtio"]
[[vm]]
name = "a"
memory = "64M"
kernel = "keys.toml"
nets = [
    { from = "switch", network = "lan" },
    { from = "switch", network = "lan", mac = "52:54:00:00:00:01", rate = "10M" },
    { from = "switch", network = "lan" },
]
consoles = [{ from = "switch" }]
disks = [
    { from = "disks", disk = "one", copy-on-write = "changes", serial = "A-1" },
    { from = "disks", disk = "one", read-only = true, partition = 2 },
    { from = "disks", disk = "drive" },
]
"#;

#[test]
fn devices_become_sessions_with_words() {
    let system = good(&text(DEVICES), 2).system;
    let vm = &system.components[2];
    let sessions: Vec<_> =
        vm.uses.iter().map(|u| (u.service.as_str(), u.provider, u.args.as_str())).collect();
    assert_eq!(
        sessions,
        [
            ("virtio", 1, "console"),
            ("virtio", 0, "disk=one cow=changes serial=A-1"),
            ("virtio", 0, "disk=one ro partition=2"),
            ("virtio", 0, "disk=drive"),
            ("virtio", 1, "network=lan mac=52:54:00:00:00:02"),
            ("virtio", 1, "network=lan mac=52:54:00:00:00:01 rate=10485760"),
            ("virtio", 1, "network=lan mac=52:54:00:00:00:03"),
        ]
    );
}

#[test]
fn stores_functions_and_flags_are_compiled() {
    let compiled = good(&text(DEVICES), 2);
    let [disks, switch, vm] = compiled.system.components.as_slice() else { panic!() };
    let stores: Vec<_> =
        disks.stores.iter().map(|s| (s.name.as_str(), s.size, s.content.as_deref())).collect();
    assert_eq!(stores, [("one", 1 << 20, Some("disks.one")), ("changes", 2 << 20, None)]);
    // The kernel of the VM is the same file.
    assert_eq!(vm.vm.as_ref().unwrap().kernel, "disks.one");
    let place = Which::Place { bus: 0, device: 31, function: 2 };
    assert_eq!(disks.devices[0].pci, Some(Pci { which: place, dma: 0 }));
    let kind = Which::Kind { vendor: 0x1af4, device: 0x1041 };
    assert_eq!(switch.devices[0].pci, Some(Pci { which: kind, dma: 2 << 20 }));
    assert!(switch.operator && switch.trusted && !disks.operator && !vm.trusted);
}

#[test]
fn modules_are_named_after_their_first_user() {
    let compiled = good(&text(TWO_VMS), 4);
    let names: Vec<&str> = compiled.payloads.iter().map(|(n, _)| n.as_str()).collect();
    assert_eq!(names, ["one.kernel", "one.initrd", "two.initrd"]);
    assert_eq!(compiled.payloads[1].1, Payload::Demo);
    let vm = |i: usize| compiled.system.components[i].vm.clone().unwrap();
    assert_eq!((vm(1).kernel.as_str(), vm(2).kernel.as_str()), ("one.kernel", "one.kernel"));
    assert_eq!(vm(2).initrd.as_deref(), Some("two.initrd"));
}

#[test]
fn auto_takes_the_cpus_that_have_least_to_do() {
    let compiled = good(&text(TWO_VMS), 4);
    let vm = |i: usize| compiled.system.components[i].vm.clone().unwrap();
    assert_eq!(vm(1).vcpus, [3, 2]);
    assert_eq!(vm(2).vcpus, [1]);
    assert_eq!(compiled.system.components[1].cpu, 3);
    let compiled = good(&text(TWO_VMS), 1);
    assert_eq!(compiled.system.components[1].vm.clone().unwrap().vcpus, [0, 0]);
}

#[test]
fn positions_count_characters_from_one() {
    let source = text("a\n\u{e9}\u{e9}b\n");
    assert_eq!(source.position(0), (1, 1));
    assert_eq!(source.position(2), (2, 1));
    assert_eq!(source.position(6), (2, 3));
}

#[test]
fn sizes_and_ranges_are_read() {
    assert_eq!(units::size("512M"), Ok(512 << 20));
    assert_eq!(units::size("1GiB"), Ok(1 << 30));
    for bad in ["", "M", "12", "1.5G", "-1M", "1T", "99999999999G", "18446744073709551615K"] {
        assert!(units::size(bad).is_err(), "{bad}");
    }
    assert_eq!(units::range("0x3f8-0x3ff", 0xffff), Ok((0x3f8, 0x3ff)));
    assert_eq!(units::range("128", 0xffff), Ok((128, 128)));
    for bad in ["", "-", "1-", "3-1", "0x10000"] {
        assert!(units::range(bad, 0xffff).is_err(), "{bad}");
    }
    for bad in ["", "1af4", "1af4:", "1af4:10411", "0:3.0", "00:03", "00:20.0", "00:03.8", "x:y"] {
        assert!(units::pci(bad).is_err(), "{bad}");
    }
    for bad in ["", "52:54:00:00:00", "52:54:00:00:00:01:02", "52:54:0:0:0:1", "+2:54:00:00:00:01"]
    {
        assert!(virtio::mac(bad).is_err(), "{bad}");
    }
    assert_eq!(units::show(2 << 30), "2G");
    assert_eq!(units::show((1 << 20) + 1), "2M");
}
