//! Where a virtio PCI function has its registers, as its configuration space says (virtio 1.2,
//! 4.1.4). Pure.

use core::fmt;

/// Bytes of the part of the configuration space that capabilities are in.
pub const SPACE: usize = 256;
/// Vendor of virtio functions.
const VENDOR: u16 = 0x1af4;
/// Capability: registers of the vendor's own.
const VENDOR_CAPABILITY: u8 = 0x09;
/// Capability: MSI-X.
const MSIX_CAPABILITY: u8 = 0x11;
/// Status bit: there is a list of capabilities.
const HAS_CAPABILITIES: u16 = 1 << 4;

/// A stretch of a BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the BAR.
    pub bar: u8,
    /// Offset in it.
    pub offset: u32,
    /// Size in bytes.
    pub len: u32,
}

/// The table of MSI-X vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Msix {
    /// Offset of the capability in the configuration space.
    pub capability: u16,
    /// The table.
    pub table: Place,
}

/// Where a function has what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Common configuration.
    pub common: Place,
    /// Notifications.
    pub notify: Place,
    /// Distance of the notification registers of two queues.
    pub multiplier: u32,
    /// Interrupt status.
    pub isr: Place,
    /// Device-specific configuration.
    pub device: Option<Place>,
    /// MSI-X.
    pub msix: Option<Msix>,
}

/// What a configuration space lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayoutError {
    /// It is no virtio function.
    Vendor(u16),
    /// It has no modern interface: this part is missing.
    Missing(&'static str),
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vendor(id) => write!(f, "vendor {id:#x} is not virtio's"),
            Self::Missing(part) => write!(f, "no {part} in the capabilities"),
        }
    }
}

impl core::error::Error for LayoutError {}

impl Layout {
    /// Reads the start of a configuration space.
    ///
    /// # Errors
    /// [`LayoutError`]
    pub fn parse(space: &[u8; SPACE]) -> Result<Self, LayoutError> {
        let vendor = half(space, 0).unwrap_or(0);
        if vendor != VENDOR {
            return Err(LayoutError::Vendor(vendor));
        }
        let (mut common, mut notify, mut isr, mut device, mut msix) =
            (None, None, None, None, None);
        for at in capabilities(space) {
            match byte(space, at) {
                Some(VENDOR_CAPABILITY) => {
                    let Some(place) = place(space, at) else { continue };
                    // The first of each kind is the one to use.
                    match byte(space, at + 3) {
                        Some(1) => common = common.or(Some(place)),
                        Some(2) => notify = notify.or(Some(place).zip(word(space, at + 16))),
                        Some(3) => isr = isr.or(Some(place)),
                        Some(4) => device = device.or(Some(place)),
                        _ => {}
                    }
                }
                Some(MSIX_CAPABILITY) => msix = msix.or(msix_at(space, at)),
                _ => {}
            }
        }
        let common = common.ok_or(LayoutError::Missing("common configuration"))?;
        let (notify, multiplier) = notify.ok_or(LayoutError::Missing("notifications"))?;
        let isr = isr.ok_or(LayoutError::Missing("interrupt status"))?;
        Ok(Self { common, notify, multiplier, isr, device, msix })
    }
}

/// Offsets of the capabilities: as many as there is room for, so a list that loops ends.
fn capabilities(space: &[u8; SPACE]) -> impl Iterator<Item = usize> {
    let listed = half(space, 6).is_some_and(|status| status & HAS_CAPABILITIES != 0);
    let pointer = |at| byte(space, at).map(|p| usize::from(p & 0xfc)).filter(|p| *p >= 0x40);
    let first = pointer(0x34).filter(|_| listed);
    core::iter::successors(first, move |at| pointer(at + 1)).take(SPACE / 4)
}

fn place(space: &[u8; SPACE], at: usize) -> Option<Place> {
    let bar = byte(space, at + 4).filter(|b| *b < 6)?;
    Some(Place { bar, offset: word(space, at + 8)?, len: word(space, at + 12)? })
}

fn msix_at(space: &[u8; SPACE], at: usize) -> Option<Msix> {
    let entries = u32::from(half(space, at + 2)? & 0x7ff) + 1;
    let table = word(space, at + 4)?;
    let bar = u8::try_from(table & 7).ok().filter(|b| *b < 6)?;
    let table = Place { bar, offset: table & !7, len: 16 * entries };
    Some(Msix { capability: u16::try_from(at).ok()?, table })
}

fn byte(space: &[u8; SPACE], at: usize) -> Option<u8> {
    space.get(at).copied()
}

fn half(space: &[u8; SPACE], at: usize) -> Option<u16> {
    space.get(at..)?.first_chunk().map(|b| u16::from_le_bytes(*b))
}

fn word(space: &[u8; SPACE], at: usize) -> Option<u32> {
    space.get(at..)?.first_chunk().map(|b| u32::from_le_bytes(*b))
}

#[cfg(test)]
mod tests;
