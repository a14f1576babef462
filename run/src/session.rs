//! A machine that runs under a script: the conversation meets the process.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::expect::{Conversation, Step};
use crate::symbols::Symbols;
use crate::ui::seconds;

/// How much is still read after a panic: its backtrace.
const AFTERMATH: Duration = Duration::from_secs(1);
/// How long an emulator may take until it connects its serial port.
const CONNECT: Duration = Duration::from_secs(60);
/// Bytes that are looked at together.
const AT_ONCE: usize = 64 << 10;
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
    /// The emulator gave up, for this reason.
    Stopped(String),
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
            End::Exit(Some(code)) => {
                format!("the machine ended early (the emulator's exit code {code})")
            }
            End::Exit(None) => "the emulator was killed".to_owned(),
            End::Stopped(why) => format!("the emulator gave up: {why}"),
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
    /// The kernel's program, for the names in a panic.
    pub symbols: Option<&'a Path>,
    /// Whether a script without steps means: until the machine ends.
    pub to_the_end: bool,
}

impl Session<'_> {
    /// Runs a machine whose serial port is its standard streams until the script is through, time
    /// is up, or it ends by itself.
    ///
    /// # Errors
    /// The emulator cannot be started, or the log not be written.
    pub fn run(&self, command: &mut Command, script: Vec<Step>) -> Result<Finished> {
        self.converse(Running::start(command)?, script)
    }

    /// The same with a machine that runs.
    ///
    /// # Errors
    /// The log cannot be written.
    pub fn converse(&self, mut machine: Running, script: Vec<Step>) -> Result<Finished> {
        let start = machine.start;
        let log = self.log.map(|path| {
            File::create(path).with_context(|| format!("cannot write {}", path.display()))
        });
        let mut log = log.transpose()?;
        let mut symbols = Symbols::new(self.symbols.unwrap_or(Path::new("")));
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
                    let bytes = symbols.annotate(&bytes);
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

/// The emulator's process and the machine's serial port; it ends with this value.
pub struct Running {
    child: Child,
    start: Instant,
    input: Option<Box<dyn Write + Send>>,
    output: Receiver<Vec<u8>>,
}

impl Running {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut machine = Self::spawn(command)?;
        let stdout = machine.child.stdout.take().context("the emulator has no output")?;
        machine.output = listen(stdout);
        machine.input = machine.child.stdin.take().map(|stdin| Box::new(stdin) as _);
        Ok(machine)
    }

    /// Starts an emulator that connects the serial port to us.
    ///
    /// # Errors
    /// It cannot be started, ends, or does not connect.
    pub fn connected(command: &mut Command, listener: &TcpListener) -> Result<Self> {
        let mut machine = Self::spawn(command)?;
        listener.set_nonblocking(true)?;
        let stream = loop {
            match listener.accept() {
                Ok((stream, _)) => break stream,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
            if let Some(status) = machine.child.try_wait()? {
                bail!("the emulator ended with {status}");
            }
            if machine.start.elapsed() > CONNECT {
                bail!("the emulator does not connect its serial port");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        stream.set_nonblocking(false)?;
        stream.set_nodelay(true)?;
        machine.output = listen(stream.try_clone()?);
        machine.input = Some(Box::new(stream));
        Ok(machine)
    }

    /// A process without a serial port.
    fn spawn(command: &mut Command) -> Result<Self> {
        let start = Instant::now();
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child, start, input: None, output: channel().1 })
    }

    /// What the machine has said since the last time, or that the deadline is past, or that it
    /// says no more.
    ///
    /// # Errors
    /// The last two.
    pub fn receive(&self, deadline: Option<Instant>) -> Result<Vec<u8>, RecvTimeoutError> {
        let mut heard = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
            // Also for a machine that never stops talking.
            Some(Duration::ZERO) => return Err(RecvTimeoutError::Timeout),
            Some(left) => self.output.recv_timeout(left)?,
            None => self.output.recv()?,
        };
        // An emulator writes the bytes of its serial port one by one.
        while heard.len() < AT_ONCE
            && let Ok(more) = self.output.try_recv()
        {
            heard.extend(more);
        }
        Ok(heard)
    }

    fn send(&mut self, text: &str) {
        self.send_bytes(text.as_bytes());
    }

    /// Types something.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        if let Some(input) = &mut self.input {
            // A machine that is gone shows at its output.
            let _ = input.write_all(bytes).and_then(|()| input.flush());
        }
    }

    /// The exit code of an emulator whose output has ended; none where a signal ended it.
    ///
    /// # Errors
    /// The system does not tell.
    pub fn wait(&mut self) -> Result<Option<i32>> {
        Ok(self.child.wait().context("cannot wait for the emulator")?.code())
    }
}

/// What comes in on a stream, until it ends.
fn listen(mut stream: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, output) = channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = stream.read(&mut buffer) {
            let bytes = buffer.get(..n).unwrap_or(&[]).to_vec();
            if n == 0 || sender.send(bytes).is_err() {
                break;
            }
        }
    });
    output
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
    fn emulator_that_connects_is_talked_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let shell = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port}; printf '? ' >&3; read x <&3; echo got $x >&3; exit 7"
        );
        let machine =
            Running::connected(Command::new("bash").args(["-c", &shell]), &listener).unwrap();
        let script = vec![expect("? "), Step::Send("42\n".to_owned()), expect("never")];
        let session = Session { timeout: Some(Duration::from_secs(10)), ..Session::default() };
        let finished = session.converse(machine, script).unwrap();
        assert!(finished.conversation.text().contains("got 42"));
        assert_eq!(finished.end, End::Exit(Some(7)));
    }

    #[test]
    fn emulator_that_does_not_come_up_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = Running::connected(Command::new("sh").args(["-c", "exit 3"]), &listener);
        assert!(error.is_err_and(|e| e.to_string().contains('3')));
    }

    #[test]
    fn timeout_is_told() {
        let done = run("exec sleep 60", vec![expect("never")], 100);
        assert_eq!(done.end, End::Timeout);
        assert!(done.require_done().is_err());
    }

    #[test]
    fn machine_that_never_stops_talking_runs_out_of_time() {
        let done = run("while :; do echo word; done", vec![expect("never")], 100);
        assert_eq!(done.end, End::Timeout);
    }

    #[test]
    fn panic_ends_the_run_with_its_backtrace() {
        let shell = "echo 'PANIC at x'; sleep 0.2; echo trace; exec sleep 60";
        let done = run(shell, vec![expect("never")], 10_000);
        assert_eq!(done.end, End::Panic);
        assert!(done.conversation.text().contains("trace"));
    }
}
