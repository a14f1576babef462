//! Tests of the wire format, services, the start block and rings.
#![expect(clippy::unwrap_used, reason = "tests")]

mod ring;
mod service;
mod start;
mod wire;
