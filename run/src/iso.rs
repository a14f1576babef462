//! Packs hypervisor and modules into one image that BIOS and UEFI boot through GRUB: from a disc, or
//! from a stick or disk that it is written to as it is.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::ui;

/// The image needs these of GRUB and no more; fonts, themes and translations stay out. The
/// partition formats are there because the start of a `grub-mkrescue` image complains without.
const GRUB_MODULES: &str = "normal echo multiboot2 iso9660 serial terminal test part_acorn part_amiga \
     part_apple part_bsd part_dfly part_dvh part_gpt part_msdos part_plan part_sun part_sunpc";

/// The header's magic number, and how far into the file it may stand (Multiboot2, section 3.1).
const MULTIBOOT2: [u8; 4] = 0xe852_50d6_u32.to_le_bytes();
const HEADER_LIMIT: usize = 32768;

/// What the image is written to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// An optical disc, as emulators have it.
    #[default]
    Disc,
    /// A USB stick or a disk of a machine, perhaps without a serial port.
    Stick,
}

/// Contents of a module.
#[derive(Clone, Debug)]
pub enum Contents {
    /// A file's.
    File(PathBuf),
    /// These.
    Bytes(Vec<u8>),
}

/// What a boot image holds.
#[derive(Clone, Debug)]
pub struct Plan {
    /// A multiboot2 kernel.
    pub kernel: PathBuf,
    /// Its command line.
    pub args: String,
    /// Modules in order; the name is the module's command line.
    pub modules: Vec<(String, Contents)>,
}

impl Plan {
    /// Writes the image for a disc, using a folder beside it for the parts.
    ///
    /// # Errors
    /// A part cannot be read or written, or GRUB's builder fails.
    pub fn pack(&self, iso: &Path) -> Result<()> {
        self.pack_for(Medium::Disc, iso)
    }

    /// The same for another medium.
    ///
    /// # Errors
    /// As for [`Self::pack`].
    pub fn pack_for(&self, medium: Medium, iso: &Path) -> Result<()> {
        let stage = ui::Stage::start("image");
        check_header(&self.kernel)?;
        let parts = iso.with_extension("parts");
        if parts.exists() {
            std::fs::remove_dir_all(&parts)?;
        }
        let boot = parts.join("boot");
        let grub = boot.join("grub");
        std::fs::create_dir_all(&grub)
            .with_context(|| format!("cannot make {}", grub.display()))?;
        copy(&self.kernel, &boot.join(KERNEL))?;
        for (name, contents) in &self.modules {
            match contents {
                Contents::File(path) => copy(path, &boot.join(name))?,
                Contents::Bytes(bytes) => std::fs::write(boot.join(name), bytes)?,
            }
        }
        std::fs::write(grub.join("grub.cfg"), self.grub_cfg(medium))?;

        let mut command = Command::new("grub-mkrescue");
        command.arg("-o").arg(iso).arg(format!("--install-modules={GRUB_MODULES}"));
        command.args(["--fonts=", "--locales=", "--themes="]).arg(&parts);
        if medium == Medium::Stick {
            // Some firmware starts nothing from a disk without an active partition.
            command.args(["--", "-boot_image", "any", "mbr_force_bootable=on"]);
        }
        ui::run(&mut command, Some(&stage)).context("cannot pack the boot image")?;
        std::fs::remove_dir_all(&parts)?;
        let size = iso.metadata().map_or(0, |m| m.len());
        stage.done(&format!("{} ({})", iso.display(), crate::config::units::show(size)));
        Ok(())
    }

    /// Boots without a menu. An emulator has no screen, so GRUB's own messages go to the serial
    /// port; OVMF shows its console there already. A machine's screen says where to look.
    fn grub_cfg(&self, medium: Medium) -> String {
        let mut text = String::from(match medium {
            Medium::Disc => {
                "if [ \"$grub_platform\" = pc ]; then\n  serial --unit=0 --speed=115200\n  \
                 terminal_output serial\nfi\n"
            }
            Medium::Stick => {
                "echo \"Portico starts. Its console is the first serial port (COM1), 115200 8N1.\"\n"
            }
        });
        text += &format!("multiboot2 /boot/{KERNEL} {}\n", self.args);
        for (name, _) in &self.modules {
            text += &format!("module2 /boot/{name} {name}\n");
        }
        text += "boot\n";
        text
    }
}

/// File name of the kernel in the image.
const KERNEL: &str = "hypervisor";

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// GRUB would say no more than "no multiboot header found", on a console nobody watches.
fn check_header(kernel: &Path) -> Result<()> {
    let bytes =
        std::fs::read(kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let (words, _) = bytes.get(..HEADER_LIMIT).unwrap_or(&bytes).as_chunks::<8>();
    if !words.iter().any(|w| w.starts_with(&MULTIBOOT2)) {
        bail!("{} has no multiboot2 header in its first 32 KiB", kernel.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Contents, Medium, Plan, check_header};

    #[test]
    fn grub_gets_kernel_modules_and_their_names() {
        let module = |name: &str| (name.to_owned(), Contents::Bytes(Vec::new()));
        let plan = Plan {
            kernel: "unused".into(),
            args: "kernel-memory=4096".into(),
            modules: vec![module("roottask"), module("linux.kernel")],
        };
        let text = plan.grub_cfg(Medium::Disc);
        let lines: Vec<&str> = text.lines().skip(4).collect();
        assert_eq!(
            lines,
            [
                "multiboot2 /boot/hypervisor kernel-memory=4096",
                "module2 /boot/roottask roottask",
                "module2 /boot/linux.kernel linux.kernel",
                "boot",
            ]
        );
        let stick = plan.grub_cfg(Medium::Stick);
        assert!(stick.contains("COM1") && !stick.contains("terminal_output"));
        assert!(stick.lines().skip(1).eq(lines), "the rest is the same");
    }

    #[test]
    fn kernel_without_header_is_refused() {
        let path = std::env::temp_dir().join(format!("portico-header-{}", std::process::id()));
        let mut bytes = vec![0; 40000];
        std::fs::write(&path, &bytes).unwrap();
        assert!(check_header(&path).is_err());
        bytes[33000..33004].copy_from_slice(&super::MULTIBOOT2);
        std::fs::write(&path, &bytes).unwrap();
        assert!(check_header(&path).is_err(), "header too far into the file");
        bytes[4096..4100].copy_from_slice(&super::MULTIBOOT2);
        std::fs::write(&path, &bytes).unwrap();
        assert!(check_header(&path).is_ok());
        std::fs::remove_file(&path).unwrap();
    }
}
