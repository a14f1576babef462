//! The network component: cards as the configuration names them, and uplinks on its devices.
//!
//! The argument `uplink=NETWORK:DEVICE`, once for each, plugs a PCI device into a network.

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use ipc::proto::start::{Client, Start};
use sysroot::{log, process, time};
use virtio::link::{self, Links};
use virtio::session::{Description, Desk};

use crate::device::{Clock, Net, describe};
use crate::options::Options;
use crate::uplink::Card;

/// Badge of the uplinks' interrupts.
const INTERRUPT: u64 = 1;

/// Runs the component.
pub fn main() {
    let start = process::start();
    let mut net = Net::new(Clock { now: time::now, frequency: start.tsc_khz.saturating_mul(1000) });
    let words = start.args.split_ascii_whitespace();
    for plug in words.filter_map(|word| word.strip_prefix("uplink=")) {
        if let Err(reason) = uplink(start, &mut net, plug) {
            log!("no uplink {plug}: {reason}");
            process::exit(1);
        }
    }
    let desk = match Desk::open(start, |index, client| card(&mut net, index, client)) {
        Ok(desk) => desk,
        Err(status) => {
            log!("cannot serve clients: {status}");
            process::exit(1);
        }
    };
    let Some(links) = Links::of(desk, start) else {
        log!("no page of orders from the root task");
        process::exit(1);
    };
    log!("{} cards", links.len());
    process::ready();
    link::run(links, &mut net);
}

fn card<'n>(net: &mut Net<'n>, index: usize, client: &Client<'n>) -> Result<Description, String> {
    let options = Options::parse(client.args).map_err(|e| e.to_string())?;
    if !net.attach(index, &options) {
        return Err("its address is taken in this network".into());
    }
    Ok(describe(options.mac))
}

fn uplink<'n>(start: &Start<'n>, net: &mut Net<'n>, plug: &'n str) -> Result<(), String> {
    let (network, name) = plug.split_once(':').ok_or("not NETWORK:DEVICE")?;
    let device = start.devices.iter().find(|d| d.name == name).ok_or("no such device")?;
    let card = Card::open(device, INTERRUPT).map_err(|e| e.to_string())?;
    net.add_uplink(network, Box::new(card));
    Ok(())
}
