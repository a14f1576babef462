use heapless::Vec;

use crate::proto::start::{
    Area, Client, Device, Error, Interrupt, Mmio, Objects, Pci, Start, Store, Used, Vm, layout,
};

fn example() -> Start<'static> {
    Start {
        name: "vmm",
        args: "verbose",
        tsc_khz: 2_400_000,
        boot_tsc: 17,
        wall_ms: 1_700_000_000_000,
        cpus: 2,
        cpu: 1,
        priority: 20,
        objects: Objects {
            pd: 1,
            ec: 2,
            sc: 3,
            semaphore: 5,
            root: 32,
            events: 64,
            free: 128,
            free_count: 60_000,
        },
        heap: Area { base: layout::HEAP.base, size: 1 << 20 },
        threads: layout::THREADS,
        windows: layout::WINDOWS,
        uses: Vec::from_slice(&[Used {
            service: "console",
            provider: "pv-console",
            portals: 40,
            shared: None,
        }])
        .unwrap(),
        clients: Vec::from_slice(&[Client {
            service: "x",
            name: "y",
            cpus: 3,
            vm: true,
            shared: Some(Area { base: layout::WINDOWS.base, size: 4096 }),
            args: "disk=one ro",
            ram: Some(Area { base: layout::CLIENT_RAM.base, size: 64 << 20 }),
        }])
        .unwrap(),
        devices: Vec::from_slice(&[Device {
            name: "uart",
            ports: Vec::from_slice(&[(0x3f8, 8)]).unwrap(),
            mmio: Vec::from_slice(&[Mmio {
                mapped: Area { base: layout::DEVICES.base, size: 4096 },
                physical: 0xfed0_0000,
            }])
            .unwrap(),
            interrupts: Vec::from_slice(&[Interrupt { line: 4, selector: 90, trigger: 0 }])
                .unwrap(),
            pci: Some(Pci {
                config: Area { base: layout::DEVICES.base + (2 << 20), size: 4096 },
                bars: Vec::from_slice(&[4]).unwrap(),
                dma: Some(Mmio {
                    mapped: Area { base: layout::DEVICES.base + (4 << 20), size: 2 << 20 },
                    physical: 0x4000_0000,
                }),
                vectors: Vec::from_slice(&[91, 92]).unwrap(),
            }),
        }])
        .unwrap(),
        stores: Vec::from_slice(&[Store {
            name: "disk",
            area: Area { base: layout::STORES.base, size: 8 << 20 },
        }])
        .unwrap(),
        orders: Area { base: layout::WINDOWS.base, size: 4096 },
        figures: Area { base: layout::WINDOWS.base + 4096, size: 4096 },
        vm: Some(Vm {
            ram: Area { base: layout::GUEST_RAM.base, size: 256 << 20 },
            kernel: Area { base: layout::MODULES.base, size: 14_000_001 },
            initrd: None,
            cmdline: "console=ttyS0",
            vcpus: Vec::from_slice(&[0, 1]).unwrap(),
        }),
        log: None,
    }
}

#[test]
fn the_block_survives() {
    let mut pages = [0; 4096];
    example().encode(&mut pages).unwrap();
    assert_eq!(Start::decode(&pages), Ok(example()));
}

#[test]
fn a_block_that_does_not_fit_is_refused() {
    for size in 0..100 {
        let mut pages = [0u8; 100];
        assert_eq!(example().encode(&mut pages[..size]), Err(Error));
    }
}

#[test]
fn other_versions_and_truncations_are_refused() {
    let mut pages = [0; 4096];
    example().encode(&mut pages).unwrap();
    for size in 0..100 {
        assert_eq!(Start::decode(&pages[..size]), Err(Error));
    }
    pages[4] += 1;
    assert_eq!(Start::decode(&pages), Err(Error));
}

#[test]
fn areas_of_the_layout_do_not_overlap() {
    let all = [
        layout::IMAGE,
        layout::THREADS,
        layout::DEVICES,
        Area { base: layout::PARK, size: 4096 },
        layout::HEAP,
        layout::WINDOWS,
        layout::GUEST_RAM,
        layout::MODULES,
        layout::CLIENT_RAM,
        layout::STORES,
    ];
    for (i, a) in all.iter().enumerate() {
        for b in &all[i + 1..] {
            assert!(!a.overlaps(*b), "{a:x?} {b:x?}");
        }
    }
}

#[test]
fn containment() {
    let area = Area { base: 100, size: 50 };
    assert!(area.contains(Area { base: 100, size: 50 }));
    assert!(!area.contains(Area { base: 100, size: 51 }));
    assert!(!area.contains(Area { base: 99, size: 1 }));
    assert!(!area.contains(Area { base: 120, size: u64::MAX }));
}
