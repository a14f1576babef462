//! QEMU's command line: the machine that everything runs on.

use std::path::{Path, PathBuf};
use std::process::Command;

use clap::ValueEnum;

use crate::iso::Medium;
use crate::machine::bound;

/// The emulator.
pub const PROGRAM: &str = "qemu-system-x86_64";
/// UEFI firmware with its variables in one file, which is not written to.
pub const OVMF: &str = "/usr/share/ovmf/OVMF.fd";

/// A first-generation EPYC with what the emulation adds to it. What it lacks (next RIP save, ...)
/// would only bring warnings, so the check for it is off.
const AMD: &str = "EPYC,+svm,+npt,+x2apic,+umip,+rdpid,+erms,+fsrm,+clwb,+wbnoinvd,+vgif,+svme-addr-chk,check=off";

/// Value that the machine's test-exit port turns into QEMU's exit code `value << 1 | 1`.
pub const EXIT_PASS: i32 = 0x10 << 1 | 1;

/// Firmware of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Firmware {
    /// SeaBIOS.
    Bios,
    /// OVMF.
    Uefi,
}

/// How the machine's CPU is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Accel {
    /// Emulation.
    Tcg,
    /// Nested virtualization of the host.
    Kvm,
}

/// A machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Firmware.
    pub firmware: Firmware,
    /// Number of CPUs.
    pub smp: u16,
    /// Bytes of RAM.
    pub memory: u64,
    /// Emulated or virtualized.
    pub accel: Accel,
    /// Count instructions: emulated time then is their number, and every run is the same.
    pub counting: bool,
    /// What a boot image is on.
    pub medium: Medium,
    /// Further arguments for QEMU.
    pub extra: Vec<String>,
}

/// What the machine starts.
#[derive(Clone, Debug)]
pub enum Start {
    /// A boot image.
    Iso(PathBuf),
    /// A Linux kernel, without anything of ours.
    Linux {
        /// bzImage.
        kernel: PathBuf,
        /// Initial RAM disk.
        initrd: Option<PathBuf>,
        /// Command line.
        cmdline: String,
    },
}

/// Where the machine's serial port goes.
#[derive(Clone, Debug)]
pub enum Serial {
    /// To pipes on QEMU's standard streams.
    Pipes,
    /// To the user's terminal, with QEMU's monitor behind Ctrl-A.
    Terminal {
        /// File that gets a copy.
        log: Option<PathBuf>,
    },
}

impl Machine {
    /// An emulated machine with BIOS and nothing special about it.
    #[must_use]
    pub fn plain(smp: u16, memory: u64) -> Self {
        Self {
            firmware: Firmware::Bios,
            smp,
            memory,
            accel: Accel::Tcg,
            counting: false,
            medium: Medium::Disc,
            extra: Vec::new(),
        }
    }

    /// The command that runs the machine.
    #[must_use]
    pub fn command(&self, start: &Start, serial: &Serial) -> Command {
        let mut command = bound(PROGRAM);
        command.args(self.arguments(start, serial));
        command
    }

    fn arguments(&self, start: &Start, serial: &Serial) -> Vec<String> {
        let mut args: Vec<String> = Vec::new();
        let mut add = |words: &[&str]| args.extend(words.iter().map(|w| (*w).to_owned()));
        add(&["-nodefaults", "-machine", "q35", "-display", "none", "-no-reboot"]);
        match self.accel {
            // An x2APIC and counting do not go together in QEMU 10.
            Accel::Tcg if self.counting => {
                add(&["-accel", "tcg,thread=single", "-icount", "shift=0,sleep=off"]);
                add(&["-cpu", &format!("{AMD},-x2apic")]);
            }
            Accel::Tcg => add(&["-accel", "tcg,thread=multi", "-cpu", AMD]),
            Accel::Kvm => add(&["-accel", "kvm", "-cpu", "host"]),
        }
        add(&["-smp", &self.smp.to_string(), "-m", &format!("{}K", self.memory >> 10)]);
        add(&["-device", "isa-debug-exit,iobase=0xf4,iosize=0x04"]);
        if self.firmware == Firmware::Uefi {
            add(&["-bios", OVMF]);
        }
        match start {
            Start::Iso(image) => {
                let (media, devices): (_, &[&str]) = match self.medium {
                    Medium::Disc => ("cdrom", &["ide-cd,drive=boot,bootindex=0"]),
                    Medium::Stick => {
                        ("disk,snapshot=on", &["qemu-xhci", "usb-storage,drive=boot,bootindex=0"])
                    }
                };
                let image = path(image);
                let drive = format!("if=none,id=boot,media={media},format=raw,file={image}");
                add(&["-drive", &drive]);
                for device in devices {
                    add(&["-device", device]);
                }
            }
            Start::Linux { kernel, initrd, cmdline } => {
                add(&["-kernel", &kernel.to_string_lossy(), "-append", cmdline]);
                if let Some(initrd) = initrd {
                    add(&["-initrd", &initrd.to_string_lossy()]);
                }
            }
        }
        match serial {
            Serial::Pipes => add(&["-chardev", "stdio,id=serial,signal=off"]),
            Serial::Terminal { log } => {
                let log = log.as_ref().map_or(String::new(), |l| format!(",logfile={}", path(l)));
                add(&["-chardev", &format!("stdio,id=serial,mux=on,signal=off{log}")]);
                add(&["-mon", "chardev=serial,mode=readline"]);
            }
        }
        add(&["-serial", "chardev:serial"]);
        args.extend(self.extra.iter().cloned());
        args
    }
}

/// A path within an option: commas are doubled.
fn path(path: &Path) -> String {
    path.to_string_lossy().replace(',', ",,")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(firmware: Firmware) -> Machine {
        Machine {
            firmware,
            smp: 2,
            memory: 2 << 30,
            extra: vec!["-s".into()],
            ..Machine::plain(2, 2 << 30)
        }
    }

    #[test]
    fn options_reach_the_command_line() {
        let start = Start::Iso("a,b.iso".into());
        let args = machine(Firmware::Uefi).arguments(&start, &Serial::Pipes).join(" ");
        for part in ["-smp 2", "-m 2097152K", "file=a,,b.iso", OVMF, "-no-reboot"] {
            assert!(args.contains(part), "{part} is not in {args}");
        }
        assert!(args.ends_with(" -s"), "the user's own arguments come last");
        let bios = machine(Firmware::Bios).arguments(&start, &Serial::Pipes).join(" ");
        assert!(!bios.contains("-bios") && !bios.contains("usb"));
        let stick = Machine { medium: Medium::Stick, ..machine(Firmware::Bios) };
        let args = stick.arguments(&start, &Serial::Pipes).join(" ");
        assert!(args.contains("usb-storage,drive=boot") && !args.contains("cdrom"));
    }
}
