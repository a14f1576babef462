//! Checks a model against itself, the machine and the files it names.

use std::collections::BTreeSet;
use std::path::Path;

use ipc::info::{MAX_MODULES, NAME_LEN};
use ipc::proto::start::{MAX_CLIENTS, MAX_DEVICES, MAX_STORES, MAX_USES};

use super::graph;
use super::model::{Cpu, Device, Domain, Model};
use super::modules::Modules;
use super::payload::Payload;
use super::source::{Diagnostic, Located};
use super::table::unknown;
use super::units::show;
use super::{machine, virtio};

/// Image of a VM where `image` is not given.
pub const VMM: &str = "vmm";
/// Kernel memory where `kernel-memory` is not given.
pub const KERNEL_MEMORY: u64 = 32 << 20;
/// Memory of a component where `memory` is not given.
pub const MEMORY: u64 = 1 << 20;
/// Memory of a VMM where `vmm-memory` is not given.
pub const VMM_MEMORY: u64 = 8 << 20;
/// Kernel memory of a component where `quota` is not given.
pub const QUOTA: u64 = 1 << 20;
/// Kernel memory of a VM where `quota` is not given.
pub const VM_QUOTA: u64 = 4 << 20;
/// What firmware, kernel, root task and the images themselves take.
const RESERVE: u64 = 48 << 20;

const MODULES: [&str; 3] = ["config", "hypervisor", "roottask"];

/// What a configuration is checked against.
#[derive(Clone, Debug)]
pub struct Surroundings<'a> {
    /// Number of CPUs.
    pub smp: u16,
    /// Bytes of RAM.
    pub memory: u64,
    /// Folder of the configuration file.
    pub folder: &'a Path,
    /// Programs that can be built.
    pub images: &'a BTreeSet<String>,
}

/// Reports everything that is wrong with a model.
#[must_use]
pub fn check(model: &Model, around: &Surroundings<'_>) -> Vec<Diagnostic> {
    let mut errors = Vec::new();
    if model.domains.is_empty() {
        let message = "there is no [[component]] and no [[vm]]: nothing would run";
        errors.push(Diagnostic::new(&(0..0), message));
    }
    names(model, &mut errors);
    for domain in &model.domains {
        image(domain, around, &mut errors);
        cpus(domain, around, &mut errors);
        files(domain, around, &mut errors);
        pages(domain, &mut errors);
    }
    devices(model, &mut errors);
    functions(model, &mut errors);
    limits(model, &mut errors);
    modules(model, around, &mut errors);
    virtio::check(model, &mut errors);
    machine::check(&model.machine, around.folder, &mut errors);
    graph::check(model, &mut errors);
    quotas(model, &mut errors);
    memory(model, around, &mut errors);
    errors
}

fn names(model: &Model, errors: &mut Vec<Diagnostic>) {
    let all: Vec<_> = model.domains.iter().filter_map(|d| d.name.as_ref()).collect();
    for (index, name) in all.iter().enumerate() {
        if let Some(first) = all.iter().take(index).find(|o| o.value == name.value) {
            let message = format!("the name `{}` is used twice", name.value);
            errors.push(Diagnostic::new(&name.span, message).also(&first.span, "first here"));
        }
    }
}

fn image(domain: &Domain, around: &Surroundings<'_>, errors: &mut Vec<Diagnostic>) {
    let Some(image) = &domain.image else { return };
    if MODULES.contains(&image.value.as_str()) {
        let message = format!("`{}` is part of the system and no component image", image.value);
        errors.push(Diagnostic::new(&image.span, message));
    } else if !around.images.contains(&image.value) {
        let known = around.images.iter().map(String::as_str);
        errors.push(unknown(&image.span, "image", &image.value, known, "components/"));
    }
}

fn cpus(domain: &Domain, around: &Surroundings<'_>, errors: &mut Vec<Diagnostic>) {
    let vcpus = domain.vm.iter().flat_map(|vm| &vm.vcpus);
    for cpu in domain.cpu.iter().chain(vcpus) {
        if let Cpu::Index(index) = cpu.value
            && index >= around.smp
        {
            let message = format!("there is no CPU {index}: the machine has {}", around.smp);
            let help = "CPUs count from 0; --smp gives their number, \"auto\" takes any";
            errors.push(Diagnostic::new(&cpu.span, message).help(help));
        }
    }
}

fn files(domain: &Domain, around: &Surroundings<'_>, errors: &mut Vec<Diagnostic>) {
    let mut see = |what, text: &Option<Located<String>>, read: fn(&str, &Path) -> Result<_, _>| {
        if let Some(text) = text
            && let Err(message) = read(&text.value, around.folder)
        {
            let error = Diagnostic::new(&text.span, format!("{what}: {message}"));
            errors.push(error.help("paths are relative to the configuration file"));
        }
    };
    if let Some(vm) = &domain.vm {
        see("kernel", &vm.kernel, Payload::kernel);
        see("initrd", &vm.initrd, Payload::initrd);
    }
    for store in &domain.stores {
        see("store", &store.file, Payload::store);
    }
    for (size, file) in domain.stores.iter().filter_map(|s| s.size.as_ref().zip(s.file.as_ref())) {
        let known = Payload::store(&file.value, around.folder).map_or(0, |p| p.known_size());
        if known > size.value {
            let message = format!("the file has {}, which do not fit", show(known));
            errors.push(Diagnostic::new(&size.span, message).also(&file.span, "this file"));
        }
    }
}

