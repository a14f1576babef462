//! Device side of virtio: what back ends of every kind of device have in common.
//!
//! | module | holds |
//! |---|---|
//! | [`ram`] | guest memory; the VMM uses it as well |
//! | [`chain`] | a request: validated pieces of guest memory, and cursors over them |
//! | [`queue`] | the split virtqueue with indirect descriptors and event index |
//! | [`follow`] | which epoch and life of its memory a device is in. Pure logic |
//! | [`session`] | the service that VMMs join |
//! | [`host`] | the driver's side, for devices of the machine |
//! | [`link`] | a device between its VMM and its back end, and the turns of all of them |
//!
//! A back end implements [`link::Backend`] and calls [`link::run`]. Sections cited as "virtio 2.7"
//! are those of version 1.2 of the specification.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

extern crate alloc;

pub mod chain;
#[cfg(any(test, feature = "test"))]
pub mod driver;
pub mod follow;
pub mod host;
#[allow(unsafe_code, reason = "guest memory that the root task mapped")]
pub mod link;
pub mod num;
pub mod queue;
#[allow(unsafe_code, reason = "the one door to guest memory")]
pub mod ram;
pub mod session;
