//! Where lines go: to the console component through a ring per producer, or to the serial port
//! while there is none.
//!
//! Each handler of the root task and its main thread have a ring of their own, so no line waits
//! for a lock: a handler runs on its caller's time, which can end at any moment.

use core::sync::atomic::{AtomicU64, Ordering};

use heapless::String;
use ipc::cap::Selector;
use ipc::proto::console::{LOG_ORDER, LogRing};
use ipc::proto::ring::{RECORD_TEXT, Record, pop_record};
use sysroot::cap::{Cap, Semaphore, Up};
use sysroot::num::usize_of;
use sysroot::{time, utcb};

use crate::serial;

/// Bytes from one ring to the next.
pub const STRIDE: u64 = (ipc::PAGE_SIZE as u64) << LOG_ORDER;

/// Address of the rings; 0 while lines go to the serial port. Release on handing over, so that
/// whoever sees the rings sees them initialised.
static RINGS: AtomicU64 = AtomicU64::new(0);
/// Selector through which the console is told; as `RINGS`.
static BELL: AtomicU64 = AtomicU64::new(0);

/// Ring of the main thread; handlers have that of their CPU + 1.
pub const MAIN: u64 = 0;

fn ring(base: u64, index: u64) -> &'static LogRing {
    let address = usize_of(base + index * STRIDE);
    // SAFETY: `attach` is given the address of as many rings as there are producers, which stay
    // for good; any bytes are a valid ring, and all of it is atomic.
    unsafe { &*core::ptr::with_exposed_provenance::<LogRing>(address) }
}

/// Sends lines to the rings from now on.
pub fn attach(rings: u64, bell: Cap<Semaphore, Up>) {
    BELL.store(bell.raw(), Ordering::Relaxed);
    RINGS.store(rings, Ordering::Release);
}

/// Whether lines go to the rings.
#[must_use]
pub fn is_attached() -> bool {
    RINGS.load(Ordering::Relaxed) != 0
}

/// Sends lines to the serial port from now on, and what the console left behind first.
pub fn detach(count: u64) {
    let rings = RINGS.swap(0, Ordering::AcqRel);
    if rings == 0 {
        return;
    }
    let mut buffer = [0; RECORD_TEXT];
    for index in 0..count {
        let mut consumer = ring(rings, index).consumer();
        while let Ok(Some(record)) = pop_record(&mut consumer, &mut buffer) {
            print(u64::from(record.ms), record.source, record.text);
        }
        ring(rings, index).reset();
    }
}

/// A line of the root task itself.
pub fn own(text: &str) {
    emit(MAIN, "", text);
}

/// A line of a component, from the handler on this CPU; whether there was room for it.
pub fn component(name: &str, text: &str) -> bool {
    emit(u64::from(utcb::cpu()) + 1, name, text)
}

/// Like [`own`], from the handler on this CPU.
pub fn from_handler(text: core::fmt::Arguments<'_>) {
    let mut line: String<256> = String::new();
    let _ = core::fmt::Write::write_fmt(&mut line, text);
    emit(u64::from(utcb::cpu()) + 1, "", &line);
}

fn emit(producer: u64, name: &str, text: &str) -> bool {
    let ms = time::uptime_ms();
    let mut line: String<RECORD_TEXT> = String::new();
    // What does not fit is cut off; lines are shorter than that.
    let _ = line.push_str(name);
    let _ = line.push_str(text);
    let source = u16::try_from(name.len()).unwrap_or(0);
    let rings = RINGS.load(Ordering::Acquire);
    if rings == 0 {
        print(ms, source, line.as_bytes());
        return true;
    }
    let record =
        Record { source, ms: u32::try_from(ms).unwrap_or(u32::MAX), text: line.as_bytes() };
    match record.push(&mut ring(rings, producer).producer()) {
        Ok(moved) if moved.bytes > 0 => {
            if moved.wake {
                let bell: Cap<Semaphore, Up> = Cap::new(Selector(BELL.load(Ordering::Relaxed)));
                let _ = bell.up();
            }
            true
        }
        // The console is behind: a component can wait, the root task cannot.
        Ok(_) if !name.is_empty() => false,
        Ok(_) | Err(_) => {
            print(ms, source, line.as_bytes());
            true
        }
    }
}

/// Prints a record to the serial port: time, name, text.
fn print(ms: u64, source: u16, text: &[u8]) {
    let mut time: String<32> = String::new();
    let _ =
        core::fmt::Write::write_fmt(&mut time, format_args!("[{:5}.{:03}] ", ms / 1000, ms % 1000));
    let (name, text) = text.split_at_checked(usize::from(source)).unwrap_or((&[], text));
    match name {
        [] => serial::line(&[time.as_bytes(), text]),
        name => serial::line(&[time.as_bytes(), b"[", name, b"] ", text]),
    }
}
