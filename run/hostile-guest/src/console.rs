//! Text on the serial port.

use core::fmt::{self, Write};

use crate::arch;

const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = DATA + 5;
const EMPTY: u8 = 1 << 5;

/// The port.
pub struct Serial;

impl Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while arch::input(LINE_STATUS) & EMPTY == 0 {
                core::hint::spin_loop();
            }
            arch::out(DATA, byte);
        }
        Ok(())
    }
}

/// Prints a line.
macro_rules! say {
    ($($arg:tt)*) => {{
        use core::fmt::Write as _;
        // The port takes everything.
        let _ = core::writeln!($crate::console::Serial, $($arg)*);
    }};
}
pub(crate) use say;
