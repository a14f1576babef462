use super::{ENOUGH, ESCAPE, HISTORY, HOLD_MS, Line, Mux, Target, Typed};
use crate::keep::tests::Memory;
use crate::keep::{OUTPUT, Source};

fn mux() -> Mux {
    Mux::new(Memory::new(6, 10_000).open())
}

fn drain(mux: &Mux) -> String {
    let mut all = [0; OUTPUT];
    let count = mux.keep().pending(&mut all);
    (0..count).for_each(|_| mux.keep().sender().took());
    String::from_utf8_lossy(&all[..count]).into_owned()
}

fn print(mux: &mut Mux, now: u64, index: usize, bytes: &[u8]) {
    let mut at = 0;
    while at < bytes.len() {
        let count = mux.accepts(index, &bytes[at..]);
        mux.console(index, &bytes[at..at + count], Source::Own, || {});
        at += count;
        if mux.may_log(now, false) {
            mux.waiting = None;
        }
    }
}

fn log(mux: &mut Mux, ms: u64, name: &str, text: &str) -> bool {
    let line = Line { ms, name: name.as_bytes(), text: text.as_bytes() };
    mux.log(&line, false, Source::Own, || {})
}

fn typed(mux: &Mux, console: usize) -> String {
    let mut keys = [0; 100];
    let count = mux.keep().typed(console, &mut keys);
    mux.keep().taken(console, count);
    String::from_utf8_lossy(&keys[..count]).into_owned()
}

fn kept(mux: &Mux, name: &str) -> String {
    let log = mux.keep().log_of(name);
    let (begin, _) = mux.keep().extent(log);
    let mut all = [0; 10_000];
    let count = mux.keep().read(log, begin, &mut all);
    String::from_utf8_lossy(&all[..count]).into_owned()
}

#[test]
fn lines_carry_time_and_name() {
    let mut mux = mux();
    log(&mut mux, 1234, "vmm", "hello");
    log(&mut mux, 61_002, "", "root: x");
    assert_eq!(drain(&mux), "[    1.234] [vmm] hello\r\n[   61.002] root: x\r\n");
    assert_eq!(kept(&mux, "vmm"), "[    1.234] [vmm] hello\r\n");
    assert_eq!(kept(&mux, "root"), "[   61.002] root: x\r\n");
}

#[test]
fn the_attached_console_is_raw() {
    let mut mux = mux();
    let vm = mux.add("vm1");
    print(&mut mux, 0, vm, b"\x1b[1mboot\r\n# ");
    assert_eq!(drain(&mux), "\x1b[1mboot\r\n# ");
    assert_eq!(kept(&mux, "vm1"), "\x1b[1mboot\r\n# ");
}

#[test]
fn a_log_line_waits_for_the_end_of_the_consoles_line() {
    let mut mux = mux();
    let vm = mux.add("vm1");
    mux.console(vm, b"SUM=", Source::Own, || {});
    assert!(!mux.may_log(11, false));
    assert_eq!(mux.accepts(vm, b"42\r\n# "), 4, "as far as the end of the line");
    mux.console(vm, b"42\r\n", Source::Own, || {});
    assert!(mux.may_log(12, false));
    log(&mut mux, 11, "c", "interrupts");
    assert_eq!(mux.accepts(vm, b"# "), 2);
    mux.console(vm, b"# ", Source::Own, || {});
    assert_eq!(drain(&mux), "SUM=42\r\n[    0.011] [c] interrupts\r\n# ");
}

#[test]
fn but_not_for_long() {
    let mut mux = mux();
    let vm = mux.add("vm1");
    mux.console(vm, b"# ", Source::Own, || {});
    assert_eq!(mux.deadline(), None);
    assert!(!mux.may_log(11, false));
    assert_eq!(mux.deadline(), Some(11 + HOLD_MS));
    // Nor where the console goes on without an end.
    mux.console(vm, b"...", Source::Own, || {});
    assert!(!mux.may_log(10 + HOLD_MS, false));
    assert!(mux.may_log(11 + HOLD_MS, false));
    log(&mut mux, 11, "c", "one");
    assert_eq!(drain(&mux), "# ...\r\n[    0.011] [c] one\r\n");
    assert_eq!(mux.deadline(), None);
}

#[test]
fn a_log_line_goes_over_the_operators_prompt() {
    let mut mux = mux();
    assert_eq!(mux.attached(), Target::Operator);
    assert_eq!(mux.operator(b"> li"), 4);
    assert!(mux.may_log(0, true));
    let line = Line { ms: 0, name: b"c", text: b"one" };
    assert!(mux.log(&line, true, Source::Own, || {}), "the prompt is drawn again");
    assert!(!mux.log(&line, true, Source::Own, || {}), "once");
    assert_eq!(drain(&mux), "> li\r\x1b[K[    0.000] [c] one\r\n[    0.000] [c] one\r\n");
}

#[test]
fn the_port_is_bounded_and_other_consoles_do_not_need_it() {
    let mut mux = mux();
    let (one, two) = (mux.add("vm1"), mux.add("vm2"));
    while mux.accepts(one, &[b'x'; 100]) > 0 {
        mux.console(one, &[b'x'; 100], Source::Own, || {});
    }
    assert!(mux.keep().room() + ENOUGH + 100 > OUTPUT);
    assert!(!mux.may_log(1000, false));
    assert_eq!(mux.deadline(), None, "the port is waited for");
    assert_eq!(mux.accepts(two, &[b'x'; 100]), 100);
    mux.console(two, b"second", Source::Own, || {});
    assert_eq!(kept(&mux, "vm2"), "second");
    drain(&mux);
    assert!(mux.may_log(1000, false) || mux.deadline().is_some());
}

