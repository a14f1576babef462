//! Tests of the wire format, services, the start block and rings.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

mod ring;
mod service;
mod start;
mod wire;
