//! A line that is being typed on a terminal.
//!
//! The echo moves the cursor with backspaces only, so any terminal will do.

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::Vec;
use core::mem;

/// Longest line.
pub const LINE: usize = 200;
/// Lines that the arrow keys bring back.
const LINES: usize = 32;

const BACKSPACE: u8 = 0x08;
const BELL: u8 = 0x07;
const ESC: u8 = 0x1b;

/// What a typed character leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// Nothing yet.
    Editing,
    /// The line is complete. The cursor is at the start of the next one.
    Line(String),
    /// Ctrl-C: the line was dropped; the cursor is at the start of the next one.
    Interrupt,
    /// Ctrl-D on an empty line.
    End,
    /// Ctrl-L: the whole line is to be drawn again.
    Redraw,
}

/// Where in an escape sequence (ECMA-48, 5.4) the input is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Sequence {
    #[default]
    None,
    Escape,
    /// With the number that it begins with.
    Parameter(u8),
    /// Of a kind that has one more character.
    Single,
}

/// The editor.
#[derive(Debug, Default)]
pub struct Editor {
    /// ASCII only.
    line: String,
    cursor: usize,
    /// The oldest first.
    history: VecDeque<String>,
    /// How many lines back in the history the line is from, and what was typed before.
    back: usize,
    typed: String,
    sequence: Sequence,
    /// The last character was a carriage return, with which a line feed belongs.
    returned: bool,
}

impl Editor {
    /// Takes a typed character and appends to `echo` what the terminal is to show.
    pub fn key(&mut self, byte: u8, echo: &mut Vec<u8>) -> Key {
        let returned = mem::replace(&mut self.returned, byte == b'\r');
        match mem::take(&mut self.sequence) {
            Sequence::None => {}
            sequence => {
                self.escape(sequence, byte, echo);
                return Key::Editing;
            }
        }
        match byte {
            b'\n' if returned => {}
            b'\r' | b'\n' => {
                echo.extend(b"\r\n");
                return Key::Line(self.finish());
            }
            0x03 => {
                echo.extend(b"^C\r\n");
                self.drop_line();
                return Key::Interrupt;
            }
            0x04 if self.line.is_empty() => return Key::End,
            0x0c => return Key::Redraw,
            ESC => self.sequence = Sequence::Escape,
            BACKSPACE | 0x7f => self.erase(self.cursor.saturating_sub(1), self.cursor, echo),
            0x01 => self.go(0, echo),
            0x02 => self.go(self.cursor.saturating_sub(1), echo),
            0x04 => self.erase(self.cursor, self.cursor.saturating_add(1), echo),
            0x05 => self.go(self.line.len(), echo),
            0x06 => self.go(self.cursor.saturating_add(1), echo),
            0x0b => self.erase(self.cursor, self.line.len(), echo),
            0x0e => self.recall(self.back.checked_sub(1), echo),
            0x10 => self.recall(self.back.checked_add(1), echo),
            0x15 => self.erase(0, self.cursor, echo),
            0x17 => self.erase(self.word(), self.cursor, echo),
            b' '..=b'~' if self.line.len() < LINE => self.insert(char::from(byte), echo),
            _ => echo.push(BELL),
        }
        Key::Editing
    }

    /// Appends what shows the line on a terminal whose cursor is where the line begins.
    pub fn draw(&self, echo: &mut Vec<u8>) {
        echo.extend(self.line.as_bytes());
        back(self.line.len() - self.cursor, echo);
    }

    fn escape(&mut self, sequence: Sequence, byte: u8, echo: &mut Vec<u8>) {
        match (sequence, byte) {
            (Sequence::Escape, b'[') => self.sequence = Sequence::Parameter(0),
            (Sequence::Escape, b'O') => self.sequence = Sequence::Single,
            (Sequence::Parameter(n), b'0'..=b'9') => {
                let n = n.saturating_mul(10).saturating_add(byte - b'0');
                self.sequence = Sequence::Parameter(n);
            }
            (Sequence::Parameter(_), b' '..=b'?') => self.sequence = Sequence::Parameter(u8::MAX),
            (Sequence::Parameter(0 | 1) | Sequence::Single, b'A') => {
                self.recall(self.back.checked_add(1), echo);
            }
            (Sequence::Parameter(0 | 1) | Sequence::Single, b'B') => {
                self.recall(self.back.checked_sub(1), echo);
            }
            (Sequence::Parameter(0 | 1) | Sequence::Single, b'C') => {
                self.go(self.cursor.saturating_add(1), echo);
            }
            (Sequence::Parameter(0 | 1) | Sequence::Single, b'D') => {
                self.go(self.cursor.saturating_sub(1), echo);
            }
            (Sequence::Parameter(0) | Sequence::Single, b'H')
            | (Sequence::Parameter(1 | 7), b'~') => self.go(0, echo),
            (Sequence::Parameter(0) | Sequence::Single, b'F')
            | (Sequence::Parameter(4 | 8), b'~') => self.go(self.line.len(), echo),
            (Sequence::Parameter(3), b'~') => {
                self.erase(self.cursor, self.cursor.saturating_add(1), echo);
            }
            // A key that means nothing here.
            _ => {}
        }
    }

    fn finish(&mut self) -> String {
        let line = mem::take(&mut self.line);
        self.drop_line();
        if !line.trim().is_empty() && self.history.back() != Some(&line) {
            if self.history.len() >= LINES {
                self.history.pop_front();
            }
            self.history.push_back(line.clone());
        }
        line
    }

    fn drop_line(&mut self) {
        self.line.clear();
        (self.cursor, self.back) = (0, 0);
    }

    fn go(&mut self, to: usize, echo: &mut Vec<u8>) {
        let to = to.min(self.line.len());
        match self.line.get(self.cursor..to) {
            Some(passed) => echo.extend(passed.as_bytes()),
            None => back(self.cursor - to, echo),
        }
        self.cursor = to;
    }

    fn insert(&mut self, c: char, echo: &mut Vec<u8>) {
        self.line.insert(self.cursor, c);
        let rest = self.line.get(self.cursor..).unwrap_or("");
        echo.extend(rest.as_bytes());
        self.cursor += 1;
        back(rest.len() - 1, echo);
    }

    fn erase(&mut self, from: usize, to: usize, echo: &mut Vec<u8>) {
        let to = to.min(self.line.len());
        if from >= to {
            return;
        }
        self.go(from, echo);
        self.line.drain(from..to);
        let rest = self.line.get(from..).unwrap_or("");
        echo.extend(rest.as_bytes());
        echo.extend(core::iter::repeat_n(b' ', to - from));
        back(rest.len() + to - from, echo);
    }

    /// Where the word before the cursor begins.
    fn word(&self) -> usize {
        let before = self.line.get(..self.cursor).unwrap_or("").trim_end();
        before.rfind(' ').map_or(0, |space| space + 1)
    }

    /// Replaces the line by one of the history.
    fn recall(&mut self, back: Option<usize>, echo: &mut Vec<u8>) {
        let Some(back) = back.filter(|&n| n <= self.history.len()) else {
            return echo.push(BELL);
        };
        if self.back == 0 {
            self.typed.clone_from(&self.line);
        }
        self.back = back;
        let at = self.history.len() - back;
        let line = self.history.get(at).unwrap_or(&self.typed).clone();
        self.erase(0, self.line.len(), echo);
        echo.extend(line.as_bytes());
        (self.cursor, self.line) = (line.len(), line);
    }
}

fn back(count: usize, echo: &mut Vec<u8>) {
    echo.extend(core::iter::repeat_n(BACKSPACE, count));
}

#[cfg(test)]
mod tests;
