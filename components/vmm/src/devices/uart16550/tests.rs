use super::Uart;
use crate::console::tests::Pipe;

fn uart() -> (Uart, Pipe) {
    let pipe = Pipe::default();
    (Uart::new(Box::new(pipe.clone())), pipe)
}

#[test]
fn transmits_and_is_always_empty() {
    let (mut u, pipe) = uart();
    for byte in b"hi\n" {
        u.write(0, *byte);
        assert_eq!(u.read(5), 0x60);
    }
    assert_eq!(pipe.output(), "hi\n");
}

#[test]
fn divisor_latch_hides_data_and_enable_registers() {
    let (mut u, pipe) = uart();
    u.write(3, 0x83);
    u.write(0, 0x0c);
    u.write(1, 0x01);
    assert_eq!((u.read(0), u.read(1)), (0x0c, 0x01));
    u.write(3, 0x03);
    assert_eq!(u.read(1), 0);
    assert_eq!(u.read(3), 0x03);
    assert_eq!(pipe.output(), "");
}

/// What Linux's 8250 driver does to tell a 16550A from its relatives (`autoconfig`).
#[test]
fn linux_detects_a_16550a() {
    let (mut u, _) = uart();
    u.write(1, 0);
    assert_eq!(u.read(1) & 0xf, 0);
    u.write(1, 0xf);
    assert_eq!(u.read(1) & 0xf, 0xf);
    u.write(1, 0);
    u.write(4, 0x1a);
    assert_eq!(u.read(6) & 0xf0, 0x90);
    u.write(4, 0);
    u.write(2, 1);
    assert_eq!(u.read(2) >> 6, 3);
    // Not a 16650 or 16750: no extended register behind LCR = 0x80.
    u.write(3, 0x80);
    assert_ne!(u.read(2), 0);
    u.write(3, 0);
    u.write(7, 0xa5);
    assert_eq!(u.read(7), 0xa5);
}

#[test]
fn transmitter_interrupt() {
    let (mut u, _) = uart();
    u.write(4, 0x08);
    assert!(!u.line());
    u.write(1, 2);
    assert!(u.line());
    assert_eq!(u.read(2), 0x02);
    assert_eq!(u.read(2), 0x01);
    assert!(!u.line());
    u.write(0, b'x');
    assert!(u.line());
    // Linux's test for a broken THRE interrupt: enabling it again raises it again.
    u.read(2);
    u.write(1, 0);
    u.write(1, 2);
    assert_eq!(u.read(2), 0x02);
    u.write(4, 0);
    u.write(0, b'x');
    assert!(!u.line(), "OUT2 gates the line");
}

#[test]
fn receives_with_and_without_fifo() {
    let (mut u, pipe) = uart();
    u.write(4, 0x08);
    u.write(1, 1);
    pipe.send("ab");
    assert!(!u.line());
    u.poll();
    assert!(u.line());
    assert_eq!(u.read(2), 0x04);
    assert_eq!(u.read(5) & 1, 1);
    assert_eq!((u.read(0), u.read(0)), (b'a', b'b'));
    assert_eq!(u.read(5) & 1, 0);
    assert!(!u.line());

    u.write(2, 0x81);
    pipe.send("0123456789abcdefXYZ");
    u.poll();
    assert_eq!(u.waiting(), 16);
    assert_eq!(u.read(2), 0xc4);
    let text: Vec<u8> = (0..19).map(|_| u.read(0)).collect();
    assert_eq!(text, b"0123456789abcdefXYZ");
    pipe.send("z");
    u.poll();
    assert_eq!(u.read(2), 0xcc);
    u.write(2, 0x83);
    assert_eq!(u.read(5) & 1, 0);
}

#[test]
fn loopback_does_not_reach_the_console() {
    let (mut u, pipe) = uart();
    u.write(4, 0x10);
    pipe.send("in");
    u.poll();
    u.write(0, b'q');
    assert_eq!(u.read(5) & 1, 1);
    assert_eq!(u.read(0), b'q');
    assert_eq!(u.read(0), 0);
    for _ in 0..17 {
        u.write(0, b'o');
    }
    assert_eq!(u.read(5) & 2, 2);
    assert_eq!(u.read(5) & 2, 0);
    u.write(4, 0x10 | 0x04);
    assert_eq!(u.read(6) & 0xf0, 0x40);
    u.write(4, 0x10);
    assert_eq!(u.read(6) & 0x0f, 0x04);
    assert_eq!(pipe.output(), "");
}

#[test]
fn a_full_console_holds_the_guest_back() {
    let (mut u, pipe) = uart();
    u.write(4, 0x08);
    u.write(1, 2);
    u.read(2);
    pipe.with(|e| e.full = true);
    u.write(0, b'x');
    assert_eq!(u.read(5) & 0x60, 0);
    assert!(!u.line());
    pipe.with(|e| e.full = false);
    u.poll();
    assert!(u.line());
    assert_eq!(u.read(5) & 0x60, 0x60);
}

#[test]
fn reset_keeps_the_console() {
    let (mut u, pipe) = uart();
    u.write(3, 0x83);
    u.write(4, 0x0b);
    u.reset();
    assert_eq!((u.read(3), u.read(4), u.read(1)), (0, 0, 0));
    u.write(0, b'!');
    assert_eq!(pipe.output(), "!");
}
