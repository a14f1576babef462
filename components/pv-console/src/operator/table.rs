//! Tables, and how quantities are written in them.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use ipc::event::Exit;
use ipc::proto::root::{Cause, Entry, State};

use super::command::COMMANDS;

/// On which side of its column a text stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Words.
    Left,
    /// Numbers.
    Right,
}
use Side::{Left, Right};

/// Lines of a table whose columns are as wide as what is in them.
#[must_use]
pub fn lines<const N: usize>(sides: [Side; N], rows: &[[String; N]]) -> Vec<String> {
    let width = |text: &String| text.chars().count();
    let mut widths = [0; N];
    for row in rows {
        for (most, text) in widths.iter_mut().zip(row) {
            *most = width(text).max(*most);
        }
    }
    let line = |row: &[String; N]| {
        let mut line = String::new();
        for ((text, side), most) in row.iter().zip(sides).zip(widths) {
            let gap = " ".repeat(most - width(text));
            match side {
                Left => line.extend([text.as_str(), &gap, "  "]),
                Right => line.extend([gap.as_str(), text, "  "]),
            }
        }
        line.truncate(line.trim_end().len());
        line
    };
    rows.iter().map(line).collect()
}

/// Bytes, with a unit in steps of 1024.
#[must_use]
pub fn bytes(n: u64) -> String {
    const UNITS: [(u32, char); 4] = [(40, 'T'), (30, 'G'), (20, 'M'), (10, 'K')];
    let Some((bits, unit)) = UNITS.into_iter().find(|(bits, _)| n >> bits != 0) else {
        return if n == 0 { "-".into() } else { n.to_string() };
    };
    let (whole, rest) = (n >> bits, n & ((1 << bits) - 1));
    // A tenth, cut off.
    match ((rest >> (bits - 10)) * 10) >> 10 {
        tenth if whole < 100 && tenth != 0 => format!("{whole}.{tenth}{unit}"),
        _ => format!("{whole}{unit}"),
    }
}

/// A time, in the two largest units that it has.
#[must_use]
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{:02}s", ms % 1000 / 10),
        60..3600 => format!("{}m{:02}s", s / 60, s % 60),
        3600..86400 => format!("{}h{:02}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d{:02}h", s / 86400, s % 86400 / 3600),
    }
}

/// Where a component is in its life.
#[must_use]
pub const fn state(state: State) -> &'static str {
    match state {
        State::Waiting => "waiting",
        State::Running => "running",
        State::Paused => "paused",
        State::Restarting => "restarting",
        State::Ended => "ended",
        State::Failed => "failed",
    }
}

/// How a component's last life ended.
#[must_use]
pub fn cause(entry: &Entry) -> String {
    match entry.cause {
        Cause::Nothing => "-".into(),
        Cause::Exit if entry.detail == 0 => "in order".into(),
        Cause::Exit => format!("code {}", entry.detail),
        Cause::Fault => format!("exception {}", entry.detail),
        Cause::Killed => "killed".into(),
        Cause::Silent => "kept RAM".into(),
    }
}

/// All components, a line for each.
#[must_use]
pub fn list(entries: &[Entry]) -> Vec<String> {
    const SIDES: [Side; 11] =
        [Left, Left, Right, Right, Right, Right, Right, Right, Right, Right, Left];
    let head = [
        "NAME", "STATE", "CPU", "TIME", "MEMORY", "RAM", "KERNEL", "EXITS", "STARTS", "UP", "ENDED",
    ];
    let row = |e: &Entry| {
        let runs = matches!(e.state, State::Running | State::Paused);
        let when = |text: String| if runs { text } else { "-".into() };
        [
            e.name.to_string(),
            state(e.state).into(),
            when(e.cpu.to_string()),
            when(duration(e.cpu_ms)),
            bytes(e.memory),
            bytes(e.ram),
            kernel(e),
            if e.vm { total(e).to_string() } else { "-".into() },
            e.restarts.to_string(),
            when(duration(e.uptime_ms)),
            cause(e),
        ]
    };
    let rows: Vec<_> =
        core::iter::once(head.map(String::from)).chain(entries.iter().map(row)).collect();
    lines(SIDES, &rows)
}

fn kernel(e: &Entry) -> String {
    let page = ipc::PAGE_SIZE as u64;
    format!("{}/{}", bytes(e.kernel_used * page), bytes(e.kernel_limit * page))
}

/// All exits of a VM.
#[must_use]
pub fn total(entry: &Entry) -> u64 {
    entry.exits.iter().fold(0, |sum, n| sum.saturating_add(*n))
}

/// One component, a line for each property.
#[must_use]
pub fn show(e: &Entry) -> Vec<String> {
    let runs = matches!(e.state, State::Running | State::Paused);
    let kind = if e.vm { "VM" } else { "component" };
    let mut rows = Vec::new();
    let mut row = |name: &str, text: String| rows.push([String::from(name), text]);
    row("name", e.name.to_string());
    row("kind", format!("{kind}, image {}", e.image));
    row("state", state(e.state).into());
    if runs {
        row("CPU", format!("{} (main thread)", e.cpu));
        row("CPU time", duration(e.cpu_ms));
        row("up", duration(e.uptime_ms));
    }
    row("started again", format!("{} times", e.restarts));
    row("last end", cause(e));
    row("memory", bytes(e.memory));
    if e.vm {
        row("RAM", bytes(e.ram));
        row("exits", total(e).to_string());
    }
    row("kernel memory", kernel(e));
    lines([Left, Left], &rows)
}

/// Exits of a VM by reason, and how many of them came after those of an earlier look.
#[must_use]
pub fn exits(entry: &Entry, before: Option<&[u64]>) -> Vec<String> {
    let total = total(entry);
    let mut counts: Vec<(String, u64, u64)> = (0u8..)
        .zip(&entry.exits)
        .filter(|(_, count)| **count != 0)
        .map(|(number, &count)| {
            let name = Exit::from_number(number).map_or(format!("{number}"), |e| e.name().into());
            let old = before.and_then(|b| b.get(usize::from(number))).copied().unwrap_or(0);
            (name, count, count.saturating_sub(old))
        })
        .collect();
    counts.sort_by_key(|c| core::cmp::Reverse(c.1));
    let all_new = counts.iter().map(|c| c.2).sum();
    counts.push(("total".into(), total, all_new));
    let head = ["REASON", "COUNT", "SHARE", "NEW"].map(String::from);
    let row = |(name, count, new): (String, u64, u64)| {
        let mille = count.saturating_mul(1000).checked_div(total).unwrap_or(0);
        let new = if before.is_some() { format!("+{new}") } else { "-".into() };
        [name, count.to_string(), format!("{}.{}%", mille / 10, mille % 10), new]
    };
    let rows: Vec<_> = core::iter::once(head).chain(counts.into_iter().map(row)).collect();
    lines([Left, Right, Right, Right], &rows)
}

/// All commands.
#[must_use]
pub fn commands() -> Vec<String> {
    let rows: Vec<_> = COMMANDS.iter().map(|s| [s.to_string(), s.summary.into()]).collect();
    lines([Left, Left], &rows)
}

#[cfg(test)]
pub(super) mod tests;
