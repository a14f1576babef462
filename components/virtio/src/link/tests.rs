use ipc::proto::board::Life;
use ipc::proto::virtio::{Epoch, Setup, Shared};

use super::{Backend, Link, Links, Orders, TURN};
use crate::chain::Segment;
use crate::driver::Driver;
use crate::queue::{EVENT_IDX, VERSION_1};
use crate::ram::Ram;
use crate::session::{Description, Seat};

/// Answers each request with its first byte plus one. Holds requests back when told to.
#[derive(Default)]
struct Adder {
    entered: usize,
    left: usize,
    busy: bool,
}

impl Backend for Adder {
    fn enter(&mut self, _links: &mut Links, _at: usize) {
        self.entered += 1;
    }

    fn leave(&mut self, _links: &mut Links, _at: usize) -> bool {
        self.left += 1;
        !self.busy
    }

    fn turn(&mut self, links: &mut Links, at: usize) -> bool {
        let Some(link) = links.get_mut(at) else { return false };
        for _ in 0..TURN {
            let Some(chain) = link.pop(0) else { return false };
            let ram = link.ram().unwrap().clone();
            let Some([byte]) = chain.readable().read_array(&ram).unwrap() else {
                link.give_up("no byte");
                return false;
            };
            chain.writable().write(&ram, &[byte.wrapping_add(1)]).unwrap();
            link.complete(0, chain, 1);
        }
        true
    }
}

struct Machine {
    orders: &'static Orders,
    shared: Vec<&'static Shared>,
    drivers: Vec<Driver>,
    links: Links,
}

/// VMs whose memory is mapped, with a device each.
fn machine(count: usize) -> Machine {
    let orders: &'static Orders = Box::leak(Box::<Orders>::default());
    let mut shared = Vec::new();
    let mut drivers = Vec::new();
    let links = (0..count)
        .map(|client| {
            let page: &'static Shared = Box::leak(Box::default());
            let description = Description {
                device: 42,
                features: 1 << 5,
                queues: 1,
                queue_size: 64,
                config: heapless::Vec::new(),
            };
            let seat = Box::leak(Box::new(Seat::new(client, description, page)));
            let ram = Ram::for_test(1 << 20);
            drivers.push(Driver::new(&ram, 0x1000, 64));
            shared.push(page);
            orders.set_life(client, Life(1));
            Link::new(seat, "vm", Some(ram))
        })
        .collect();
    Machine { orders, shared, drivers, links: Links::new(links, orders) }
}

impl Machine {
    /// The VMM starts an epoch with the driver's queue.
    fn activate(&self, at: usize) -> Epoch {
        let mut setup = Setup { features: VERSION_1 | EVENT_IDX, ..Setup::default() };
        setup.queues[0] = self.drivers[at].queue;
        self.shared[at].activate(&setup)
    }

    fn ask(&mut self, at: usize, byte: u8) {
        let driver = &mut self.drivers[at];
        driver.ram.write(0x8000, &[byte]).unwrap();
        driver.offer(&[Segment { gpa: 0x8000, len: 1 }], &[Segment { gpa: 0x9000, len: 1 }]);
    }

    fn answer(&mut self, at: usize) -> Option<u8> {
        let driver = &mut self.drivers[at];
        let (_, written) = driver.reap()?;
        assert_eq!(written, 1);
        Some(driver.ram.read_array::<1>(0x9000).unwrap()[0])
    }
}

#[test]
fn a_device_works_from_set_up_to_reset() {
    let mut m = machine(1);
    let mut adder = Adder::default();
    m.ask(0, 7);
    assert!(!m.links.round(&mut adder));
    assert_eq!(m.answer(0), None, "no queues yet");
    let epoch = m.activate(0);
    assert!(!m.links.round(&mut adder));
    assert_eq!(m.shared[0].reached(), epoch);
    assert_eq!(m.answer(0), Some(8));
    let epoch = m.shared[0].deactivate();
    adder.busy = true;
    m.links.round(&mut adder);
    assert_ne!(m.shared[0].reached(), epoch, "a request is under way");
    adder.busy = false;
    m.ask(0, 9);
    m.links.round(&mut adder);
    assert_eq!(m.shared[0].reached(), epoch);
    assert_eq!(m.answer(0), None);
    assert_eq!(adder.entered, 1);
    assert!(m.links.get(0).unwrap().ram().is_none());
}

