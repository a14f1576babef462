use ipc::proto::root::{Cause, Entry, State};
use proptest::prelude::{ProptestConfig, any, prop, prop_assert, prop_assert_eq, proptest};

use super::{Left, Right, bytes, cause, commands, duration, exits, lines, list, show};

/// A VM as the root task tells of it.
pub fn entry(name: &str) -> Entry {
    Entry {
        name: name.try_into().unwrap(),
        image: "vmm".try_into().unwrap(),
        state: State::Running,
        vm: true,
        cpu: 1,
        restarts: 2,
        cause: Cause::Killed,
        detail: 0,
        uptime_ms: 61_000,
        cpu_ms: 1_230,
        memory: 8 << 20,
        ram: 256 << 20,
        kernel_used: 170,
        kernel_limit: 1024,
        exits: (0..32).map(|n| if n == 10 { 30 } else { u64::from(n == 8) * 10 }).collect(),
    }
}

#[test]
fn quantities() {
    for (n, text) in [
        (0, "-"),
        (1023, "1023"),
        (1024, "1K"),
        (1536, "1.5K"),
        (680 << 10, "680K"),
        (8 << 20, "8M"),
        ((1 << 30) + (1 << 29), "1.5G"),
        (u64::MAX, "16777215T"),
    ] {
        assert_eq!(bytes(n), text);
    }
    for (ms, text) in [
        (0, "0.00s"),
        (59_999, "59.99s"),
        (60_000, "1m00s"),
        (3_599_000, "59m59s"),
        (3_600_000, "1h00m"),
        (90_000_000, "1d01h"),
    ] {
        assert_eq!(duration(ms), text);
    }
}

#[test]
fn components_stand_in_columns() {
    let mut console = entry("console");
    (console.vm, console.ram, console.restarts) = (false, 0, 0);
    (console.cause, console.exits) = (Cause::Nothing, Default::default());
    let mut down = entry("two");
    (down.state, down.cause, down.detail) = (State::Failed, Cause::Exit, 101);
    assert_eq!(
        list(&[console, entry("one"), down]).join("\n"),
        "\
NAME     STATE    CPU   TIME  MEMORY   RAM   KERNEL  EXITS  STARTS     UP  ENDED
console  running    1  1.23s      8M     -  680K/4M      -       0  1m01s  -
one      running    1  1.23s      8M  256M  680K/4M     40       2  1m01s  killed
two      failed     -      -      8M  256M  680K/4M     40       2      -  code 101"
    );
}

#[test]
fn exits_by_reason_the_most_frequent_first() {
    let e = entry("one");
    assert_eq!(
        exits(&e, None).join("\n"),
        "\
REASON  COUNT   SHARE  NEW
Io         30   75.0%    -
Cpuid      10   25.0%    -
total      40  100.0%    -"
    );
    let mut before = e.exits.clone();
    before[10] = 25;
    let text = exits(&e, Some(&before)).join("\n");
    assert!(text.contains("Io         30   75.0%   +5"), "{text}");
    assert!(text.contains("total      40  100.0%   +5"), "{text}");
    let mut none = e;
    none.exits.clear();
    assert_eq!(exits(&none, None).last().map(String::as_str), Some("total       0   0.0%    -"));
}

#[test]
fn one_component_in_detail() {
    let text = show(&entry("one")).join("\n");
    for part in ["name           one", "kind           VM, image vmm", "RAM            256M"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn causes() {
    let mut e = entry("one");
    for (which, detail, text) in [
        (Cause::Exit, 0, "in order"),
        (Cause::Exit, 3, "code 3"),
        (Cause::Fault, 14, "exception 14"),
        (Cause::Silent, 0, "kept RAM"),
    ] {
        (e.cause, e.detail) = (which, detail);
        assert_eq!(cause(&e), text);
    }
}

#[test]
fn every_command_is_listed() {
    assert_eq!(commands().len(), super::COMMANDS.len());
    assert!(commands().iter().all(|line| line.len() < 80), "{:#?}", commands());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn columns_are_aligned(cells in prop::collection::vec(("[a-zé]{1,9}", "[0-9]{1,9}", "[a-z]{1,3}"), 1..9)) {
        let rows: Vec<_> = cells.into_iter().map(|(a, b, c)| [a, b, c]).collect();
        let lines = lines([Left, Right, Left], &rows);
        let column = |text: &String, from: usize| text.chars().skip(from).collect::<String>();
        let widths = [0, 1].map(|n| rows.iter().map(|r| r[n].chars().count()).max().unwrap());
        for (row, line) in rows.iter().zip(&lines) {
            prop_assert!(line.starts_with(&row[0]));
            let rest = column(line, widths[0] + 2);
            prop_assert_eq!(rest.trim_start().split(' ').next(), Some(row[1].as_str()));
            prop_assert_eq!(column(&rest, widths[1] + 2), row[2].clone());
        }
    }

    #[test]
    fn quantities_are_short(n in any::<u64>()) {
        prop_assert!(bytes(n).len() <= 9 && duration(n).len() < 20);
    }
}
