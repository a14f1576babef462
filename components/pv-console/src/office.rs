//! What the operator's session acts upon: the root task, and the multiplexer.

use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ipc::proto::root::{Entry, Kill, List, Pause, Restart, Resume, Root};
use ipc::proto::service::{Error, Fault, Method};
use sysroot::process;

use crate::mux::Mux;
use crate::operator::command::Order;
use crate::operator::session::{Refused, System};

/// The log of those for whom there is none of their own.
const OTHERS: &str = "others";

/// Both, while the session works.
#[derive(Debug)]
pub struct Office<'a> {
    /// Consoles and logs.
    pub mux: &'a mut Mux,
}

/// Calls the root task, whose handlers answer at once.
fn ask<M: Method<Protocol = Root>>(request: &M) -> Result<M::Reply, Refused> {
    let root = process::root().ok_or(Refused::Denied)?;
    root.call(request).map_err(|error| match error {
        Error::Fault(Fault::NotFound) => Refused::NotFound,
        Error::Fault(Fault::Denied) => Refused::Denied,
        Error::Fault(Fault::Busy) => Refused::Busy,
        error => Refused::Other(error.to_string()),
    })
}

impl System for Office<'_> {
    fn entry(&mut self, index: u16) -> Result<Entry, Refused> {
        ask(&List { index })
    }

    fn order(&mut self, order: Order, name: &str) -> Result<(), Refused> {
        let name = name.try_into().map_err(|_| Refused::NotFound)?;
        match order {
            Order::Kill => ask(&Kill { name }),
            Order::Restart => ask(&Restart { name }),
            Order::Pause => ask(&Pause { name }),
            Order::Resume => ask(&Resume { name }),
        }
    }

    fn consoles(&self) -> Vec<String> {
        self.mux.consoles().map(String::from).collect()
    }

    fn attach(&mut self, console: usize) {
        self.mux.attach(console);
    }

    fn back(&mut self) -> bool {
        self.mux.back()
    }

    fn logs(&self) -> Vec<String> {
        let keep = self.mux.keep();
        let titles = (0..keep.logs()).map(|n| keep.title(n));
        let mut names: Vec<String> = titles.take_while(|title| !title.is_empty()).collect();
        if names.len() + 1 == keep.logs() {
            names.push(OTHERS.into());
        }
        names
    }

    fn log(&self, log: usize) -> (u64, u64) {
        self.mux.keep().extent(log)
    }

    fn read(&self, log: usize, at: u64, to: &mut [u8]) -> usize {
        self.mux.keep().read(log, at, to)
    }
}
