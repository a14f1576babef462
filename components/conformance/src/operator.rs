//! An operator that kills: for tests of components that may die.
//!
//! `kill=NAME,NAME every=MS after=MS rounds=N` ends components in turn, again and again, each time
//! when the last one runs again and that much later. `start=MS` is for components that stay down:
//! they are started again by this operator, after that time.

use heapless::String;
use ipc::proto::root::{Entry, Kill, List, Restart, Root, State};
use ipc::proto::service::{Error, Fault};
use sysroot::service::Client;
use sysroot::{log, process, time};

/// How long a component may take to come back.
const PATIENCE_MS: u64 = 20_000;

/// Does what the arguments say, and stops.
pub(crate) fn run(names: &str) -> ! {
    let number = |key: &str, default| {
        process::argument(key).and_then(|text| text.parse().ok()).unwrap_or(default)
    };
    let (every, after): (u64, u64) = (number("every", 500), number("after", 0));
    let rounds = number("rounds", u64::MAX);
    let start = process::argument("start").map(|_| number("start", 0));
    time::sleep_ms(after);
    let turns = (1..=rounds).flat_map(|round| names.split(',').map(move |name| (round, name)));
    for (round, name) in turns {
        time::sleep_ms(every);
        match kill(name, start) {
            Ok(()) => log!("KILLED {name}: {round}"),
            Err(why) => {
                log!("KILL {name} FAILED: {why}");
                break;
            }
        }
    }
    process::park()
}

/// Ends the component once it runs, starts it again after `start` where that is given, and waits until
/// it runs again.
fn kill(name: &str, start: Option<u64>) -> Result<(), &'static str> {
    let root = process::root().ok_or("no root task")?;
    let before = running(root, name, 0)?;
    let request = Kill { name: String::try_from(name).map_err(|_| "name too long")? };
    loop {
        match root.call(&request) {
            Ok(()) => break,
            Err(Error::Fault(Fault::Busy)) => time::sleep_ms(5),
            Err(_) => return Err("the root task refused"),
        }
    }
    if let Some(ms) = start {
        time::sleep_ms(ms);
        let request = Restart { name: request.name };
        root.call(&request).map_err(|_| "the root task does not start it")?;
    }
    running(root, name, before.restarts + 1).map(drop)
}

/// The component, once it runs and was restarted so often.
fn running(root: Client<Root>, name: &str, restarts: u32) -> Result<Entry, &'static str> {
    let deadline = time::uptime_ms() + PATIENCE_MS;
    loop {
        let entry = find(root, name)?;
        match entry.state {
            State::Running if entry.restarts >= restarts => return Ok(entry),
            State::Failed | State::Ended => return Err("it does not come back"),
            _ if time::uptime_ms() > deadline => return Err("it takes too long"),
            _ => time::sleep_ms(5),
        }
    }
}

fn find(root: Client<Root>, name: &str) -> Result<Entry, &'static str> {
    for index in 0.. {
        let entry = root.call(&List { index }).map_err(|_| "no such component")?;
        if entry.name == name {
            return Ok(entry);
        }
    }
    Err("no such component")
}
