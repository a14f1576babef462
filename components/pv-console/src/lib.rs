//! The console component: owns the serial port, prints the log lines of all components, and gives
//! each VM a character console of which one at a time is attached to the port.
//!
//! | module | holds |
//! |---|---|
//! | [`mux`] | who may print when; what typed characters mean. Pure logic |
//! | [`share`] | how much each console may print. Pure logic |
//! | [`keep`] | what stays when the component dies |
//! | [`operator`] | the operator's console. Pure logic |
//! | [`text`] | what others may print on the operator's terminal |
//! | [`office`] | what the operator's console acts upon |
//! | [`uart`] | the 16550 |
//! | [`device`] | virtio consoles |
//! | [`session`] | what clients call: log lines, opening a console |
//! | [`component`] | the loop that moves bytes |
#![cfg_attr(not(test), no_std)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::cast_possible_truncation)
)]

extern crate alloc;

pub mod component;
pub mod device;
pub mod keep;
pub mod mux;
pub mod office;
pub mod operator;
pub mod session;
pub mod share;
pub mod text;
pub mod uart;
