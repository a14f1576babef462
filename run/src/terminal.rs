//! The user's terminal on a machine's serial port.

use std::io::{Read, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustix::termios::{self, OptionalActions, Termios};

use crate::session::{End, Running};

/// Ctrl-A: what follows is for this tool.
const ESCAPE: u8 = 1;
/// How long a key may wait while the machine is silent.
const TICK: Duration = Duration::from_millis(20);

/// Gives the terminal to a machine until that ends or the user leaves it.
///
/// # Errors
/// There is no terminal, time is up, or the log cannot be written.
pub fn sit_at(
    mut machine: Running,
    timeout: Option<Duration>,
    mut log: Option<&mut dyn Write>,
) -> Result<End> {
    let raw = Raw::enter()?;
    let typed = keyboard();
    let mut keys = Keys::default();
    let deadline = timeout.map(|t| Instant::now() + t);
    let mut stdout = std::io::stdout();
    loop {
        if deadline.is_some_and(|d| Instant::now() >= d) {
            drop(raw);
            bail!("time is up");
        }
        for bytes in typed.try_iter() {
            let sent = keys.take(&bytes);
            machine.send_bytes(&sent);
            if keys.left {
                return Ok(End::Done);
            }
        }
        match machine.receive(Some(Instant::now() + TICK)) {
            Ok(bytes) => {
                stdout.write_all(&bytes)?;
                stdout.flush()?;
                if let Some(log) = &mut log {
                    log.write_all(&bytes)?;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(End::Exit(machine.wait()?)),
        }
    }
}

/// The terminal passes on each key as it is; with the value's end it is as before.
struct Raw(Termios);

impl Raw {
    fn enter() -> Result<Self> {
        let before = termios::tcgetattr(std::io::stdin()).context("no terminal")?;
        let mut raw = before.clone();
        raw.make_raw();
        termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing.
        let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &self.0);
    }
}

/// What is typed, as it is typed.
fn keyboard() -> Receiver<Vec<u8>> {
    let (sender, typed) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(n @ 1..) = std::io::stdin().lock().read(&mut buffer) {
            if sender.send(buffer.get(..n).unwrap_or(&[]).to_vec()).is_err() {
                break;
            }
        }
    });
    typed
}

/// Tells the user's wish to leave from what is for the machine.
#[derive(Default)]
struct Keys {
    escaped: bool,
    left: bool,
}

impl Keys {
    /// What of these bytes is for the machine.
    fn take(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut sent = Vec::new();
        for &byte in bytes {
            if self.left {
                break;
            }
            match (std::mem::take(&mut self.escaped), byte) {
                (false, ESCAPE) => self.escaped = true,
                (true, b'x') => self.left = true,
                // Escaped, it is itself.
                (_, byte) => sent.push(byte),
            }
        }
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_reach_the_machine_but_for_the_escape() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"ls\r\x03"), b"ls\r\x03");
        assert_eq!(keys.take(b"a\x01\x01b"), b"a\x01b");
        assert!(!keys.left);
    }

    #[test]
    fn escape_and_x_leave() {
        let mut keys = Keys::default();
        assert_eq!(keys.take(b"a\x01"), b"a");
        assert_eq!(keys.take(b"xb"), b"");
        assert!(keys.left);
    }
}
