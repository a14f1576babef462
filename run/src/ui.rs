//! What the user sees while the tool works.

use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};

static SILENT: AtomicBool = AtomicBool::new(false);

/// Shows no steps any more: the command has its own way to tell what it does.
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Whether somebody watches.
#[must_use]
pub fn terminal() -> bool {
    std::io::stderr().is_terminal()
}

/// Seconds as a person reads them.
#[must_use]
pub fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// A step of work: named while it runs, and with its time when it is done.
pub struct Stage {
    name: String,
    start: Instant,
    bar: Option<ProgressBar>,
}

impl Stage {
    /// Begins a step.
    pub fn start(name: impl Into<String>) -> Self {
        let name = name.into();
        let bar = (terminal() && !SILENT.load(Ordering::Relaxed)).then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) = ProgressStyle::with_template("{spinner} {prefix:10} {wide_msg}") {
                bar.set_style(style);
            }
            bar.set_prefix(name.clone());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        Self { name, start: Instant::now(), bar }
    }

    /// Shows what the step is at.
    pub fn at(&self, what: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(what.to_owned());
        }
    }

    /// Ends the step.
    pub fn done(self, result: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        if !SILENT.load(Ordering::Relaxed) {
            note(&format!("{:10} {result} ({})", self.name, seconds(self.start.elapsed())));
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line for the user; the standard output belongs to what was asked for.
pub fn note(text: &str) {
    // A closed terminal is no reason to fail.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Runs a command quietly, showing its last line as progress, and its output if it fails.
///
/// # Errors
/// It cannot be started, or fails.
pub fn run(command: &mut Command, stage: Option<&Stage>) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {name}"))?;
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        stdout.map(std::io::read_to_string).and_then(Result::ok).unwrap_or_default()
    });
    let mut said = String::new();
    for line in child.stderr.take().into_iter().flat_map(|e| BufReader::new(e).split(b'\n')) {
        let line = String::from_utf8_lossy(&line?).into_owned();
        if let Some(stage) = stage {
            stage.at(line.trim());
        }
        said += &line;
        said.push('\n');
    }
    let status = child.wait()?;
    let output = reader.join().unwrap_or_default();
    if !status.success() {
        bail!("{name} failed ({status}):\n{said}{output}");
    }
    Ok(output)
}
