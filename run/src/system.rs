//! From a configuration file to a boot image.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::config::compile::Compiled;
use crate::config::payload::Payload;
use crate::config::source::Source;
use crate::config::{Checked, check::Surroundings};
use crate::demo::{debian, disk, initramfs};
use crate::images::{self, Images};
use crate::iso::{Contents, Plan};
use crate::repo::Repo;
use crate::toolchain::Toolchain;
use crate::ui;

/// A configuration with errors; shows them in the text.
#[derive(Debug)]
pub struct BadConfiguration(String);

impl std::fmt::Display for BadConfiguration {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for BadConfiguration {}

/// Checks and compiles a configuration for a machine.
///
/// # Errors
/// [`BadConfiguration`] with all that is wrong with it; or it cannot be read.
pub fn check(repo: &Repo, path: &Path, smp: u16, memory: u64) -> Result<Compiled> {
    let source = Source::read(path)?;
    let images = repo.images()?;
    let around = Surroundings { smp, memory, folder: source.folder(), images: &images };
    match crate::config::process(&source, &around)? {
        Checked::Good(compiled) => Ok(*compiled),
        Checked::Bad(errors) => {
            Err(BadConfiguration(source.render(&errors, ui::terminal())).into())
        }
    }
}

/// Builds and fetches everything that a configuration names.
///
/// # Errors
/// A program does not build, or a file cannot be fetched.
pub fn plan(repo: &Repo, toolchain: &Toolchain, compiled: &Compiled) -> Result<Plan> {
    let mut programs = compiled.images.clone();
    if compiled.payloads.iter().any(|(_, payload)| *payload == Payload::HostileGuest) {
        programs.push(images::HOSTILE_GUEST.to_owned());
    }
    let images = images::build(repo, toolchain, &programs)?;
    assemble(repo, &images, compiled)
}

/// Lists the modules of a boot image from programs that are built.
///
/// # Errors
/// A file cannot be fetched.
pub fn assemble(repo: &Repo, images: &Images, compiled: &Compiled) -> Result<Plan> {
    let config = config::encode(&compiled.system).context("the configuration does not encode")?;
    let mut modules = vec![
        (images::ROOTTASK.to_owned(), Contents::File(images.path(images::ROOTTASK))),
        (config::MODULE_NAME.to_owned(), Contents::Bytes(config)),
    ];
    for image in &compiled.images {
        modules.push((image.clone(), Contents::File(images.path(image))));
    }
    for (name, payload) in &compiled.payloads {
        modules.push((name.clone(), Contents::File(provide(repo, payload)?)));
    }
    let kernel = images.path(images::HYPERVISOR);
    Ok(Plan { kernel, args: compiled.kernel_args.clone(), modules })
}

/// The file that a payload stands for.
///
/// # Errors
/// It cannot be fetched or built.
pub fn provide(repo: &Repo, payload: &Payload) -> Result<PathBuf> {
    match payload {
        Payload::File(path) => Ok(path.clone()),
        Payload::Debian(package) => debian::kernel(repo, package),
        Payload::Demo => initramfs::build(repo),
        Payload::DemoDisk => disk::build(repo),
        // It is built with the programs.
        Payload::HostileGuest => Ok(Images::of(repo).path(images::HOSTILE_GUEST)),
    }
}
