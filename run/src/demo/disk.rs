//! The demo disk: a small ext4 file system for a guest to write to.

use std::path::PathBuf;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};

use crate::repo::Repo;
use crate::ui;

/// Where Debian puts it: not in everybody's search path.
pub const MKE2FS: &str = "/usr/sbin/mke2fs";

/// Bytes of the file system: enough for a journal, small enough to load at boot.
pub const SIZE: u64 = 16 << 20;

static WRITE: Mutex<()> = Mutex::new(());

/// Makes the disk and returns its path. It is always the same.
///
/// # Errors
/// `mke2fs` is missing or fails.
pub fn build(repo: &Repo) -> Result<PathBuf> {
    let path = repo.target.join("demo/disk.ext4");
    let _one_at_a_time = WRITE.lock().unwrap_or_else(PoisonError::into_inner);
    if path.is_file() {
        return Ok(path);
    }
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    // Renamed when complete, so that nobody reads half of it.
    let aside = path.with_extension(format!("{}", std::process::id()));
    let mut command = Command::new(MKE2FS);
    command.args(["-q", "-F", "-t", "ext4", "-L", "demo", "-E"]);
    command.args(["hash_seed=2b0f6b1c-8a54-4a5e-9a1a-70727469636f,lazy_itable_init=0"]);
    command.args(["-U", "5d1b9c7a-31d6-4f0e-8a6e-70727469636f"]);
    command.arg(&aside).arg(format!("{}K", SIZE >> 10)).env("E2FSPROGS_FAKE_TIME", "1700000000");
    ui::run(&mut command, None).context("cannot make the demo disk (package e2fsprogs)")?;
    std::fs::rename(&aside, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
