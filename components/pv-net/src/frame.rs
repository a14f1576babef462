//! Addresses and headers of Ethernet frames.

use core::fmt;

/// Bytes of a frame's header: destination, source, type.
pub const HEADER: usize = 14;

/// Most bytes of a frame, when it is yet to be segmented: header, and a packet of 64 KiB.
pub const MAX_FRAME: usize = HEADER + 65536;

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Whether it stands for many stations.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Whether it is one that bridges do not pass on (IEEE 802.1Q, table 8-1).
    #[must_use]
    pub const fn is_link_local(self) -> bool {
        matches!(self.0, [0x01, 0x80, 0xc2, 0, 0, 0..=0xf])
    }

    /// Reads `aa:bb:cc:dd:ee:ff`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|p| p.len() == 2)?;
            *byte = u8::from_str_radix(part, 16).ok()?;
        }
        parts.next().is_none().then_some(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// Destination and source of a frame.
#[must_use]
pub const fn addresses(header: [u8; HEADER]) -> (Mac, Mac) {
    let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = header;
    (Mac([a, b, c, d, e, f]), Mac([g, h, i, j, k, l]))
}

#[cfg(test)]
mod tests {
    use super::{Mac, addresses};

    #[test]
    fn text_and_back() {
        let mac = Mac::parse("52:54:00:12:ab:ff").unwrap();
        assert_eq!(mac, Mac([0x52, 0x54, 0, 0x12, 0xab, 0xff]));
        assert_eq!(mac.to_string(), "52:54:00:12:ab:ff");
        for bad in
            ["", "52:54:00:12:ab", "52:54:00:12:ab:ff:00", "5:54:00:12:ab:ff", "zz:54:00:12:ab:ff"]
        {
            assert_eq!(Mac::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn header_begins_with_destination_and_source() {
        let header = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 8, 0];
        assert_eq!(addresses(header), (Mac([1, 2, 3, 4, 5, 6]), Mac([7, 8, 9, 10, 11, 12])));
    }

    #[test]
    fn groups() {
        assert!(Mac([0xff; 6]).is_group() && Mac([1, 0, 0x5e, 0, 0, 1]).is_group());
        assert!(!Mac([0x52, 0x54, 0, 0, 0, 1]).is_group());
        assert!(Mac([0x01, 0x80, 0xc2, 0, 0, 0xe]).is_link_local());
        assert!(!Mac([0x01, 0x80, 0xc2, 0, 0, 0x10]).is_link_local());
    }
}
