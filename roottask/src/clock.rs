//! The time of day, from the real-time clock of a PC (Motorola MC146818A; the registers' meaning on
//! a PC is in every chipset's datasheet), read once.

use sysroot::arch::{in8, out8};

const INDEX: u16 = 0x70;
const DATA: u16 = 0x71;
/// Seconds, minutes, hours, day, month, year.
const REGISTERS: [u8; 6] = [0x00, 0x02, 0x04, 0x07, 0x08, 0x09];
const STATUS_A: u8 = 0x0a;
const UPDATING: u8 = 1 << 7;
const STATUS_B: u8 = 0x0b;
const HOURS_24: u8 = 1 << 1;
const BINARY: u8 = 1 << 2;
const AFTERNOON: u8 = 1 << 7;
/// Readings before it is clear that there is no clock. Each takes longer than a microsecond, and an
/// update two thousand of them.
const PATIENCE: u32 = 10_000;

/// Milliseconds since 1970; `None` where there is no clock.
#[must_use]
pub fn wall_ms() -> Option<u64> {
    let mut last = None;
    for _ in 0..PATIENCE {
        if read(STATUS_A) & UPDATING != 0 {
            continue;
        }
        // Only two equal readings are one that no update came into.
        let registers = REGISTERS.map(read);
        if last == Some(registers) {
            return seconds(registers, read(STATUS_B)).map(|s| s * 1000);
        }
        last = Some(registers);
    }
    None
}

fn read(register: u8) -> u8 {
    // SAFETY: the root task holds all ports; reading the clock's registers changes nothing.
    unsafe {
        out8(INDEX, register);
        in8(DATA)
    }
}

/// Seconds since 1970 of a reading in the 21st century.
fn seconds(registers: [u8; 6], status: u8) -> Option<u64> {
    let decode = |value: u8| match (status & BINARY != 0, value >> 4, value & 0xf) {
        (true, ..) => Some(u64::from(value)),
        (false, tens @ 0..=9, ones @ 0..=9) => Some(u64::from(tens * 10 + ones)),
        _ => None,
    };
    let [second, minute, hour, day, month, year] = registers;
    let afternoon = status & HOURS_24 == 0 && hour & AFTERNOON != 0;
    let hour = decode(if status & HOURS_24 == 0 { hour & !AFTERNOON } else { hour })?;
    let hour = match (status & HOURS_24 != 0, afternoon) {
        (true, _) => hour,
        (false, false) => hour % 12,
        (false, true) => hour % 12 + 12,
    };
    let (second, minute) = (decode(second)?, decode(minute)?);
    let (day, month, year) = (decode(day)?, decode(month)?, 2000 + decode(year)?);
    let fits = second < 61 && minute < 60 && hour < 24;
    if !fits || !(1..=31).contains(&day) || !(1..=12).contains(&month) {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01. Years begin in March here, so that the leap day is the last one.
fn days(year: u64, month: u64, day: u64) -> u64 {
    /// Days from 0000-03-01 to 1970-01-01.
    const EPOCH: u64 = 719_468;
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let leaps = year / 4 - year / 100 + year / 400;
    year * 365 + leaps + (month * 153 + 2) / 5 + day - 1 - EPOCH
}

#[cfg(test)]
mod tests {
    use super::{BINARY, HOURS_24, days, seconds};

    #[test]
    fn calendar() {
        for (date, n) in [
            ((1970, 1, 1), 0),
            ((1972, 3, 1), 790),
            ((2000, 2, 29), 11_016),
            ((2000, 3, 1), 11_017),
            ((2026, 11, 20), 20_777),
            ((2100, 3, 1), 47_541),
        ] {
            assert_eq!(days(date.0, date.1, date.2), n, "{date:?}");
        }
    }

    #[test]
    fn readings_in_every_format() {
        let expected = Some(20_777 * 86_400 + (15 * 60 + 4) * 60 + 59);
        assert_eq!(seconds([0x59, 4, 0x15, 0x20, 0x11, 0x26], HOURS_24), expected);
        assert_eq!(seconds([59, 4, 15, 20, 11, 26], HOURS_24 | BINARY), expected);
        assert_eq!(seconds([0x59, 4, 0x83, 0x20, 0x11, 0x26], 0), expected);
        let midnight = seconds([0, 0, 0x12, 0x20, 0x11, 0x26], 0);
        assert_eq!(midnight, Some(20_777 * 86_400));
        let noon = seconds([0, 0, 0x92, 0x20, 0x11, 0x26], 0);
        assert_eq!(noon, Some(20_777 * 86_400 + 43_200));
    }

    #[test]
    fn what_is_no_time_of_day() {
        assert_eq!(seconds([0xff; 6], 0xff), None);
        assert_eq!(seconds([0xff; 6], HOURS_24), None);
        assert_eq!(seconds([0, 0, 0x24, 1, 1, 0], HOURS_24), None);
        assert_eq!(seconds([0, 0, 0, 0, 1, 0], HOURS_24), None);
        assert_eq!(seconds([0, 0, 0, 1, 0x13, 0], HOURS_24), None);
    }
}
