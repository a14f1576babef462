//! Ports of devices that the component was given.

use ipc::proto::start::Device;

use crate::arch;

/// A range of ports that the component holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    first: u16,
    count: u16,
}

impl Ports {
    /// The `index`-th port range of a device in the start block.
    #[must_use]
    pub fn of(device: &Device<'_>, index: usize) -> Option<Self> {
        device.ports.get(index).map(|&(first, count)| Self { first, count })
    }

    /// Any range of ports.
    ///
    /// # Safety
    /// The component holds them, and what their device does cannot break it.
    #[must_use]
    pub const unsafe fn new(first: u16, count: u16) -> Self {
        Self { first, count }
    }

    /// First port.
    #[must_use]
    pub const fn first(self) -> u16 {
        self.first
    }

    /// Number of ports.
    #[must_use]
    pub const fn count(self) -> u16 {
        self.count
    }

    fn port(self, offset: u16, size: u16) -> Option<u16> {
        let end = offset.checked_add(size)?;
        if end > self.count { None } else { self.first.checked_add(offset) }
    }

    /// Reads a byte; all ones outside the range.
    #[must_use]
    pub fn read8(self, offset: u16) -> u8 {
        // SAFETY: the range is held by the component; port input changes no memory of ours.
        self.port(offset, 1).map_or(u8::MAX, |p| unsafe { arch::in8(p) })
    }

    /// Writes a byte; nothing happens outside the range.
    pub fn write8(self, offset: u16, value: u8) {
        if let Some(port) = self.port(offset, 1) {
            // SAFETY: as in `read8`; devices that write memory on their own are the business of
            // whoever configured the component.
            unsafe { arch::out8(port, value) }
        }
    }

    /// Reads two bytes; all ones outside the range.
    #[must_use]
    pub fn read16(self, offset: u16) -> u16 {
        // SAFETY: as in `read8`.
        self.port(offset, 2).map_or(u16::MAX, |p| unsafe { arch::in16(p) })
    }

    /// Writes two bytes; nothing happens outside the range.
    pub fn write16(self, offset: u16, value: u16) {
        if let Some(port) = self.port(offset, 2) {
            // SAFETY: as in `write8`.
            unsafe { arch::out16(port, value) }
        }
    }

    /// Reads four bytes; all ones outside the range.
    #[must_use]
    pub fn read32(self, offset: u16) -> u32 {
        // SAFETY: as in `read8`.
        self.port(offset, 4).map_or(u32::MAX, |p| unsafe { arch::in32(p) })
    }

    /// Writes four bytes; nothing happens outside the range.
    pub fn write32(self, offset: u16, value: u32) {
        if let Some(port) = self.port(offset, 4) {
            // SAFETY: as in `write8`.
            unsafe { arch::out32(port, value) }
        }
    }
}
