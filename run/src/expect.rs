//! A conversation with the machine over its serial port: texts to wait for and texts to send,
//! in order. Holds no stream itself: bytes go in, bytes to send come out.

use std::collections::VecDeque;

/// One step of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for this text.
    Expect(String),
    /// Wait for the texts of each list in order; the lists stand side by side.
    Together(Vec<VecDeque<String>>),
    /// Send this text.
    Send(String),
}

/// Line that the hypervisor's panic handler begins with.
pub const PANIC: &str = "PANIC";

/// What the machine said, without carriage returns, and how far the script got.
pub struct Conversation {
    steps: VecDeque<Step>,
    /// Everything that was said.
    text: String,
    /// Bytes of a character that is not complete yet.
    rest: Vec<u8>,
    next: Search,
    /// The same for each list of a step that has several, while it is awaited.
    side_by_side: Vec<Search>,
    /// Up to where panics were looked for; none where the script waits for one.
    looked: Option<usize>,
    panicked: bool,
}

impl Conversation {
    /// Starts a script.
    #[must_use]
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps: VecDeque<Step> = steps.into_iter().collect();
        let awaited = steps.iter().any(|s| matches!(s, Step::Expect(t) if t.contains(PANIC)));
        Self {
            steps,
            text: String::new(),
            rest: Vec::new(),
            next: Search::default(),
            side_by_side: Vec::new(),
            looked: (!awaited).then_some(0),
            panicked: false,
        }
    }

    /// Takes what the machine said and returns what it is to be sent.
    pub fn hear(&mut self, bytes: &[u8]) -> String {
        self.rest.extend_from_slice(bytes);
        self.take_text();
        let mut send = String::new();
        loop {
            match self.steps.front_mut() {
                Some(Step::Send(text)) => send += text,
                Some(Step::Expect(text)) => {
                    if !self.next.find(&self.text, text) {
                        break;
                    }
                }
                Some(Step::Together(lists)) => {
                    self.side_by_side.resize(lists.len(), self.next);
                    for (list, search) in lists.iter_mut().zip(&mut self.side_by_side) {
                        while list.front().is_some_and(|text| search.find(&self.text, text)) {
                            list.pop_front();
                        }
                    }
                    if lists.iter().any(|list| !list.is_empty()) {
                        break;
                    }
                    let last = self.side_by_side.drain(..).max_by_key(|search| search.from);
                    self.next = last.map_or(self.next, |last| Search::at(last.from));
                }
                None => break,
            }
            self.steps.pop_front();
        }
        self.look_for_panic();
        send
    }

    /// Whether every step is done.
    #[must_use]
    pub fn done(&self) -> bool {
        self.steps.is_empty()
    }

    /// Whether the hypervisor reported a panic that the script does not wait for.
    #[must_use]
    pub fn panicked(&self) -> bool {
        self.panicked
    }

    /// The text that is awaited.
    #[must_use]
    pub fn awaited(&self) -> Option<&str> {
        self.steps.iter().find_map(|step| match step {
            Step::Expect(text) => Some(text.as_str()),
            Step::Together(lists) => lists.iter().find_map(|list| list.front()).map(String::as_str),
            Step::Send(_) => None,
        })
    }

    /// Everything that was said.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The last lines of it.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let all: Vec<&str> = self.text.lines().collect();
        let tail = all.get(all.len().saturating_sub(lines)..).unwrap_or(&[]);
        tail.join("\n")
    }

    /// Moves complete characters to the text; what is no UTF-8 is replaced.
    fn take_text(&mut self) {
        let complete = match std::str::from_utf8(&self.rest) {
            Ok(_) => self.rest.len(),
            // Cut in the middle of a character: the rest of it comes.
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            Err(_) => self.rest.len(),
        };
        let bytes: Vec<u8> = self.rest.drain(..complete).collect();
        self.text.extend(String::from_utf8_lossy(&bytes).chars().filter(|&c| c != '\r'));
    }

    fn look_for_panic(&mut self) {
        let Some(looked) = self.looked else { return };
        // Whole lines only, so that the marker cannot be missed at a cut.
        let new = self.text.get(looked..).unwrap_or("");
        let Some(end) = new.rfind('\n') else { return };
        self.panicked |= new.get(..end).unwrap_or("").contains(PANIC);
        self.looked = Some(looked + end + 1);
    }
}

/// How far a text was searched for what comes next.
#[derive(Clone, Copy, Default)]
struct Search {
    /// Where the next occurrence may begin.
    from: usize,
    /// Up to where it was looked for: a machine that says much is not read again and again.
    sought: usize,
}

impl Search {
    const fn at(from: usize) -> Self {
        Self { from, sought: from }
    }

    /// Whether there is another occurrence; the search goes on behind it.
    fn find(&mut self, text: &str, what: &str) -> bool {
        // The end of what was sought can be its beginning.
        let again = self.sought.saturating_sub(what.len()).max(self.from);
        let start = (self.from..=again).rev().find(|&n| text.is_char_boundary(n));
        let start = start.unwrap_or(self.from);
        let found = text.get(start..).and_then(|rest| rest.find(what));
        match found {
            Some(at) => *self = Self::at(start + at + what.len()),
            None => self.sought = text.len(),
        }
        found.is_some()
    }
}

