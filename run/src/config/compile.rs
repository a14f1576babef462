//! A checked model to the form that the root task reads.

use anyhow::{Context, Result, anyhow};
use config::{Component, Device, MachineAction, Pci, Store, Use, Vm};

use super::check::{image_name, kernel_memory, program_memory, quota};
use super::graph;
use super::machine::Hardware;
use super::model::{self, Cpu, Domain, Model};
use super::modules::{INITRD, KERNEL, Modules};
use super::payload::Payload;
use super::virtio::{self, Addresses};

/// Priority where none is given.
const PRIORITY: u8 = 64;
/// Bytes in a page of kernel memory.
const PAGE: u64 = 4096;

/// Everything that follows from a configuration.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// For the root task.
    pub system: config::System,
    /// Program of each image, each once, in start order.
    pub images: Vec<String>,
    /// Kernels and RAM disks: module name and source, each once.
    pub payloads: Vec<(String, Payload)>,
    /// The hypervisor's command line.
    pub kernel_args: String,
    /// Devices that the machine has for it.
    pub hardware: Hardware,
}

/// Compiles a model that passed every check.
///
/// # Errors
/// Only where a check was left out: then the root task would refuse the module.
pub fn compile(model: &Model, default_name: &str, smp: u16, modules: Modules) -> Result<Compiled> {
    let order = graph::order(model).map_err(|_| anyhow!("components use each other in a cycle"))?;
    let mut cpus = Cpus::new(model, smp);
    let mut addresses = Addresses::of(model);
    let mut components = Vec::new();
    for &index in &order {
        let domain = model.domains.get(index).context("start order names no domain")?;
        components.push(component(model, domain, &order, &mut cpus, &mut addresses, &modules)?);
    }
    let mut images: Vec<String> = Vec::new();
    for component in &components {
        if !images.contains(&component.image) {
            images.push(component.image.clone());
        }
    }
    let name = model.system.name.as_ref().map_or(default_name, |n| n.value.as_str());
    let action = model.system.on_last_vm_off.as_ref();
    let system = config::System {
        name: name.to_owned(),
        on_last_vm_off: action.map_or(MachineAction::PowerOff, |a| a.value),
        components,
    };
    config::validate(&system).map_err(|e| anyhow!("{e}"))?;
    let mut kernel_args = format!("kernel-memory={}", kernel_memory(model));
    if let Some(more) = &model.system.kernel_args {
        kernel_args = format!("{kernel_args} {}", more.value);
    }
    Ok(Compiled {
        system,
        images,
        payloads: modules.files,
        kernel_args,
        hardware: Hardware::default(),
    })
}

fn component(
    model: &Model,
    domain: &Domain,
    order: &[usize],
    cpus: &mut Cpus,
    addresses: &mut Addresses,
    modules: &Modules,
) -> Result<Component> {
    let name = domain.name.as_ref().context("component without a name")?.value.clone();
    let vm = domain.vm.as_ref().map(|vm| self::vm(vm, &name, cpus, modules)).transpose()?;
    let cpu = match (&domain.cpu, &vm) {
        (Some(cpu), _) => cpus.place(cpu.value),
        (None, Some(vm)) => vm.vcpus.first().copied().unwrap_or(0),
        (None, None) => cpus.place(Cpu::Index(0)),
    };
    let image = image_name(domain);
    let mut uses = Vec::new();
    for wanted in &domain.uses {
        let provider = graph::find(model, &wanted.provider.value)
            .and_then(|p| order.iter().position(|&o| o == p))
            .context("unknown provider")?;
        let provider = u16::try_from(provider)?;
        let service = wanted.service.value.clone();
        let args = match &wanted.device {
            Some(device @ virtio::Device::Net(net)) if net.mac.is_none() => {
                virtio::args(device, addresses.choose())
            }
            Some(device) => virtio::args(device, [0; 6]),
            None => String::new(),
        };
        uses.push(Use { service, provider, args });
    }
    let mut devices = Vec::new();
    for wanted in &domain.devices {
        let found = model.devices.iter().find(|d| d.name.value == wanted.value);
        devices.push(device(found.context("unknown device")?)?);
    }
    let mut stores = Vec::new();
    for store in &domain.stores {
        stores.push(Store {
            name: store.name.value.clone(),
            size: store.size.as_ref().context("store without a size")?.value,
            content: modules.name(&name, &store.name.value),
        });
    }
    Ok(Component {
        name,
        image: image.to_owned(),
        args: domain.args.clone(),
        memory: program_memory(domain),
        quota: u32::try_from(quota(domain) / PAGE)?,
        cpu,
        priority: domain.priority.as_ref().map_or(Ok(PRIORITY), |p| u8::try_from(p.value))?,
        restart: domain.restart,
        operator: domain.operator,
        trusted: domain.trusted,
        devices,
        provides: domain.provides.iter().map(|p| p.value.clone()).collect(),
        uses,
        stores,
        vm,
    })
}

