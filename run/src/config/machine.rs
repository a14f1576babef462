//! `[machine]`: devices that the emulated machine has for the drivers of a configuration.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::source::{Diagnostic, Located, Span};
use super::table::{self, Table};
use super::{payload::Payload, units};
use crate::demo::disk;
use crate::page;
use crate::repo::Repo;

const KEYS: &[&str] = &["disks", "net"];
/// Device number of the network card on bus 0; the disks follow it.
const NET: usize = 3;
/// Device numbers from here on belong to the chipset.
const MAX_DISKS: usize = 16;

/// `[machine]` as it stands in the file.
#[derive(Debug, Default)]
pub struct Model {
    /// Disks: a path, `demo-disk`, or a size.
    pub disks: Vec<Located<String>>,
    /// The network that a card is plugged into.
    pub net: Option<Located<Net>>,
}

/// A network of the emulator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Net {
    /// QEMU's own, with the user's rights: the machine is 10.0.2.15, the host 10.0.2.2, and at
    /// [`page::ADDRESS`] there is a page.
    User,
}

/// What a disk of the machine holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Zeroes, at every start.
    Empty(u64),
    /// A file, which keeps what is written.
    File(PathBuf),
    /// The disk that this tool makes, as it was made.
    Demo,
}

/// The devices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Disks.
    pub disks: Vec<Disk>,
    /// Network.
    pub net: Option<Net>,
}

/// Reads the table.
pub fn parse(fields: &DeTable<'_>, span: Span, errors: &mut Vec<Diagnostic>) -> Model {
    let t = Table::new("[machine]", fields, span, KEYS, errors);
    let text = |v: &Spanned<DeValue<'_>>, e: &mut Vec<Diagnostic>| table::string(v, e);
    let disks = t.optional("disks", errors, |v, e| table::list(v, e, text));
    if let Some(list) = disks.as_ref().filter(|d| d.value.len() > MAX_DISKS) {
        let message = format!("there is room for {MAX_DISKS} disks");
        errors.push(Diagnostic::new(&list.span, message));
    }
    let nets = [("user", Net::User)];
    Model {
        disks: disks.map(|l| l.value).unwrap_or_default(),
        net: t.optional("net", errors, |v, e| table::word(v, &nets, e)),
    }
}

fn disk(text: &str, folder: &Path) -> Result<Disk, String> {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        let size = units::size(text)?;
        return if size % 512 == 0 && size > 0 {
            Ok(Disk::Empty(size))
        } else {
            Err(format!("`{text}` is not a positive number of sectors"))
        };
    }
    match Payload::store(text, folder)? {
        Payload::File(path) => Ok(Disk::File(path)),
        _ => Ok(Disk::Demo),
    }
}

/// Reports disks that do not exist.
pub fn check(model: &Model, folder: &Path, errors: &mut Vec<Diagnostic>) {
    for text in &model.disks {
        if let Err(message) = disk(&text.value, folder) {
            let help = "a disk is a path, \"demo-disk\", or the size of an empty one";
            errors.push(Diagnostic::new(&text.span, message).help(help));
        }
    }
}

impl Hardware {
    /// Of a model that passed the check.
    #[must_use]
    pub fn of(model: &Model, folder: &Path) -> Self {
        let disks = model.disks.iter().filter_map(|text| disk(&text.value, folder).ok()).collect();
        Self { disks, net: model.net.as_ref().map(|n| n.value) }
    }

    /// QEMU's arguments for the devices; makes the files that they need. `name` keeps those of
    /// several machines apart.
    ///
    /// # Errors
    /// A file cannot be made.
    pub fn arguments(&self, repo: &Repo, name: &str) -> Result<Vec<String>> {
        let mut args: Vec<String> = Vec::new();
        if self.net == Some(Net::User) {
            let page = page::command()?.replace(',', ",,");
            let page = format!("guestfwd=tcp:{}:80-cmd:{page}", page::ADDRESS);
            args.extend(["-netdev".into(), format!("user,id=net,{page}"), "-device".into()]);
            args.push(format!(
                "virtio-net-pci,netdev=net,disable-legacy=on,romfile=,addr={NET:#x}"
            ));
        }
        for (n, disk) in self.disks.iter().enumerate() {
            let (path, snapshot) = match disk {
                Disk::File(path) => (path.clone(), "off"),
                Disk::Demo => (disk::build(repo)?, "on"),
                Disk::Empty(size) => (empty(repo, &format!("{name}-{n}"), *size)?, "off"),
            };
            let path = path.to_string_lossy().replace(',', ",,");
            let drive = format!("if=none,id=disk{n},format=raw,snapshot={snapshot},file={path}");
            let place = NET + 1 + n;
            let device = format!("virtio-blk-pci,drive=disk{n},disable-legacy=on,addr={place:#x}");
            args.extend(["-drive".into(), drive, "-device".into(), device]);
        }
        Ok(args)
    }
}

/// A file of zeroes that takes no room.
fn empty(repo: &Repo, name: &str, size: u64) -> Result<PathBuf> {
    let folder = repo.target.join("machine");
    let path = folder.join(name).with_extension("img");
    let make = || {
        std::fs::create_dir_all(&folder)?;
        std::fs::File::create(&path)?.set_len(size)
    };
    make().with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::{Disk, Hardware, Net, disk};
    use crate::repo::Repo;

    #[test]
    fn disks_are_sizes_files_or_the_demo_disk() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        assert_eq!(disk("64M", folder), Ok(Disk::Empty(64 << 20)));
        assert_eq!(disk("demo-disk", folder), Ok(Disk::Demo));
        assert!(matches!(disk("Cargo.toml", folder), Ok(Disk::File(_))));
        for bad in ["", "64", "0K", "missing", "src"] {
            assert!(disk(bad, folder).is_err(), "{bad}");
        }
    }

    #[test]
    fn devices_have_places_that_a_configuration_can_name() {
        let target = std::env::temp_dir().join(format!("portico-hardware-{}", std::process::id()));
        let repo = Repo { root: target.clone(), target: target.clone() };
        let disks = vec![Disk::File("a,b".into()), Disk::Empty(1 << 20)];
        let hardware = Hardware { disks, net: Some(Net::User) };
        let args = hardware.arguments(&repo, "x").unwrap().join(" ");
        for part in ["romfile=,addr=0x3", "file=a,,b", "drive=disk1,disable-legacy=on,addr=0x5"] {
            assert!(args.contains(part), "{part} is not in {args}");
        }
        assert_eq!(target.join("machine/x-1.img").metadata().unwrap().len(), 1 << 20);
        std::fs::remove_dir_all(target).unwrap();
    }
}
