//! `run/image` and `run/check`.

use std::process::ExitCode;

use anyhow::Result;

use super::{Check, Context, Image};
use crate::config::units::show;
use crate::iso::Medium;
use crate::{deps, system, ui};

pub(super) fn image(context: &Context, args: &Image) -> Result<ExitCode> {
    let repo = &context.repo;
    let compiled = system::check(repo, &args.config, args.size.smp, args.size.memory)?;
    deps::ensure(deps::For::Image, &context.toolchain, args.consent.yes)?;
    let plan = system::plan(repo, &context.toolchain, &compiled)?;
    let (medium, extension) = if args.usb { (Medium::Stick, "img") } else { (Medium::Disc, "iso") };
    let default = repo.target.join(&compiled.system.name).with_extension(extension);
    plan.pack_for(medium, args.output.as_ref().unwrap_or(&default))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn check(context: &Context, args: &Check) -> Result<ExitCode> {
    let compiled = system::check(&context.repo, &args.config, args.size.smp, args.size.memory)?;
    let vms = compiled.system.components.iter().filter(|c| c.vm.is_some()).count();
    ui::note(&format!(
        "{}: good for {} CPUs and {}: {} components, {vms} of them VMs",
        args.config.display(),
        args.size.smp,
        show(args.size.memory),
        compiled.system.components.len(),
    ));
    Ok(ExitCode::SUCCESS)
}
