//! The block component: disks for VMs, as virtio block devices (virtio 1.2, 5.2).
//!
//! A disk is a medium, or a partition of it, with an overlay for copy-on-write where the
//! configuration says so. Media and overlays lie in memory that the root task keeps when the
//! component dies: a write that was acknowledged is there afterwards.
//!
//! One queue per device: one thread serves all devices, so more would only add notifications.
//!
//! | module | holds |
//! |---|---|
//! | [`request`] | requests of a driver, as they are parsed. Pure |
//! | [`gpt`] | partition tables. Pure |
//! | [`overlay`] | copy-on-write: which sectors are new, and where. Pure |
//! | [`medium`] | where sectors are: memory, or a disk that answers later |
//! | [`host`] | a disk of the machine |
//! | [`pool`] | memory for the data of its requests. Pure |
//! | [`disk`] | a disk: medium, partition and overlay in one |
//! | [`device`] | the virtio device: features, configuration space, jobs |
//! | [`options`] | what the configuration says of a disk |
//! | [`component`] | all of this as a component |
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
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

#[allow(unsafe_code, reason = "memory that the root task mapped")]
pub mod component;
pub mod device;
pub mod disk;
pub mod gpt;
pub mod host;
pub mod medium;
pub mod options;
pub mod overlay;
pub mod pool;
pub mod request;

/// Bytes of a sector, whatever the block size of a disk (virtio 1.2, 5.2.4).
pub const SECTOR: u64 = 512;
