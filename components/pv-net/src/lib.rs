//! The network component: a switch between VMs, whose cards are virtio network devices (virtio 1.2,
//! 5.1), with uplinks on the machine's own cards.
//!
//! Every port belongs to a network; frames never leave it. A VM sends from the address that the
//! configuration gives its card, and receives what is for that address or for all. A receiver
//! without room makes a sender wait for a moment, then loses the frame; a sender that sends to
//! nobody in particular, or more than it may, is slowed down. One thread moves all frames, from
//! guest memory to guest memory.
//!
//! | module | holds |
//! |---|---|
//! | [`frame`] | addresses and the header of a frame |
//! | [`header`] | what goes with a frame on a virtqueue: checksum and segmentation left to do. Pure |
//! | [`offload`] | doing that for receivers that cannot. Pure |
//! | [`join`] | fewer, larger frames out of what an uplink brings. Pure |
//! | [`switch`] | who gets a frame. Pure |
//! | [`rate`] | how much a port may send. Pure |
//! | [`options`] | what the configuration says of a card |
//! | [`port`] | a card's queues: frames in and out of guest memory |
//! | [`device`] | the virtio device, and the way of a frame |
//! | [`uplink`] | a card of the machine, as the switch sees it |
//! | [`component`] | all of this as a component |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

pub mod component;
pub mod device;
pub mod frame;
pub mod header;
pub mod join;
pub mod offload;
pub mod options;
pub mod port;
pub mod rate;
pub mod switch;
pub mod uplink;
