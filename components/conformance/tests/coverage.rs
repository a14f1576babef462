//! Every call with every status that `docs/abi.md` lists for it has a case that shows it, and every
//! right that a call needs one in which it is missing, so coverage cannot rot: a new call, status,
//! right or row of the reference fails here until it has one.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use ipc::cap::Rights;
use ipc::status::Status;
use ipc::syscall::Call;

mod table;

use table::{NEEDED, SHOWN};

type Pairs = BTreeSet<(String, String)>;

fn read(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(root.join(path)).expect(path)
}

/// Words in backticks.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

fn calls() -> impl Iterator<Item = &'static str> {
    Call::ALL.iter().map(|(_, name, _)| *name)
}

/// What the reference says: success of every call, the errors of its table, and of calls with
/// selectors the two that it names before the table.
fn documented() -> Pairs {
    let reference = read("../../docs/abi.md");
    let statuses: BTreeSet<&str> = Status::ALL.iter().map(|(_, name, _)| *name).collect();
    let mut pairs = Pairs::new();
    let mut add = |call: &str, status: &str| pairs.insert((call.to_owned(), status.to_owned()));
    for call in calls() {
        add(call, "Ok");
        if call != "Reply" {
            add(call, "BadCap");
        }
        if !["Reply", "Revoke", "Query"].contains(&call) {
            add(call, "BadRight");
        }
    }
    let (_, table) = reference.split_once("| call | errors |").expect("a table of errors");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let mut delegation = Vec::new();
    let rows: Vec<(&str, &str)> =
        rows.map(|row| row.trim_start_matches('|').split_once('|').unwrap()).collect();
    for (names, errors) in &rows {
        let errors: Vec<&str> = quoted(errors).filter(|word| statuses.contains(word)).collect();
        for name in quoted(names) {
            if name == "Delegate" {
                delegation.clone_from(&errors);
            }
            let prefix = name.strip_suffix('…');
            let of = |call: &&str| prefix.map_or(*call == name, |prefix| call.starts_with(prefix));
            let mut known = false;
            for call in calls().filter(of) {
                known = true;
                errors.iter().for_each(|status| _ = add(call, status));
            }
            assert!(known, "`{name}` in the table of errors is no call");
        }
    }
    // "With items also ... what `Delegate` gives."
    delegation.iter().for_each(|status| _ = add("Call", status));
    pairs
}

/// Source of each case by its name.
fn cases() -> BTreeMap<String, String> {
    let mut cases = BTreeMap::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/tests");
    for entry in folder.read_dir().unwrap() {
        let source = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        let Some((_, list)) = source.split_once("group!(\"") else { continue };
        let (group, list) = list.split_once("\":").unwrap();
        let (names, _) = list.split_once(");").unwrap();
        for name in names.split(',').map(str::trim).filter(|name| !name.is_empty()) {
            let (_, body) = source.split_once(&format!("\nfn {name}()")).expect(name);
            let body = body.split_once("\n}").map_or(body, |(body, _)| body);
            cases.insert(format!("{group}::{name}"), body.to_owned());
        }
    }
    assert!(cases.len() > 100, "only {} cases", cases.len());
    cases
}

#[test]
fn every_documented_status_is_shown_by_a_case() {
    let mut missing = documented();
    let mut twice = BTreeSet::new();
    for (call, status, _) in SHOWN {
        assert!(twice.insert((call, status)), "{call} {status} stands in the table twice");
        let pair = ((*call).to_owned(), (*status).to_owned());
        assert!(missing.remove(&pair), "{call} {status} is not in docs/abi.md");
    }
    assert!(missing.is_empty(), "no case shows {missing:#?}");
}

/// What the descriptions of the calls say that they need.
#[test]
fn every_right_is_missing_in_a_case() {
    let cases = cases();
    let rights = |text| quoted(text).filter(|word| Rights::from_name(word).is_some());
    let needed: Pairs = Call::ALL
        .iter()
        .flat_map(|(_, call, text)| rights(text).map(|r| ((*call).to_owned(), r.to_owned())))
        .collect();
    let shown: Pairs = NEEDED.iter().map(|(c, r, _)| ((*c).to_owned(), (*r).to_owned())).collect();
    assert_eq!(needed, shown);
    for (call, right, case) in NEEDED {
        let body = cases.get(*case).unwrap_or_else(|| panic!("{call} {right}: no case {case}"));
        assert!(body.contains("BadRight"), "{case} says nothing of a missing right");
    }
}

/// A case that shows an error says its name.
#[test]
fn the_cases_exist_and_are_about_the_status() {
    let cases = cases();
    let mut silent = Vec::new();
    for (call, status, case) in SHOWN {
        let body = cases.get(*case).unwrap_or_else(|| panic!("{call} {status}: no case {case}"));
        // The cases of the group `quota` are all about that.
        let implied = *status == "Ok" || (*status == "Quota" && case.starts_with("quota::"));
        if !implied && !body.contains(status) {
            silent.push(format!("{case} says nothing about {status} of {call}"));
        }
    }
    assert!(silent.is_empty(), "{silent:#?}");
}
