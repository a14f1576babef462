//! Packages of the Debian archive, fetched once into the cache and unpacked there.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, bail};

use crate::repo::Repo;
use crate::{deps, ui};

/// A kernel metapackage names the package of the current version; never more than that.
const DEPTH: usize = 3;

/// The kernel image of a package, or of the package that a metapackage stands for.
///
/// # Errors
/// The package cannot be fetched, or holds no kernel.
pub fn kernel(repo: &Repo, package: &str) -> Result<PathBuf> {
    let tree = kernel_tree(repo, package)?;
    vmlinuz(&tree).with_context(|| format!("Debian package {package} holds no kernel"))
}

/// The files of a kernel's package.
///
/// # Errors
/// As [`kernel`].
pub fn kernel_tree(repo: &Repo, package: &str) -> Result<PathBuf> {
    let mut name = package.to_owned();
    for _ in 0..DEPTH {
        let tree = tree(repo, &name)?;
        if vmlinuz(&tree).is_some() {
            return Ok(tree);
        }
        name = points_to(&tree)?
            .with_context(|| format!("Debian package {package} holds no kernel"))?;
    }
    bail!("Debian package {package} leads to no kernel")
}

static FETCH: Mutex<()> = Mutex::new(());

/// A package's files.
///
/// # Errors
/// The package cannot be fetched or unpacked.
pub fn tree(repo: &Repo, package: &str) -> Result<PathBuf> {
    // Whoever asks for the same package meanwhile waits for it; what a panic left is not there.
    let _one_at_a_time = FETCH.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = repo.cache().join("debian");
    let tree = folder.join(package);
    if tree.is_dir() {
        return Ok(tree);
    }
    let stage = ui::Stage::start("fetch");
    stage.at(package);
    // Unpacked aside and then renamed: what is there is complete.
    let aside = folder.join(format!(".{package}.{}", std::process::id()));
    std::fs::create_dir_all(&aside).with_context(|| format!("cannot make {}", aside.display()))?;
    let fetched = fetch(package, &aside).with_context(|| {
        format!("cannot fetch the Debian package {package}; a configuration can also name files")
    });
    let renamed = fetched.and_then(|()| std::fs::rename(&aside, &tree).context("cannot rename"));
    if let Err(error) = renamed {
        let _ = std::fs::remove_dir_all(&aside);
        return Err(error);
    }
    stage.done(&format!("Debian package {package}"));
    Ok(tree)
}

fn fetch(package: &str, aside: &Path) -> Result<()> {
    if download(package, aside).is_err() {
        // New machines come without lists, old ones with lists of what is gone.
        deps::refresh_lists()?;
        download(package, aside)?;
    }
    let archive = aside
        .read_dir()?
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.extension().is_some_and(|e| e == "deb"))
        .context("apt-get left no package")?;
    ui::run(Command::new("dpkg-deb").arg("-x").arg(&archive).arg(aside), None)?;
    let control = ui::run(Command::new("dpkg-deb").arg("-f").arg(&archive), None)?;
    std::fs::write(aside.join(CONTROL), control)?;
    std::fs::remove_file(&archive)?;
    Ok(())
}

/// Name under which a package's control fields are kept beside its files.
const CONTROL: &str = ".control";

fn download(package: &str, folder: &Path) -> Result<()> {
    let mut command = Command::new("apt-get");
    // The sandbox user could not write into the cache.
    command.args(["-o", "APT::Sandbox::User=root", "download", package]).current_dir(folder);
    ui::run(&mut command, None).map(drop)
}

fn vmlinuz(tree: &Path) -> Option<PathBuf> {
    let boot = tree.join("boot").read_dir().ok()?;
    boot.filter_map(Result::ok)
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("vmlinuz-")))
}

/// The kernel package that a metapackage depends on.
fn points_to(tree: &Path) -> Result<Option<String>> {
    let control = std::fs::read_to_string(tree.join(CONTROL))?;
    Ok(depends(&control))
}

fn depends(control: &str) -> Option<String> {
    let line = control.lines().find_map(|l| l.strip_prefix("Depends:"))?;
    let words = line.split(',').filter_map(|part| part.split_whitespace().next());
    words.into_iter().find(|w| w.starts_with("linux-image-")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::depends;

    #[test]
    fn metapackage_names_its_kernel() {
        let control = "Package: linux-image-cloud-amd64\nVersion: 6.1\n\
                       Depends: foo, linux-image-6.1.0-56-cloud-amd64 (= 6.1.192-2)\n";
        assert_eq!(depends(control).as_deref(), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(depends("Package: x\n"), None);
    }
}
