//! The operator's session: from typed characters to orders and answers.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use ipc::proto::root::{Entry, State};

use super::command::{Command, Order, choose, parse};
use super::editor::{Editor, Key};
use super::table;
use crate::text::printable;

/// What stands before a line that is typed.
pub const PROMPT: &str = "portico> ";
/// Answers that wait for the port at most before a log is read on.
const OUTPUT: usize = 2048;
/// Bytes of a line of a log that are shown in one piece.
const PIECE: usize = 512;
/// Characters typed ahead.
const AHEAD: usize = 256;
/// How long an order may take until it is seen to be carried out, in milliseconds.
const PATIENCE_MS: u64 = 20_000;
/// How often that is looked at.
const LOOK_MS: u64 = 20;
const CTRL_C: u8 = 0x03;

/// Why the root task did not do something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// There is no such component.
    NotFound,
    /// The configuration makes nobody an operator here.
    Denied,
    /// Not now.
    Busy,
    /// Anything else.
    Other(String),
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound => f.write_str("there is no such component"),
            Self::Denied => f.write_str(
                "the configuration does not say `operator = true` for the console's component",
            ),
            Self::Busy => f.write_str("the root task is busy"),
            Self::Other(why) => write!(f, "the root task says: {why}"),
        }
    }
}

/// What the session looks at and acts upon. Nothing here waits.
pub trait System {
    /// The state of a component, by number from 0 on.
    ///
    /// # Errors
    /// [`Refused::NotFound`] behind the last one.
    fn entry(&mut self, index: u16) -> Result<Entry, Refused>;

    /// Gives an order to the root task.
    ///
    /// # Errors
    /// [`Refused::Busy`] where an earlier one was not carried out yet.
    fn order(&mut self, order: Order, name: &str) -> Result<(), Refused>;

    /// Names of the consoles in the order of their numbers.
    fn consoles(&self) -> Vec<String>;

    /// Attaches to a console; the session is left.
    fn attach(&mut self, console: usize);

    /// Attaches to the console that was attached before; whether there is one.
    fn back(&mut self) -> bool;

    /// Names of those that a log is kept of.
    fn logs(&self) -> Vec<String>;

    /// The positions of the first and behind the last byte of a log.
    fn log(&self, log: usize) -> (u64, u64);

    /// Reads bytes of a log from a position on; how many. None where that position is gone.
    fn read(&self, log: usize, at: u64, to: &mut [u8]) -> usize;
}

/// What the session is busy with.
#[derive(Debug, Default)]
enum Doing {
    /// A line is being typed.
    #[default]
    Prompt,
    /// It shows a log from one position to another.
    Showing { log: usize, at: u64, end: u64 },
    /// It waits until an order is carried out.
    Ordering(Ordered),
}

/// An order under way.
#[derive(Debug)]
struct Ordered {
    order: Order,
    name: String,
    index: u16,
    /// Restarts before.
    restarts: u32,
    /// Whether it ran before.
    ran: bool,
    /// The root task has it.
    given: bool,
    look: u64,
    until: u64,
}

/// The session.
#[derive(Debug, Default)]
pub struct Session {
    editor: Editor,
    output: VecDeque<u8>,
    doing: Doing,
    ahead: VecDeque<u8>,
    /// VM, restarts and counts of the last look at exits.
    exits: Option<(String, u32, Vec<u64>)>,
}

impl Session {
    /// Greets who comes to the console.
    pub fn enter(&mut self) {
        self.say("--- operator's console; help explains, Ctrl-] ? shows keys ---");
        if matches!(self.doing, Doing::Prompt) {
            self.prompt();
        }
    }

    /// Takes a typed character.
    pub fn key(&mut self, byte: u8, now: u64, system: &mut impl System) {
        if matches!(self.doing, Doing::Prompt) {
            return self.edit(byte, now, system);
        }
        if byte == CTRL_C {
            self.ahead.clear();
            self.output.clear();
            self.say("^C");
            self.done(now, system);
        } else if self.ahead.len() < AHEAD {
            self.ahead.push_back(byte);
        }
    }

