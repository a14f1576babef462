//! The tests of all packages, on the host: each test is a case and a process of its own.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use super::report::Report;
use super::{Context, Job};
use crate::machine::bound;
use crate::ui;

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    vec![Job::group("host", tests), Job::case("host/doc", doc)]
}

/// A test program.
struct Program {
    path: PathBuf,
    /// Folder of its package.
    folder: PathBuf,
    /// Beginning of its cases' names.
    prefix: String,
}

fn tests(context: &Context, report: &Report) -> Result<()> {
    for program in build(context)? {
        let all = list(&program, &["--list"])?;
        let ignored = list(&program, &["--list", "--ignored"])?;
        for test in all {
            let name = format!("{}::{test}", program.prefix);
            if !report.wanted(&name) {
                continue;
            }
            if ignored.contains(&test) {
                report.skip(&name, "ignored");
                continue;
            }
            report.measure(&name, || {
                ui::run(command(&program).args([test.as_str(), "--exact"]), None)
                    .map(|_| String::new())
            });
        }
    }
    Ok(())
}

fn build(context: &Context) -> Result<Vec<Program>> {
    let root = &context.repo.root;
    let mut cargo = context.toolchain.cargo();
    cargo.args(["test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]);
    let messages = ui::run(cargo.current_dir(root), None)?;
    Ok(messages
        .lines()
        .filter_map(|line| program(&serde_json::from_str(line).ok()?, root))
        .collect())
}

/// The test program of one of cargo's messages.
fn program(message: &Value, root: &Path) -> Option<Program> {
    let path = message.get("executable")?.as_str()?;
    let manifest = Path::new(message.get("manifest_path")?.as_str()?);
    if !message.get("profile")?.get("test")?.as_bool()? {
        return None;
    }
    let folder = manifest.parent()?;
    let target = message.get("target")?;
    let kind = target.get("kind")?.get(0)?.as_str()?;
    let mut prefix = format!("host/{}", folder.strip_prefix(root).ok()?.display());
    if matches!(kind, "test" | "example" | "bench") {
        prefix = format!("{prefix}/{}", target.get("name")?.as_str()?);
    }
    Some(Program { path: path.into(), folder: folder.to_path_buf(), prefix })
}

fn command(program: &Program) -> Command {
    let mut command = bound(&program.path);
    command.current_dir(&program.folder).env_remove("RUST_BACKTRACE");
    command
}

fn list(program: &Program, args: &[&str]) -> Result<Vec<String>> {
    let output = ui::run(command(program).args(args).args(["--format", "terse"]), None)
        .with_context(|| anyhow!("cannot list the tests of {}", program.prefix))?;
    let tests = output.lines().filter_map(|line| line.strip_suffix(": test"));
    Ok(tests.map(str::to_owned).collect())
}

fn doc(context: &Context) -> Result<String> {
    let mut cargo = context.toolchain.cargo();
    cargo.args(["test", "--workspace", "--doc", "--quiet"]).current_dir(&context.repo.root);
    ui::run(&mut cargo, None).map(|_| String::new())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, test: bool) -> Value {
        serde_json::json!({
            "reason": "compiler-artifact",
            "manifest_path": "/r/components/vmm/Cargo.toml",
            "target": { "kind": [kind], "name": "boots" },
            "profile": { "test": test },
            "executable": "/t/debug/deps/vmm-1",
        })
    }

    #[test]
    fn programs_are_named_after_their_folder() {
        let root = Path::new("/r");
        let lib = program(&message("lib", true), root).unwrap();
        assert_eq!(lib.prefix, "host/components/vmm");
        let test = program(&message("test", true), root).unwrap();
        assert_eq!(test.prefix, "host/components/vmm/boots");
        assert!(program(&message("bin", false), root).is_none());
        assert!(program(&serde_json::json!({ "reason": "build-finished" }), root).is_none());
    }
}
