//! Where things are.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// The work tree.
#[derive(Clone, Debug)]
pub struct Repo {
    /// Its root.
    pub root: PathBuf,
    /// Where everything that is built goes.
    pub target: PathBuf,
}

impl Repo {
    /// As the entry points in `run/` set it.
    ///
    /// # Errors
    /// The tool was started by other means.
    pub fn from_env() -> Result<Self> {
        let root = std::env::var_os("PORTICO_ROOT")
            .map(PathBuf::from)
            .context("start this through ./run/boot, ./run/test and their kin")?;
        let target =
            std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        Ok(Self { root, target })
    }

    /// Downloads, kept from one run to the next.
    #[must_use]
    pub fn cache(&self) -> PathBuf {
        self.root.join("run/.cache")
    }

    /// A configuration of `run/configs/`.
    #[must_use]
    pub fn config(&self, name: &str) -> PathBuf {
        self.root.join("run/configs").join(name).with_extension("toml")
    }

    /// Programs that a configuration can name: the packages in `components/` that are programs.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn images(&self) -> Result<BTreeSet<String>> {
        let folder = self.root.join("components");
        let mut images = BTreeSet::new();
        for entry in
            folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?
        {
            let entry = entry?;
            if entry.path().join("src/main.rs").is_file() {
                images.insert(entry.file_name().to_string_lossy().into_owned());
            }
        }
        Ok(images)
    }

    /// A path as the user would write it.
    #[must_use]
    pub fn short<'p>(&self, path: &'p Path) -> &'p Path {
        path.strip_prefix(&self.root).unwrap_or(path)
    }
}
