//! Who may print when, and what typed characters mean.
//!
//! Log lines and the output of what is attached share one port. A log line never splits a line that
//! is just being written: it waits for that line's end, but not for long, as a prompt has none.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

use ipc::proto::ring::RECORD_TEXT;
use sysroot::num::{u64_of, usize_of};

use crate::keep::{Keep, OUTPUT, Source};
use crate::text::printable;

/// Bytes that wait for the port before it takes no more from anybody.
const ENOUGH: usize = OUTPUT / 2;
const _: () = assert!(ENOUGH + RECORD_TEXT + 256 < OUTPUT && HISTORY <= ENOUGH / 2);
/// Bytes of a console's log that are shown when it is attached.
const HISTORY: usize = 4 * 1024;
/// How long log lines wait for the end of a console's line, in milliseconds.
const HOLD_MS: u64 = 50;
/// The key that starts a command: Ctrl-].
pub const ESCAPE: u8 = 0x1d;
/// The log of the root task.
const ROOT: &str = "root";

/// What a typed character leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// It goes to the operator's session.
    Operator(u8),
    /// The operator's session was attached.
    Enter,
    /// Nothing more.
    Done,
}

/// What the port is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The operator's session.
    Operator,
    /// A console.
    Console(usize),
}

impl Target {
    /// As a number that is not zero.
    fn number(self) -> u64 {
        match self {
            Self::Operator => 1,
            Self::Console(n) => 2 + u64_of(n),
        }
    }

    fn from_number(number: u64) -> Option<Self> {
        match number {
            0 => None,
            1 => Some(Self::Operator),
            n => Some(Self::Console(usize_of(n - 2))),
        }
    }
}

/// One console.
#[derive(Debug)]
struct Console {
    name: String,
    log: usize,
}

/// A log line.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    /// When it was written, in milliseconds since boot.
    pub ms: u64,
    /// Whose line it is; the root task's where it is empty.
    pub name: &'a [u8],
    /// What it says.
    pub text: &'a [u8],
}

/// The multiplexer.
#[derive(Debug)]
pub struct Mux {
    keep: Keep,
    consoles: Vec<Console>,
    /// Since when a log line waits.
    waiting: Option<u64>,
    /// The escape key was typed.
    command: bool,
}

impl Mux {
    /// Goes on with what was kept.
    #[must_use]
    pub fn new(keep: Keep) -> Self {
        keep.log_of(ROOT);
        Self { keep, consoles: Vec::new(), waiting: None, command: false }
    }

    /// What was kept.
    #[must_use]
    pub const fn keep(&self) -> &Keep {
        &self.keep
    }

    /// Adds a console; the first one is attached at first. Returns its index.
    pub fn add(&mut self, name: &str) -> usize {
        let log = self.keep.log_of(name);
        self.consoles.push(Console { name: name.into(), log });
        self.consoles.len() - 1
    }

    /// What typed characters go to.
    #[must_use]
    pub fn attached(&self) -> Target {
        let (attached, _) = self.keep.attached();
        match Target::from_number(attached).unwrap_or(Target::Console(0)) {
            Target::Console(n) if n < self.consoles.len() => Target::Console(n),
            _ => Target::Operator,
        }
    }

    /// Names of the consoles.
    pub fn consoles(&self) -> impl Iterator<Item = &str> {
        self.consoles.iter().map(|c| c.name.as_str())
    }

    /// Whether the port takes more from anybody.
    #[must_use]
    pub fn has_room(&self) -> bool {
        OUTPUT - self.keep.room() < ENOUGH
    }

    /// Whether a log line that waits can be printed now: there is room, and it splits no line, or
    /// has waited long enough. A prompt that is drawn again behind it is no such line.
    pub fn may_log(&mut self, now: u64, at_prompt: bool) -> bool {
        if !self.has_room() {
            return false;
        }
        let since = *self.waiting.get_or_insert(now);
        self.at_start() || self.is_prompt(at_prompt) || now >= since + HOLD_MS
    }

    /// Prints a log line that came from a source, which is told then. Whether the operator's prompt
    /// is to be drawn again.
    pub fn log(
        &mut self,
        line: &Line<'_>,
        at_prompt: bool,
        source: Source,
        tell: impl FnOnce(),
    ) -> bool {
        self.waiting = None;
        let (s, ms) = (line.ms / 1000, line.ms % 1000);
        let (name, text) = (printable(line.name), printable(line.text));
        let (title, text) = match name.as_str() {
            "" => (ROOT, format!("[{s:5}.{ms:03}] {text}")),
            name => (name, format!("[{s:5}.{ms:03}] [{name}] {text}")),
        };
        let log = self.keep.log_of(title);
        let redraw = self.is_prompt(at_prompt) && !self.at_start();
        let before: &[u8] = match () {
            () if self.at_start() => b"",
            // Over the prompt: to the start of the row, which is erased.
            () if redraw => b"\r\x1b[K",
            () => b"\r\n",
        };
        let text = text.as_bytes();
        let split: &[u8] = if self.log_is_at_start(log) { b"" } else { b"\r\n" };
        self.keep.print(
            &[before, text, b"\r\n"],
            Some((log, &[split, text, b"\r\n"])),
            source,
            tell,
        );
        redraw
    }

    /// How many of these bytes of a console can be printed now.
    #[must_use]
    pub fn accepts(&self, index: usize, bytes: &[u8]) -> usize {
        if self.attached() != Target::Console(index) {
            return bytes.len();
        }
        match bytes.iter().position(|&b| b == b'\n') {
            _ if !self.has_room() => 0,
            // A log line goes behind the first line that ends here.
            Some(end) if self.waiting.is_some() => end + 1,
            _ => bytes.len(),
        }
    }

