//! What a guest sees of the machine, each as one table with the reason per entry.

pub mod cpuid;
pub mod msr;
pub mod ports;
