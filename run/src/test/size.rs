//! The size of what must be trusted.

use anyhow::{Result, bail};

use super::{Context, Job};
use crate::config::units::show;
use crate::count;
use crate::images::HYPERVISOR;

/// Most code lines that the kernel may have.
const KERNEL_LINES: usize = 10_000;
/// Most bytes that its stripped image may have.
const KERNEL_IMAGE: u64 = 256 << 10;

/// The cases.
#[must_use]
pub fn jobs() -> Vec<Job> {
    vec![Job::case("size/kernel-lines", lines), Job::case("size/kernel-image", image)]
}

fn lines(context: &Context) -> Result<String> {
    let lines = count::folder(&context.repo.root.join("hypervisor"))?;
    if lines > KERNEL_LINES {
        bail!("the kernel has {lines} code lines, more than {KERNEL_LINES}");
    }
    Ok(format!("{lines} code lines of at most {KERNEL_LINES}"))
}

fn image(context: &Context) -> Result<String> {
    let size = context.images()?.path(HYPERVISOR).metadata()?.len();
    if size > KERNEL_IMAGE {
        bail!("the kernel's image has {}, more than {}", show(size), show(KERNEL_IMAGE));
    }
    Ok(format!("{} stripped", show(size)))
}
