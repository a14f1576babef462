//! How long an ICMP echo takes.

use std::io::{Error, Result};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketType, ipproto, recv, sendto, socket};

use crate::exits::Exits;
use crate::{float, quantile, say};

/// Echoes that are measured, and those before them, which find out addresses.
const COUNT: u16 = 500;
const WARM: u16 = 20;
/// Echoes that may be lost.
const LOST: u16 = 20;
const PATIENCE: Duration = Duration::from_secs(1);

/// Types of messages (RFC 792).
const REQUEST: u8 = 8;
const REPLY: u8 = 0;
const PAYLOAD: usize = 56;
/// Length of an IP header without options.
const IP: usize = 20;

/// Measures echoes of a peer, one at a time, and says the figures.
///
/// # Errors
/// The socket fails, or too many are lost.
pub fn measure(name: &str, peer: IpAddr) -> Result<()> {
    let socket = socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::ICMP))?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    let mut times = Vec::new();
    let mut exits = None;
    let mut lost = 0;
    for sequence in 0..WARM + COUNT {
        if sequence == WARM {
            exits = Exits::now();
            times.clear();
        }
        let start = Instant::now();
        sendto(&socket, &request(sequence), SendFlags::empty(), &SocketAddr::new(peer, 0))?;
        if answered(&socket, sequence) {
            times.push(start.elapsed().as_secs_f64() * 1e6);
            continue;
        }
        lost += 1;
        if lost > LOST {
            return Err(Error::other(format!("{peer} does not answer")));
        }
    }
    let name = format!("{name}/ping");
    Exits::say_since(exits.as_ref(), &name, "exits/echo", float(COUNT.into()));
    times.sort_by(f64::total_cmp);
    say(&name, "us", quantile(&times, 0.5));
    Ok(())
}

/// Waits for the answer to an echo.
fn answered(socket: &rustix::fd::OwnedFd, sequence: u16) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let mut packet = [0; 256];
    while Instant::now() < deadline {
        let Ok((len, _)) = recv(socket, &mut packet[..], RecvFlags::empty()) else { return false };
        let message = packet.get(IP..len).unwrap_or_default();
        // Our own requests come back as well where the peer is this machine.
        if let [REPLY, 0, _, _, _, _, high, low, ..] = message
            && u16::from_be_bytes([*high, *low]) == sequence
        {
            return true;
        }
    }
    false
}

fn request(sequence: u16) -> [u8; 8 + PAYLOAD] {
    let mut message = [0; 8 + PAYLOAD];
    let [high, low] = sequence.to_be_bytes();
    // Type, code, checksum, identifier, sequence number.
    let head = [REQUEST, 0, 0, 0, 0x50, 0x6f, high, low];
    for (to, from) in message.iter_mut().zip(head) {
        *to = from;
    }
    let [high, low] = checksum(&message).to_be_bytes();
    for (to, from) in message.iter_mut().skip(2).zip([high, low]) {
        *to = from;
    }
    message
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks_exact(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::{checksum, request};

    #[test]
    fn a_message_with_its_checksum_sums_up_to_nothing() {
        assert_eq!(checksum(&request(0x1234)), 0);
    }
}