/// Memory is handed out in pages; guest memory in pages of 2 MiB.
fn pages(domain: &Domain, errors: &mut Vec<Diagnostic>) {
    let mut multiple = |size: Option<&Located<u64>>, unit: u64| {
        if let Some(size) = size
            && (size.value == 0 || size.value % unit != 0)
        {
            let message = format!("must be a positive multiple of {}", show(unit));
            errors.push(Diagnostic::new(&size.span, message));
        }
    };
    multiple(domain.memory.as_ref(), 4096);
    multiple(domain.quota.as_ref(), 4096);
    multiple(domain.vm.as_ref().and_then(|vm| vm.ram.as_ref()), 2 << 20);
    for store in &domain.stores {
        multiple(store.size.as_ref(), 4096);
    }
}

/// PCI functions are the business of components that the whole system trusts.
fn functions(model: &Model, errors: &mut Vec<Diagnostic>) {
    for domain in model.domains.iter().filter(|d| !d.trusted) {
        for wanted in &domain.devices {
            let mut devices = model.devices.iter();
            if devices.any(|d| d.name.value == wanted.value && d.pci.is_some()) {
                let message = format!(
                    "`{}` can write to any memory by way of the component that has it",
                    wanted.value
                );
                let help = "no IOMMU confines PCI functions: `trusted = true` accepts that";
                errors.push(Diagnostic::new(&wanted.span, message).help(help));
            }
        }
    }
    for (index, device) in model.devices.iter().enumerate() {
        if let Some(dma) = device.dma.as_ref().filter(|d| d.value == 0 || d.value % 4096 != 0) {
            errors.push(Diagnostic::new(&dma.span, "must be a positive multiple of 4K"));
        }
        let Some(pci) = &device.pci else { continue };
        let earlier = model.devices.iter().take(index).filter_map(|d| d.pci.as_ref());
        if let Some(twin) = earlier.into_iter().find(|o| o.value == pci.value) {
            let message = "another device is this PCI function";
            errors.push(Diagnostic::new(&pci.span, message).also(&twin.span, "there"));
        }
    }
}

/// The kernel passes on a limited number of boot modules with names of a limited length.
fn modules(model: &Model, around: &Surroundings<'_>, errors: &mut Vec<Diagnostic>) {
    let modules = Modules::of(model, around.folder);
    for (name, _) in modules.files.iter().filter(|(name, _)| name.len() > NAME_LEN) {
        let owner = name.split('.').next().unwrap_or_default();
        let owner = graph::find(model, owner).and_then(|i| model.domains.get(i));
        let span = owner.map_or(0..0, |d| d.name.as_ref().map_or(&d.span, |n| &n.span).clone());
        let message = format!("`{name}` is too long for a boot module: {NAME_LEN} characters fit");
        errors.push(Diagnostic::new(&span, message).help("use shorter names"));
    }
    let images: BTreeSet<&str> = model.domains.iter().map(image_name).collect();
    // Root task and configuration are modules, too.
    let count = modules.files.len() + images.len() + 2;
    if count > MAX_MODULES {
        let message = format!("{count} boot modules: there is room for {MAX_MODULES}");
        errors.push(Diagnostic::new(&(0..0), message));
    }
}

/// Name of a domain's program.
#[must_use]
pub fn image_name(domain: &Domain) -> &str {
    domain.image.as_ref().map_or(VMM, |i| i.value.as_str())
}

/// What a component is told about itself has room for so much.
fn limits(model: &Model, errors: &mut Vec<Diagnostic>) {
    for domain in &model.domains {
        let span = domain.name.as_ref().map_or(&domain.span, |n| &n.span);
        let users = model.domains.iter().flat_map(|d| &d.uses);
        let name = domain.name.as_ref().map(|n| &n.value);
        let clients = users.filter(|u| Some(&u.provider.value) == name).count();
        let counts = [
            (domain.uses.len(), MAX_USES, "sessions with services and devices"),
            (clients, MAX_CLIENTS, "sessions of others with it"),
            (domain.devices.len(), MAX_DEVICES, "devices"),
            (domain.stores.len(), MAX_STORES, "stores"),
        ];
        for (count, limit, what) in counts {
            if count > limit {
                let message = format!("{count} {what}: there is room for {limit}");
                errors.push(Diagnostic::new(span, message));
            }
        }
    }
}

