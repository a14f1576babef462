//! What goes with a frame on a virtqueue (virtio 1.2, 5.1.6): which checksum and which segmentation
//! its sender left to others.

use crate::frame::MAX_FRAME;

/// Bytes of the header.
pub const SIZE: usize = 12;

/// Features (virtio 1.2, 5.1.3).
pub mod feature {
    /// The device completes checksums.
    pub const CSUM: u64 = 1 << 0;
    /// The driver takes frames without checksums.
    pub const GUEST_CSUM: u64 = 1 << 1;
    /// The device has an address.
    pub const MAC: u64 = 1 << 5;
    /// The driver takes TCP segments over IPv4 of up to 64 KiB.
    pub const GUEST_TSO4: u64 = 1 << 7;
    /// The same over IPv6.
    pub const GUEST_TSO6: u64 = 1 << 8;
    /// The device takes TCP segments over IPv4 of up to 64 KiB.
    pub const HOST_TSO4: u64 = 1 << 11;
    /// The same over IPv6.
    pub const HOST_TSO6: u64 = 1 << 12;
    /// A frame may be spread over several buffers of the driver.
    pub const MRG_RXBUF: u64 = 1 << 15;
    /// The device tells whether the link is up.
    pub const STATUS: u64 = 1 << 16;
}

/// `flags`: the checksum is to be completed.
const NEEDS_CSUM: u8 = 1;
/// `gso_type`: the sender handles congestion marks.
const ECN: u8 = 0x80;

/// A checksum that is to be completed: over everything from `start` on, to be stored at `start +
/// offset`, where the sum over the pseudo-header stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checksum {
    /// First byte.
    pub start: u16,
    /// Where the sum is, from there.
    pub offset: u16,
}

/// A frame that is to be segmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segmentation {
    /// Over IPv6; otherwise over IPv4.
    pub v6: bool,
    /// Bytes of payload in each segment; not 0.
    pub size: u16,
}

/// What is left to do for a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Todo {
    /// A checksum.
    pub checksum: Option<Checksum>,
    /// Segmentation; then there is a checksum as well.
    pub segmentation: Option<Segmentation>,
}

/// A header that a driver must not write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invalid;

impl Todo {
    /// Reads the header of a frame of `len` bytes from a driver that agreed to `features`.
    ///
    /// # Errors
    /// Something is asked for that was not agreed on, or lies outside the frame.
    pub fn parse(header: [u8; SIZE], len: u64, features: u64) -> Result<Self, Invalid> {
        // The length of the headers is a hint that nobody needs; buffers are not counted here.
        let [flags, gso, _, _, size0, size1, start0, start1, offset0, offset1, _, _] = header;
        let mut todo = Self::default();
        if flags & NEEDS_CSUM != 0 {
            let start = u16::from_le_bytes([start0, start1]);
            let offset = u16::from_le_bytes([offset0, offset1]);
            if features & feature::CSUM == 0 || u64::from(start) + u64::from(offset) + 2 > len {
                return Err(Invalid);
            }
            todo.checksum = Some(Checksum { start, offset });
        }
        let (v6, needed) = match gso & !ECN {
            0 if gso == 0 => return Ok(todo),
            1 => (false, feature::HOST_TSO4),
            4 => (true, feature::HOST_TSO6),
            _ => return Err(Invalid),
        };
        let size = u16::from_le_bytes([size0, size1]);
        // Congestion marks were not agreed on.
        if gso & ECN != 0 || features & needed == 0 || size == 0 || todo.checksum.is_none() {
            return Err(Invalid);
        }
        todo.segmentation = Some(Segmentation { v6, size });
        Ok(todo)
    }

    /// Whether a driver that agreed to `features` takes a frame with this left to do.
    #[must_use]
    pub const fn suits(self, features: u64) -> bool {
        let segmentation = match self.segmentation {
            None => true,
            Some(Segmentation { v6: false, .. }) => features & feature::GUEST_TSO4 != 0,
            Some(Segmentation { v6: true, .. }) => features & feature::GUEST_TSO6 != 0,
        };
        segmentation && (self.checksum.is_none() || features & feature::GUEST_CSUM != 0)
    }

    /// The header for a receiver whose frame takes `buffers`.
    #[must_use]
    pub const fn header(self, buffers: u16) -> [u8; SIZE] {
        let [b0, b1] = buffers.to_le_bytes();
        let (flags, [s0, s1], [o0, o1]) = match self.checksum {
            Some(Checksum { start, offset }) => {
                (NEEDS_CSUM, start.to_le_bytes(), offset.to_le_bytes())
            }
            None => (0, [0, 0], [0, 0]),
        };
        let (gso, [z0, z1]) = match self.segmentation {
            Some(Segmentation { v6: false, size }) => (1, size.to_le_bytes()),
            Some(Segmentation { v6: true, size }) => (4, size.to_le_bytes()),
            None => (0, [0, 0]),
        };
        [flags, gso, 0, 0, z0, z1, s0, s1, o0, o1, b0, b1]
    }
}

const _: () = assert!(MAX_FRAME < u32::MAX as usize);

#[cfg(test)]
mod tests;
