//! Text of others on the operator's terminal.

use alloc::string::String;

const ESC: char = '\x1b';

/// The text without anything that a terminal obeys, with which it could pretend to be something
/// else: control sequences are left out, other control characters but tabs become question marks.
#[must_use]
pub fn printable(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut chars = text.trim_end_matches('\r').chars().peekable();
    let mut clean = String::new();
    while let Some(c) = chars.next() {
        if c == ESC && chars.next_if_eq(&'[').is_some() {
            // Parameters, and the character that ends them (ECMA-48, 5.4).
            while chars.next_if(|c| (' '..='?').contains(c)).is_some() {}
            let _ = chars.next_if(|c| ('@'..='~').contains(c));
        } else if c == '\r' || c == ESC {
            // Alone they show nothing.
        } else {
            clean.push(if c.is_control() && c != '\t' { '?' } else { c });
        }
    }
    clean
}

#[cfg(test)]
mod tests;
