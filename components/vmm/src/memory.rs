//! Guest RAM: the one door to memory that a guest owns. Back ends use the same one.

pub use virtio::ram::{HOLE_END, HOLE_START, NotRam, Ram, Region, regions};
