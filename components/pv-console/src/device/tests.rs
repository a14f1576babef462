use std::collections::VecDeque;

use ipc::proto::board::{Life, Orders};
use ipc::proto::virtio::{Setup, Shared};
use virtio::chain::Segment;
use virtio::driver::Driver;
use virtio::link::{Link, Links};
use virtio::ram::Ram;
use virtio::session::Seat;

use crate::keep::Mark;

use super::{Consoles, Device, RECEIVE, TRANSMIT, TURN, Turn, describe};

const VERSION_1: u64 = 1 << 32;
const DATA: u64 = 0x4_0000;

/// Two consoles with so much room for output.
#[derive(Default)]
struct Paper {
    printed: [Vec<u8>; 2],
    marks: [Mark; 2],
    typed: [VecDeque<u8>; 2],
    room: usize,
}

impl Consoles for &mut Paper {
    fn accepts(&mut self, _console: usize, bytes: &[u8]) -> usize {
        let used = self.printed.iter().map(Vec::len).sum::<usize>();
        self.room.saturating_sub(used).min(bytes.len())
    }

    fn print(&mut self, console: usize, bytes: &[u8], device: usize, mark: Mark) {
        self.printed[console].extend(bytes);
        self.marks[device] = mark;
    }

    fn printed(&self, device: usize) -> Mark {
        self.marks[device]
    }

    fn typed(&self, console: usize, to: &mut [u8]) -> usize {
        to.iter_mut().zip(&self.typed[console]).map(|(to, byte)| *to = *byte).count()
    }

    fn taken(&mut self, console: usize, count: usize) {
        self.typed[console].drain(..count);
    }
}

struct Machine {
    links: Links,
    orders: &'static Orders,
    devices: Vec<Device>,
    shared: Vec<&'static Shared>,
    drivers: Vec<[Driver; 2]>,
    paper: Paper,
}

impl Machine {
    fn new() -> Self {
        let orders: &'static Orders = Box::leak(Box::<Orders>::default());
        let (mut shared, mut drivers) = (vec![], vec![]);
        let links = (0..2).map(|client| {
            let page: &'static Shared = Box::leak(Box::default());
            let ram = Ram::for_test(1 << 20);
            let pair = [0x1_0000, 0x2_0000].map(|base| Driver::new(&ram, base, 16));
            let mut setup = Setup { features: VERSION_1, ..Setup::default() };
            for (to, driver) in setup.queues.iter_mut().zip(&pair) {
                *to = driver.queue;
            }
            page.activate(&setup);
            shared.push(page);
            drivers.push(pair);
            orders.set_life(client, Life(1));
            let seat = Box::leak(Box::new(Seat::new(client, describe(), page)));
            Link::new(seat, "vm", Some(ram))
        });
        let links = Links::new(links.collect(), orders);
        let devices = (0..2).map(Device::new).collect();
        let paper = Paper { room: usize::MAX, ..Paper::default() };
        Self { links, orders, devices, shared, drivers, paper }
    }

    /// The back end dies and comes back. What was printed stays.
    fn die(&mut self) {
        self.devices = (0..2).map(Device::new).collect();
        let seats = (0..2).map(|n| {
            let seat = Box::leak(Box::new(Seat::new(n, describe(), self.shared[n])));
            Link::new(seat, "vm", Some(self.drivers[n][0].ram.clone()))
        });
        self.links = Links::new(seats.collect(), self.orders);
    }

    fn takes_keys(&self, console: usize) -> bool {
        Device::take_keys(&self.devices, &self.links, console)
    }

    fn round(&mut self) -> bool {
        let consoles = &mut self.paper;
        self.links.round(&mut Turn { devices: &mut self.devices, consoles })
    }

    fn print(&mut self, at: usize, bytes: &[u8]) {
        let driver = &mut self.drivers[at][TRANSMIT];
        driver.ram.write(DATA, bytes).unwrap();
        driver.offer(&[Segment { gpa: DATA, len: bytes.len() as u32 }], &[]);
    }
}

#[test]
fn output_reaches_its_console_only() {
    let mut m = Machine::new();
    m.print(1, b"hello\n");
    assert!(!m.round());
    assert_eq!(m.paper.printed, [b"".to_vec(), b"hello\n".to_vec()]);
    assert!(m.drivers[1][TRANSMIT].reap().is_some());
}

#[test]
fn what_finds_no_room_waits_and_nothing_is_lost_or_printed_twice() {
    let mut m = Machine::new();
    let text: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    m.print(0, &text);
    m.paper.room = 700;
    m.round();
    assert!(m.paper.printed[0].len() < text.len());
    assert_eq!(m.drivers[0][TRANSMIT].reap(), None, "the driver may not use the buffer again yet");
    for room in (700..4000).step_by(300) {
        m.paper.room = room;
        m.round();
    }
    assert_eq!(m.paper.printed[0], text);
    assert!(m.drivers[0][TRANSMIT].reap().is_some());
}

