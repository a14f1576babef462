//! The programs that the tool needs besides Rust: found, or installed after saying so.

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::toolchain::{Kind, Toolchain};
use crate::ui;

/// Oldest QEMU whose SVM emulation is good enough.
const QEMU: u32 = 9;

/// Something that must be installed.
struct Need {
    what: &'static str,
    found: fn() -> bool,
    packages: &'static [&'static str],
}

const IMAGE: &[Need] = &[
    Need { what: "GRUB's image builder", found: grub_mkrescue, packages: &["grub-common"] },
    Need { what: "GRUB for BIOS", found: grub_bios, packages: &["grub-pc-bin"] },
    Need { what: "GRUB for UEFI", found: grub_uefi, packages: &["grub-efi-amd64-bin"] },
    Need { what: "xorriso", found: || runs("xorriso", "-version"), packages: &["xorriso"] },
    Need { what: "mtools", found: || runs("mformat", "--version"), packages: &["mtools"] },
    Need {
        what: "mke2fs",
        found: || Path::new(crate::demo::disk::MKE2FS).is_file(),
        packages: &["e2fsprogs"],
    },
    Need { what: "strip", found: || runs("strip", "--version"), packages: &["binutils"] },
];

const BOOT: &[Need] = &[
    Need { what: "QEMU 9 or newer", found: qemu, packages: &[QEMU_PACKAGE] },
    Need {
        what: "UEFI firmware for QEMU",
        found: || Path::new(crate::qemu::OVMF).is_file(),
        packages: &["ovmf"],
    },
];

const BOCHS: &[Need] = &[
    Need { what: "Bochs", found: || runs(crate::bochs::PROGRAM, "--help"), packages: &["bochs"] },
    Need { what: "Bochs without a window", found: bochs_term, packages: &["bochs-term"] },
    Need {
        what: "firmware for Bochs",
        found: || Path::new(crate::bochs::BIOS).is_file(),
        packages: &["bochsbios"],
    },
    Need {
        what: "VGA firmware for Bochs",
        found: || Path::new(crate::bochs::VGA_BIOS).is_file(),
        packages: &["vgabios"],
    },
];

const LINT: &[Need] = &[
    Need {
        what: "rustfmt",
        found: || runs("/usr/bin/rustfmt", "--version"),
        packages: &["rustfmt-web"],
    },
    Need {
        what: "clippy",
        found: || runs("/usr/bin/cargo-clippy", "--version"),
        packages: &["rust-web-clippy"],
    },
];

const QEMU_PACKAGE: &str = "qemu-system-x86";

/// What a command is going to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    /// Pack an image.
    Image,
    /// Pack and boot it in QEMU.
    Boot,
    /// Pack and boot it in Bochs.
    BootBochs,
    /// All of the benchmarks.
    Bench,
    /// All of the test suite.
    Test,
}

