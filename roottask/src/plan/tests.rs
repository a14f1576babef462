#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use config::{Component, Device, MachineAction, Restart, System, Use, Vm};

use super::{Selectors, Session, check, cpu_mask, sessions};

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
