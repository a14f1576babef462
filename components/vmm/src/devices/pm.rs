//! Power management of hardware-reduced ACPI: sleep and reset registers (ACPI 6.5, 4.8.3.7, 4.8.3.6).

/// Port of the sleep control register.
pub const SLEEP_CONTROL: u16 = 0x600;
/// Port of the sleep status register.
pub const SLEEP_STATUS: u16 = 0x601;
/// Port of the reset register.
pub const RESET: u16 = 0x602;
/// What the guest writes there to restart.
pub const RESET_VALUE: u8 = 1;
/// `SLP_TYP` of soft-off.
pub const SLEEP_TYPE_S5: u8 = 5;

/// `SLP_EN` in the sleep control register; `SLP_TYP` is in bits 2..5.
const SLEEP_ENABLE: u8 = 1 << 5;

/// What the guest asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Switch the VM off.
    Off,
    /// Restart it.
    Reset,
}

/// What a write to `port` asks for; everything else is ignored.
#[must_use]
pub fn write(port: u16, value: u8) -> Option<Power> {
    match port {
        SLEEP_CONTROL if value & SLEEP_ENABLE != 0 && value >> 2 & 7 == SLEEP_TYPE_S5 => {
            Some(Power::Off)
        }
        RESET if value == RESET_VALUE => Some(Power::Reset),
        _ => None,
    }
}

/// Control and status read as zero: awake, no wake event.
#[must_use]
pub const fn read(_port: u16) -> u8 {
    0
}

#[cfg(test)]
mod tests;