fn devices(model: &Model, errors: &mut Vec<Diagnostic>) {
    let mut owners: Vec<(usize, &Located<String>)> = Vec::new();
    let wishes = model.domains.iter().enumerate();
    for (owner, wanted) in wishes.flat_map(|(i, d)| d.devices.iter().map(move |w| (i, w))) {
        if !model.devices.iter().any(|d| d.name.value == wanted.value) {
            let known = model.devices.iter().map(|d| d.name.value.as_str());
            errors.push(unknown(&wanted.span, "device", &wanted.value, known, "this file"));
        } else if let Some((_, first)) =
            owners.iter().find(|(other, o)| *other != owner && o.value == wanted.value)
        {
            let message = format!("device `{}` already belongs to another component", wanted.value);
            errors.push(Diagnostic::new(&wanted.span, message).also(&first.span, "given here"));
        } else {
            owners.push((owner, wanted));
        }
    }
    for (index, device) in model.devices.iter().enumerate() {
        for other in model.devices.iter().take(index) {
            overlaps(device, other, errors);
        }
    }
}

fn overlaps(device: &Device, other: &Device, errors: &mut Vec<Diagnostic>) {
    let mut clash = |mine: &Located<(u64, u64)>, theirs: &Located<(u64, u64)>| {
        if mine.value.0 <= theirs.value.1 && theirs.value.0 <= mine.value.1 {
            let message = format!("overlaps with device `{}`", other.name.value);
            errors.push(Diagnostic::new(&mine.span, message).also(&theirs.span, "this range"));
        }
    };
    for mine in &device.ports {
        other.ports.iter().for_each(|theirs| clash(mine, theirs));
    }
    for mine in &device.mmio {
        other.mmio.iter().for_each(|theirs| clash(mine, theirs));
    }
    for mine in &device.irqs {
        if let Some(theirs) = other.irqs.iter().find(|o| o.value == mine.value) {
            let message = format!("interrupt line is also of device `{}`", other.name.value);
            errors.push(Diagnostic::new(&mine.span, message).also(&theirs.span, "there"));
        }
    }
}

/// Bytes of kernel memory that a domain may use.
#[must_use]
pub fn quota(domain: &Domain) -> u64 {
    let default = if domain.vm.is_some() { VM_QUOTA } else { QUOTA };
    domain.quota.as_ref().map_or(default, |q| q.value)
}

/// Bytes of memory that a domain's program gets.
#[must_use]
pub fn program_memory(domain: &Domain) -> u64 {
    let default = if domain.vm.is_some() { VMM_MEMORY } else { MEMORY };
    domain.memory.as_ref().map_or(default, |m| m.value)
}

/// Bytes of the kernel's pool.
#[must_use]
pub fn kernel_memory(model: &Model) -> u64 {
    model.system.kernel_memory.as_ref().map_or(KERNEL_MEMORY, |m| m.value)
}

/// Quotas come out of the kernel's pool.
fn quotas(model: &Model, errors: &mut Vec<Diagnostic>) {
    let pool = kernel_memory(model);
    let sum: u64 = model.domains.iter().map(quota).sum();
    if sum <= pool {
        return;
    }
    let Some(largest) = model.domains.iter().max_by_key(|d| quota(d)) else {
        return;
    };
    let span = largest.quota.as_ref().map_or(&largest.span, |q| &q.span);
    let message = format!("quotas add up to {}, kernel-memory is {}", show(sum), show(pool));
    let mut error = Diagnostic::new(span, message).help("raise kernel-memory or lower the quotas");
    if let Some(pool) = &model.system.kernel_memory {
        error = error.also(&pool.span, "the kernel's pool");
    }
    errors.push(error);
}

/// All memory is given out at start: it has to be there.
fn memory(model: &Model, around: &Surroundings<'_>, errors: &mut Vec<Diagnostic>) {
    let ram = |d: &Domain| d.vm.as_ref().and_then(|vm| vm.ram.as_ref()).map_or(0, |r| r.value);
    let programs: u64 = model.domains.iter().map(program_memory).sum();
    let guests: u64 = model.domains.iter().map(ram).sum();
    let stores = model.domains.iter().flat_map(|d| &d.stores).filter_map(|s| s.size.as_ref());
    let dma = model.devices.iter().filter_map(|d| d.dma.as_ref());
    let stores: u64 = stores.chain(dma).map(|s| s.value).sum();
    let files = Modules::of(model, around.folder).files;
    let files: u64 = files.iter().map(|(_, payload)| payload.known_size()).sum();
    let kernel = kernel_memory(model);
    let sum = programs + guests + stores + files + kernel + RESERVE;
    if sum <= around.memory {
        return;
    }
    let Some(largest) = model.domains.iter().max_by_key(|d| program_memory(d) + ram(d)) else {
        return;
    };
    let wish = largest.vm.as_ref().and_then(|vm| vm.ram.as_ref()).or(largest.memory.as_ref());
    let message = format!(
        "memory is overcommitted: {} wanted, the machine has {}",
        show(sum),
        show(around.memory)
    );
    let help = format!(
        "guests {}, programs {}, stores {}, kernel {}, boot files {}, firmware and system {}; \
         --memory gives the machine more",
        show(guests),
        show(programs),
        show(stores),
        show(kernel),
        show(files),
        show(RESERVE)
    );
    let span = wish.map_or(&largest.span, |w| &w.span);
    errors.push(Diagnostic::new(span, message).help(help));
}
