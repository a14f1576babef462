#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use config::{Component, Device, Pci, Restart, Which};
use ipc::proto::start::{Mmio, layout};

use super::device_memory;
use crate::functions::Grant;
use crate::memory::{LARGE_PAGE, Span};
use crate::pci::{Bar, Function};

fn device(mmio: Vec<(u64, u64)>, pci: Option<Pci>) -> Device {
    Device { name: String::new(), ports: Vec::new(), mmio, irqs: Vec::new(), pci }
}

fn component(devices: Vec<Device>) -> Component {
    Component {
        name: String::new(),
        image: String::new(),
        args: String::new(),
        memory: 0,
        quota: 1,
        cpu: 0,
        priority: 1,
        restart: Restart::Never,
        operator: false,
        trusted: true,
        devices,
        provides: Vec::new(),
        uses: Vec::new(),
        stores: Vec::new(),
        vm: None,
    }
}

#[test]
fn memory_of_devices_lies_apart_and_aligned_as_it_is() {
    let which = Which::Place { bus: 0, device: 3, function: 0 };
    let function = Pci { which, dma: 8192 };
    let component = component(vec![
        device(vec![(0xfed0_0000, 4096), (0xfed4_1000, 8192)], None),
        device(Vec::new(), Some(function)),
    ]);
    let bars = vec![
        Bar { number: 1, base: 0xfebd_0000, size: 4096 },
        Bar { number: 4, base: 0x8_0000_4000, size: 16384 },
    ];
    let grant = |component| Grant {
        component,
        device: 1,
        function: Function { config: 0xb001_8000, bars: bars.clone(), vectors: 3 },
        interrupts: vec![24, 25, 26],
        dma: Some(Span { base: 0x20_0000, size: 8192 }),
    };
    let memory = device_memory(&component, 7, &[grant(6), grant(7)]);
    assert_eq!(memory.len(), 2);
    assert_eq!(memory[0].ranges.len(), 2);
    assert_eq!((memory[0].config, memory[0].dma), (None, None));
    let physical: Vec<u64> = memory[1].ranges.iter().map(|m| m.physical).collect();
    assert_eq!(physical, [0xfebd_0000, 0x8_0000_4000]);
    assert_eq!(memory[1].config.unwrap().physical, 0xb001_8000);
    assert_eq!(memory[1].dma.unwrap().mapped.size, 8192);
    let ranges = memory.iter().flat_map(|m| m.ranges.iter().chain(&m.config).chain(&m.dma));
    let all: Vec<&Mmio> = ranges.collect();
    for (n, one) in all.iter().enumerate() {
        assert!(layout::DEVICES.contains(one.mapped));
        assert_eq!(one.mapped.base % LARGE_PAGE, one.physical % LARGE_PAGE);
        assert!(all[..n].iter().all(|other| !one.mapped.overlaps(other.mapped)));
    }
    assert!(device_memory(&component, 5, &[grant(7)])[1].ranges.is_empty());
}