fn vm(vm: &model::Vm, name: &str, cpus: &mut Cpus, modules: &Modules) -> Result<Vm> {
    Ok(Vm {
        ram: vm.ram.as_ref().context("VM without memory")?.value,
        vcpus: vm.vcpus.iter().map(|c| cpus.place(c.value)).collect(),
        kernel: modules.name(name, KERNEL).context("VM without a kernel")?,
        initrd: modules.name(name, INITRD),
        cmdline: vm.cmdline.clone(),
    })
}

fn device(device: &model::Device) -> Result<Device> {
    let mut ports = Vec::new();
    for range in &device.ports {
        let (first, last) = range.value;
        // A range of all ports has one more than 16 bits can count.
        let count = u16::try_from(last - first + 1).unwrap_or(u16::MAX);
        ports.push((u16::try_from(first)?, count));
    }
    let mut irqs = Vec::new();
    for line in &device.irqs {
        irqs.push(u8::try_from(line.value)?);
    }
    let mmio = device.mmio.iter().map(|r| (r.value.0, r.value.1 - r.value.0 + 1)).collect();
    let dma = device.dma.as_ref().map_or(0, |d| d.value);
    let pci = device.pci.as_ref().map(|which| Pci { which: which.value, dma });
    Ok(Device { name: device.name.value.clone(), ports, mmio, irqs, pci })
}

/// Spreads what may run anywhere over the CPUs that have least to do.
struct Cpus {
    load: Vec<u16>,
}

impl Cpus {
    /// Counts what is pinned first, so that the choice for the rest knows of all of it.
    fn new(model: &Model, smp: u16) -> Self {
        let mut load = vec![0_u16; usize::from(smp)];
        for domain in &model.domains {
            let vcpus = domain.vm.iter().flat_map(|vm| &vm.vcpus).map(|c| c.value);
            let own = match (&domain.cpu, &domain.vm) {
                (Some(cpu), _) => Some(cpu.value),
                (None, Some(_)) => None,
                (None, None) => Some(Cpu::Index(0)),
            };
            for cpu in own.into_iter().chain(vcpus) {
                if let Cpu::Index(index) = cpu
                    && let Some(count) = load.get_mut(usize::from(index))
                {
                    *count += 1;
                }
            }
        }
        Self { load }
    }

    fn place(&mut self, cpu: Cpu) -> u16 {
        let index = match cpu {
            Cpu::Index(index) => return index,
            // CPU 0 has the interrupts and the services: the last of equals wins.
            Cpu::Auto => least(&self.load),
        };
        if let Some(count) = self.load.get_mut(usize::from(index)) {
            *count += 1;
        }
        index
    }
}

fn least(load: &[u16]) -> u16 {
    let mut best = (0, u16::MAX);
    for (index, &count) in (0..).zip(load) {
        if count <= best.1 {
            best = (index, count);
        }
    }
    best.0
}