#[test]
fn a_driver_that_breaks_a_rule_needs_a_reset_and_harms_nobody_else() {
    let mut m = machine(2);
    let mut adder = Adder::default();
    let epoch = m.activate(0);
    m.activate(1);
    m.links.round(&mut adder);
    m.drivers[0].publish(64);
    m.ask(1, 1);
    m.links.round(&mut adder);
    assert!(m.shared[0].is_broken());
    assert_eq!(m.shared[0].reached(), epoch);
    assert_eq!(m.answer(1), Some(2));
    assert!(!m.shared[1].is_broken());
    assert_eq!(
        m.links.get(0).unwrap().tally().broken.load(core::sync::atomic::Ordering::Relaxed),
        1
    );
    // It stays so until the driver resets the device, even if the back end starts anew.
    m.links.round(&mut adder);
    assert!(m.shared[0].is_broken());
    m.shared[0].deactivate();
    m.links.round(&mut adder);
    m.drivers[0] = Driver::new(&Ram::clone(&m.drivers[0].ram), 0x1000, 64);
    m.drivers[0].set_available(0);
    m.activate(0);
    m.links.round(&mut adder);
    assert!(!m.shared[0].is_broken());
    m.ask(0, 5);
    m.links.round(&mut adder);
    assert_eq!(m.answer(0), Some(6));
}

#[test]
fn a_rule_of_the_device_counts_as_well() {
    let mut m = machine(1);
    m.activate(0);
    m.drivers[0].offer(&[], &[Segment { gpa: 0x9000, len: 1 }]);
    m.links.round(&mut Adder::default());
    assert!(m.shared[0].is_broken());
}

#[test]
fn features_that_were_not_offered_break_the_device() {
    let mut m = machine(1);
    let setup = Setup { features: 1 << 6, ..Setup::default() };
    let epoch = m.shared[0].activate(&setup);
    m.links.round(&mut Adder::default());
    assert!(m.shared[0].is_broken());
    assert_eq!(m.shared[0].reached(), epoch);
}

#[test]
fn a_restarted_back_end_goes_on_where_the_used_ring_stands() {
    let mut m = machine(1);
    m.activate(0);
    for byte in 1..4 {
        m.ask(0, byte);
        m.links.round(&mut Adder::default());
        assert_eq!(m.answer(0), Some(byte + 1));
        // It dies.
        let old = m.links.links.remove(0);
        m.links.links.push(Link::new(old.seat, "vm", old.ram));
    }
}

#[test]
fn a_vm_that_is_gone_is_not_touched() {
    let mut m = machine(1);
    let mut adder = Adder::default();
    m.activate(0);
    m.links.round(&mut adder);
    m.orders.set_life(0, Life(2));
    m.ask(0, 7);
    m.links.round(&mut adder);
    assert_eq!(m.answer(0), None);
    assert_eq!(adder.left, 2, "told once, asked once");
    // A new VMM, whose shared memory and RAM start at zero.
    m.links.links[0].seat.shared.deactivate();
    m.orders.set_life(0, Life(3));
    m.links.round(&mut adder);
    assert_eq!(m.answer(0), None);
    m.activate(0);
    m.links.round(&mut adder);
    assert_eq!(m.answer(0), Some(8));
}

#[test]
fn a_flooding_guest_gets_its_turn_and_no_more() {
    let mut m = machine(2);
    m.activate(0);
    m.activate(1);
    for byte in 0..32 {
        m.ask(0, byte);
    }
    m.ask(1, 1);
    assert!(m.links.round(&mut Adder::default()), "there is more");
    assert_eq!(m.drivers[0].used_index(), TURN as u64);
    assert_eq!(m.answer(1), Some(2));
    assert!(!m.links.round(&mut Adder::default()));
}

#[test]
fn two_devices_at_once() {
    let mut m = machine(3);
    assert!(m.links.pair(0, 2).is_some());
    assert!(m.links.pair(1, 1).is_none());
    assert!(m.links.pair(1, 3).is_none());
}