    /// Output of a console that came from a source, which is told then.
    pub fn console(&self, index: usize, bytes: &[u8], source: Source, tell: impl FnOnce()) {
        let attached = self.attached() == Target::Console(index);
        let log = self.consoles.get(index).map(|c| c.log);
        let port: &[&[u8]] = if attached { &[bytes] } else { &[] };
        self.keep.print(port, log.zip(Some(&[bytes][..])), source, tell);
    }

    /// Output of the operator's session, while that is attached; how many bytes were taken.
    pub fn operator(&self, bytes: &[u8]) -> usize {
        if self.attached() != Target::Operator || !self.has_room() {
            return 0;
        }
        let count = bytes.len().min(OUTPUT - ENOUGH);
        self.own(&[bytes.get(..count).unwrap_or(&[])]);
        count
    }

    /// When [`Self::may_log`] changes by time alone.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        self.waiting.filter(|_| self.has_room()).map(|since| since + HOLD_MS)
    }

    /// A typed character.
    pub fn typed(&mut self, byte: u8) -> Typed {
        if mem::take(&mut self.command) {
            return self.command(byte);
        }
        if byte == ESCAPE {
            self.command = true;
            return Typed::Done;
        }
        self.pass(byte)
    }

    fn pass(&self, byte: u8) -> Typed {
        match self.attached() {
            Target::Operator => return Typed::Operator(byte),
            Target::Console(index) => self.keep.type_to(index, byte),
        }
        Typed::Done
    }

    fn command(&mut self, byte: u8) -> Typed {
        match byte {
            // Twice: the character itself.
            ESCAPE => return self.pass(byte),
            b'1'..=b'9' => return self.attach(usize::from(byte - b'1')),
            b'o' | b'd' => return self.enter(),
            b'l' => self.list(),
            _ => self.say(
                "Ctrl-] then: o operator, 1-9 console, l list of consoles, d detach, Ctrl-] the \
                 key itself",
            ),
        }
        self.again()
    }

    /// Something was printed over the operator's line.
    fn again(&self) -> Typed {
        match self.attached() {
            // Ctrl-L
            Target::Operator => Typed::Operator(0x0c),
            Target::Console(_) => Typed::Done,
        }
    }

    fn list(&self) {
        if self.consoles.is_empty() {
            return self.say("there are no consoles");
        }
        for (n, console) in self.consoles.iter().enumerate() {
            let mark = if self.attached() == Target::Console(n) { '*' } else { ' ' };
            self.say(&format!("{mark}{} {}", n + 1, console.name));
        }
    }

    /// Attaches to the operator's session.
    pub fn enter(&mut self) -> Typed {
        if self.attached() != Target::Operator {
            self.switch(Target::Operator);
            if !self.at_start() {
                self.own(&[b"\r\n"]);
            }
        }
        Typed::Enter
    }

    /// Attaches to a console and shows the end of its log.
    pub fn attach(&mut self, index: usize) -> Typed {
        let Some(console) = self.consoles.get(index) else {
            self.say("no such console");
            return self.again();
        };
        let log = console.log;
        self.say(&format!("--- console {}: {} ---", index + 1, console.name));
        self.switch(Target::Console(index));
        let (begin, end) = self.keep.extent(log);
        let mut history = [0; HISTORY];
        let room = self.keep.room().saturating_sub(ENOUGH / 2).min(HISTORY);
        let from = begin.max(end.saturating_sub(u64_of(room)));
        let count = self.keep.read(log, from, history.get_mut(..room).unwrap_or(&mut []));
        let history = history.get(..count).unwrap_or(&[]);
        // From the start of a line on, where that is not the log's own.
        let first = history.iter().position(|&b| b == b'\n').map_or(0, |n| n + 1);
        let skip = if from == begin { 0 } else { first };
        self.own(&[history.get(skip..).unwrap_or(&[])]);
        Typed::Done
    }

    /// Attaches to the console before the operator's session; whether there is one.
    pub fn back(&mut self) -> bool {
        let (_, before) = self.keep.attached();
        let before = match Target::from_number(before) {
            Some(Target::Console(n)) if n < self.consoles.len() => n,
            _ => 0,
        };
        if self.consoles.is_empty() {
            return false;
        }
        self.attach(before);
        true
    }

    fn switch(&mut self, to: Target) {
        self.keep.attach(to.number(), self.attached().number());
    }

    /// A line of the multiplexer's own.
    fn say(&self, text: &str) {
        // Keys that are pressed faster than the port works get no answer.
        if self.keep.room() > ENOUGH / 2 {
            let before: &[u8] = if self.at_start() { b"" } else { b"\r\n" };
            self.own(&[before, printable(text.as_bytes()).as_bytes(), b"\r\n"]);
        }
    }

    fn own(&self, parts: &[&[u8]]) {
        self.keep.print(parts, None, Source::Own, || {});
    }

    /// Whether what was printed last is a prompt of the operator.
    fn is_prompt(&self, at_prompt: bool) -> bool {
        at_prompt && self.attached() == Target::Operator
    }

    fn at_start(&self) -> bool {
        self.keep.last().is_none_or(|b| b == b'\n')
    }

    fn log_is_at_start(&self, log: usize) -> bool {
        let (_, end) = self.keep.extent(log);
        let mut last = [b'\n'];
        self.keep.read(log, end.saturating_sub(1), &mut last);
        last == [b'\n']
    }
}

#[cfg(test)]
mod tests;
