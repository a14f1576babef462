//! How much has to be trusted: the kernel's code lines, and the bytes of its code.

use anyhow::{Context, Result, bail};

use super::{Bench, Figure};
use crate::images::{self, HYPERVISOR};
use crate::{count, elf};

pub(super) fn run(bench: &Bench) -> Result<Vec<Figure>> {
    let lines = count::folder(&bench.repo.root.join("hypervisor"))?;
    let images = images::build(&bench.repo, &bench.toolchain, &[])?;
    let path = images.path(HYPERVISOR);
    let image = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let Some(text) = elf::code_bytes(&image) else { bail!("{} is no ELF image", path.display()) };
    // Neither comes near what 32 bits hold.
    let value = |n: u64| f64::from(u32::try_from(n).unwrap_or(u32::MAX));
    Ok(vec![
        Figure::new("kernel_code_lines", "lines", value(u64::try_from(lines)?)),
        Figure::new("kernel_text_bytes", "bytes", value(text)),
    ])
}