/// Reads the escapes of `--send` and `--expect`: `\n`, `\r`, `\t`, `\e`, `\\` and `\xNN`.
///
/// # Errors
/// Names the escape that is none.
pub fn unescape(text: &str) -> Result<String, String> {
    let mut out = String::new();
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        out.push(match chars.next() {
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('e') => '\x1b',
            Some('\\') => '\\',
            Some('x') => {
                let digits: String = chars.by_ref().take(2).collect();
                let code = u8::from_str_radix(&digits, 16).ok().filter(u8::is_ascii);
                code.map(char::from).ok_or_else(|| format!("\\x{digits} is no ASCII character"))?
            }
            Some(other) => return Err(format!("unknown escape \\{other}")),
            None => return Err("a lone \\ at the end".to_owned()),
        });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expect(text: &str) -> Step {
        Step::Expect(text.to_owned())
    }

    fn send(text: &str) -> Step {
        Step::Send(text.to_owned())
    }

    #[test]
    fn steps_are_taken_in_order() {
        let mut c = Conversation::new([expect("login: "), send("root\n"), expect("# ")]);
        assert_eq!(c.hear(b"# is no prompt yet\r\nlog"), "");
        assert_eq!(c.awaited(), Some("login: "));
        assert_eq!(c.hear(b"in: "), "root\n");
        assert!(!c.done());
        assert_eq!(c.hear(b"root\r\n# "), "");
        assert!(c.done());
    }

    #[test]
    fn a_text_is_matched_once() {
        let mut c = Conversation::new([expect("# "), expect("# ")]);
        c.hear(b"# ");
        assert!(!c.done());
        c.hear(b"# ");
        assert!(c.done());
    }

    #[test]
    fn lists_stand_side_by_side() {
        let list = |texts: &[&str]| texts.iter().map(|t| (*t).to_owned()).collect();
        let lists = vec![list(&["a1", "a2", "a3"]), list(&["b", "b"])];
        let mut c = Conversation::new([expect("go"), Step::Together(lists), expect("b")]);
        c.hear(b"a1 go b a2 a1 ");
        assert_eq!(c.awaited(), Some("a2"), "the first a2 came before a1");
        c.hear(b"a2 b b a3 ");
        assert_eq!(c.awaited(), Some("b"), "what comes next comes behind all lists");
        c.hear(b"b");
        assert!(c.done());
    }

    #[test]
    fn several_texts_in_one_piece_are_all_found() {
        let mut c = Conversation::new([expect("a"), send("1"), send("2"), expect("b")]);
        assert_eq!(c.hear(b"xxaxxb"), "12");
        assert!(c.done());
    }

    #[test]
    fn a_text_that_comes_in_pieces_is_found() {
        let mut c = Conversation::new([expect("\u{e9}ab\u{e9}ac"), send("1"), expect("ab")]);
        for piece in ["\u{e9}", "ab", "\u{e9}", "ab\u{e9}a", ""] {
            assert_eq!(c.hear(piece.as_bytes()), "");
        }
        assert_eq!(c.hear(b"c a"), "1");
        assert!(!c.done(), "what came before does not count");
        c.hear(b"b");
        assert!(c.done());
    }

    #[test]
    fn script_that_begins_with_a_send_speaks_first() {
        let mut c = Conversation::new([send("hello")]);
        assert_eq!(c.hear(b""), "hello");
        assert!(c.done());
    }

    #[test]
    fn line_ends_do_not_depend_on_the_terminal() {
        let mut c = Conversation::new([expect("one\ntwo")]);
        c.hear(b"one\r\ntwo");
        assert!(c.done());
    }

    #[test]
    fn characters_cut_in_two_come_whole() {
        let mut c = Conversation::new([expect("\u{e9}")]);
        c.hear(b"caf\xc3");
        c.hear(b"\xa9");
        assert!(c.done());
        c.hear(b"\xff\xfe ok");
        assert!(c.text().ends_with("\u{fffd}\u{fffd} ok"));
    }

    #[test]
    fn panic_is_seen_in_a_whole_line() {
        let mut c = Conversation::new([expect("never")]);
        c.hear(b"cpu0: PAN");
        assert!(!c.panicked());
        c.hear(b"IC at x.rs:1");
        assert!(!c.panicked(), "the line goes on");
        c.hear(b"\r\n");
        assert!(c.panicked());
    }

    #[test]
    fn a_panic_that_is_awaited_is_none() {
        let mut c = Conversation::new([expect("PANIC"), expect("more")]);
        c.hear(b"PANIC here\n");
        assert!(!c.done());
        assert!(!c.panicked());
    }

    #[test]
    fn tail_gives_the_last_lines() {
        let mut c = Conversation::new([]);
        c.hear(b"1\n2\n3\n4");
        assert_eq!(c.tail(2), "3\n4");
        assert_eq!(c.tail(40), "1\n2\n3\n4");
    }

    #[test]
    fn escapes_are_read() {
        assert_eq!(unescape(r"a\n\r\t\\\x41\e").as_deref(), Ok("a\n\r\t\\A\x1b"));
        assert!(unescape(r"\q").is_err());
        assert!(unescape(r"\xzz").is_err());
        assert!(unescape("end\\").is_err());
    }
}
