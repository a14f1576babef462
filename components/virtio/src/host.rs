//! The other side: drivers of virtio devices of the machine, for back ends that own one.
//!
//! A device is a PCI function with memory of its own for DMA, which lies where nothing else of the
//! component does. There is no IOMMU in between: a component with such a function can reach all
//! memory by it, and is trusted.
//!
//! | module | holds |
//! |---|---|
//! | [`ring`] | driver side of a virtqueue. Pure |
//! | [`layout`] | where registers are. Pure |
//! | [`pci`] | a function's registers: set-up, notifications, MSI-X |

pub mod layout;
#[allow(unsafe_code, reason = "registers and DMA memory that the root task mapped")]
pub mod pci;
pub mod ring;
