use proptest::prelude::{ProptestConfig, any, prop, prop_assert, proptest};

use super::printable;

#[test]
fn what_a_terminal_obeys_is_left_out() {
    for (text, clean) in [
        (&b"plain \xc3\xa9\ttext\r"[..], "plain \u{e9}\ttext"),
        (b"\x1b[1;32mgreen\x1b[0m", "green"),
        (b"a\x1b[2J\x1b[Hb\x1b", "ab"),
        (b"bell\x07 back\x08 \x7f \xc2\x9b2J", "bell? back? ? ?2J"),
        (b"cut \x1b[12", "cut "),
        (b"a\rb", "ab"),
        (b"\xff", "\u{fffd}"),
    ] {
        assert_eq!(printable(text), clean);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn nothing_is_obeyed(text in prop::collection::vec(any::<u8>(), 0..100)) {
        prop_assert!(printable(&text).chars().all(|c| c == '\t' || !c.is_control()));
    }
}
