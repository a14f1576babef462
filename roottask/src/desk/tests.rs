#![allow(clippy::unwrap_used, reason = "tests")]

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use config::{Component, Restart, Vm};
use ipc::cap::{Range, Rights, Selector};
use ipc::proto::board::{EXITS, Figures, Orders};
use ipc::proto::root::{Account, Cause, Kill, List, Pause, Released, Server, State};
use ipc::proto::service::{Fault, Incoming};
use ipc::utcb::Item;
use sysroot::cap::Cap;

use super::Desk;
use crate::place::{Command, Place};
use crate::policy::{Life, Report};

fn place(name: &str, operator: bool, vm: bool) -> Place {
    let vm = vm.then(|| Vm {
        ram: 2 << 20,
        vcpus: Vec::new(),
        kernel: String::new(),
        initrd: None,
        cmdline: String::new(),
    });
    let component = Box::leak(Box::new(Component {
        name: name.to_string(),
        image: "image".to_string(),
        args: String::new(),
        memory: 4096,
        quota: 7,
        cpu: 0,
        priority: 1,
        restart: Restart::Never,
        operator,
        trusted: false,
        devices: Vec::new(),
        provides: Vec::new(),
        uses: Vec::new(),
        stores: Vec::new(),
        vm,
    }));
    let figures = Figures { exits: [const { core::sync::atomic::AtomicU64::new(0) }; EXITS] };
    let orders = Box::leak(Box::new(Orders::default()));
    Place::new(component, orders, Box::leak(Box::new(figures)))
}

fn desk() -> Desk {
    let places = [place("console", true, false), place("vm", false, true)];
    // Nothing here rings the bell.
    Desk::new(places.into_iter().collect(), core::iter::empty(), 1, Cap::new(Selector(0)))
}

const OPERATOR: u64 = 0;
const OTHER: u64 = 1;

fn name(name: &str) -> heapless::String<31> {
    heapless::String::try_from(name).unwrap()
}

#[test]
fn only_operators_see_and_order() {
    let desk = desk();
    let call = &mut Incoming::new(OTHER);
    assert_eq!(desk.list(call, List { index: 0 }), Err(Fault::Denied));
    assert_eq!(desk.kill(call, Kill { name: name("console") }), Err(Fault::Denied));
    assert_eq!(desk.pause(call, Pause { name: name("vm") }), Err(Fault::Denied));
    assert!(desk.places.iter().all(|p| p.take_order().is_none()));
}

#[test]
fn orders_are_for_what_exists_and_one_at_a_time() {
    let desk = desk();
    let call = &mut Incoming::new(OPERATOR);
    assert_eq!(desk.kill(call, Kill { name: name("nobody") }), Err(Fault::NotFound));
    assert_eq!(desk.pause(call, Pause { name: name("console") }), Err(Fault::Invalid));
    assert!(desk.places.last().unwrap().order(Command::Restart));
    assert_eq!(desk.kill(call, Kill { name: name("vm") }), Err(Fault::Busy));
    assert_eq!(desk.places.last().unwrap().take_order(), Some(Command::Restart));
    assert_eq!(desk.places.last().unwrap().take_order(), None);
}

#[test]
fn entries_tell_what_the_supervisor_shows() {
    let desk = desk();
    let call = &mut Incoming::new(OPERATOR);
    assert_eq!(desk.list(call, List { index: 2 }), Err(Fault::NotFound));
    let entry = desk.list(call, List { index: 0 }).unwrap();
    assert_eq!((entry.name.as_str(), entry.state, entry.vm), ("console", State::Waiting, false));
    assert_eq!((entry.exits.len(), entry.kernel_limit), (0, 7));
    let vm = desk.places.last().unwrap();
    let mut life = Life::new(Restart::Never);
    life.started(0);
    vm.orders.pause(true);
    vm.show(&life, None);
    let entry = desk.list(call, List { index: 1 }).unwrap();
    assert_eq!((entry.state, entry.exits.len(), entry.ram), (State::Paused, EXITS, 2 << 20));
    let _ = life.ended(Report::Fault(14), 0, 1);
    vm.show(&life, None);
    let entry = desk.list(call, List { index: 1 }).unwrap();
    assert_eq!((entry.state, entry.cause, entry.detail), (State::Failed, Cause::Fault, 14));
    assert_eq!(entry.uptime_ms, 0);
}

#[test]
fn there_is_room_for_a_context_of_each_vcpu() {
    let desk = desk();
    let mut call = Incoming::new(OTHER);
    let item = |n| Item { range: Range::object(Rights::SC_CTRL).0, base: n, offset: 0, badge: 0 };
    for batch in 0..4 {
        call.received = (0..16).map(|n| item(batch * 16 + n + 100)).collect();
        call.keep = false;
        assert_eq!(desk.account(&mut call, Account {}), Ok(()));
        assert!(call.keep);
    }
    call.received = [item(99)].into_iter().collect();
    call.keep = false;
    assert_eq!(desk.account(&mut call, Account {}), Err(Fault::Limit));
    assert!(!call.keep);
}

#[test]
fn memory_of_others_is_not_released() {
    let released = Released { client: 0, life: 2 };
    assert_eq!(desk().released(&mut Incoming::new(OTHER), released), Err(Fault::NotFound));
}
