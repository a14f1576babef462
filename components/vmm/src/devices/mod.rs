//! Device models: state machines without system calls.

pub mod interrupt;
pub mod ioapic;
pub mod lapic;
pub mod pm;
pub mod pvclock;
pub mod uart16550;
pub mod virtio;