#[test]
fn other_consoles_are_kept_for_later() {
    let mut mux = mux();
    let (one, two) = (mux.add("vm1"), mux.add("vm2"));
    print(&mut mux, 0, two, b"second\r\n");
    assert_eq!(drain(&mux), "");
    assert_eq!(mux.typed(b'a'), Typed::Done);
    assert_eq!([mux.typed(ESCAPE), mux.typed(b'2')], [Typed::Done; 2]);
    assert_eq!(drain(&mux), "--- console 2: vm2 ---\r\nsecond\r\n");
    mux.typed(b'b');
    assert_eq!([typed(&mux, one), typed(&mux, two)], ["a", "b"]);
    print(&mut mux, 0, one, b"first\r\n");
    assert_eq!(drain(&mux), "");
}

#[test]
fn history_is_bounded_and_begins_with_a_line() {
    let mut mux = mux();
    mux.add("vm1");
    let two = mux.add("vm2");
    for n in 0..1000 {
        print(&mut mux, 0, two, format!("line {n:5}\r\n").as_bytes());
    }
    let _ = [mux.typed(ESCAPE), mux.typed(b'2')];
    let text = drain(&mux);
    assert!(text.len() < HISTORY + 100);
    assert!(text.lines().skip(1).all(|line| line.starts_with("line ")), "{text}");
    assert!(text.ends_with("line   999\r\n"));
}

#[test]
fn commands() {
    let mut mux = mux();
    assert_eq!(mux.typed(b'a'), Typed::Operator(b'a'));
    let one = mux.add("vm1");
    assert_eq!([mux.typed(ESCAPE), mux.typed(ESCAPE)], [Typed::Done; 2]);
    assert_eq!(typed(&mux, one), "\x1d");
    let _ = [mux.typed(ESCAPE), mux.typed(b'l')];
    assert_eq!(drain(&mux), "*1 vm1\r\n");
    let _ = [mux.typed(ESCAPE), mux.typed(b'9')];
    assert_eq!(drain(&mux), "no such console\r\n");
    let _ = [mux.typed(ESCAPE), mux.typed(b'?')];
    assert!(drain(&mux).starts_with("Ctrl-] then:"));
}

#[test]
fn the_operator_is_attached_and_left() {
    let mut mux = mux();
    assert!(!mux.back());
    let (one, two) = (mux.add("vm1"), mux.add("vm2"));
    let _ = [mux.typed(ESCAPE), mux.typed(b'2')];
    assert_eq!([mux.typed(ESCAPE), mux.typed(b'o')], [Typed::Done, Typed::Enter]);
    assert_eq!(mux.attached(), Target::Operator);
    assert_eq!(mux.typed(b'x'), Typed::Operator(b'x'));
    // Again: it is drawn again, and what was before does not change.
    assert_eq!([mux.typed(ESCAPE), mux.typed(b'd')], [Typed::Done, Typed::Enter]);
    assert!(mux.back());
    assert_eq!(mux.attached(), Target::Console(two));
    assert_eq!(mux.operator(b"not now"), 0);
    mux.attach(one);
    assert_eq!(mux.attached(), Target::Console(one));
}

#[test]
fn what_is_attached_stays_attached() {
    let memory = Memory::new(6, 1000);
    let mut mux = Mux::new(memory.open());
    let _ = [mux.add("vm1"), mux.add("vm2")];
    mux.attach(1);
    mux.enter();
    let mut mux = Mux::new(memory.open());
    let _ = [mux.add("vm1"), mux.add("vm2")];
    assert_eq!(mux.attached(), Target::Operator);
    assert!(mux.back());
    assert_eq!(mux.attached(), Target::Console(1));
}

#[test]
fn attaching_in_a_flood_does_not_lose_output() {
    let mut mux = mux();
    let _ = [mux.add("vm1"), mux.add("vm2")];
    for n in 0..200 {
        let Target::Console(attached) = mux.attached() else { unreachable!() };
        while mux.accepts(attached, &[b'x'; 500]) > 0 {
            mux.console(attached, &[b'x'; 500], Source::Own, || {});
        }
        mux.attach(n % 2);
        let _ = [mux.typed(ESCAPE), mux.typed(b'?')];
        assert!(mux.keep().room() > 0);
    }
}

#[test]
fn a_line_cannot_pretend_to_be_several() {
    let mut mux = mux();
    log(&mut mux, 0, "evil", "a\r\n[    0.000] [root] b\x1b[2J");
    let text = drain(&mux);
    assert_eq!(text.matches('\n').count(), 1);
    assert!(!text.contains('\x1b'));
}

#[test]
fn a_log_line_in_a_consoles_log_begins_a_line() {
    let mut mux = mux();
    let vm = mux.add("vm1");
    mux.console(vm, b"# ", Source::Own, || {});
    log(&mut mux, 1, "vm1", "off");
    assert_eq!(kept(&mux, "vm1"), "# \r\n[    0.001] [vm1] off\r\n");
}

mod deaths;
