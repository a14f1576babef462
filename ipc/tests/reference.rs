//! `docs/abi.md` says what the code says: its tables between markers are generated from the
//! definitions. `UPDATE=1 cargo test -p ipc --test reference` writes them anew.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fmt::Write;
use std::mem::offset_of;
use std::path::Path;

use ipc::cap::{MemRights, ObjectType, Rights, Space};
use ipc::event::Exit;
use ipc::info::{Cpu, Features, Info, Memory, MemoryKind, Module};
use ipc::state::{Activity, InjectKind, Mtd, Segment, State};
use ipc::status::Status;
use ipc::syscall::{
    Call, DOWN_ZERO, EC_FPU, EC_GLOBAL, EcOp, InterruptOp, MESSAGE_SIGNALLED, POLARITY_LOW,
    TRIGGER_LEVEL,
};
use ipc::trace::{Counter, Kind};
use ipc::utcb::{Item, Utcb, Window};

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

/// The definitions that say what their constants mean.
const SOURCES: [&str; 4] = [
    include_str!("../src/cap.rs"),
    include_str!("../src/info.rs"),
    include_str!("../src/state.rs"),
    include_str!("../src/syscall.rs"),
];

/// The description of a constant, from its source.
fn meaning(name: &str) -> String {
    let found = SOURCES.iter().find_map(|source| {
        let definition = |rest: &str| rest.starts_with([' ', ':']);
        let (at, _) = source
            .match_indices(&format!("const {name}"))
            .find(|(at, found)| definition(&source[at + found.len()..]))?;
        let before: Vec<&str> = source[..at].lines().rev().skip(1).collect();
        let docs = before.iter().map_while(|line| line.trim().strip_prefix("///"));
        Some(docs.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join(" "))
    });
    line(&found.unwrap_or_else(|| panic!("no description of {name}")))
}

/// A flag by its bit, its name and what it means. Rights share bits between types of objects.
macro_rules! flags {
    ($type:ident) => {{
        let mut out = String::from("| bit | name | meaning |\n|---|---|---|\n");
        for flag in <$type as bitflags::Flags>::FLAGS {
            let (name, bit) = (flag.name(), flag.value().bits().trailing_zeros());
            writeln!(out, "| {bit} | `{name}` | {} |", meaning(name)).unwrap();
        }
        out
    }};
}

/// Flags of calls, which are numbers.
fn call_flags() -> String {
    let mut out = String::from("| value | name | meaning |\n|---|---|---|\n");
    for (name, value) in [
        ("DOWN_ZERO", DOWN_ZERO.into()),
        ("EC_GLOBAL", EC_GLOBAL.into()),
        ("EC_FPU", EC_FPU.into()),
        ("TRIGGER_LEVEL", TRIGGER_LEVEL),
        ("POLARITY_LOW", POLARITY_LOW),
        ("MESSAGE_SIGNALLED", MESSAGE_SIGNALLED),
    ] {
        writeln!(out, "| {value} | `{name}` | {} |", meaning(name)).unwrap();
    }
    out
}

/// Fields of a structure with their offsets.
macro_rules! offsets {
    ($type:ident: $($field:ident)+) => {
        [$((stringify!($field), offset_of!($type, $field))),+]
            .map(|(field, at)| format!("`{field}` {at:#x}"))
            .join(", ")
    };
}

/// Where structures hold what.
fn layout(structures: &[(&str, String)]) -> String {
    let mut out = String::from("| structure | fields and their offsets |\n|---|---|\n");
    for (name, fields) in structures {
        writeln!(out, "| {name} | {fields} |").unwrap();
    }
    out
}

fn utcb() -> String {
    layout(&[
        ("UTCB", offsets!(Utcb: windows user state items words)),
        ("Window", offsets!(Window: base order)),
        ("Item", offsets!(Item: range base offset badge)),
    ])
}

fn info() -> String {
    let counts = offsets!(Info: magic abi_version cpu_count features tsc_khz boot_tsc rsdp
        interrupt_count gsi_count quota memory_count module_count isa_irqs cpus memory modules);
    layout(&[
        ("Page", counts),
        ("CPU", offsets!(Cpu: apic_id)),
        ("Memory", offsets!(Memory: base size kind)),
        ("Module", offsets!(Module: base size name)),
    ])
}

/// Which fields of the state area belong to which group.
fn state() -> String {
    let mut out =
        String::from("| group | fields and their offsets in the state area |\n|---|---|\n");
    macro_rules! groups {
        ($($group:ident: $($field:ident)+;)+) => {
            $( writeln!(out, "| `{}` | {} |", stringify!($group), offsets!(State: $($field)+)).unwrap();
               // It is a group.
               assert!(!Mtd::$group.is_empty()); )+
        };
    }
    groups! {
        GPR_ACDB: rax rcx rdx rbx;
        GPR_BSD: rsp rbp rsi rdi;
        GPR_R8: r8 r9 r10 r11 r12 r13 r14 r15;
        RIP: rip rflags instruction_length;
        CS_SS: cs ss;
        DATA_SEG: ds es fs gs;
        SYS_SEG: tr ldtr gdtr idtr;
        CR: cr0 cr2 cr3 cr4;
        CR8: cr8;
        DR: dr6 dr7 dr;
        EFER_PAT: efer pat;
        SYSCALL_MSR: star lstar cstar fmask kernel_gs_base;
        SYSENTER_MSR: sysenter_cs sysenter_esp sysenter_eip;
        XSTATE: xcr0 xss;
        QUAL: qualification;
        INJECT: inject;
        ACTIVITY: activity;
        TSC: tsc_offset tsc_aux;
        DEADLINE: deadline;
    }
    writeln!(out, "| segment | {} |", offsets!(Segment: selector attributes limit base)).unwrap();
    out
}

fn generated() -> Vec<(&'static str, String)> {
    vec![
        ("version", format!("ABI version {}\n", ipc::ABI_VERSION)),
        ("objects", table!(ObjectType)),
        ("rights", flags!(Rights)),
        ("memory-rights", flags!(MemRights)),
        ("spaces", table!(Space)),
        ("status", table!(Status)),
        ("calls", table!(Call)),
        ("call-flags", call_flags()),
        ("utcb", utcb()),
        ("state", state()),
        ("info", info()),
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
