//! System configurations: from the TOML file that a person writes to what the boot image holds.

pub mod check;
pub mod compile;
pub mod graph;
pub mod machine;
pub mod model;
pub mod modules;
pub mod parse;
pub mod payload;
pub mod source;
pub mod table;
pub mod units;
pub mod virtio;

#[cfg(test)]
mod tests;

use anyhow::Result;

use check::Surroundings;
use compile::Compiled;
use machine::Hardware;
use modules::Modules;
use source::{Diagnostic, Source};

/// What came of a configuration.
#[derive(Debug)]
pub enum Checked {
    /// Nothing is wrong.
    Good(Box<Compiled>),
    /// All that is wrong.
    Bad(Vec<Diagnostic>),
}

/// Parses, checks and compiles.
///
/// # Errors
/// Only for faults of this tool; the configuration's come as [`Checked::Bad`].
pub fn process(source: &Source, around: &Surroundings<'_>) -> Result<Checked> {
    let (model, mut errors) = parse::parse(&source.text);
    // A file with syntax errors has an empty model, of which everything would be wrong.
    if errors.is_empty() || !model.domains.is_empty() {
        errors.extend(check::check(&model, around));
    }
    if !errors.is_empty() {
        return Ok(Checked::Bad(errors));
    }
    let modules = Modules::of(&model, around.folder);
    let stem = source.path.file_stem().map_or("system".into(), |s| s.to_string_lossy());
    let mut compiled = compile::compile(&model, &stem, around.smp, modules)?;
    compiled.hardware = Hardware::of(&model.machine, around.folder);
    Ok(Checked::Good(Box::new(compiled)))
}
