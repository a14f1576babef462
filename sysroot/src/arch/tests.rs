use ipc::proto::start::PARK_SELECTOR;
use ipc::syscall::Call;

use super::PARK_CODE;

#[test]
fn the_parking_code_waits_for_its_semaphore_for_ever() {
    let selector = PARK_SELECTOR.to_le_bytes();
    assert_eq!(PARK_CODE[0], 0xbf);
    assert_eq!(PARK_CODE[1..5], selector);
    assert_eq!(PARK_CODE[7..12], [0xb8, Call::Down as u8, 0, 0, 0]);
    assert_eq!(PARK_CODE[12..14], [0x0f, 0x05]);
    // The jump's displacement counts from its end, back to the start.
    assert_eq!(PARK_CODE[14], 0xeb);
    assert_eq!(PARK_CODE[15] as i8, -16);
}
