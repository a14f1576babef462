//! First process of a measuring guest. What it is to do is in its environment, which is what the
//! kernel makes of words `name=value` on its command line that it does not know:
//!
//! - `m_disks=NAME:DEVICE,...`: disks to measure, which are overwritten
//! - `m_net=NAME:ADDRESS:PORT,...`: whom to ping and to exchange streams with
//! - `m_serve=PORT`: be such a peer

use std::error::Error;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use measure::{disk, ping, stream};

fn main() {
    for (what, measure) in [("m_disks", disk as Measure), ("m_net", net)] {
        for (name, place) in list(what) {
            if let Err(error) = measure(&name, &place) {
                println!("MEASURE-FAILED {name}: {error}");
            }
        }
    }
    if let Ok(port) = std::env::var("m_serve") {
        println!("SERVING {port}");
        if let Err(error) = serve(&port) {
            println!("MEASURE-FAILED serving: {error}");
        }
    }
    println!("MEASURED");
    loop {
        std::thread::park();
    }
}

type Measure = fn(&str, &str) -> Result<(), Box<dyn Error>>;

/// Pairs `NAME:PLACE` of a variable.
fn list(variable: &str) -> Vec<(String, String)> {
    let text = std::env::var(variable).unwrap_or_default();
    let pairs = text.split(',').filter_map(|word| word.split_once(':'));
    pairs.map(|(name, place)| (name.to_owned(), place.to_owned())).collect()
}

fn disk(name: &str, device: &str) -> Result<(), Box<dyn Error>> {
    Ok(disk::measure(name, &Path::new("/dev").join(device))?)
}

fn net(name: &str, address: &str) -> Result<(), Box<dyn Error>> {
    let peer: SocketAddr = address.parse()?;
    ping::measure(name, peer.ip())?;
    Ok(stream::measure(name, peer)?)
}

fn serve(port: &str) -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind(("0.0.0.0", port.parse()?))?;
    Ok(stream::serve(&listener)?)
}
