//! Modules of a Debian kernel for the demo RAM disk, and the order in which they can be loaded.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Its name, as others depend on it.
    pub name: String,
    /// The file's contents.
    pub contents: Vec<u8>,
}

/// The wanted modules, each behind those that it needs, out of a kernel package's files.
///
/// # Errors
/// One is missing or cannot be read.
pub fn collect(tree: &Path, wanted: &[&str]) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(&tree.join("lib/modules"), &mut files)?;
    let read = |name: &str| {
        let path = files.get(name).with_context(|| format!("the kernel has no module {name}"))?;
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let mut list = Vec::new();
    for name in wanted {
        add(name, &read, &mut list)?;
    }
    Ok(list)
}

/// Adds a module behind what it needs. The kernel's dependencies have no circles.
fn add(name: &str, read: &impl Fn(&str) -> Result<Vec<u8>>, list: &mut Vec<Module>) -> Result<()> {
    if list.iter().any(|m| m.name == name) {
        return Ok(());
    }
    let contents = read(name)?;
    for other in dependencies(&contents) {
        add(&other, read, list)?;
    }
    list.push(Module { name: name.to_owned(), contents });
    Ok(())
}

/// What a module says about itself: `depends=a,b` between zeroes.
fn dependencies(module: &[u8]) -> Vec<String> {
    let field = module.split(|byte| *byte == 0).find_map(|s| s.strip_prefix(b"depends="));
    let names = String::from_utf8_lossy(field.unwrap_or_default()).into_owned();
    names.split(',').filter(|n| !n.is_empty()).map(str::to_owned).collect()
}

fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    let entries = folder.read_dir().with_context(|| format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            find(&path, files)?;
        } else if path.extension().is_some_and(|e| e == "ko")
            && let Some(stem) = path.file_stem()
        {
            // Files may have a dash where names have an underscore.
            files.insert(stem.to_string_lossy().replace('-', "_"), path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{add, dependencies};

    #[test]
    fn modules_come_behind_what_they_need() {
        let read = |name: &str| {
            let depends = match name {
                "net" => "ring,failover",
                "ring" => "core",
                _ => "",
            };
            Ok(format!("ELF\0license=GPL\0depends={depends}\0name={name}\0").into_bytes())
        };
        let mut list = Vec::new();
        add("ring", &read, &mut list).unwrap();
        add("net", &read, &mut list).unwrap();
        let names: Vec<_> = list.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(names, ["core", "ring", "failover", "net"]);
    }

    #[test]
    fn a_module_may_need_nothing() {
        assert!(dependencies(b"x\0depends=\0").is_empty());
        assert!(dependencies(b"x").is_empty());
    }
}
