//! The Rust toolchain that the entry points chose.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Target of everything that runs on the machine itself.
pub const BARE: &str = "x86_64-unknown-none";

/// How the toolchain builds for bare metal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The target's libraries are installed, with a linker.
    Prebuilt,
    /// Debian's compiler builds them from the library sources; `ld.lld` links.
    Debian,
}

/// A Rust toolchain.
#[derive(Clone, Debug)]
pub struct Toolchain {
    /// How it builds for bare metal.
    pub kind: Kind,
    cargo: PathBuf,
    rustc: PathBuf,
}

impl Toolchain {
    /// As the entry points in `run/` set it.
    ///
    /// # Errors
    /// The tool was started by other means.
    pub fn from_env() -> Result<Self> {
        let path = |name| std::env::var_os(name).map(PathBuf::from);
        let kind = match std::env::var("PORTICO_TOOLCHAIN").as_deref() {
            Ok("prebuilt") => Kind::Prebuilt,
            Ok("debian") => Kind::Debian,
            _ => bail!("start this through ./run/boot, ./run/test and their kin"),
        };
        Ok(Self {
            kind,
            cargo: path("PORTICO_CARGO").context("PORTICO_CARGO is not set")?,
            rustc: path("PORTICO_RUSTC").context("PORTICO_RUSTC is not set")?,
        })
    }

    /// Cargo for host builds.
    #[must_use]
    pub fn cargo(&self) -> Command {
        let mut command = Command::new(&self.cargo);
        self.environment(&mut command);
        command
    }

    /// One of cargo's companions, called by its own path: cargo itself would look into
    /// `~/.cargo/bin` first and could find that of another toolchain.
    #[must_use]
    pub fn companion(&self, name: &str) -> Command {
        let mut command = Command::new(self.cargo.with_file_name(format!("cargo-{name}")));
        command.arg(name);
        self.environment(&mut command);
        command
    }

    /// Whether a companion such as `clippy` is installed.
    #[must_use]
    pub fn has_companion(&self, name: &str) -> bool {
        let version = self.companion(name).arg("--version").output();
        version.is_ok_and(|out| out.status.success())
    }

    fn environment(&self, command: &mut Command) {
        command.env("RUSTC", &self.rustc).env("CARGO", &self.cargo);
        // Rustup's names for these are proxies and find the toolchain by themselves.
        if self.kind == Kind::Debian {
            command.env("RUSTDOC", self.rustc.with_file_name("rustdoc"));
            command.env("RUSTFMT", self.rustc.with_file_name("rustfmt"));
        }
    }

    /// Makes a cargo command build for bare metal with these code generation options.
    pub fn bare(&self, command: &mut Command, flags: &str) {
        command.args(["--target", BARE]);
        // These would take precedence over the target's own flags.
        command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_RUSTFLAGS", flags);
        if self.kind == Kind::Debian {
            command.arg("-Zbuild-std=core,alloc").env("RUSTC_BOOTSTRAP", "1");
            command.env("CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER", "ld.lld");
        }
    }
}