#[test]
fn a_flood_does_not_keep_the_other_waiting() {
    let mut m = Machine::new();
    m.print(0, &vec![b'x'; 100_000]);
    m.print(1, b"short");
    assert!(m.round());
    assert!(m.paper.printed[0].len() <= TURN);
    assert_eq!(m.paper.printed[1], b"short");
}

#[test]
fn what_is_typed_waits_for_a_buffer() {
    let mut m = Machine::new();
    m.paper.typed[0].extend(b"abc");
    // A life before took the queues up: what comes before the first round is the device's, too.
    assert!(m.takes_keys(0));
    m.round();
    assert!(m.takes_keys(0));
    assert_eq!(m.paper.typed[0].len(), 3);
    let driver = &mut m.drivers[0][RECEIVE];
    driver.offer(&[], &[Segment { gpa: DATA, len: 2 }]);
    driver.offer(&[], &[Segment { gpa: DATA + 2, len: 2 }]);
    m.round();
    let driver = &mut m.drivers[0][RECEIVE];
    assert_eq!((driver.reap().unwrap().1, driver.reap().unwrap().1), (2, 1));
    assert_eq!(&driver.ram.read_array::<3>(DATA).unwrap(), b"abc");
    assert!(m.paper.typed[0].is_empty());
}

#[test]
fn a_buffer_without_room_for_input_breaks_the_device() {
    let mut m = Machine::new();
    m.paper.typed[0].extend(b"abc");
    m.drivers[0][RECEIVE].offer(&[Segment { gpa: DATA, len: 8 }], &[]);
    m.round();
    assert!(m.shared[0].is_broken());
    assert!(!m.shared[1].is_broken());
    assert!(!m.takes_keys(0));
}

#[test]
fn a_reset_forgets_what_was_half_printed() {
    let mut m = Machine::new();
    m.print(0, &[b'x'; 2000]);
    m.paper.room = 100;
    m.round();
    m.shared[0].deactivate();
    m.paper.room = usize::MAX;
    m.round();
    assert!(!m.takes_keys(0));
    assert!(m.paper.printed[0].len() < 2000);
    assert_eq!(m.shared[0].reached(), m.shared[0].wanted());
}

#[test]
fn a_new_life_goes_on_in_the_middle_of_what_was_half_printed() {
    let mut m = Machine::new();
    let text: Vec<u8> = (0..3000u32).map(|n| n as u8).collect();
    for repetition in 1..5 {
        m.print(0, &text);
        for _ in 0..6 {
            m.paper.room = m.paper.printed[0].len() + 700;
            m.round();
            m.die();
        }
        m.paper.room = usize::MAX;
        m.round();
        assert_eq!(m.paper.printed[0], text.repeat(repetition));
        assert!(m.drivers[0][TRANSMIT].reap().is_some());
        assert_eq!(m.drivers[0][TRANSMIT].reap(), None);
        m.die();
    }
}

#[test]
fn what_was_printed_and_not_acknowledged_is_acknowledged_only() {
    let mut m = Machine::new();
    m.print(0, b"once");
    m.paper.room = 0;
    m.round();
    let (epoch, index) = m.links.get(0).unwrap().next_used(TRANSMIT).unwrap();
    m.die();
    // It died between the two.
    m.paper.marks[0] = Mark { epoch: epoch.0 as u16, index, printed: 4 };
    m.paper.room = usize::MAX;
    m.round();
    assert_eq!(m.paper.printed[0], b"");
    assert!(m.drivers[0][TRANSMIT].reap().is_some());
    m.print(0, b"next");
    m.round();
    assert_eq!(m.paper.printed[0], b"next");
}

#[test]
fn a_driver_that_starts_anew_is_printed_from_the_start() {
    let mut m = Machine::new();
    m.print(0, &[b'x'; 2000]);
    m.paper.room = 100;
    m.round();
    let setup = m.shared[0].setup();
    m.shared[0].deactivate();
    m.round();
    let driver = &mut m.drivers[0][TRANSMIT];
    driver.ram.write(0x2_0000, &[0; 0x1000]).unwrap();
    *driver = Driver::new(&driver.ram.clone(), 0x2_0000, 16);
    m.shared[0].activate(&setup);
    m.paper.room = usize::MAX;
    m.round();
    m.paper.printed[0].clear();
    m.print(0, b"fresh");
    m.round();
    assert_eq!(m.paper.printed[0], b"fresh");
}
