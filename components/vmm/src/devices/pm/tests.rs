use super::{Power, RESET, SLEEP_CONTROL, SLEEP_STATUS, write};

#[test]
fn only_soft_off_and_reset_do_something() {
    for value in 0..=255 {
        let off = value & 0b11_1100 == 0b11_0100;
        assert_eq!(write(SLEEP_CONTROL, value), off.then_some(Power::Off));
        assert_eq!(write(RESET, value), (value == 1).then_some(Power::Reset));
        assert_eq!(write(SLEEP_STATUS, value), None);
    }
}
