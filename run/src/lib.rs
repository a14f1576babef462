//! Host tool of Portico: checks a configuration, builds the programs it names, packs them into a
//! boot image, runs that in an emulator, tests and measures it.
//!
//! The path of `run/boot`: [`cli`] reads the command line, [`deps`] sees to the programs needed,
//! [`config`] checks and compiles the TOML file, [`images`] builds, [`iso`] packs, [`qemu`] makes
//! the machine, [`session`] runs it under the script that [`expect`] follows.

#![forbid(unsafe_code)]
#![cfg_attr(
    test,
    allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]

pub mod bench;
pub mod bochs;
pub mod cli;
pub mod config;
pub mod count;
pub mod demo;
pub mod deps;
pub mod elf;
pub mod exits;
pub mod expect;
pub mod images;
pub mod iso;
pub mod machine;
pub mod page;
pub mod qemu;
pub mod repo;
pub mod session;
pub mod symbols;
pub mod system;
pub mod terminal;
pub mod test;
pub mod toolchain;
pub mod ui;
