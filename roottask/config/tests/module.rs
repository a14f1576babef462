//! The compiled configuration as the root task meets it: intact, damaged, and lying.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use config::{
    Component, Device, Error, MachineAction, Pci, Restart, Store, System, Use, Vm, Which, decode,
    encode,
};

fn component(name: &str) -> Component {
    Component {
        name: name.into(),
        image: "pv-console".into(),
        args: String::new(),
        memory: 2 << 20,
        quota: 256,
        cpu: 0,
        priority: 100,
        restart: Restart::OnFailure { max: 5 },
        operator: false,
        trusted: false,
        devices: Vec::new(),
        provides: Vec::new(),
        uses: Vec::new(),
        stores: Vec::new(),
        vm: None,
    }
}

/// A console with a UART, and a VM that uses it.
fn system() -> System {
    let com1 = Device {
        name: "com1".into(),
        ports: vec![(0x3f8, 8)],
        mmio: Vec::new(),
        irqs: vec![4],
        pci: None,
    };
    let mut console = component("console");
    console.provides.push("console".into());
    console.devices.push(com1);
    let mut linux = component("linux");
    linux.uses.push(Use { service: "console".into(), provider: 0, args: String::new() });
    linux.vm = Some(Vm {
        ram: 512 << 20,
        vcpus: vec![1],
        kernel: "linux.kernel".into(),
        initrd: Some("linux.initrd".into()),
        cmdline: "console=ttyS0".into(),
    });
    System {
        name: "test".into(),
        on_last_vm_off: MachineAction::PowerOff,
        components: vec![console, linux],
    }
}

/// What the root task says of a system that was changed before it was encoded.
fn refused(change: impl FnOnce(&mut System)) -> Error {
    let mut system = system();
    change(&mut system);
    decode(&encode(&system).unwrap()).unwrap_err()
}

#[test]
fn what_is_encoded_is_decoded() {
    assert_eq!(decode(&encode(&system()).unwrap()), Ok(system()));
}

#[test]
fn every_flipped_bit_is_noticed() {
    let module = encode(&system()).unwrap();
    for bit in 0..module.len() * 8 {
        let (byte, mask) = (bit / 8, 1 << (bit % 8));
        // Two reserved bytes carry nothing.
        if (6..8).contains(&byte) {
            continue;
        }
        let mut damaged = module.clone();
        damaged[byte] ^= mask;
        assert!(decode(&damaged).is_err(), "bit {bit}");
    }
}

#[test]
fn every_cut_is_noticed() {
    let module = encode(&system()).unwrap();
    for length in 0..module.len() {
        assert!(decode(&module[..length]).is_err(), "{length} bytes");
    }
}

#[test]
fn header_is_told_apart() {
    let module = encode(&system()).unwrap();
    assert_eq!(decode(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0"), Err(Error::Magic));
    let mut newer = module.clone();
    newer[4] = 9;
    assert_eq!(decode(&newer), Err(Error::Version(9)));
    let mut damaged = module;
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(decode(&damaged), Err(Error::Checksum));
}

#[test]
fn names_are_unique_and_short() {
    let name = |new: &str| {
        let new = new.to_owned();
        refused(move |s| s.components[1].name = new)
    };
    assert_eq!(name("console"), Error::Invalid("console".into(), "name is used twice"));
    assert!(matches!(name(""), Error::Invalid(..)));
    assert!(matches!(name(&"x".repeat(32)), Error::Invalid(..)));
}

#[test]
fn providers_come_first_and_provide() {
    let use_of = |provider, service: &str| {
        let service = service.to_owned();
        refused(move |s| s.components[1].uses[0] = Use { service, provider, args: String::new() })
    };
    assert!(matches!(use_of(1, "console"), Error::Invalid(_, what) if what.contains("before it")));
    assert!(matches!(use_of(7, "console"), Error::Invalid(_, what) if what.contains("before it")));
    assert!(matches!(use_of(0, "disk"), Error::Invalid(_, what) if what.contains("provide")));
}

#[test]
fn numbers_are_in_range() {
    for change in [
        (|s| s.components[0].priority = 0) as fn(&mut System),
        |s| s.components[0].priority = 128,
        |s| s.components[0].memory = 4097,
        |s| s.components[1].vm.as_mut().unwrap().ram = 3 << 20,
        |s| s.components[1].vm.as_mut().unwrap().ram = 0,
        |s| s.components[1].vm.as_mut().unwrap().vcpus.clear(),
        |s| s.components[1].vm.as_mut().unwrap().vcpus = vec![0; 65],
        |s| s.components[0].devices[0].ports = vec![(0xffff, 2)],
        |s| s.components[0].devices[0].ports = vec![(0, 0)],
        |s| s.components[0].devices[0].mmio = vec![(0xfed4_0001, 4096)],
        |s| s.components[0].stores.push(store(0)),
        |s| s.components[0].stores.push(store(4095)),
        |s| s.components[0].stores.push(store(1 << 40)),
        |s| function(s, Which::Place { bus: 0, device: 32, function: 0 }, 0),
        |s| function(s, Which::Place { bus: 0, device: 0, function: 8 }, 0),
        |s| function(s, Which::Kind { vendor: 1, device: 1 }, 100),
        |s| s.components[0].devices[0].mmio = vec![(0u64.wrapping_sub(4096), 8192)],
    ] {
        assert!(matches!(refused(change), Error::Invalid(..)));
    }
}

fn store(size: u64) -> Store {
    Store { name: "disk".into(), size, content: None }
}

fn function(system: &mut System, which: Which, dma: u64) {
    system.components[0].trusted = true;
    system.components[0].devices[0].pci = Some(Pci { which, dma });
}

#[test]
fn functions_are_for_the_trusted() {
    let mut good = system();
    function(&mut good, Which::Kind { vendor: 0x1af4, device: 0x1041 }, 4096);
    assert_eq!(decode(&encode(&good).unwrap()).as_ref(), Ok(&good));
    good.components[0].trusted = false;
    let error = decode(&encode(&good).unwrap()).unwrap_err();
    assert!(matches!(error, Error::Invalid(_, what) if what.contains("not trusted")));
}

#[test]
fn errors_read_as_sentences() {
    assert_eq!(Error::Checksum.to_string(), "configuration module is damaged (checksum mismatch)");
    assert_eq!(Error::Invalid("a".into(), "no").to_string(), "component `a`: no");
}
