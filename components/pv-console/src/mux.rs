//! Who may print when, and what typed characters mean.
//!
//! Log lines and the output of the attached console share one port. A log line never splits a line
//! of the console that is just being written: it waits for that line's end, but not for long, as a
//! prompt has none.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

/// Bytes that wait for the port at most; sources wait when it is reached.
const OUTPUT: usize = 8 * 1024;
/// Bytes of a console's output that are kept for when it is attached.
const HISTORY: usize = 8 * 1024;
/// Log lines that wait for the end of a console's line.
const HELD_LINES: usize = 64;
/// How long they wait after the last output, in milliseconds.
const HOLD_MS: u64 = 50;
/// The key that starts a command: Ctrl-].
pub const ESCAPE: u8 = 0x1d;

/// What a typed character leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Typed {
    /// It goes to this console.
    To(usize, u8),
    /// Nothing more.
    Done,
}

/// One console.
#[derive(Debug)]
struct Console {
    name: String,
    history: VecDeque<u8>,
}

/// The multiplexer.
#[derive(Debug, Default)]
pub struct Mux {
    output: VecDeque<u8>,
    consoles: Vec<Console>,
    attached: Option<usize>,
    /// The last character on the port ended a line.
    at_start: bool,
    /// When the attached console printed last.
    printed: u64,
    held: VecDeque<String>,
    /// The escape key was typed.
    command: bool,
}

impl Mux {
    /// Nothing attached.
    #[must_use]
    pub fn new() -> Self {
        Self { at_start: true, ..Self::default() }
    }

    /// Adds a console; the first one is attached. Returns its index.
    pub fn add(&mut self, name: &str) -> usize {
        let index = self.consoles.len();
        self.consoles.push(Console { name: name.into(), history: VecDeque::new() });
        if self.attached.is_none() {
            self.attached = Some(index);
        }
        index
    }

    /// The console that typed characters go to.
    #[must_use]
    pub const fn attached(&self) -> Option<usize> {
        self.attached
    }

    /// Whether more output is taken now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.output.len() < OUTPUT && self.held.len() < HELD_LINES
    }

    /// A log line: of the root task where `name` is empty. `ms` is when it was written.
    pub fn log(&mut self, now: u64, ms: u64, name: &[u8], text: &[u8]) {
        let (name, text) = (String::from_utf8_lossy(name), String::from_utf8_lossy(text));
        let (s, ms) = (ms / 1000, ms % 1000);
        let line = match &*name {
            "" => format!("[{s:5}.{ms:03}] {text}"),
            name => format!("[{s:5}.{ms:03}] [{name}] {text}"),
        };
        if !self.at_start && now < self.printed + HOLD_MS && self.held.len() < HELD_LINES {
            self.held.push_back(line);
        } else {
            self.release();
            self.line(&line);
        }
    }

    /// Output of a console.
    pub fn console(&mut self, now: u64, index: usize, bytes: &[u8]) {
        let Some(console) = self.consoles.get_mut(index) else { return };
        console.history.extend(bytes);
        let excess = console.history.len().saturating_sub(HISTORY);
        console.history.drain(..excess);
        if self.attached != Some(index) {
            return;
        }
        self.printed = now;
        // Held lines go behind the first line that ends here.
        let end = bytes.iter().position(|&b| b == b'\n').map_or(0, |n| n + 1);
        let (first, rest) = bytes.split_at_checked(end).unwrap_or((bytes, &[]));
        self.put(first);
        if self.at_start {
            self.release();
        }
        self.put(rest);
    }

    /// When [`Self::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<u64> {
        (!self.held.is_empty()).then_some(self.printed + HOLD_MS)
    }

    /// Prints lines that have waited long enough.
    pub fn tick(&mut self, now: u64) {
        if self.deadline().is_some_and(|d| now >= d) {
            self.release();
        }
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
        self.attached.map_or(Typed::Done, |index| Typed::To(index, byte))
    }

    /// Bytes for the port; [`Self::sent`] takes them out.
    #[must_use]
    pub fn pending(&self) -> &[u8] {
        self.output.as_slices().0
    }

    /// So many bytes were sent.
    pub fn sent(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
    }

    fn command(&mut self, byte: u8) -> Typed {
        match byte {
            // Twice: the character itself.
            ESCAPE => return self.attached.map_or(Typed::Done, |i| Typed::To(i, byte)),
            b'1'..=b'9' => self.attach(usize::from(byte - b'1')),
            b'l' => self.list(),
            _ => {
                self.line(
                    "Ctrl-] then: 1-9 attach to a console, l list them, Ctrl-] the key itself",
                );
            }
        }
        Typed::Done
    }

    fn list(&mut self) {
        let lines: Vec<String> = (1..)
            .zip(&self.consoles)
            .map(|(n, c)| {
                let mark = if self.attached == Some(n - 1) { '*' } else { ' ' };
                format!("{mark}{n} {}", c.name)
            })
            .collect();
        for line in lines {
            self.line(&line);
        }
    }

    fn attach(&mut self, index: usize) {
        let Some(console) = self.consoles.get(index) else {
            return self.line("no such console");
        };
        let title = format!("--- console {}: {} ---", index + 1, console.name);
        let history: Vec<u8> = console.history.iter().copied().collect();
        self.line(&title);
        self.attached = Some(index);
        self.put(&history);
    }

    /// Prints all held lines.
    fn release(&mut self) {
        for line in mem::take(&mut self.held) {
            self.line(&line);
        }
    }

    /// A line of its own. Control characters, with which it could pretend to be something else,
    /// are not passed on.
    fn line(&mut self, text: &str) {
        if !self.at_start {
            self.put(b"\r\n");
        }
        let clean = text.chars().map(|c| if c.is_control() && c != '\t' { '?' } else { c });
        let clean: String = clean.collect();
        self.put(clean.as_bytes());
        self.put(b"\r\n");
    }

    fn put(&mut self, bytes: &[u8]) {
        self.output.extend(bytes);
        if let Some(last) = bytes.last() {
            self.at_start = *last == b'\n';
        }
    }
}

#[cfg(test)]
mod tests;
