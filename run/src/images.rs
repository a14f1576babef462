//! Builds the programs that run on the machine: hypervisor, root task, components.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::repo::Repo;
use crate::toolchain::{BARE, Toolchain};
use crate::ui;

/// The kernel's package.
pub const HYPERVISOR: &str = "hypervisor";
/// The root task's package.
pub const ROOTTASK: &str = "roottask";

/// The kernel is linked into the last 2 GiB, does not move, and backtraces follow the frames.
pub const KERNEL_FLAGS: &str =
    "-Crelocation-model=static -Ccode-model=kernel -Cforce-frame-pointers=yes";
/// Components are linked at a fixed address low in their own address space.
pub const USER_FLAGS: &str = "-Crelocation-model=pic -Clink-arg=--no-pie";

/// Kernel and components have different flags: separate folders save building them in turns.
pub const KERNEL_FOLDER: &str = "kernel";
/// Where components are built.
pub const USER_FOLDER: &str = "user";

/// Built programs.
#[derive(Clone, Debug)]
pub struct Images {
    folder: PathBuf,
}

impl Images {
    /// The stripped image of a program.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

/// The program with its symbols.
#[must_use]
pub fn symbols(repo: &Repo, name: &str) -> PathBuf {
    let folder = if name == HYPERVISOR { KERNEL_FOLDER } else { USER_FOLDER };
    repo.target.join(folder).join(BARE).join("release").join(name)
}

/// Builds the hypervisor, the root task and the named components.
///
/// # Errors
/// Cargo fails, or a package has no program of its name.
pub fn build(repo: &Repo, toolchain: &Toolchain, components: &[String]) -> Result<Images> {
    let stage = ui::Stage::start("build");
    let mut user = vec![ROOTTASK];
    user.extend(components.iter().map(String::as_str));
    // Each has a long stretch on one CPU, the library `core`: side by side they overlap.
    let (kernel, others) = std::thread::scope(|scope| {
        let kernel = scope.spawn(|| cargo(repo, toolchain, &[HYPERVISOR], &[], KERNEL, &stage));
        let others = cargo(repo, toolchain, &user, &[], USER, &stage);
        (kernel.join().unwrap_or_else(|_| Err(anyhow!("building the kernel failed"))), others)
    });
    kernel.and(others)?;

    let folder = repo.target.join("images");
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("cannot make {}", folder.display()))?;
    let images = Images { folder };
    for name in [HYPERVISOR].into_iter().chain(user) {
        strip(repo, name, &images)?;
    }
    stage.done(&format!("hypervisor, root task, {}", components.join(", ")));
    Ok(images)
}

/// Builds the kernel whose guest entries fail on demand, for tests. Returns its image.
///
/// # Errors
/// As for [`build`].
pub fn sabotaged(repo: &Repo, toolchain: &Toolchain) -> Result<PathBuf> {
    const PLACE: (&str, &str) = ("kernel-sabotage", KERNEL_FLAGS);
    let stage = ui::Stage::start("build");
    cargo(repo, toolchain, &[HYPERVISOR], &["--features", "sabotage"], PLACE, &stage)?;
    stage.done("hypervisor whose guest entries fail on demand");
    Ok(repo.target.join(PLACE.0).join(BARE).join("release").join(HYPERVISOR))
}

/// Where and with what flags the kernel is built.
const KERNEL: (&str, &str) = (KERNEL_FOLDER, KERNEL_FLAGS);
/// The same for everything else.
const USER: (&str, &str) = (USER_FOLDER, USER_FLAGS);

fn cargo(
    repo: &Repo,
    toolchain: &Toolchain,
    packages: &[&str],
    extra: &[&str],
    (folder, flags): (&str, &str),
    stage: &ui::Stage,
) -> Result<()> {
    let mut command = toolchain.cargo();
    command.arg("build").arg("--release").current_dir(&repo.root);
    command.arg("--target-dir").arg(repo.target.join(folder));
    for package in packages {
        command.args(["--package", package, "--bin", package]);
    }
    command.args(extra);
    toolchain.bare(&mut command, flags);
    ui::run(&mut command, Some(stage))
        .with_context(|| format!("cannot build {}", packages.join(", ")))
        .map(drop)
}

fn strip(repo: &Repo, name: &str, images: &Images) -> Result<()> {
    let from = symbols(repo, name);
    if !from.is_file() {
        bail!("package `{name}` built no program {}", from.display());
    }
    let mut command = Command::new("strip");
    command.arg("-o").arg(images.path(name)).arg(&from);
    ui::run(&mut command, None).with_context(|| format!("cannot strip {name}")).map(drop)
}
