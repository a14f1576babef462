//! `run/bench`: figures that we promise, measured.

mod aims;
mod calls;
mod devices;
mod guest_boot;
mod intel;
mod kernel;
mod reported;

use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::json;

use crate::repo::Repo;
use crate::toolchain::Toolchain;
use crate::{exits, images};

/// One figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// What was measured.
    pub name: String,
    /// In what.
    pub unit: String,
    /// How much.
    pub value: f64,
}

impl Figure {
    fn new(name: impl Into<String>, unit: impl Into<String>, value: f64) -> Self {
        Self { name: name.into(), unit: unit.into(), value }
    }
}

/// A benchmark: its name, and how its figures come about.
type Benchmark = (&'static str, fn(&Bench) -> Result<Vec<Figure>>);

const BENCHMARKS: &[Benchmark] = &[
    ("calls", calls::run),
    ("intel", intel::run),
    ("kernel", kernel::run),
    ("exits", exits),
    ("guest-boot", guest_boot::run),
    ("devices", devices::run),
];

/// What the benchmarks work with.
pub struct Bench {
    /// The work tree.
    pub repo: Repo,
    /// Its toolchain.
    pub toolchain: Toolchain,
    /// Runs of each, of which the median counts.
    pub runs: usize,
}

impl Bench {
    /// Runs the benchmarks whose name contains the filter, and prints their figures.
    ///
    /// # Errors
    /// One fails, or the results cannot be written.
    pub fn run(&self, filter: &str, json: Option<&Path>) -> Result<()> {
        let mut figures = Vec::new();
        for (name, benchmark) in BENCHMARKS.iter().filter(|(name, _)| name.contains(filter)) {
            figures.extend(benchmark(self).with_context(|| format!("benchmark {name}"))?);
        }
        if figures.is_empty() {
            bail!("no benchmark has a name with `{filter}`");
        }
        print!("{}", table(&figures));
        if let Some(path) = json {
            let results: Vec<_> = figures
                .iter()
                .map(|f| json!({ "name": f.name, "unit": f.unit, "value": f.value }))
                .collect();
            let text = serde_json::to_string_pretty(&json!({ "results": results }))?;
            std::fs::write(path, text + "\n")
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(())
    }
}

/// Exits of a guest until its init, by reason.
fn exits(bench: &Bench) -> Result<Vec<Figure>> {
    let components = bench.repo.images()?.into_iter().collect::<Vec<_>>();
    let images = images::build(&bench.repo, &bench.toolchain, &components)?;
    let iso = bench.repo.target.join("bench-exits.iso");
    let exits = exits::until_init(&bench.repo, &images, &iso)?;
    // No guest exits more often than 32 bits count.
    let value = |count| f64::from(u32::try_from(count).unwrap_or(u32::MAX));
    let figure = |(reason, count)| Figure::new(format!("exits/{reason}"), "exits", value(count));
    Ok(exits.into_iter().map(figure).collect())
}

/// The figures, with our aims and the figures of others beside them, where there are some.
fn table(figures: &[Figure]) -> String {
    let number = |n: Option<u32>| n.map_or(String::new(), |n| n.to_string());
    let beside = |a: &aims::Aim| {
        let bound = a.bound.map_or(String::new(), |b| b.to_string());
        [bound, number(a.nova), number(a.hedron), number(a.sel4)]
    };
    let mut rows =
        vec![["name", "value", "unit", "aim", "NOVA", "Hedron", "seL4"].map(str::to_owned)];
    for figure in figures {
        let [aim, nova, hedron, sel4] = aims::of(&figure.name).map(beside).unwrap_or_default();
        // Counts are whole.
        let decimals = if figure.value.fract() == 0.0 { 0 } else { 3 };
        let value = format!("{:.decimals$}", figure.value);
        rows.push([figure.name.clone(), value, figure.unit.clone(), aim, nova, hedron, sel4]);
    }
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(String::len).max().unwrap_or(0)
    };
    let (name, unit) = (width(0), width(2));
    let line = |[n, v, u, a, x, y, z]: &[String; 7]| {
        let line = format!("{n:name$}  {v:>9} {u:unit$}  {a:>6}  {x:>6}  {y:>6}  {z:>6}");
        line.trim_end().to_owned() + "\n"
    };
    rows.iter().map(line).collect()
}

/// The middle of several measurements.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::{Figure, median, table};

    #[test]
    fn median_is_the_middle() {
        assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn table_is_aligned_and_has_the_figures_of_others() {
        let figures = [
            Figure::new("boot", "s", 1.5),
            Figure::new("sm_up", "instructions", 98.0),
            Figure::new("outside/tcp-send/ratio", "x", 0.25),
        ];
        let expected = "\
            name                        value unit             aim    NOVA  Hedron    seL4\n\
            boot                        1.500 s\n\
            sm_up                          98 instructions     120     142     173     372\n\
            outside/tcp-send/ratio      0.250 x              >=0.5\n";
        assert_eq!(table(&figures), expected);
    }
}
