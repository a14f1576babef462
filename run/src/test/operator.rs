//! Systems whose operator is asked, and consoles that are flooded and killed.

use anyhow::{Context as _, Result, bail};

use super::system::Boot;
use super::system::Say::{self, Hear, Type};

/// A guest that counts stands still while another one works; back ends come and go; and what is
/// wrong is told.
const OPERATOR: &[Say] = &[
    Hear("GUEST-UP one"),
    Hear("# "),
    Type("\x1do"),
    Hear("operator's console"),
    Hear("portico> "),
    Type("lost\x15frob\nshow tw\x7fo\nkill o\nre one\npause disks\nresume one\n"),
    Hear("unknown command \"frob\""),
    Hear("no component \"to\""),
    Hear("no component \"o\"; there are: console, disks, one, two"),
    Hear("ambiguous command \"re\": resume, restart"),
    Hear("disks is no VM"),
    Hear("one does not stand still (running)"),
    Type("list\n"),
    Hear("NAME     STATE"),
    Hear("console  running"),
    Hear("two      running"),
    Type("attach one\n"),
    Hear("--- console 1: one ---"),
    Type("i=0; while sleep 1; do i=$((i+1)); echo N-$i-; done\n"),
    Hear("N-2-"),
    Type("\x1dopause one\n"),
    Hear("one: paused"),
    Type("pause one\nexits one\n"),
    Hear("one stands still already"),
    Hear("total"),
    // Time passes; and the log grows beyond what is shown of it when it is attached.
    Type("\x1d2"),
    Hear("GUEST-UP two"),
    Hear("# "),
    Type("sleep 5; seq 1 2000; echo SLEPT-$((40+1))\n"),
    Hear("SLEPT-41"),
    Type("\x1doexits one\n"),
    Hear("total"),
    Type("resume one\n"),
    Hear("one: running"),
    Type("log two 2\nkill two\n"),
    Hear("SLEPT-41"),
    Hear("two: failed"),
    Type("kill two\nrestart two\n"),
    Hear("two does not run (failed)"),
    Hear("two: running"),
    Type("\x1d2"),
    Hear("GUEST-UP two"),
    Hear("# "),
    Type("\x1do"),
    Hear("portico> "),
    Type("kill disks\n"),
    Hear("disks: "),
    Type("restart disks\n"),
    Hear("disks: running"),
    Type("log disks\n"),
    Hear("[disks]"),
    Hear("portico> "),
    // Ctrl-D goes back to where it came from.
    Type("\x04"),
    Hear("--- console 2: two ---"),
    Type("dd if=/dev/vda bs=1M count=4 2>/dev/null | wc -c\n"),
    Hear("4194304"),
    Type("\x1d1"),
    Hear("N-9-"),
    // The machine stays on without VMs; the last one can be started and end again.
    Type("\x1dokill one\nkill two\n"),
    Hear("the last VM is off"),
    Type("restart two\n"),
    Hear("two: running"),
    Type("kill two\n"),
    Hear("the last VM is off"),
];

/// The paused VM did not exit between two looks, while another one worked.
fn stood_still(text: &str) -> Result<String> {
    let totals: Vec<&str> = text.lines().filter(|line| line.starts_with("total ")).collect();
    match totals.last() {
        Some(last) if last.ends_with(" +0") => Ok(String::new()),
        _ => bail!("the paused VM went on: {totals:?}"),
    }
}

/// Begins and ends a part that is checked.
const BEGIN: &str = "BEGIN-41\n";
const END: &str = "END-41\n";

/// Ends the part that comes through the serial port.
const LAST: &str = "LAST-41\n";

/// Lines of a guest by way of its virtio console and its serial port, while pv-console is killed
/// again and again.
///
/// The two are devices of their own, so what the guest writes last to the one can be seen before
/// the end of the other: the guest waits until the serial port's last line was seen. A log line can
/// stand within each mark, so there are three of each.
const CONSOLE_UNDER_KILLS: &[Say] = &[
    Hear("GUEST-UP one"),
    Hear("# "),
    Type(
        "count() { i=$1; while [ $i -lt $2 ]; do i=$((i+1)); echo $i; done; }; \
         mark() { for i in 1 2 3; do echo $1-$((40+1)); done; }; \
         mark BEGIN; count 0 10000; { count 10000 20000; mark LAST; } >/dev/ttyS0; \
         read go; mark END\n",
    ),
    Hear(BEGIN),
    Hear(LAST),
    Type("\n"),
    Hear(END),
];

/// All lines came, in order, and pv-console was killed often enough.
fn all_under_kills(text: &str) -> Result<String> {
    const KILLS: usize = 20;
    let part = part(text)?;
    let kills = part.matches("KILLED console").count();
    if kills < KILLS {
        bail!("only {kills} kills");
    }
    let came = without_log(part);
    let (came, _) = came.split_once(LAST).context("no last line")?;
    counted(came.trim_start_matches(BEGIN), 20_000, "")?;
    Ok(format!("{kills} kills"))
}

