//! The console component: owns the serial port, prints the log lines of all components, and gives
//! each VM a character console of which one at a time is attached to the port.
//!
//! | module | holds |
//! |---|---|
//! | [`mux`] | who may print when; what typed characters mean. Pure logic |
//! | [`uart`] | the 16550 |
//! | [`device`] | virtio consoles |
//! | [`session`] | what clients call: log lines, opening a console |
//! | [`operator`] | the operator's console. Pure logic |
//! | [`text`] | what others may print on the operator's terminal |
//! | [`component`] | the loop that moves bytes |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)
)]

extern crate alloc;

pub mod component;
pub mod device;
pub mod mux;
pub mod operator;
pub mod session;
pub mod text;
pub mod uart;
