//! The demo RAM disk: busybox, drivers, and an init that tries the guest's devices and starts a
//! shell.

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

const INIT: &str = include_str!("../../demo/init");
const LOAD: &str = include_str!("../../demo/load");

static WRITE: Mutex<()> = Mutex::new(());

/// Builds the RAM disk and returns its path. Uncompressed: it is small, and unpacking costs an
/// emulated CPU more than the firmware takes to read the difference.
///
/// # Errors
/// busybox or the kernel cannot be fetched, or the file not be written.
pub fn build(repo: &Repo) -> Result<PathBuf> {
    let busybox = debian::tree(repo, "busybox-static")?.join("bin/busybox");
    let program =
        std::fs::read(&busybox).with_context(|| format!("cannot read {}", busybox.display()))?;
    let applets = ui::run(Command::new(&busybox).arg("--list"), None)?;

    let mut archive = Archive::new();
    for folder in ["bin", "dev", "lib", "lib/modules", "proc", "sys", "tmp", "root"] {
        archive.directory(folder);
    }
    archive.program("init", INIT.as_bytes());
    archive.program("bin/load", LOAD.as_bytes());
    archive.program("bin/busybox", &program);
    for applet in applets.lines().filter(|name| *name != "busybox") {
        archive.link(&format!("bin/{applet}"), "busybox");
    }
    let mut order = String::new();
    for module in modules::collect(&debian::kernel_tree(repo, KERNEL)?)? {
        archive.program(&format!("lib/modules/{}.ko", module.name), &module.contents);
        order.push_str(&module.name);
        order.push('\n');
    }
    archive.program("lib/modules/order", order.as_bytes());
    let path = repo.target.join("demo/initramfs.cpio");
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
