//! The compiled system configuration.
//!
//! A person writes one TOML file; `run check` verifies it and compiles it to this form, which
//! travels to the root task as the boot module [`MODULE_NAME`]. The root task trusts none of it:
//! [`decode`] checks every reference, so that what it returns can be used without further checks.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

/// Command line (name) of the multiboot2 module that holds the compiled configuration.
pub const MODULE_NAME: &str = "config";

/// Version of this format. A module of another version is refused.
pub const VERSION: u16 = 2;

/// First bytes of the module.
pub const MAGIC: [u8; 4] = *b"PCFG";

/// The whole system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Name of the configuration, for the log.
    pub name: String,
    /// What happens when the last VM has powered off.
    pub on_last_vm_off: MachineAction,
    /// Components in start order: a provider stands before its users.
    pub components: Vec<Component>,
}

/// What to do with the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MachineAction {
    /// Keep running.
    Stay,
    /// Power the machine off.
    PowerOff,
}

/// One component: a protection domain with one program in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Component {
    /// Unique name.
    pub name: String,
    /// Name of the boot module that holds its ELF image.
    pub image: String,
    /// Free-form argument string for the program.
    pub args: String,
    /// Memory for heap and stacks beyond the image, in bytes (a multiple of 4096).
    pub memory: u64,
    /// Kernel memory quota in pages of 4096 bytes.
    pub quota: u32,
    /// CPU index the main thread runs on.
    pub cpu: u16,
    /// Scheduling priority, 1 (lowest) to 127.
    pub priority: u8,
    /// What happens when the component faults or exits with an error.
    pub restart: Restart,
    /// Whether it may control the other components.
    pub operator: bool,
    /// Whether its PCI functions may access memory by themselves: nothing confines them, so the
    /// whole system depends on it.
    pub trusted: bool,
    /// Devices whose resources the component receives.
    pub devices: Vec<Device>,
    /// Names of the services it provides.
    pub provides: Vec<String>,
    /// Services it uses; one that stands here twice is a session each.
    pub uses: Vec<Use>,
    /// Memory of its own that stays when it dies.
    pub stores: Vec<Store>,
    /// Set where the component is a VMM: the VM that it runs.
    pub vm: Option<Vm>,
}

/// Supervision policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Restart {
    /// Stay down; log why.
    Never,
    /// Start again after a fault or a failed exit, at most `max` times.
    OnFailure {
        /// Number of restarts before the component is given up.
        max: u16,
    },
}

/// A device, as the resources that reach it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Name, for the log and for the component to find it by.
    pub name: String,
    /// Port ranges: first port and count.
    pub ports: Vec<(u16, u16)>,
    /// Physical MMIO ranges: base and size in bytes, both multiples of 4096.
    pub mmio: Vec<(u64, u64)>,
    /// ISA interrupt lines; the root task resolves ACPI overrides.
    pub irqs: Vec<u8>,
    /// Set where the device is a PCI function, whose resources the root task finds out.
    pub pci: Option<Pci>,
}

/// A PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pci {
    /// Which one.
    pub which: Which,
    /// Bytes of memory, a multiple of 4096, that the function may access by itself and whose
    /// physical address its driver is told; 0 for none.
    pub dma: u64,
}

/// Which PCI function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Which {
    /// The first one of this kind.
    Kind {
        /// Vendor id.
        vendor: u16,
        /// Device id.
        device: u16,
    },
    /// The one at this place.
    Place {
        /// Bus.
        bus: u8,
        /// Device on the bus, below 32.
        device: u8,
        /// Function of the device, below 8.
        function: u8,
    },
}

/// Memory that outlives the component that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Store {
    /// Name, for the component to find it by.
    pub name: String,
    /// Size in bytes, a multiple of 4096.
    pub size: u64,
    /// Name of the boot module that it begins with; the rest is zero.
    pub content: Option<String>,
}

/// A service used by a component.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Use {
    /// Name of the service, as its provider declares it.
    pub service: String,
    /// Index of the provider in [`System::components`]; lower than the user's own.
    pub provider: u16,
    /// What the session is for, as `key=value` words that the provider understands.
    pub args: String,
}

/// A virtual machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vm {
    /// Guest RAM in bytes, a multiple of 2 MiB.
    pub ram: u64,
    /// CPU index of each vCPU.
    pub vcpus: Vec<u16>,
    /// Name of the boot module that holds the kernel (a bzImage).
    pub kernel: String,
    /// Name of the boot module that holds the initial RAM disk.
    pub initrd: Option<String>,
    /// Kernel command line.
    pub cmdline: String,
}

/// Why a module is not a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The module does not begin with [`MAGIC`].
    Magic,
    /// The module has another format version.
    Version(u16),
    /// The checksum does not match: the module is damaged.
    Checksum,
    /// The bytes do not decode.
    Malformed,
    /// A value is out of its range; names the component and the field.
    Invalid(String, &'static str),
}

