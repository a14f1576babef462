//! The console that a serial port is connected to.

use alloc::vec::Vec;

/// A byte stream in both directions. No method blocks.
pub trait Console: Send {
    /// Queues a byte of output; one that finds no room is lost.
    fn put(&mut self, byte: u8);

    /// Whether there is room for output.
    fn is_ready(&mut self) -> bool {
        true
    }

    /// Takes a byte of input.
    fn get(&mut self) -> Option<u8>;

    /// Shows queued output now: called when the guest pauses.
    fn flush(&mut self);
}

/// A console that nobody looks at.
#[derive(Debug, Default)]
pub struct Nowhere;

impl Console for Nowhere {
    fn put(&mut self, _byte: u8) {}

    fn get(&mut self) -> Option<u8> {
        None
    }

    fn flush(&mut self) {}
}

/// A consumer of batches: what the console client writes into its shared ring.
pub trait Sink: Send {
    /// Takes as many bytes as fit and returns their number.
    fn write(&mut self, bytes: &[u8]) -> usize;

    /// Wakes the other side, if it sleeps.
    fn notify(&mut self);

    /// Takes a byte of input.
    fn read(&mut self) -> Option<u8>;
}

/// Collects output and hands it over in batches: at the end of a line, when it is full, and when
/// the guest pauses.
#[derive(Debug)]
pub struct Batched<S> {
    sink: S,
    pending: Vec<u8>,
}

/// Bytes that are collected before they are handed over.
const BATCH: usize = 128;
/// Bytes that a driver may write at once after it found the console ready: a transmitter's FIFO.
const BURST: usize = 16;

impl<S: Sink> Batched<S> {
    /// An empty batch before `sink`.
    #[must_use]
    pub fn new(sink: S) -> Self {
        Self { sink, pending: Vec::with_capacity(BATCH + BURST) }
    }

    /// Hands over what fits; the rest stays.
    fn hand_over(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let taken = self.sink.write(&self.pending).min(self.pending.len());
        self.pending.drain(..taken);
        if taken > 0 {
            self.sink.notify();
        }
    }
}

impl<S: Sink> Console for Batched<S> {
    fn put(&mut self, byte: u8) {
        if self.pending.len() >= BATCH {
            self.hand_over();
        }
        if self.pending.len() < BATCH + BURST {
            self.pending.push(byte);
        }
        if byte == b'\n' || self.pending.len() >= BATCH {
            self.hand_over();
        }
    }

    fn is_ready(&mut self) -> bool {
        if self.pending.len() >= BATCH {
            self.hand_over();
        }
        self.pending.len() < BATCH
    }

    fn get(&mut self) -> Option<u8> {
        self.sink.read()
    }

    fn flush(&mut self) {
        self.hand_over();
    }
}

#[cfg(test)]
pub(crate) mod tests;
