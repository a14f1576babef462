//! Order between CPUs: the kernel lock and the rendezvous.

pub mod lock;
pub mod rendezvous;

pub use lock::{Guard, lock};