impl core::fmt::Display for Error {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Magic => write!(f, "module does not begin with the configuration magic"),
            Self::Version(v) => write!(f, "configuration format {v}, expected {VERSION}"),
            Self::Checksum => write!(f, "configuration module is damaged (checksum mismatch)"),
            Self::Malformed => write!(f, "configuration module does not decode"),
            Self::Invalid(c, what) => write!(f, "component `{c}`: {what}"),
        }
    }
}

/// Largest store: 64 GiB.
const MAX_STORE: u64 = 1 << 36;

const HEADER: usize = 12;

/// Encodes a system: magic, version, two reserved bytes, checksum, postcard body.
#[must_use]
pub fn encode(system: &System) -> Option<Vec<u8>> {
    let body = postcard::to_allocvec(system).ok()?;
    let mut out = Vec::with_capacity(HEADER + body.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&[0, 0]);
    out.extend_from_slice(&fnv1a(&body).to_le_bytes());
    out.extend_from_slice(&body);
    Some(out)
}

/// Decodes and validates a module.
///
/// # Errors
/// [`Error`] names the first thing that is wrong.
pub fn decode(module: &[u8]) -> Result<System, Error> {
    let (header, body) = module.split_at_checked(HEADER).ok_or(Error::Magic)?;
    let (magic, rest) = header.split_first_chunk::<4>().ok_or(Error::Magic)?;
    if *magic != MAGIC {
        return Err(Error::Magic);
    }
    let (version, rest) = rest.split_first_chunk::<2>().ok_or(Error::Malformed)?;
    let version = u16::from_le_bytes(*version);
    if version != VERSION {
        return Err(Error::Version(version));
    }
    let sum = rest.last_chunk::<4>().ok_or(Error::Malformed)?;
    if u32::from_le_bytes(*sum) != fnv1a(body) {
        return Err(Error::Checksum);
    }
    let system: System = postcard::from_bytes(body).map_err(|_| Error::Malformed)?;
    validate(&system)?;
    Ok(system)
}

/// Checks what the types cannot express.
///
/// # Errors
/// [`Error::Invalid`] names component and field.
pub fn validate(system: &System) -> Result<(), Error> {
    for (index, c) in system.components.iter().enumerate() {
        let bad = |what| Err(Error::Invalid(c.name.clone(), what));
        if c.name.is_empty() || c.name.len() > 31 {
            return bad("name must have 1 to 31 bytes");
        }
        if system.components.iter().take(index).any(|o| o.name == c.name) {
            return bad("name is used twice");
        }
        if c.memory % 4096 != 0 {
            return bad("memory is not a multiple of 4096");
        }
        if c.priority == 0 || c.priority > 127 {
            return bad("priority is not in 1..=127");
        }
        for u in &c.uses {
            let provider = system.components.iter().take(index).nth(usize::from(u.provider));
            match provider {
                None => return bad("uses a provider that does not stand before it"),
                Some(p) if !p.provides.contains(&u.service) => {
                    return bad("uses a service that its provider does not provide");
                }
                Some(_) => {}
            }
        }
        for d in &c.devices {
            if d.ports.iter().any(|&(p, n)| n == 0 || p.checked_add(n - 1).is_none()) {
                return bad("device has an empty or wrapping port range");
            }
            if d.mmio.iter().any(|&(b, s)| {
                s == 0 || b % 4096 != 0 || s % 4096 != 0 || b.checked_add(s).is_none()
            }) {
                return bad("device has a misaligned, empty or wrapping MMIO range");
            }
        }
        if c.devices.iter().any(|d| d.pci.is_some()) && !c.trusted {
            return bad("has a PCI function but is not trusted");
        }
        let dma = |d: &Device| d.pci.is_some_and(|p| p.dma % 4096 != 0);
        if c.devices.iter().any(dma) {
            return bad("memory for DMA is not a multiple of 4096");
        }
        let places = c.devices.iter().filter_map(|d| d.pci).filter_map(|p| match p.which {
            Which::Place { device, function, .. } => Some((device, function)),
            Which::Kind { .. } => None,
        });
        if places.into_iter().any(|(device, function)| device >= 32 || function >= 8) {
            return bad("PCI function does not exist on any bus");
        }
        if c.stores.iter().any(|s| s.size == 0 || s.size % 4096 != 0 || s.size > MAX_STORE) {
            return bad("size of a store is not a positive multiple of 4096");
        }
        if let Some(vm) = &c.vm {
            if vm.vcpus.is_empty() || vm.vcpus.len() > 64 {
                return bad("VM must have 1 to 64 vCPUs");
            }
            if vm.ram == 0 || vm.ram % (2 << 20) != 0 {
                return bad("VM memory is not a positive multiple of 2 MiB");
            }
        }
    }
    Ok(())
}

/// FNV-1a, 32 bits: detects damage, not malice.
fn fnv1a(bytes: &[u8]) -> u32 {
    bytes.iter().fold(0x811c_9dc5, |h, &b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193))
}
