//! A machine that runs under a script: the conversation meets the process.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::expect::{Conversation, Step};
use crate::ui::seconds;

/// How much is still read after a panic: its backtrace.
const AFTERMATH: Duration = Duration::from_secs(1);
/// Lines shown of a run that failed.
const TAIL: usize = 40;

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// The script is through.
    Done,
    /// Time is up.
    Timeout,
    /// The hypervisor reported a panic.
    Panic,
    /// The emulator ended by itself, with this code.
    Exit(Option<i32>),
}

/// A run that is over.
pub struct Finished {
    /// Why.
    pub end: End,
    /// What was said, and how far the script got.
    pub conversation: Conversation,
    /// How long it took.
    pub time: Duration,
    /// When each piece of text arrived: length of the text until then, time since the start.
    pub arrivals: Vec<(usize, Duration)>,
}

impl Finished {
    /// When a text was complete for the first time.
    #[must_use]
    pub fn time_of(&self, text: &str) -> Option<Duration> {
        self.time_at(self.conversation.text().find(text)? + text.len())
    }

    /// When the text had come up to this byte.
    #[must_use]
    pub fn time_at(&self, end: usize) -> Option<Duration> {
        self.arrivals.iter().find(|(length, _)| *length >= end).map(|(_, time)| *time)
    }

    /// Success, or what was awaited and what came instead.
    ///
    /// # Errors
    /// The script is not through.
    pub fn require_done(&self) -> Result<()> {
        let why = match &self.end {
            End::Done => return Ok(()),
            End::Timeout => format!("no success within {}", seconds(self.time)),
            End::Panic => "the hypervisor panicked".to_owned(),
            End::Exit(Some(code)) => format!("the machine ended early (QEMU's exit code {code})"),
            End::Exit(None) => "the emulator was killed".to_owned(),
        };
        let awaited = match self.conversation.awaited() {
            Some(text) => format!("; still awaited: {text:?}"),
            None => String::new(),
        };
        let tail = self.conversation.tail(TAIL);
        anyhow::bail!("{why}{awaited}\n--- last lines of the serial console ---\n{tail}\n---")
    }
}

/// Runs scripts against machines.
#[derive(Clone, Debug, Default)]
pub struct Session<'a> {
    /// Copy to the standard output.
    pub echo: bool,
    /// Copy to this file.
    pub log: Option<&'a Path>,
    /// Longest time; without it, as long as it takes.
    pub timeout: Option<Duration>,
    /// Whether a script without steps means: until the machine ends.
    pub to_the_end: bool,
}

impl Session<'_> {
    /// Runs a machine until the script is through, time is up, or it ends by itself.
    ///
    /// # Errors
    /// The emulator cannot be started, or the log not be written.
    pub fn run(&self, command: &mut Command, script: Vec<Step>) -> Result<Finished> {
        let start = Instant::now();
        let log = self.log.map(|path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        });
        let mut log = log.transpose()?;
        let mut machine = Running::start(command)?;
        let mut conversation = Conversation::new(script);
        let mut arrivals = Vec::new();
        let mut deadline = self.timeout.map(|t| start + t);
        let mut panicked = false;
        machine.send(&conversation.hear(&[]));
        let end = loop {
            if conversation.done() && !self.to_the_end {
                break End::Done;
            }
            match machine.receive(deadline) {
                Ok(bytes) => {
                    if self.echo {
                        echo(&bytes);
                    }
                    if let Some(log) = &mut log {
                        log.write_all(&bytes)?;
                    }
                    machine.send(&conversation.hear(&bytes));
                    arrivals.push((conversation.text().len(), start.elapsed()));
                }
                Err(RecvTimeoutError::Timeout) if panicked => break End::Panic,
                Err(RecvTimeoutError::Timeout) => break End::Timeout,
                Err(RecvTimeoutError::Disconnected) if panicked => break End::Panic,
                Err(RecvTimeoutError::Disconnected) => break End::Exit(machine.wait()?),
            }
            if conversation.panicked() && !panicked {
                panicked = true;
                deadline = Some(Instant::now() + AFTERMATH);
            }
        };
        Ok(Finished { end, conversation, time: start.elapsed(), arrivals })
    }
}

fn echo(bytes: &[u8]) {
    let mut stdout = std::io::stdout().lock();
    // Nobody reading is no reason to stop the machine.
    let _ = stdout.write_all(bytes).and_then(|()| stdout.flush());
}

/// The emulator's process; it ends with this value.
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: Receiver<Vec<u8>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        let input = child.stdin.take();
        let mut stdout = child.stdout.take().context("the emulator has no output")?;
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(n) = stdout.read(&mut buffer) {
                let bytes = buffer.get(..n).unwrap_or(&[]).to_vec();
                if n == 0 || sender.send(bytes).is_err() {
                    break;
                }
            }
        });
        Ok(Self { child, input, output })
    }

    fn receive(&self, deadline: Option<Instant>) -> Result<Vec<u8>, RecvTimeoutError> {
        match deadline {
            Some(deadline) => {
                self.output.recv_timeout(deadline.saturating_duration_since(Instant::now()))
            }
            None => self.output.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    fn send(&mut self, text: &str) {
        if let Some(input) = &mut self.input {
            // A machine that is gone shows at its output.
            let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        }
    }

    fn wait(&mut self) -> Result<Option<i32>> {
        Ok(self.child.wait().context("cannot wait for the emulator")?.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(shell: &str, script: Vec<Step>, timeout: u64) -> Finished {
        let session =
            Session { timeout: Some(Duration::from_millis(timeout)), ..Session::default() };
        session.run(Command::new("sh").args(["-c", shell]), script).unwrap()
    }

    fn expect(text: &str) -> Step {
        Step::Expect(text.to_owned())
    }

    #[test]
    fn script_talks_to_a_process() {
        let script = vec![expect("? "), Step::Send("42\n".to_owned()), expect("got 42")];
        let done = run("printf '? '; read x; echo got $x; exec sleep 60", script, 10_000);
        assert_eq!(done.end, End::Done);
        assert!(done.time_of("? ") <= done.time_of("got 42"));
        assert!(done.time_of("never").is_none());
    }

    #[test]
    fn early_end_is_told_with_code_and_last_words() {
        let done = run("echo last words; exit 35", vec![expect("never")], 10_000);
        assert_eq!(done.end, End::Exit(Some(35)));
        let error = done.require_done().unwrap_err().to_string();
        for part in ["35", "\"never\"", "last words"] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }

    #[test]
    fn timeout_is_told() {
        let done = run("exec sleep 60", vec![expect("never")], 100);
        assert_eq!(done.end, End::Timeout);
        assert!(done.require_done().is_err());
    }

    #[test]
    fn panic_ends_the_run_with_its_backtrace() {
        let shell = "echo 'PANIC at x'; sleep 0.2; echo trace; exec sleep 60";
        let done = run(shell, vec![expect("never")], 10_000);
        assert_eq!(done.end, End::Panic);
        assert!(done.conversation.text().contains("trace"));
    }
}
