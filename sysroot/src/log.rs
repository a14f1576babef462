//! Log lines. They go to the console service where the component uses it, else to the root task;
//! the receiver adds name and time.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicPtr, Ordering};

use heapless::String;
use ipc::proto::console::{self, Console, LINE};
use ipc::proto::root;
use ipc::proto::service::{Error, Fault};

use crate::service::Client;
use crate::{process, time};

/// Takes one line.
pub type Sink = fn(&str);

/// Where lines go instead of to a service; null for none. Relaxed: a function pointer needs no
/// data to be ordered with it.
static SINK: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Sends all lines to `sink` from now on: for the root task, which has nobody to send them to.
pub fn set_sink(sink: Sink) {
    SINK.store(sink as *mut (), Ordering::Relaxed);
}

/// Logs one line, formatted as by `format!`.
#[macro_export]
macro_rules! log {
    ($($arg:tt)*) => { $crate::log::print(core::format_args!($($arg)*)) };
}

/// Logs formatted text, cut off at [`LINE`] bytes; each of its lines becomes one of the log.
pub fn print(text: fmt::Arguments<'_>) {
    let mut buffer = Cut(String::new());
    let _ = buffer.write_fmt(text);
    for part in buffer.0.lines() {
        line(part);
    }
}

/// Logs one line.
pub fn line(text: &str) {
    let sink = SINK.load(Ordering::Relaxed);
    if !sink.is_null() {
        // SAFETY: only `set_sink` stores here, and it stores a `Sink`.
        let sink: Sink = unsafe { core::mem::transmute(sink) };
        return sink(text);
    }
    let Ok(text) = String::try_from(text) else { return };
    if let Some(console) = Client::<Console>::connect() {
        let line = console::Log { text: text.clone() };
        if persist(|| console.call(&line)) {
            return;
        }
    }
    if let Some(root) = process::root() {
        let line = root::Log { text };
        persist(|| root.call(&line));
    }
}

/// Tries for a while to get a line to a receiver that is busy; whether that succeeded.
fn persist(send: impl Fn() -> Result<(), Error>) -> bool {
    /// How often, and how far apart in milliseconds.
    const TRIES: u32 = 50;
    const PAUSE: u64 = 2;
    for _ in 0..TRIES {
        match send() {
            Ok(()) => return true,
            Err(Error::Fault(Fault::Busy)) => time::sleep_ms(PAUSE),
            Err(_) => return false,
        }
    }
    false
}

/// Text that is cut off at its capacity, at a character boundary.
struct Cut(String<LINE>);

impl Write for Cut {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        for c in s.chars() {
            self.0.push(c).map_err(|_| fmt::Error)?;
        }
        Ok(())
    }
}
