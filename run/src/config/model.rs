//! A configuration as it stands in the file: typed, located, not yet checked against anything.

use config::{MachineAction, Restart, Which};

use super::source::{Located, Span};
use super::{machine, virtio};

/// The whole file.
#[derive(Debug, Default)]
pub struct Model {
    /// `[system]`.
    pub system: System,
    /// `[machine]`.
    pub machine: machine::Model,
    /// `[device.NAME]`, in the order of the file.
    pub devices: Vec<Device>,
    /// `[[component]]` and `[[vm]]`, in the order of the file, components first.
    pub domains: Vec<Domain>,
}

/// `[system]`.
#[derive(Debug, Default)]
pub struct System {
    /// Name, or none: then the file's.
    pub name: Option<Located<String>>,
    /// What happens when the last VM is off.
    pub on_last_vm_off: Option<Located<MachineAction>>,
    /// Bytes of the kernel's own pool.
    pub kernel_memory: Option<Located<u64>>,
    /// Further words for the hypervisor's command line.
    pub kernel_args: Option<Located<String>>,
}

/// `[device.NAME]`.
#[derive(Debug)]
pub struct Device {
    /// Its name.
    pub name: Located<String>,
    /// Inclusive port ranges.
    pub ports: Vec<Located<(u64, u64)>>,
    /// Inclusive physical ranges.
    pub mmio: Vec<Located<(u64, u64)>>,
    /// ISA interrupt lines.
    pub irqs: Vec<Located<u16>>,
    /// The PCI function that it is.
    pub pci: Option<Located<Which>>,
    /// Bytes of memory at a known place that the PCI function may access by itself.
    pub dma: Option<Located<u64>>,
}

/// A store: `stores = { name = { size = "64M", file = "path" } }`.
#[derive(Debug)]
pub struct Store {
    /// Its name.
    pub name: Located<String>,
    /// Bytes.
    pub size: Option<Located<u64>>,
    /// What it begins with: a path or `demo-disk`.
    pub file: Option<Located<String>>,
}

/// A CPU by index, or the tool's choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cpu {
    /// The least loaded CPU.
    Auto,
    /// This one.
    Index(u16),
}

/// A service that is used: `uses = { service = "provider" }`.
#[derive(Debug)]
pub struct Use {
    /// The service.
    pub service: Located<String>,
    /// The component that is asked for it.
    pub provider: Located<String>,
    /// Set where the session is a virtio device of a VM.
    pub device: Option<virtio::Device>,
}

/// A protection domain: a component, or a VM with its VMM.
#[derive(Debug)]
pub struct Domain {
    /// Where its table begins.
    pub span: Span,
    /// Unique name; none where it was missing or no name.
    pub name: Option<Located<String>>,
    /// The program.
    pub image: Option<Located<String>>,
    /// Its arguments.
    pub args: String,
    /// Memory of the program, in bytes.
    pub memory: Option<Located<u64>>,
    /// Kernel memory, in bytes.
    pub quota: Option<Located<u64>>,
    /// Where it runs.
    pub cpu: Option<Located<Cpu>>,
    /// Scheduling priority.
    pub priority: Option<Located<u16>>,
    /// Names of devices.
    pub devices: Vec<Located<String>>,
    /// Names of services.
    pub provides: Vec<Located<String>>,
    /// Services of others.
    pub uses: Vec<Use>,
    /// Memory that stays.
    pub stores: Vec<Store>,
    /// May control the others.
    pub operator: bool,
    /// Its PCI functions may access memory.
    pub trusted: bool,
    /// Supervision.
    pub restart: Restart,
    /// Set for `[[vm]]`.
    pub vm: Option<Vm>,
}

/// What `[[vm]]` has beyond a component.
#[derive(Debug)]
pub struct Vm {
    /// Guest RAM in bytes.
    pub ram: Option<Located<u64>>,
    /// CPU of each vCPU.
    pub vcpus: Vec<Located<Cpu>>,
    /// Kernel: a path or `debian:PACKAGE`.
    pub kernel: Option<Located<String>>,
    /// Initial RAM disk: a path or `demo`.
    pub initrd: Option<Located<String>>,
    /// Kernel command line.
    pub cmdline: String,
}
