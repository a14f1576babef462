//! Ports without a device: what they read as, and why.

/// A range of ports where nothing is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent {
    /// First port.
    pub first: u16,
    /// Last port.
    pub last: u16,
    /// What each byte reads as.
    pub value: u8,
    /// Why.
    pub reason: &'static str,
}

const fn absent(first: u16, last: u16, value: u8, reason: &'static str) -> Absent {
    Absent { first, last, value, reason }
}

/// Ports that guests are known to touch. Writes to them are ignored.
pub const ABSENT: &[Absent] = &[
    absent(0x0000, 0x001f, 0xff, "no DMA controller"),
    absent(0x0020, 0x0021, 0xff, "no PIC: its mask register does not read back"),
    absent(0x002e, 0x002f, 0xff, "no super I/O chip"),
    absent(0x0040, 0x0043, 0x00, "no PIT: a counter at 0xff makes Linux wait for it to change"),
    absent(0x004e, 0x004f, 0xff, "no super I/O chip"),
    absent(0x0060, 0x0060, 0x00, "no keyboard controller: no data"),
    absent(0x0061, 0x0061, 0x20, "no PIT: channel 2 has always expired"),
    absent(
        0x0064,
        0x0064,
        0x00,
        "no keyboard controller: never busy, or Linux waits to reset by it",
    ),
    absent(0x0070, 0x0071, 0x00, "no CMOS: 0xff in register A would be an update without end"),
    absent(0x0080, 0x008f, 0xff, "no DMA pages; writes to 0x80 are delays and POST codes"),
    absent(0x0092, 0x0092, 0x02, "A20 is always open"),
    absent(0x00a0, 0x00a1, 0xff, "no PIC"),
    absent(0x00b2, 0x00b3, 0xff, "no SMI"),
    absent(0x00c0, 0x00df, 0xff, "no DMA controller"),
    absent(0x00ed, 0x00ed, 0xff, "alternative delay port"),
    absent(0x00f0, 0x00f1, 0xff, "no external coprocessor"),
    absent(0x0170, 0x0177, 0xff, "no IDE"),
    absent(0x01f0, 0x01f7, 0xff, "no IDE"),
    absent(0x0201, 0x0201, 0xff, "no game port"),
    absent(0x0278, 0x027f, 0xff, "no printer"),
    absent(0x02e8, 0x02ef, 0xff, "no COM4: a register that does not read back is no UART"),
    absent(0x02f8, 0x02ff, 0xff, "no COM2"),
    absent(0x0376, 0x0376, 0xff, "no IDE"),
    absent(0x0378, 0x037f, 0xff, "no printer"),
    absent(0x03b0, 0x03df, 0xff, "no VGA"),
    absent(0x03e8, 0x03ef, 0xff, "no COM3"),
    absent(0x03f0, 0x03f7, 0xff, "no floppy disk"),
    absent(0x04d0, 0x04d1, 0x00, "no PIC: edge triggered"),
    absent(0x0510, 0x0511, 0xff, "no fw_cfg"),
    absent(0x0cf8, 0x0cff, 0xff, "no PCI: the address register does not read back"),
];

/// The entry for a port; `None` for one that nobody is expected to touch.
#[must_use]
pub fn lookup(port: u16) -> Option<&'static Absent> {
    let after = ABSENT.partition_point(|entry| entry.first <= port);
    ABSENT.get(after.checked_sub(1)?).filter(|entry| port <= entry.last)
}

#[cfg(test)]
mod tests;
