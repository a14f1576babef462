use proptest::prelude::{ProptestConfig, any, prop, prop_assert_eq, proptest};

use super::{Editor, Key, LINE};

/// A terminal of one row: what is on it, and where the cursor stands.
#[derive(Default)]
struct Row {
    text: Vec<u8>,
    cursor: usize,
}

impl Row {
    fn show(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            match byte {
                0x08 => self.cursor -= 1,
                0x07 => {}
                b'\r' => self.cursor = 0,
                b'\n' => *self = Self::default(),
                byte => {
                    self.text.resize(self.text.len().max(self.cursor + 1), b' ');
                    self.text[self.cursor] = byte;
                    self.cursor += 1;
                }
            }
        }
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.text).trim_end().to_owned()
    }
}

/// Types all of it; the lines that came out.
fn type_all(editor: &mut Editor, row: &mut Row, keys: &[u8]) -> Vec<Key> {
    let mut all = Vec::new();
    for &key in keys {
        let mut echo = Vec::new();
        let outcome = editor.key(key, &mut echo);
        row.show(&echo);
        if outcome != Key::Editing {
            all.push(outcome);
        }
    }
    all
}

fn lines(keys: &[u8]) -> Vec<Key> {
    type_all(&mut Editor::default(), &mut Row::default(), keys)
}

fn line(text: &str) -> Key {
    Key::Line(text.into())
}

#[test]
fn a_line_ends_with_either_end_or_both() {
    assert_eq!(lines(b"a\rb\nc\r\nd\r\n\n"), ["a", "b", "c", "d", ""].map(line));
}

#[test]
fn keys_that_erase() {
    assert_eq!(lines(b"lisx\x7ft\r"), [line("list")]);
    assert_eq!(lines(b"\x08\x7fa\x08\x08b\r"), [line("b")]);
    assert_eq!(lines(b"kill one\x15list\r"), [line("list")]);
    assert_eq!(lines(b"kill one  \x17two\r"), [line("kill two")]);
    assert_eq!(lines(b"abc\x01\x04\r"), [line("bc")]);
    assert_eq!(lines(b"abc\x1b[D\x1b[D\x0b\r"), [line("a")]);
    assert_eq!(lines(b"abc\x1b[H\x1b[3~\r"), [line("bc")]);
}

#[test]
fn keys_that_move() {
    assert_eq!(lines(b"bc\x1b[D\x1b[Dxa\x1b[C\x1b[Cd\r"), [line("xabcd")]);
    assert_eq!(lines(b"b\x01a\x05c\x1bOHx\x1bOFy\x1b[1~0\x1b[4~9\r"), [line("0xabcy9")]);
}

#[test]
fn arrow_keys_bring_lines_back() {
    let up = b"\x1b[A";
    let mut keys = b"one\rtwo\rtwo\r  \rhal".to_vec();
    keys.extend(up);
    keys.extend(up);
    keys.extend(up);
    keys.extend(b"\r");
    let mut all = ["one", "two", "two", "  "].map(line).to_vec();
    all.push(line("one"));
    assert_eq!(lines(&keys), all);
    // And what was half typed.
    assert_eq!(lines(b"one\rha\x1b[A\x1b[Blf\r"), [line("one"), line("half")]);
    assert_eq!(lines(b"one\r\x10!\r"), [line("one"), line("one!")]);
}

#[test]
fn history_is_bounded() {
    let mut editor = Editor::default();
    let mut row = Row::default();
    for n in 0..1000 {
        type_all(&mut editor, &mut row, format!("{n}\r").as_bytes());
    }
    assert_eq!(editor.history.len(), super::LINES);
}

#[test]
fn a_line_is_bounded() {
    let mut keys = vec![b'x'; LINE + 50];
    keys.push(b'\r');
    assert_eq!(lines(&keys), [line(&"x".repeat(LINE))]);
}

#[test]
fn ctrl_c_and_ctrl_d() {
    assert_eq!(lines(b"kill one\x03\x04"), [Key::Interrupt, Key::End]);
    assert_eq!(lines(b"ab\x01\x04\r"), [line("b")]);
    assert_eq!(lines(b"a\x0c"), [Key::Redraw]);
}

#[test]
fn sequences_without_meaning_are_swallowed() {
    assert_eq!(lines(b"a\x1b[15~\x1b[1;5C\x1b[?25h\x1bOP\x1bxb\r"), [line("ab")]);
    assert_eq!(lines(b"a\xc3\xa9\xffb\r"), [line("ab")]);
}

#[test]
fn drawing_again_shows_the_same() {
    let (mut editor, mut row) = (Editor::default(), Row::default());
    type_all(&mut editor, &mut row, b"kill one\x1b[D\x1b[D");
    let mut echo = Vec::new();
    editor.draw(&mut echo);
    let mut again = Row::default();
    again.show(&echo);
    assert_eq!((again.text(), again.cursor), (row.text(), row.cursor));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_terminal_shows_the_line(keys in prop::collection::vec(
        prop::sample::select(b"abc  \x01\x02\x04\x05\x06\x08\x0b\x0e\x10\x15\x17\x7f\r\x1b[ABCDHF3~".to_vec()),
        0..200,
    )) {
        let (mut editor, mut row) = (Editor::default(), Row::default());
        type_all(&mut editor, &mut row, &keys);
        prop_assert_eq!(row.text(), editor.line.trim_end());
        prop_assert_eq!(row.cursor, editor.cursor);
    }

    #[test]
    fn any_input_leaves_a_bounded_line(keys in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut editor = Editor::default();
        for key in keys {
            editor.key(key, &mut Vec::new());
            assert!(editor.line.len() <= LINE && editor.cursor <= editor.line.len());
            assert!(editor.line.is_ascii());
        }
    }
}
