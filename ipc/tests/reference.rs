//! `docs/abi.md` says what the code says: its tables between markers are generated from the
//! definitions. `UPDATE=1 cargo test -p ipc --test reference` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Write;
use std::path::Path;

use ipc::cap::{MemRights, ObjectType, Rights, Space};
use ipc::event::Exit;
use ipc::info::{Features, MemoryKind};
use ipc::state::{Activity, InjectKind, Mtd};
use ipc::status::Status;
use ipc::syscall::{Call, EcOp, InterruptOp};
use ipc::trace::{Counter, Kind};

/// The description of a value as one line of Markdown without links into the crate.
fn line(doc: &str) -> String {
    let words = doc.split_whitespace().collect::<Vec<_>>().join(" ");
    words.replace("[`", "`").replace("`]", "`").replace("crate::", "").replace('|', "\\|")
}

macro_rules! table {
    ($type:ident) => {{
        let mut out = String::from("| number | name | meaning |\n|---|---|---|\n");
        for (value, name, doc) in $type::ALL {
            writeln!(out, "| {} | `{name}` | {} |", value.number(), line(doc)).unwrap();
        }
        out
    }};
}

macro_rules! flags {
    ($type:ident) => {{
        let mut out = String::from("| bit | name |\n|---|---|\n");
        for (name, value) in $type::all().iter_names().filter(|(_, v)| v.bits().count_ones() == 1) {
            writeln!(out, "| {} | `{name}` |", value.bits().trailing_zeros()).unwrap();
        }
        out
    }};
}

/// Rights share bits between object types, so all names are listed.
fn rights() -> String {
    use bitflags::Flags;
    let mut out = String::from("| bit | name |\n|---|---|\n");
    for flag in Rights::FLAGS {
        writeln!(out, "| {} | `{}` |", flag.value().bits().trailing_zeros(), flag.name()).unwrap();
    }
    out
}

fn generated() -> Vec<(&'static str, String)> {
    vec![
        ("version", format!("ABI version {}\n", ipc::ABI_VERSION)),
        ("objects", table!(ObjectType)),
        ("rights", rights()),
        ("memory-rights", flags!(MemRights)),
        ("spaces", table!(Space)),
        ("status", table!(Status)),
        ("calls", table!(Call)),
        ("ec-operations", table!(EcOp)),
        ("interrupt-operations", table!(InterruptOp)),
        ("mtd", flags!(Mtd)),
        ("activity", flags!(Activity)),
        ("injection", table!(InjectKind)),
        ("exits", table!(Exit)),
        ("memory-kinds", table!(MemoryKind)),
        ("features", flags!(Features)),
        ("counters", table!(Counter)),
        ("records", table!(Kind)),
    ]
}

#[test]
fn the_changelog_has_this_version() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/abi-changelog.md");
    let text = std::fs::read_to_string(path).expect("docs/abi-changelog.md");
    let mut versions = text.lines().filter_map(|line| line.strip_prefix("## Version "));
    assert_eq!(versions.next(), Some(ipc::ABI_VERSION.to_string().as_str()));
}

#[test]
fn reference_agrees_with_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/abi.md");
    let old = std::fs::read_to_string(&path).expect("docs/abi.md");
    let mut new = old.clone();
    for (name, table) in generated() {
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- end {name} -->"));
        let start = new.find(&begin).unwrap_or_else(|| panic!("no `{name}` in docs/abi.md"));
        let start = start + begin.len();
        let length = new[start..].find(&end).unwrap_or_else(|| panic!("no end of `{name}`"));
        new.replace_range(start..start + length, &table);
    }
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, new).unwrap();
    } else {
        assert!(old == new, "docs/abi.md is not what the code says: run with UPDATE=1");
    }
}
