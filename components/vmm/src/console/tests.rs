use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::{BATCH, Batched, Console, Sink};

/// A console whose both ends a test holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pipe(Arc<Mutex<Ends>>);

#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(crate) output: Vec<u8>,
    pub(crate) input: VecDeque<u8>,
    pub(crate) full: bool,
    pub(crate) flushes: usize,
}

impl Pipe {
    pub(crate) fn with<T>(&self, f: impl FnOnce(&mut Ends) -> T) -> T {
        f(&mut self.0.lock().unwrap())
    }

    pub(crate) fn output(&self) -> String {
        self.with(|e| String::from_utf8_lossy(&e.output).into_owned())
    }

    pub(crate) fn send(&self, text: &str) {
        self.with(|e| e.input.extend(text.bytes()));
    }
}

impl Console for Pipe {
    fn put(&mut self, byte: u8) {
        self.with(|e| e.output.push(byte));
    }

    fn is_ready(&mut self) -> bool {
        self.with(|e| !e.full)
    }

    fn get(&mut self) -> Option<u8> {
        self.with(|e| e.input.pop_front())
    }

    fn flush(&mut self) {
        self.with(|e| e.flushes += 1);
    }
}

#[derive(Default)]
struct Ring {
    bytes: Vec<u8>,
    room: usize,
    notified: usize,
}

impl Sink for &mut Ring {
    fn write(&mut self, bytes: &[u8]) -> usize {
        let n = bytes.len().min(self.room);
        self.bytes.extend(&bytes[..n]);
        self.room -= n;
        n
    }

    fn notify(&mut self) {
        self.notified += 1;
    }

    fn read(&mut self) -> Option<u8> {
        None
    }
}

#[test]
fn lines_are_handed_over_whole() {
    let mut ring = Ring { room: 1000, ..Ring::default() };
    let mut console = Batched::new(&mut ring);
    for byte in b"hello\nwor" {
        console.put(*byte);
    }
    console.flush();
    console.flush();
    assert_eq!(ring.bytes, b"hello\nwor");
    assert_eq!(ring.notified, 2);
}

#[test]
fn a_full_ring_shows_as_not_ready_and_loses_only_what_is_written_regardless() {
    let mut ring = Ring { room: 10, ..Ring::default() };
    let mut console = Batched::new(&mut ring);
    let mut accepted = 0;
    while console.is_ready() {
        console.put(b'x');
        accepted += 1;
    }
    assert_eq!(accepted, 10 + BATCH);
    for byte in b"a whole burst of" {
        console.put(*byte);
    }
    console.put(b'y');
    console.sink.room = 1000;
    assert!(console.is_ready());
    console.flush();
    assert_eq!(ring.bytes.len(), accepted + 16);
    assert!(!ring.bytes.contains(&b'y'));
}
