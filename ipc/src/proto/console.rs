//! The console service: log lines, and one character console for each VM.
//!
//! Each session comes with the memory of a [`Shared`]. A VMM opens its console with a semaphore
//! capability attached, through which the server tells it of input and of room for output; the
//! reply carries one through which the client tells the server of output.

use heapless::String;

use super::ring::{Ring, Shareable};

/// Longest line that goes in one message.
pub const LINE: usize = 1024;

/// Bytes of output that a client can be ahead of the console.
pub const OUTPUT: usize = 16 * 1024;
/// Bytes of input that wait for a client.
pub const INPUT: usize = 4 * 1024;

/// Memory shared between the server and a client; zero at first, as it was left later on.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct Shared {
    /// From the client to the console.
    pub output: Ring<OUTPUT>,
    /// From the console to the client.
    pub input: Ring<INPUT>,
}

/// log2 of the number of pages of a [`Shared`].
pub const SHARED_ORDER: u8 = 3;

impl Shareable for Shared {}

/// Ring of [`super::ring::Record`]s: log lines that wait for the console.
pub type LogRing = Ring<LOG>;

/// Bytes of a [`LogRing`].
pub const LOG: usize = 16 * 1024;

/// log2 of the number of pages of a [`LogRing`].
pub const LOG_ORDER: u8 = 3;

const _: () = assert!(core::mem::size_of::<LogRing>() <= 4096 << LOG_ORDER);

message! {
    /// Prints a line in the client's name.
    pub struct Log {
        /// The line, without its end.
        pub text: String<LINE>,
    }
}

message! {
    /// Joins the client's character console in the memory of the session. Attached: a semaphore to
    /// signal the client with. A session that is open already starts anew.
    pub struct Join {}
}

message! {
    /// Attached: a semaphore to signal the server with, at offset 0 of the window.
    pub struct Joined {
        /// Whether what is typed goes to this console at the moment.
        pub attached: bool,
    }
}

service! {
    /// The console service. The session is the client.
    pub service Console = "console", version 1, shared Shared, order SHARED_ORDER;
    /// Prints a line.
    1 => log: Log => ();
    /// Joins a character console.
    2 => join: Join => Joined;
}
