//! Where a VM's kernel and initial RAM disk come from.

use std::path::{Path, PathBuf};

use crate::demo::disk;
use crate::images::HOSTILE_GUEST;

/// A file that a VM is given at boot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A file of the user's.
    File(PathBuf),
    /// The kernel of a Debian package, fetched into the cache.
    Debian(String),
    /// The initial RAM disk that this tool builds.
    Demo,
    /// The guest for tests of back ends, which this tool builds.
    HostileGuest,
    /// The disk that this tool builds.
    DemoDisk,
}

impl Payload {
    /// Reads `kernel = "..."`; paths are relative to the configuration's folder.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn kernel(text: &str, folder: &Path) -> Result<Self, String> {
        if text == HOSTILE_GUEST {
            return Ok(Self::HostileGuest);
        }
        match text.strip_prefix("debian:") {
            Some(package) => {
                let fits =
                    |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
                if package.starts_with(|c: char| c.is_ascii_alphanumeric())
                    && package.chars().all(fits)
                {
                    Ok(Self::Debian(package.to_owned()))
                } else {
                    Err(format!("`{package}` is not the name of a Debian package"))
                }
            }
            None => file(text, folder),
        }
    }

    /// Reads `initrd = "..."`.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn initrd(text: &str, folder: &Path) -> Result<Self, String> {
        match text {
            "demo" => Ok(Self::Demo),
            path => file(path, folder),
        }
    }

    /// Reads `file = "..."` of a store.
    ///
    /// # Errors
    /// Says what is wrong.
    pub fn store(text: &str, folder: &Path) -> Result<Self, String> {
        match text {
            "demo-disk" => Ok(Self::DemoDisk),
            path => file(path, folder),
        }
    }

    /// The bytes it needs, as far as that is known without fetching or building.
    #[must_use]
    pub fn known_size(&self) -> u64 {
        match self {
            Self::File(path) => path.metadata().map_or(0, |m| m.len()),
            Self::Debian(_) | Self::Demo | Self::HostileGuest => 0,
            Self::DemoDisk => disk::SIZE,
        }
    }
}

fn file(text: &str, folder: &Path) -> Result<Payload, String> {
    let path = folder.join(text);
    match path.metadata() {
        Ok(found) if found.is_file() => Ok(Payload::File(path.canonicalize().unwrap_or(path))),
        Ok(_) => Err(format!("{} is not a file", path.display())),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}