/// Installs what is missing. Says so first; asks where somebody is there to answer.
///
/// # Errors
/// Something is missing and cannot be installed.
pub fn ensure(purpose: For, toolchain: &Toolchain, yes: bool) -> Result<()> {
    let mut needs: Vec<&Need> = IMAGE.iter().collect();
    if !matches!(purpose, For::Image | For::BootBochs) {
        needs.extend(BOOT);
    }
    if matches!(purpose, For::BootBochs | For::Bench | For::Test) {
        needs.extend(BOCHS);
    }
    // With another toolchain than Debian's, clippy and rustfmt are rustup's business.
    if purpose == For::Test && toolchain.kind == Kind::Debian {
        needs.extend(LINT);
    }
    let missing: Vec<&Need> = needs.into_iter().filter(|n| !(n.found)()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages: Vec<&str> = missing.iter().flat_map(|n| n.packages).copied().collect();
    let whats: Vec<&str> = missing.iter().map(|n| n.what).collect();
    if !debian_root() {
        bail!(
            "missing: {}\nOn Debian or Ubuntu, as root: apt-get install {}{}",
            whats.join(", "),
            packages.join(" "),
            if packages.contains(&QEMU_PACKAGE) {
                "\n(Debian 12: QEMU from bookworm-backports)"
            } else {
                ""
            }
        );
    }
    ui::note(&format!("Missing: {}.", whats.join(", ")));
    ui::note(&format!("These Debian packages will be installed:\n    {}", packages.join(" ")));
    let backports = packages.contains(&QEMU_PACKAGE).then(backports).flatten();
    if let Some(suite) = &backports {
        ui::note(&format!(
            "QEMU comes from {suite}, added as {} if it is not there yet.",
            source_file(suite)
        ));
    }
    if !yes && !agreed()? {
        bail!("nothing was installed");
    }
    install(&packages, backports.as_deref())?;
    match missing.iter().find(|n| !(n.found)()) {
        Some(need) => bail!("{} is still missing after the installation", need.what),
        None => Ok(()),
    }
}

/// Brings apt's lists up to date where a package is unknown to them.
///
/// # Errors
/// apt-get fails.
pub fn refresh_lists() -> Result<()> {
    if !debian_root() {
        bail!("apt's package lists are empty or old; as root: apt-get update");
    }
    ui::run(Command::new("apt-get").args(["update", "-qq"]), None).map(drop)
}

fn agreed() -> Result<bool> {
    let before = std::env::var_os("PORTICO_AGREED").is_some();
    if before || !std::io::stdin().is_terminal() || !ui::terminal() {
        return Ok(true);
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "Install them now? [Y/n] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "" | "y" | "Y" | "yes"))
}

fn install(packages: &[&str], backports: Option<&str>) -> Result<()> {
    if let Some(suite) = backports {
        add_source(suite)?;
    }
    let stage = ui::Stage::start("install");
    // Old lists name packages that the mirror no longer has.
    if let Err(error) = apt(&["update"], &stage) {
        ui::note(&format!("warning: going on with the old package lists: {error}"));
    }
    let (special, plain): (Vec<&str>, Vec<&str>) =
        packages.iter().partition(|p| backports.is_some() && **p == QEMU_PACKAGE);
    for (list, suite) in [(plain, None), (special, backports)] {
        if list.is_empty() {
            continue;
        }
        let mut args = vec!["install", "-y", "--no-install-recommends"];
        args.extend(suite.iter().flat_map(|s| ["-t", s]));
        args.extend(list);
        apt(&args, &stage)?;
    }
    stage.done(&packages.join(" "));
    Ok(())
}

fn apt(args: &[&str], stage: &ui::Stage) -> Result<()> {
    let mut command = Command::new("apt-get");
    command.args(args).env("DEBIAN_FRONTEND", "noninteractive");
    ui::run(&mut command, Some(stage)).map(drop)
}

/// The suite that has a new enough QEMU where the release itself has not.
fn backports() -> Option<String> {
    let release = std::fs::read_to_string("/etc/os-release").ok()?;
    let codename = release.lines().find_map(|l| l.strip_prefix("VERSION_CODENAME="))?;
    (codename.trim_matches('"') == "bookworm").then(|| "bookworm-backports".to_owned())
}

fn source_file(suite: &str) -> String {
    format!("/etc/apt/sources.list.d/{suite}.list")
}

fn add_source(suite: &str) -> Result<()> {
    let known = Command::new("apt-cache")
        .arg("policy")
        .output()
        .is_ok_and(|out| String::from_utf8_lossy(&out.stdout).contains(&format!("n={suite}")));
    let file = source_file(suite);
    if !known && !Path::new(&file).exists() {
        let line = format!("deb http://deb.debian.org/debian {suite} main\n");
        std::fs::write(&file, line).with_context(|| format!("cannot write {file}"))?;
    }
    Ok(())
}

fn debian_root() -> bool {
    let root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout == b"0\n");
    root && Path::new("/etc/debian_version").exists() && runs("apt-get", "--version")
}

fn runs(program: &str, arg: &str) -> bool {
    let status =
        Command::new(program).arg(arg).stdout(Stdio::null()).stderr(Stdio::null()).status();
    status.is_ok_and(|s| s.success())
}

fn grub_mkrescue() -> bool {
    runs("grub-mkrescue", "--version")
}

fn grub_bios() -> bool {
    Path::new("/usr/lib/grub/i386-pc/multiboot2.mod").is_file()
}

fn grub_uefi() -> bool {
    Path::new("/usr/lib/grub/x86_64-efi/multiboot2.mod").is_file()
}

/// Bochs draws its screen through plugins.
fn bochs_term() -> bool {
    Path::new("/usr/lib/x86_64-linux-gnu/bochs/plugins/libbx_term_gui.so").is_file()
}

fn qemu() -> bool {
    let Ok(out) = Command::new(crate::qemu::PROGRAM).arg("--version").output() else {
        return false;
    };
    major(&String::from_utf8_lossy(&out.stdout)).is_some_and(|v| v >= QEMU)
}

/// Major version in "QEMU emulator version 10.0.2 (...)".
fn major(text: &str) -> Option<u32> {
    text.split_once("version ")?.1.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::major;

    #[test]
    fn version_of_qemu_is_understood() {
        assert_eq!(major("QEMU emulator version 7.2.19 (Debian 1:7.2+dfsg)"), Some(7));
        assert_eq!(major("QEMU emulator version 10.0.2 (Debian)\nCopyright"), Some(10));
        assert_eq!(major("something else"), None);
    }
}