    /// Goes on with what is under way. Whether anything came of it.
    pub fn work(&mut self, now: u64, system: &mut impl System) -> bool {
        match &mut self.doing {
            Doing::Prompt => false,
            Doing::Showing { .. } if self.output.len() >= OUTPUT => false,
            Doing::Showing { log, at, end } => {
                let (log, end) = (*log, *end);
                let next = Self::show_line(&mut self.output, system, log, *at, end);
                *at = next;
                if next >= end {
                    self.done(now, system);
                }
                true
            }
            Doing::Ordering(ordered) if now < ordered.look => false,
            Doing::Ordering(ordered) => {
                ordered.look = now + LOOK_MS;
                let outcome = ordered.look(now, system);
                if let Some(text) = outcome {
                    self.say(&text);
                    self.done(now, system);
                }
                true
            }
        }
    }

    /// When [`Self::work`] has something to do, besides when output was taken.
    #[must_use]
    pub const fn deadline(&self) -> Option<u64> {
        match &self.doing {
            Doing::Ordering(ordered) => Some(ordered.look),
            _ => None,
        }
    }

    /// Whether a line is being typed and shown completely: something else can be printed in its
    /// place if it is drawn again behind that.
    #[must_use]
    pub fn is_at_prompt(&self) -> bool {
        matches!(self.doing, Doing::Prompt) && self.output.is_empty()
    }

    /// Draws prompt and line.
    pub fn prompt(&mut self) {
        let mut echo = PROMPT.as_bytes().to_vec();
        self.editor.draw(&mut echo);
        self.output.extend(echo);
    }

    /// What is to be shown; [`Self::shown`] takes it out.
    pub fn output(&mut self) -> &[u8] {
        self.output.make_contiguous()
    }

    /// So many bytes of it were taken.
    pub fn shown(&mut self, count: usize) {
        self.output.drain(..count.min(self.output.len()));
    }

    fn edit(&mut self, byte: u8, now: u64, system: &mut impl System) {
        let mut echo = Vec::new();
        let key = self.editor.key(byte, &mut echo);
        self.output.extend(echo);
        match key {
            Key::Editing => {}
            Key::Interrupt => self.prompt(),
            Key::Redraw => {
                self.say("");
                self.prompt();
            }
            Key::End => {
                self.say("");
                if !system.back() {
                    self.say("there is no console to go back to");
                    self.prompt();
                }
            }
            Key::Line(line) => match self.run(&line, now, system) {
                Next::Prompt => self.prompt(),
                Next::Left => {}
                Next::Doing(doing) => self.doing = doing,
            },
        }
    }

    /// It is time for the next command.
    fn done(&mut self, now: u64, system: &mut impl System) {
        self.doing = Doing::Prompt;
        self.prompt();
        while matches!(self.doing, Doing::Prompt)
            && let Some(byte) = self.ahead.pop_front()
        {
            self.edit(byte, now, system);
        }
    }

    fn say(&mut self, line: &str) {
        self.output.extend(line.bytes().chain(*b"\r\n"));
    }

    fn say_all(&mut self, lines: &[String]) {
        lines.iter().for_each(|line| self.say(line));
    }

    /// Carries a line out.
    fn run(&mut self, line: &str, now: u64, system: &mut impl System) -> Next {
        let outcome = match parse(line) {
            Ok(None) => Ok(Next::Prompt),
            Ok(Some(command)) => self.carry_out(command, now, system),
            Err(error) => Err(error.to_string()),
        };
        outcome.unwrap_or_else(|why| {
            self.say(&printable(why.as_bytes()));
            Next::Prompt
        })
    }

