#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use config::{Component, Device, MachineAction, Pci, Restart, Store, System, Use, Vm, Which};

use ipc::proto::start::{Area, layout};

use super::{Selectors, Session, check, cpu_mask, lent, sessions, stores};

fn session(service: &str, provider: u16) -> Use {
    Use { service: service.to_string(), provider, args: String::new() }
}

fn component(name: &str, provides: &[&str], uses: &[(&str, u16)]) -> Component {
    Component {
        name: name.to_string(),
        image: name.to_string(),
        args: String::new(),
        memory: 1 << 20,
        quota: 100,
        cpu: 0,
        priority: 10,
        restart: Restart::Never,
        operator: false,
        trusted: false,
        devices: Vec::new(),
        provides: provides.iter().map(ToString::to_string).collect(),
        uses: uses.iter().map(|&(service, provider)| session(service, provider)).collect(),
        stores: Vec::new(),
        vm: None,
    }
}

fn vmm(name: &str, cpu: u16, vcpus: &[u16]) -> Component {
    let mut c = component(name, &[], &[("console", 0)]);
    c.cpu = cpu;
    c.vm = Some(Vm {
        ram: 64 << 20,
        vcpus: vcpus.to_vec(),
        kernel: "k".to_string(),
        initrd: None,
        cmdline: String::new(),
    });
    c
}

#[test]
fn sessions_are_numbered_per_provider() {
    let system = System {
        name: "t".to_string(),
        on_last_vm_off: MachineAction::Stay,
        components: vec![
            component("console", &["console", "log"], &[]),
            component("disk", &["disk"], &[("console", 0)]),
            vmm("vm1", 0, &[0, 1]),
            component("both", &[], &[("disk", 1), ("log", 0)]),
        ],
    };
    const SHARED: u64 = 32 << 10;
    let expected = [
        Session {
            provider: 0,
            client: 0,
            user: 1,
            place: 0,
            cpus: 1,
            shared: SHARED,
            lends: false,
        },
        Session {
            provider: 0,
            client: 1,
            user: 2,
            place: 0,
            cpus: 3,
            shared: SHARED,
            lends: false,
        },
        Session { provider: 1, client: 0, user: 3, place: 0, cpus: 1, shared: 0, lends: false },
        Session { provider: 0, client: 2, user: 3, place: 1, cpus: 1, shared: 0, lends: false },
    ];
    assert_eq!(sessions(&system, 4), expected);
}

#[test]
fn missing_cpus_are_replaced() {
    assert_eq!(cpu_mask(&vmm("v", 1, &[0, 1, 5]), 4), 0b11);
    assert_eq!(cpu_mask(&vmm("v", 1, &[0, 1, 5]), 8), 0b10_0011);
    assert_eq!(cpu_mask(&vmm("v", 1, &[0, 1, 5]), 1), 1);
    assert_eq!(cpu_mask(&vmm("v", 63, &[]), 64), 1 << 63);
}

#[test]
fn selectors_do_not_overlap() {
    let mut c = vmm("v", 0, &[0]);
    c.devices = vec![Device {
        name: "uart".to_string(),
        ports: vec![(0x3f8, 8)],
        mmio: Vec::new(),
        irqs: vec![4, 3],
        pci: None,
    }];
    let s = Selectors::of(&c, 2);
    assert_eq!((s.root, s.events, s.interrupts, s.uses, s.free), (8, 32, 96, 98, 100));
    let s = Selectors::of(&c, 64);
    assert_eq!(s.events % 32, 0);
    assert!(s.root + 64 <= s.events && s.events + 64 * 32 == s.interrupts);
    assert_eq!(s.use_at(0, 64), s.uses);
}

#[test]
fn limits_of_the_start_block() {
    let mut c = component("c", &[], &[]);
    assert_eq!(check(&c, 32), Ok(()));
    assert!(check(&c, 33).is_err());
    c.uses = (0..17).map(|_| session("", 0)).collect();
    assert_eq!(check(&c, 0), Err("uses too many services"));
}

#[test]
fn a_back_end_finds_the_ram_of_each_vm_once() {
    let mut one = vmm("one", 0, &[0]);
    one.uses = vec![session("virtio", 1), session("console", 0), session("virtio", 1)];
    let mut two = vmm("two", 0, &[0]);
    two.uses = vec![session("virtio", 1)];
    let system = System {
        name: "t".to_string(),
        on_last_vm_off: MachineAction::Stay,
        components: vec![
            component("console", &["console"], &[]),
            component("disks", &["virtio"], &[]),
            one,
            component("no-vm", &[], &[("virtio", 1)]),
            two,
        ],
    };
    let all = sessions(&system, 1);
    let of = |provider| lent(&system, all.iter().copied(), provider);
    let base = layout::CLIENT_RAM.base;
    let expected =
        [(2, Area { base, size: 64 << 20 }), (4, Area { base: base + (1 << 30), size: 64 << 20 })];
    assert_eq!(of(1), expected);
    assert_eq!(of(0), [], "a console does not work on it");
    let lends: Vec<bool> = all.iter().map(|s| s.lends).collect();
    assert_eq!(lends, [true, false, true, false, true]);
}

#[test]
fn stores_lie_apart() {
    let mut c = component("c", &[], &[]);
    let store = |size| Store { name: String::new(), size, content: None };
    c.stores = vec![store(4096), store(3 << 30), store(4096)];
    let bases: Vec<u64> = stores(&c).map(|a| a.base - layout::STORES.base).collect();
    assert_eq!(bases, [0, 1 << 30, 4 << 30]);
    c.stores = vec![store(4096); 17];
    assert_eq!(check(&c, 0), Err("has too many stores"));
}

#[test]
fn a_function_takes_selectors_for_all_its_vectors() {
    let mut c = component("c", &[], &[("console", 0)]);
    let device = |pci| Device {
        name: String::new(),
        ports: Vec::new(),
        mmio: Vec::new(),
        irqs: Vec::new(),
        pci,
    };
    let which = Which::Kind { vendor: 0x1af4, device: 0x1041 };
    c.devices = vec![device(None), device(Some(Pci { which, dma: 0 }))];
    let s = Selectors::of(&c, 1);
    assert_eq!(s.uses - s.interrupts, 8);
}