/// More than 1 MiB at once; and a guest that floods, which the others do not feel. It comes without
/// ends of lines, as a guest's driver waits for the device at each, and twice: that is all the time
/// there is in it.
const FLOOD: &[Say] = &[
    Hear("GUEST-UP one"),
    Type("\x1d2"),
    Hear("GUEST-UP two"),
    Hear("# "),
    Type("echo BEGIN-$((40+1)); seq -s , 1 170000; echo END-$((40+1))\n"),
    Hear(BEGIN),
    Hear(END),
    Type("yes FLOOD\n"),
    Hear("FLOOD\nFLOOD"),
    Type("\x1d1"),
    Hear("GUEST-UP one"),
    Hear("# "),
    Type("echo SUM=$((40+2))\n"),
    Hear("SUM=42"),
    Type("\x1dolist\n"),
    Hear("two      running"),
    Type("\x1d2"),
    Hear("--- console 2: two ---"),
    Hear("FLOOD\nFLOOD"),
    Type("\x03"),
    Hear("# "),
    Type("echo SUM=$((50+2))\n"),
    Hear("SUM=52"),
];

fn whole_flood(text: &str) -> Result<String> {
    counted(part(text)?, 170_000, ",").map(|bytes| format!("{bytes} bytes"))
}

/// The part between the marks.
fn part(text: &str) -> Result<&str> {
    let (_, rest) = text.split_once(BEGIN).context("no beginning")?;
    Ok(rest.split_once(END).context("no end")?.0)
}

/// Requires all numbers up to the last one in order with something between them, and nothing else
/// but log lines; the bytes without those. A log line may stand within another line where nobody
/// could wait for its end, so the ends of lines do not count.
fn counted(text: &str, last: u32, between: &str) -> Result<usize> {
    let text = without_log(text);
    let came: String = text.split('\n').collect();
    let mut rest = came.as_str();
    for number in 1..=last {
        let between = if number < last { between } else { "" };
        let Some(next) = rest.strip_prefix(&format!("{number}{between}")) else {
            let near: String = rest.chars().take(60).collect();
            bail!("{number} is missing; there is: {near}");
        };
        rest = next;
    }
    if !rest.is_empty() {
        bail!("behind the last number: {rest}");
    }
    Ok(text.len())
}

/// Leaves out log lines, which begin like `[    1.234] `.
pub(super) fn without_log(text: &str) -> String {
    let is_stamp = |s: &str| {
        let stamp = s.get(1..10).and_then(|s| s.split_once('.'));
        s.get(10..12) == Some("] ")
            && stamp.is_some_and(|(s, ms)| {
                s.trim_start().parse::<u32>().is_ok() && ms.len() == 3 && ms.parse::<u16>().is_ok()
            })
    };
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('[') {
        let (before, line) = rest.split_at(at);
        kept += before;
        let skip = if is_stamp(line) { line.find('\n').map_or(line.len(), |n| n + 1) } else { 0 };
        if skip == 0 {
            kept.push('[');
        }
        rest = line.get(skip.max(1)..).unwrap_or("");
    }
    kept + rest
}

/// The cases.
pub(super) const BOOTS: &[Boot] = &[
    Boot::new("operator-sees-and-stops-what-there-is", "test/operator", OPERATOR)
        .checked(stood_still),
    Boot::new("killed-console-loses-nothing", "test/kill-console", CONSOLE_UNDER_KILLS)
        .checked(all_under_kills),
    Boot::new("flood-loses-nothing-and-starves-nobody", "test/operator", FLOOD)
        .checked(whole_flood),
];

#[cfg(test)]
mod tests {
    use super::{all_under_kills, counted, part, without_log};

    #[test]
    fn log_lines_are_left_out_wherever_they_stand() {
        let text = "1\n[   10.001] root: a\n2\n1[    0.123] [x] [b]\n0\n[6n[1] [  1.2] c\n";
        assert_eq!(without_log(text), "1\n2\n10\n[6n[1] [  1.2] c\n");
        assert_eq!(without_log("[    0.001] cut"), "");
    }

    #[test]
    fn what_is_missing_or_too_much_is_found() {
        assert_eq!(counted("1\n2\n3\n", 3, "").ok(), Some(6));
        assert!(counted("1\n[    0.001] a\n2\n\n3", 3, "").is_ok());
        assert_eq!(counted("1,2\n,3\n", 3, ",").ok(), Some(7));
        assert!(counted("1,23\n", 3, ",").is_err());
        for text in ["1\n3\n", "1\n1\n2\n3\n", "2\n1\n3\n", "1\n2\n", "1\n2\n3\nx"] {
            assert!(counted(text, 3, "").is_err(), "{text}");
        }
        assert_eq!(part("x BEGIN-41\nyes\nEND-41\n").ok(), Some("yes\n"));
        assert!(part("BEGIN-41\n").is_err());
    }

    #[test]
    fn marks_around_what_came_under_kills_may_be_cut_by_log_lines() {
        let log = "[   10.001] [operator] KILLED console: 1\n";
        let numbers: String = (1..=20_000).map(|n| format!("{n}\n")).collect();
        let text = |kills: usize, numbers: &str| {
            format!(
                "BEGIN-41\nBEGIN-41\nBEG{log}IN-41\n{numbers}{}LA{log}ST-41\nLAST-41\n\nEND-41\n",
                log.repeat(kills)
            )
        };
        assert!(all_under_kills(&text(18, &numbers)).is_ok());
        assert!(all_under_kills(&text(17, &numbers)).is_err());
        assert!(all_under_kills(&text(18, &numbers.replace("1994\n", ""))).is_err());
        assert!(all_under_kills(&text(18, &format!("{numbers}x"))).is_err());
    }
}
