#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use super::{ESCAPE, HELD_LINES, HOLD_MS, Mux, Typed};

fn drain(mux: &mut Mux) -> String {
    let mut all = Vec::new();
    while !mux.pending().is_empty() {
        let n = mux.pending().len();
        all.extend_from_slice(mux.pending());
        mux.sent(n);
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn lines_carry_time_and_name() {
    let mut mux = Mux::new();
    mux.log(0, 1234, b"vmm", b"hello");
    mux.log(0, 61_002, b"", b"root: x");
    assert_eq!(drain(&mut mux), "[    1.234] [vmm] hello\r\n[   61.002] root: x\r\n");
}

#[test]
fn the_attached_console_is_raw() {
    let mut mux = Mux::new();
    let vm = mux.add("vm1");
    mux.console(0, vm, b"\x1b[1mboot\r\n# ");
    assert_eq!(drain(&mut mux), "\x1b[1mboot\r\n# ");
}

#[test]
fn a_log_line_waits_for_the_end_of_the_consoles_line() {
    let mut mux = Mux::new();
    let vm = mux.add("vm1");
    mux.console(10, vm, b"SUM=");
    mux.log(11, 11, b"c", b"interrupts");
    mux.console(12, vm, b"42\r\n# ");
    assert_eq!(drain(&mut mux), "SUM=42\r\n[    0.011] [c] interrupts\r\n# ");
}

#[test]
fn but_not_for_long() {
    let mut mux = Mux::new();
    let vm = mux.add("vm1");
    mux.console(10, vm, b"# ");
    mux.log(11, 11, b"c", b"one");
    assert_eq!(mux.deadline(), Some(10 + HOLD_MS));
    mux.tick(10 + HOLD_MS - 1);
    assert_eq!(drain(&mut mux), "# ");
    mux.tick(10 + HOLD_MS);
    assert_eq!(drain(&mut mux), "\r\n[    0.011] [c] one\r\n");
    assert_eq!(mux.deadline(), None);
    mux.console(500, vm, b"$ ");
    mux.log(1000, 1000, b"c", b"two");
    assert_eq!(drain(&mut mux), "$ \r\n[    1.000] [c] two\r\n");
}

#[test]
fn held_lines_keep_their_order_and_are_bounded() {
    let mut mux = Mux::new();
    let vm = mux.add("vm1");
    mux.console(0, vm, b"x");
    for n in 0..HELD_LINES {
        assert!(mux.has_room());
        mux.log(1, n as u64, b"c", b"l");
    }
    assert!(!mux.has_room());
    mux.log(1, 999, b"c", b"last");
    let text = drain(&mut mux);
    assert_eq!(text.matches("[c] l").count(), HELD_LINES + 1);
    assert!(text.ends_with("[    0.999] [c] last\r\n"));
    assert!(mux.has_room());
}

#[test]
fn other_consoles_are_kept_for_later() {
    let mut mux = Mux::new();
    let (one, two) = (mux.add("vm1"), mux.add("vm2"));
    mux.console(0, two, b"second\r\n");
    assert_eq!(drain(&mut mux), "");
    assert_eq!(mux.typed(b'a'), Typed::To(one, b'a'));
    assert_eq!([mux.typed(ESCAPE), mux.typed(b'2')], [Typed::Done; 2]);
    assert_eq!(drain(&mut mux), "--- console 2: vm2 ---\r\nsecond\r\n");
    assert_eq!(mux.typed(b'a'), Typed::To(two, b'a'));
    mux.console(0, one, b"first\r\n");
    assert_eq!(drain(&mut mux), "");
}

#[test]
fn history_is_bounded() {
    let mut mux = Mux::new();
    mux.add("vm1");
    let two = mux.add("vm2");
    for _ in 0..1000 {
        mux.console(0, two, &[b'x'; 100]);
    }
    let _ = [mux.typed(ESCAPE), mux.typed(b'2')];
    assert!(drain(&mut mux).len() < 9000);
}

#[test]
fn commands() {
    let mut mux = Mux::new();
    assert_eq!(mux.typed(b'a'), Typed::Done);
    let one = mux.add("vm1");
    assert_eq!([mux.typed(ESCAPE), mux.typed(ESCAPE)], [Typed::Done, Typed::To(one, ESCAPE)]);
    let _ = [mux.typed(ESCAPE), mux.typed(b'l')];
    assert_eq!(drain(&mut mux), "*1 vm1\r\n");
    let _ = [mux.typed(ESCAPE), mux.typed(b'9')];
    assert_eq!(drain(&mut mux), "no such console\r\n");
    let _ = [mux.typed(ESCAPE), mux.typed(b'?')];
    assert!(drain(&mut mux).starts_with("Ctrl-] then:"));
}

#[test]
fn a_line_cannot_pretend_to_be_several() {
    let mut mux = Mux::new();
    mux.log(0, 0, b"evil", b"a\r\n[    0.000] [root] b\x1b[2J");
    let text = drain(&mut mux);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.contains('\x1b'));
}