    fn carry_out(
        &mut self,
        command: Command<'_>,
        now: u64,
        system: &mut impl System,
    ) -> Result<Next, String> {
        match command {
            Command::Help(None) => {
                self.say_all(&table::commands());
                self.say("Ctrl-] then: o operator, 1-9 console, l list of consoles, d detach");
            }
            Command::Help(Some(spec)) => {
                self.say(&spec.to_string());
                self.say(spec.summary);
                spec.detail.iter().for_each(|line| self.say(line));
            }
            Command::List => {
                let entries = entries(system)?;
                self.say_all(&table::list(&entries));
            }
            Command::Show(name) => {
                let (_, entry) = named(system, name)?;
                self.say_all(&table::show(&entry));
            }
            Command::Exits(name) => {
                let (_, entry) = named(system, name)?;
                self.exits(&entry)?;
            }
            Command::Log(name, lines) => {
                let logs = system.logs();
                let log = choose(name, logs.iter().map(String::as_str).zip(0..))
                    .map_err(|all| misnamed("log", name, &all, &logs))?;
                return Ok(Next::Doing(self.log(log, lines, system)));
            }
            Command::Consoles => {
                let consoles = system.consoles();
                if consoles.is_empty() {
                    return Err("there are no consoles".into());
                }
                let rows: Vec<_> =
                    (1..).zip(consoles).map(|(n, name)| [format!("{n}"), name]).collect();
                self.say_all(&table::lines([table::Side::Right, table::Side::Left], &rows));
            }
            Command::Attach(name) => {
                let consoles = system.consoles();
                let number = name.parse::<usize>().ok().and_then(|n| n.checked_sub(1));
                let console = match number.filter(|&n| n < consoles.len()) {
                    Some(console) => console,
                    None => choose(name, consoles.iter().map(String::as_str).zip(0..))
                        .map_err(|all| misnamed("console", name, &all, &consoles))?,
                };
                system.attach(console);
                return Ok(Next::Left);
            }
            Command::Order(order, name) => return order_of(order, name, now, system),
        }
        Ok(Next::Prompt)
    }

    fn exits(&mut self, entry: &Entry) -> Result<(), String> {
        if !entry.vm {
            return Err(format!("{} is no VM", entry.name));
        }
        let before = self.exits.take();
        let before =
            before.filter(|(name, life, _)| *name == *entry.name && *life == entry.restarts);
        self.say_all(&table::exits(entry, before.as_ref().map(|b| b.2.as_slice())));
        self.exits = Some((entry.name.to_string(), entry.restarts, entry.exits.to_vec()));
        Ok(())
    }

    /// Shows a log from its beginning on, or its last lines.
    fn log(&mut self, log: usize, lines: Option<usize>, system: &impl System) -> Doing {
        let (begin, end) = system.log(log);
        let at = lines.map_or(begin, |lines| last_lines(system, log, lines));
        if at == begin && begin > 0 {
            self.say(&format!("--- {} older are gone ---", count(begin)));
        }
        Doing::Showing { log, at, end }
    }

    /// Shows a line of a log, or a piece of one; the position of the next.
    fn show_line(
        output: &mut VecDeque<u8>,
        system: &impl System,
        log: usize,
        at: u64,
        end: u64,
    ) -> u64 {
        let mut say = |text: &str| output.extend(text.bytes());
        let (begin, _) = system.log(log);
        if at < begin {
            say(&format!("--- {} were overwritten meanwhile ---\r\n", count(begin - at)));
            return begin;
        }
        let mut buffer = [0; PIECE];
        let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let count = system.read(log, at, buffer.get_mut(..wanted).unwrap_or(&mut []));
        let read = buffer.get(..count).unwrap_or(&[]);
        let (line, length) = match read.iter().position(|&b| b == b'\n') {
            Some(length) => (read.get(..length).unwrap_or(&[]), length + 1),
            None => (read, count),
        };
        say(&printable(line));
        let next = at + sysroot::num::u64_of(length);
        if length > line.len() || next >= end {
            say("\r\n");
        }
        // Where nothing can be read, there is nothing more.
        if length == 0 { end } else { next }
    }
}

/// What follows a command.
enum Next {
    Prompt,
    /// The session was left for a console.
    Left,
    Doing(Doing),
}

