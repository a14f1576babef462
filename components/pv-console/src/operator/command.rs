//! What an operator can say.

use alloc::vec::Vec;
use core::fmt;

/// What the root task is to do with a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// End it; its restart policy decides what follows.
    Kill,
    /// Start it anew.
    Restart,
    /// Its VM is to stand still.
    Pause,
    /// Its VM is to go on.
    Resume,
}

/// A command; names are as they were typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    /// Explains all commands, or one.
    Help(Option<&'static Spec>),
    /// All components.
    List,
    /// One component in detail.
    Show(&'a str),
    /// Exits of a VM by reason.
    Exits(&'a str),
    /// Log of a component: all that is kept, or the last lines.
    Log(&'a str, Option<usize>),
    /// All consoles.
    Consoles,
    /// Attaches to a console.
    Attach(&'a str),
    /// Goes to the root task.
    Order(Order, &'a str),
}

/// Which command, before its arguments were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Help,
    List,
    Show,
    Exits,
    Log,
    Consoles,
    Attach,
    Order(Order),
}

/// What there is to know about a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: &'static str,
    /// Its arguments.
    pub arguments: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// More about it, in lines.
    pub detail: &'static [&'static str],
    kind: Kind,
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if self.arguments.is_empty() { Ok(()) } else { write!(f, " {}", self.arguments) }
    }
}

/// All commands.
pub const COMMANDS: [Spec; 11] = [
    Spec {
        name: "help",
        arguments: "[COMMAND]",
        summary: "explains all commands, or one",
        detail: &["Commands can be cut short as long as it is clear which one is meant."],
        kind: Kind::Help,
    },
    Spec {
        name: "list",
        arguments: "",
        summary: "all components and VMs: state, CPU time, memory, exits",
        detail: &[
            "TIME    CPU time in this life, of all its threads and vCPUs",
            "MEMORY  of the program and its stores; RAM of its VM",
            "KERNEL  kernel memory in use, of so much that it may use",
            "EXITS   of its VM in this life",
            "STARTS  how often it was started again",
            "UP      since it was started; ENDED: how its last life ended",
        ],
        kind: Kind::List,
    },
    Spec {
        name: "show",
        arguments: "NAME",
        summary: "one component in detail",
        detail: &["NAME can be cut short as long as it is clear which one is meant."],
        kind: Kind::Show,
    },
    Spec {
        name: "exits",
        arguments: "NAME",
        summary: "why a VM left guest mode: counts by reason",
        detail: &[
            "The most frequent reason first. NEW counts since the command was used for this VM before.",
        ],
        kind: Kind::Exits,
    },
    Spec {
        name: "log",
        arguments: "NAME [LINES]",
        summary: "what a component has logged, and its VM printed, since boot",
        detail: &[
            "With LINES only the last so many. What is kept is bounded; where older lines are",
            "gone, the first line says so. Ctrl-C ends it.",
        ],
        kind: Kind::Log,
    },
    Spec {
        name: "consoles",
        arguments: "",
        summary: "the consoles that can be attached",
        detail: &["Ctrl-] and its number attaches one of the first nine at any time."],
        kind: Kind::Consoles,
    },
    Spec {
        name: "attach",
        arguments: "NAME|NUMBER",
        summary: "shows a console and types to it; Ctrl-] o comes back",
        detail: &["Ctrl-D does it for the console that was attached last."],
        kind: Kind::Attach,
    },
    Spec {
        name: "pause",
        arguments: "NAME",
        summary: "makes a VM stand still",
        detail: &["All its vCPUs stop after what they are doing. NAME in full."],
        kind: Kind::Order(Order::Pause),
    },
    Spec {
        name: "resume",
        arguments: "NAME",
        summary: "lets a VM go on that stands still",
        detail: &["NAME in full."],
        kind: Kind::Order(Order::Resume),
    },
    Spec {
        name: "restart",
        arguments: "NAME",
        summary: "starts a component anew, whether it runs or not",
        detail: &["A VM boots anew. Failures so far are forgotten. NAME in full."],
        kind: Kind::Order(Order::Restart),
    },
    Spec {
        name: "kill",
        arguments: "NAME",
        summary: "ends a component at once",
        detail: &[
            "Its restart policy decides whether it comes back. One that waits for its restart",
            "is not started any more. NAME in full.",
        ],
        kind: Kind::Order(Order::Kill),
    },
];

/// What is wrong with a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error<'a> {
    /// There is no such command.
    Unknown(&'a str),
    /// It could be several commands.
    Ambiguous(&'a str, Vec<&'static str>),
    /// An argument is missing or there is one too many.
    Usage(&'static Spec),
    /// This argument is no number.
    Number(&'a str),
}

impl fmt::Display for Error<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(word) => write!(f, "unknown command \"{word}\"; try help"),
            Self::Ambiguous(word, all) => {
                write!(f, "ambiguous command \"{word}\": {}", all.join(", "))
            }
            Self::Usage(spec) => write!(f, "usage: {spec}"),
            Self::Number(word) => write!(f, "\"{word}\" is no number of lines"),
        }
    }
}

/// Reads a line; `None` where there is nothing in it.
///
/// # Errors
/// [`Error`]
pub fn parse(line: &str) -> Result<Option<Command<'_>>, Error<'_>> {
    let mut words = line.split_ascii_whitespace();
    let Some(word) = words.next() else { return Ok(None) };
    let spec = find(word)?;
    let (first, second) = (words.next(), words.next());
    let usage = Error::Usage(spec);
    if words.next().is_some() || (second.is_some() && spec.kind != Kind::Log) {
        return Err(usage);
    }
    let command = match (spec.kind, first) {
        (Kind::Help, None) => Command::Help(None),
        (Kind::Help, Some(word)) => Command::Help(Some(find(word)?)),
        (Kind::List, None) => Command::List,
        (Kind::Consoles, None) => Command::Consoles,
        (Kind::Show, Some(name)) => Command::Show(name),
        (Kind::Exits, Some(name)) => Command::Exits(name),
        (Kind::Log, Some(name)) => {
            let lines = second.map(|word| word.parse().map_err(|_| Error::Number(word)));
            Command::Log(name, lines.transpose()?)
        }
        (Kind::Attach, Some(name)) => Command::Attach(name),
        (Kind::Order(order), Some(name)) => Command::Order(order, name),
        _ => return Err(usage),
    };
    Ok(Some(command))
}

fn find(word: &str) -> Result<&'static Spec, Error<'_>> {
    match choose(word, COMMANDS.iter().map(|spec| (spec.name, spec))) {
        Ok(spec) => Ok(spec),
        Err(all) if all.is_empty() => Err(Error::Unknown(word)),
        Err(all) => Err(Error::Ambiguous(word, all)),
    }
}

/// The one with this name, or else the only one whose name begins so.
///
/// # Errors
/// The names that begin so.
pub fn choose<N: AsRef<str>, T>(
    word: &str,
    all: impl Iterator<Item = (N, T)>,
) -> Result<T, Vec<N>> {
    let mut found: Vec<(N, T)> = Vec::new();
    for (name, value) in all {
        if name.as_ref() == word {
            return Ok(value);
        }
        if name.as_ref().starts_with(word) {
            found.push((name, value));
        }
    }
    if found.len() == 1
        && let Some((_, value)) = found.pop()
    {
        return Ok(value);
    }
    Err(found.into_iter().map(|(name, _)| name).collect())
}

#[cfg(test)]
mod tests;
