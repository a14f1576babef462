//! TCP streams: a client that measures, and the peer that it talks to, in another guest or outside.
//!
//! The client sends an order of 9 bytes: what, and how many bytes. To [`SEND`] it adds so many
//! bytes and gets one byte when all have arrived; [`RECEIVE`] gets it so many.

use std::io::{Read, Result, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use crate::exits::Exits;
use crate::{float, say};

/// The client sends.
pub const SEND: u8 = b's';
/// The client receives.
pub const RECEIVE: u8 = b'r';

/// Bytes written or read at once.
const CHUNK: usize = 128 << 10;
const MIB: u64 = 1 << 20;
/// Bytes of the first try, and of the longest.
const FIRST: u64 = 4 * MIB;
const MOST: u64 = 512 * MIB;
/// A try that takes this long counts; a shorter one is repeated with more.
const ENOUGH: Duration = Duration::from_millis(1000);

/// Measures streams to and from a peer and says the figures.
///
/// # Errors
/// The connection fails.
pub fn measure(name: &str, peer: SocketAddr) -> Result<()> {
    for (order, way) in [(SEND, "send"), (RECEIVE, "receive")] {
        let name = format!("{name}/tcp-{way}");
        let mut bytes = FIRST;
        loop {
            let exits = Exits::now();
            let time = exchange(peer, order, bytes)?;
            if time >= ENOUGH || bytes >= MOST {
                let mib = float(bytes / MIB);
                say(&name, "MiB/s", mib / time.as_secs_f64());
                Exits::say_since(exits.as_ref(), &name, "exits/MiB", mib);
                break;
            }
            bytes *= 2;
        }
    }
    Ok(())
}

fn exchange(peer: SocketAddr, order: u8, bytes: u64) -> Result<Duration> {
    let mut stream = TcpStream::connect(peer)?;
    let mut head = [order; 9];
    if let Some(count) = head.get_mut(1..) {
        count.copy_from_slice(&bytes.to_le_bytes());
    }
    let start = Instant::now();
    stream.write_all(&head)?;
    if order == SEND {
        send(&mut stream, bytes)?;
        stream.read_exact(&mut [0])?;
    } else {
        receive(&mut stream, bytes)?;
    }
    Ok(start.elapsed())
}

fn send(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let chunk = vec![0x33; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        stream.write_all(chunk.get(..count).unwrap_or_default())?;
        left -= u64::try_from(count).unwrap_or(left);
    }
    Ok(())
}

fn receive(stream: &mut TcpStream, bytes: u64) -> Result<()> {
    let mut chunk = vec![0; CHUNK];
    let mut left = bytes;
    while left > 0 {
        let count = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
        let read = stream.read(chunk.get_mut(..count).unwrap_or_default())?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        left -= u64::try_from(read).unwrap_or(left);
    }
    Ok(())
}

/// Serves clients for good.
///
/// # Errors
/// No connection can be accepted any more.
pub fn serve(listener: &TcpListener) -> Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        // Whoever does not keep to the rules, or goes away, is left.
        thread::spawn(move || answer(stream));
    }
}

fn answer(mut stream: TcpStream) -> Result<()> {
    let mut head = [0; 9];
    stream.read_exact(&mut head)?;
    let [order, count @ ..] = head;
    let bytes = u64::from_le_bytes(count);
    if order == SEND {
        receive(&mut stream, bytes)?;
        stream.write_all(&[0])
    } else {
        send(&mut stream, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_go_both_ways() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = listener.local_addr().unwrap();
        thread::spawn(move || serve(&listener));
        for order in [SEND, RECEIVE] {
            assert!(exchange(peer, order, 300_001).is_ok(), "{order}");
        }
    }
}
