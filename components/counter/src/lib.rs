//! The example of `docs/components.md`: a component that counts for others, and goes on where it was
//! when it dies; with the argument `ask`, one that has it count.
#![cfg_attr(not(test), no_std)]

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::proto::counter::{Add, Count, Counter, Server};
use ipc::proto::ring::Shareable;
use ipc::proto::service::{Fault, Incoming};
use ipc::proto::start::MAX_CLIENTS;
use sysroot::service::{self, Client};
use sysroot::{log, memory, process, time};

/// What the store holds: the count of each client.
#[derive(Debug, Default)]
#[repr(C)]
pub struct Counts([AtomicU64; MAX_CLIENTS]);

// All of it is atomic, and any content is valid: that of zeroes, and what a life before left.
impl Shareable for Counts {}

impl Server for Counts {
    fn add(&self, call: &mut Incoming, request: Add) -> Result<Count, Fault> {
        let session = usize::try_from(call.session).ok();
        let count = session.and_then(|n| self.0.get(n)).ok_or(Fault::Internal)?;
        let amount = u64::from(request.amount);
        // The caller's time, on which this runs, may end at any moment: the change is one step.
        let before = count.fetch_add(amount, Ordering::Relaxed);
        Ok(Count { total: before.wrapping_add(amount) })
    }
}

/// Runs the component.
pub fn main() {
    if process::has_argument("ask") {
        ask();
    }
    serve();
}

fn serve() -> ! {
    let store = process::store("state");
    let Some(counts) = store.and_then(|store| memory::shared::<Counts>(store.area)) else {
        log!("no store \"state\" of {} bytes", size_of::<Counts>());
        process::exit(1);
    };
    match service::provide::<Counter, _>(counts) {
        Ok(clients) => log!("counts for {clients}"),
        Err(status) => {
            log!("cannot serve clients: {status}");
            process::exit(1);
        }
    }
    process::ready();
    // Handlers do the rest.
    process::park()
}

fn ask() -> ! {
    let Some(counter) = Client::<Counter>::connect() else {
        log!("the configuration gives me no counter");
        process::exit(1);
    };
    loop {
        match counter.call(&Add { amount: 1 }) {
            Ok(count) => log!("counted to {}", count.total),
            // It is started again, and this session with it.
            Err(error) if error.is_gone() => {}
            Err(error) => log!("not counted: {error}"),
        }
        time::sleep_ms(200);
    }
}

#[cfg(test)]
mod tests;
