//! The command line.

mod boot;
mod image;
mod script;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bochs::Model;
use crate::config::units;
use crate::machine::{Cpu, Emulator};
use crate::qemu::{Accel, Firmware};
use crate::repo::Repo;
use crate::system::BadConfiguration;
use crate::toolchain::Toolchain;
use crate::{deps, page, ui};

/// Builds, checks, packs, boots, tests and measures Portico.
#[derive(Parser)]
#[command(name = "run", bin_name = "run", disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Build everything, pack the boot image and start it in an emulator.
    Boot(Boot),
    /// Build everything and pack one bootable image for BIOS and UEFI.
    Image(Image),
    /// Check a configuration completely, without building.
    Check(Check),
    /// Run the whole test suite, or the cases whose name contains FILTER.
    Test(Test),
    /// Run the benchmarks, or those whose name contains FILTER.
    Bench(Bench),
    /// Answer one request of a guest on the standard streams; QEMU's network starts this.
    #[command(name = page::COMMAND, hide = true)]
    Page,
}

/// Options of every command that may install something.
#[derive(Args)]
struct Consent {
    /// Install missing Debian packages without asking.
    #[arg(long, short)]
    yes: bool,
}

/// What a configuration is checked against.
#[derive(Args)]
struct Size {
    /// Number of CPUs.
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=255))]
    smp: u16,
    /// RAM of the machine.
    #[arg(long, value_name = "SIZE", default_value = "2G", value_parser = units::size)]
    memory: u64,
}

/// Without --expect and --send, the machine's console is on this terminal; Ctrl-A x leaves it.
#[derive(Args)]
struct Boot {
    /// System configuration; without it, run/configs/linux.toml.
    config: Option<PathBuf>,
    #[command(flatten)]
    size: Size,
    /// Firmware of the machine; Bochs has its BIOS only.
    #[arg(long, value_enum, default_value = "bios")]
    firmware: Firmware,
    /// Vendor of the CPU [default: amd].
    #[arg(long, value_enum)]
    cpu: Option<Cpu>,
    /// Emulator [default: qemu for amd, bochs for intel].
    #[arg(long, value_enum)]
    emulator: Option<Emulator>,
    /// CPU model in Bochs [default: corei7_skylake_x or ryzen].
    #[arg(long, value_enum)]
    model: Option<Model>,
    /// How QEMU runs the CPU.
    #[arg(long, value_enum, default_value = "tcg")]
    accel: Accel,
    /// Only show the console; do not read the terminal.
    #[arg(long)]
    headless: bool,
    /// Give up after this time, once the machine runs; a terminal session has no limit unless
    /// this sets one [default: 600].
    #[arg(long, value_name = "SECONDS")]
    timeout: Option<u64>,
    /// Copy of the console's output.
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Further argument for QEMU; may be given several times.
    #[arg(long, value_name = "ARG", allow_hyphen_values = true)]
    qemu_arg: Vec<String>,
    /// Wait for this text on the console; --expect and --send are taken in the order given.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    expect: Vec<String>,
    /// Send this text to the console; \n, \r, \t, \e, \\ and \xNN are understood.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    send: Vec<String>,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
struct Image {
    /// System configuration.
    config: PathBuf,
    /// The image to write; without it, target/NAME.iso, or NAME.img with --usb.
    #[arg(long, short, value_name = "OUT")]
    output: Option<PathBuf>,
    /// For a USB stick: to be written to it as it is, over all that is on it (docs/hardware.md).
    #[arg(long)]
    usb: bool,
    #[command(flatten)]
    size: Size,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
struct Check {
    /// System configuration.
    config: PathBuf,
    #[command(flatten)]
    size: Size,
}

#[derive(Args)]
struct Test {
    /// Part of the names of the cases to run.
    #[arg(default_value = "")]
    filter: String,
    /// Seconds after which what still runs has failed, and the whole run ends.
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = clap::value_parser!(u64).range(1..))]
    within: u64,
    #[command(flatten)]
    consent: Consent,
}

#[derive(Args)]
struct Bench {
    /// Part of the names of the benchmarks to run.
    #[arg(default_value = "")]
    filter: String,
    /// Number of runs, of which the median is taken.
    #[arg(long, value_name = "N", default_value_t = 3)]
    runs: usize,
    /// Write the results here, too.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    consent: Consent,
}

/// What every command works with.
struct Context {
    repo: Repo,
    toolchain: Toolchain,
}

/// Runs the tool.
#[must_use]
pub fn main() -> ExitCode {
    let matches = Cli::command().get_matches();
    match run(&matches) {
        Ok(code) => code,
        Err(error) => {
            match error.downcast_ref::<BadConfiguration>() {
                Some(bad) => ui::note(&bad.to_string()),
                None => ui::note(&format!("error: {error:#}")),
            }
            ExitCode::FAILURE
        }
    }
}

fn run(matches: &ArgMatches) -> Result<ExitCode> {
    let cli = Cli::from_arg_matches(matches)?;
    let context = Context { repo: Repo::from_env()?, toolchain: Toolchain::from_env()? };
    match cli.command {
        Command::Boot(args) => {
            let given = matches.subcommand_matches("boot");
            let script = given.map(script::steps).transpose()?.unwrap_or_default();
            boot::run(&context, &args, script)
        }
        Command::Image(args) => image::image(&context, &args),
        Command::Check(args) => image::check(&context, &args),
        Command::Test(args) => {
            deps::ensure(deps::For::Test, &context.toolchain, args.consent.yes)?;
            let budget = limit(args.within);
            let passed = crate::test::run(context.repo, context.toolchain, &args.filter, budget)?;
            Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Command::Bench(args) => {
            deps::ensure(deps::For::Bench, &context.toolchain, args.consent.yes)?;
            let bench = crate::bench::Bench {
                repo: context.repo,
                toolchain: context.toolchain,
                runs: args.runs.max(1),
            };
            bench.run(&args.filter, args.json.as_deref())?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Page => {
            page::serve(std::io::stdin().lock(), std::io::stdout().lock())?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn limit(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
