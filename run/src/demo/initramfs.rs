//! RAM disks for guests: busybox, drivers, and an init. That of the demo tries the guest's devices
//! and starts a shell.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::{debian, modules};
use crate::repo::Repo;
use crate::ui;

/// Line that init prints when the guest is up.
pub const GUEST_UP: &str = "GUEST-UP";

/// Line that init prints when the disk keeps what is written.
pub const DISK_OK: &str = "DISK-OK";
/// Line that init prints when everybody on the network answered.
pub const NET_OK: &str = "NET-OK";

/// The kernel whose drivers the RAM disk has.
const KERNEL: &str = "linux-image-cloud-amd64";

/// Drivers for the devices that a VM can have. The rest of what such a guest needs is built in.
pub const DRIVERS: &[&str] = &["virtio_mmio", "virtio_blk", "virtio_net", "virtio_console"];

const INIT: &str = include_str!("../../demo/init");
const LOAD: &str = include_str!("../../demo/load");

static WRITE: Mutex<()> = Mutex::new(());

/// What is in a RAM disk beside busybox.
pub struct Contents<'a> {
    /// Name of the file.
    pub name: &'a str,
    /// The first process, a script for busybox.
    pub init: &'a str,
    /// Drivers; those that they need are added.
    pub drivers: &'a [&'a str],
    /// Programs for `bin/`.
    pub programs: &'a [(&'a str, Vec<u8>)],
}

/// Builds the demo RAM disk and returns its path.
///
/// # Errors
/// As [`make`].
pub fn build(repo: &Repo) -> Result<PathBuf> {
    make(repo, &Contents { name: "initramfs", init: INIT, drivers: DRIVERS, programs: &[] })
}

/// Builds a RAM disk and returns its path. Uncompressed: it is small, and unpacking costs an
/// emulated CPU more than the firmware takes to read the difference.
///
/// # Errors
/// busybox or the kernel cannot be fetched, or the file not be written.
pub fn make(repo: &Repo, wanted: &Contents<'_>) -> Result<PathBuf> {
    let busybox = debian::tree(repo, "busybox-static")?.join("bin/busybox");
    let program =
        std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let applets = ui::run(Command::new(&busybox).arg("--list"), None)?;

    let mut archive = Archive::new();
    for folder in ["bin", "dev", "lib", "lib/modules", "proc", "sys", "tmp", "root"] {
        archive.directory(folder);
    }
    archive.program("init", wanted.init.as_bytes());
    archive.program("bin/load", LOAD.as_bytes());
    archive.program("bin/busybox", &program);
    for applet in applets.lines().filter(|name| *name != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    for (name, program) in wanted.programs {
        archive.program(&format!("bin/{name}"), program);
    }
    let mut order = String::new();
    for module in modules::collect(&debian::kernel_tree(repo, KERNEL)?, wanted.drivers)? {
        archive.program(&format!("lib/modules/{}.ko", module.name), &module.contents);
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.program("lib/modules/order", order.as_bytes());
    let path = repo.target.join("demo").join(wanted.name).with_extension("cpio");
    let contents = archive.finish();
    let _one_at_a_time = WRITE.lock().unwrap_or_else(PoisonError::into_inner);
    // Left alone where nothing changed: other runs may be reading it.
    if std::fs::read(&path).is_ok_and(|old| old == contents) {
        return Ok(path);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Renamed when complete, so that nobody reads half of it.
    let aside = path.with_extension(format!("{}", std::process::id()));
    std::fs::write(&aside, contents)
        .and_then(|()| std::fs::rename(&aside, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
