//! The legacy interrupt controllers: moved out of the way of exceptions, then silenced.

use super::instr::outb;

const MASTER: u16 = 0x20;
const SLAVE: u16 = 0xa0;
/// Vectors of the masked controllers: only their spurious interrupts (7 of each) can appear there.
pub const VECTOR_BASE: u8 = 0x20;

/// Masks every line of both controllers.
///
/// # Safety
/// Called once at boot with interrupts off.
pub unsafe fn disable() {
    // ICW1 to ICW4 of the 8259A data sheet: edge, cascade, vectors, slave on line 2, 8086 mode;
    // then all lines masked.
    let words = |slave: bool| {
        let (vectors, cascade) = if slave { (VECTOR_BASE + 8, 2) } else { (VECTOR_BASE, 1 << 2) };
        [(0, 0x11), (1, vectors), (1, cascade), (1, 0x01), (1, 0xff)]
    };
    for (base, slave) in [(MASTER, false), (SLAVE, true)] {
        for (register, value) in words(slave) {
            // SAFETY: the kernel owns these controllers; a machine without them ignores the write.
            unsafe { outb(base + register, value) };
        }
    }
}