impl Ordered {
    /// Gives the order where that was not done yet, and looks whether it was carried out; what
    /// there is to say then.
    fn look(&mut self, now: u64, system: &mut impl System) -> Option<String> {
        let late = now >= self.until;
        if !self.given {
            match system.order(self.order, &self.name) {
                Ok(()) => self.given = true,
                Err(Refused::Busy) if !late => {}
                Err(why) => return Some(why.to_string()),
            }
            return None;
        }
        let entry = match system.entry(self.index) {
            Ok(entry) => entry,
            Err(why) => return Some(why.to_string()),
        };
        let again = entry.restarts > self.restarts;
        let runs = matches!(entry.state, State::Running | State::Paused);
        let seen = match self.order {
            Order::Pause => entry.state == State::Paused || !runs,
            Order::Resume => entry.state != State::Paused,
            Order::Kill => again || !runs,
            Order::Restart => runs && (again || !self.ran) || entry.state == State::Failed && late,
        };
        if seen {
            return Some(format!("{}: {}", self.name, table::state(entry.state)));
        }
        late.then(|| format!("{}: {} so far", self.name, table::state(entry.state)))
    }
}

/// An order, where it makes sense.
fn order_of(order: Order, name: &str, now: u64, system: &mut impl System) -> Result<Next, String> {
    let entries = entries(system)?;
    // What stops things is not guessed.
    let Some((index, entry)) = (0..).zip(&entries).find(|(_, e)| e.name == name) else {
        let all: Vec<String> = entries.iter().map(|e| e.name.to_string()).collect();
        return Err(misnamed("component", name, &[], &all));
    };
    let runs = matches!(entry.state, State::Running | State::Paused);
    let state = table::state(entry.state);
    let why = match order {
        Order::Pause | Order::Resume if !entry.vm => Some("is no VM"),
        Order::Pause | Order::Resume if !runs => Some("does not run"),
        Order::Pause if entry.state == State::Paused => Some("stands still already"),
        Order::Resume if entry.state != State::Paused => Some("does not stand still"),
        Order::Kill if matches!(entry.state, State::Ended | State::Failed) => Some("does not run"),
        _ => None,
    };
    if let Some(why) = why {
        return Err(format!("{name} {why} ({state})"));
    }
    Ok(Next::Doing(Doing::Ordering(Ordered {
        order,
        name: name.into(),
        index,
        restarts: entry.restarts,
        ran: runs,
        given: false,
        look: now,
        until: now + PATIENCE_MS,
    })))
}

fn entries(system: &mut impl System) -> Result<Vec<Entry>, String> {
    let mut all = Vec::new();
    for index in 0.. {
        match system.entry(index) {
            Ok(entry) => all.push(entry),
            Err(Refused::NotFound) => break,
            Err(why) => return Err(why.to_string()),
        }
    }
    Ok(all)
}

/// The component that is meant.
fn named(system: &mut impl System, name: &str) -> Result<(u16, Entry), String> {
    let all = entries(system)?;
    let names = all.iter().map(|e| e.name.as_str());
    choose(name, names.zip((0..).zip(&all))).map(|(index, entry)| (index, entry.clone())).map_err(
        |found| {
            let names: Vec<String> = all.iter().map(|e| e.name.to_string()).collect();
            misnamed("component", name, &found, &names)
        },
    )
}

/// A name that means nothing, or several things.
fn misnamed(what: &str, name: &str, found: &[&str], all: &[String]) -> String {
    match found {
        [] if all.is_empty() => format!("no {what} \"{name}\""),
        [] => format!("no {what} \"{name}\"; there are: {}", all.join(", ")),
        found => format!("ambiguous {what} \"{name}\": {}", found.join(", ")),
    }
}

fn count(bytes: u64) -> String {
    if bytes == 1 { "1 byte".into() } else { format!("{bytes} bytes") }
}

/// Where the last lines of a log begin.
fn last_lines(system: &impl System, log: usize, lines: usize) -> u64 {
    let (begin, end) = system.log(log);
    let mut starts = VecDeque::from([begin]);
    let mut buffer = [0; PIECE];
    let mut at = begin;
    while at < end {
        let count = system.read(log, at, &mut buffer);
        if count == 0 {
            break;
        }
        for (offset, byte) in (1..).zip(buffer.get(..count).unwrap_or(&[])) {
            // A line that is not there yet does not count.
            if *byte == b'\n' && at + offset < end {
                starts.push_back(at + offset);
            }
            if starts.len() > lines {
                starts.pop_front();
            }
        }
        at += sysroot::num::u64_of(count);
    }
    if lines == 0 { end } else { starts.front().copied().unwrap_or(end) }
}

#[cfg(test)]
mod tests;
