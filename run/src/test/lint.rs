//! Formatting and lints: of everything on the host, of kernel and components for the machine.

use anyhow::{Result, bail};

use super::{Context, Job};
use crate::images::{
    HOSTILE_GUEST, HYPERVISOR, KERNEL_FLAGS, KERNEL_FOLDER, ROOTTASK, USER_FLAGS, USER_FOLDER,
};
use crate::ui;

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    vec![
        Job::case("lint/format", format),
        Job::case("lint/host", host),
        Job::case("lint/kernel", |c| {
            bare(c, &[HYPERVISOR.to_owned()], KERNEL_FOLDER, KERNEL_FLAGS)
        }),
        Job::case("lint/components", |c| {
            let mut packages = vec![ROOTTASK.to_owned(), HOSTILE_GUEST.to_owned()];
            packages.extend(c.repo.images()?);
            bare(c, &packages, USER_FOLDER, USER_FLAGS)
        }),
    ]
}

fn format(context: &Context) -> Result<String> {
    require(context, "fmt")?;
    let mut command = context.toolchain.companion("fmt");
    command.args(["--all", "--check", "--", "--color", "never"]).current_dir(&context.repo.root);
    ui::run(&mut command, None).map(|_| String::new())
}

fn host(context: &Context) -> Result<String> {
    require(context, "clippy")?;
    let mut command = context.toolchain.companion("clippy");
    command.args(["--workspace", "--all-targets", "--quiet"]).current_dir(&context.repo.root);
    command.args(["--", "-D", "warnings"]);
    ui::run(&mut command, None).map(|_| String::new())
}

/// What is left out on the host, the lints see here.
fn bare(context: &Context, packages: &[String], folder: &str, flags: &str) -> Result<String> {
    require(context, "clippy")?;
    let mut command = context.toolchain.companion("clippy");
    command.arg("--quiet").current_dir(&context.repo.root);
    command.arg("--target-dir").arg(context.repo.target.join(folder));
    for package in packages {
        command.args(["--package", package]);
    }
    context.toolchain.bare(&mut command, flags);
    command.args(["--", "-D", "warnings"]);
    ui::run(&mut command, None).map(|_| String::new())
}

fn require(context: &Context, name: &str) -> Result<()> {
    if !context.toolchain.has_companion(name) {
        bail!("cargo {name} is not installed; with rustup: rustup component add clippy rustfmt");
    }
    Ok(())
}
