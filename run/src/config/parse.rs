//! TOML text to [`Model`]: syntax, keys and types.

use config::{MachineAction, Restart};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::model::{Cpu, Device, Domain, Model, Store, System, Use, Vm};
use super::source::{Diagnostic, Located, Span};
use super::table::{self, Table};
use super::{machine, units, virtio};

type Value<'i> = Spanned<DeValue<'i>>;
type Errors = Vec<Diagnostic>;

const SYSTEM: &[&str] = &["name", "on-last-vm-off", "kernel-memory", "kernel-args"];
const DEVICE: &[&str] = &["ports", "mmio", "irqs", "pci", "dma"];
const STORE: &[&str] = &["size", "file"];
const COMPONENT: &[&str] = &[
    "name",
    "image",
    "args",
    "memory",
    "quota",
    "cpu",
    "priority",
    "devices",
    "provides",
    "uses",
    "stores",
    "operator",
    "trusted",
    "restart",
    "max-restarts",
];
const VM: &[&str] = &[
    "name",
    "image",
    "args",
    "memory",
    "vmm-memory",
    "quota",
    "cpu",
    "priority",
    "uses",
    "restart",
    "max-restarts",
    "vcpus",
    "kernel",
    "initrd",
    "cmdline",
    "consoles",
    "disks",
    "nets",
];

/// Reads a configuration. The model holds whatever could be understood.
#[must_use]
pub fn parse(text: &str) -> (Model, Errors) {
    let (document, syntax) = DeTable::parse_recoverable(text);
    let mut errors: Errors = syntax
        .into_iter()
        .map(|e| Diagnostic::new(&e.span().unwrap_or(0..0), e.message().to_owned()))
        .collect();
    let mut model = Model::default();
    if !errors.is_empty() {
        // What recovery guessed would only bring errors that are not there.
        return (model, errors);
    }
    let keys = ["system", "machine", "device", "component", "vm"];
    let root = Table::new("the configuration", document.get_ref(), 0..0, &keys, &mut errors);
    if let Some(found) = root.optional("system", &mut errors, table::table) {
        model.system = system(found.value, found.span, &mut errors);
    }
    if let Some(found) = root.optional("machine", &mut errors, table::table) {
        model.machine = machine::parse(found.value, found.span, &mut errors);
    }
    if let Some(found) = root.optional("device", &mut errors, table::table) {
        for (name, value) in found.value {
            model.devices.extend(device(name.span(), name.get_ref(), value, &mut errors));
        }
        model.devices.sort_by_key(|d| d.name.span.start);
    }
    for (key, read) in [("component", component as fn(_, _, &mut _) -> _), ("vm", vm)] {
        let tables = root.optional(key, &mut errors, |v, e| table::list(v, e, table::table));
        for entry in tables.map(|t| t.value).unwrap_or_default() {
            model.domains.push(read(entry.value, entry.span, &mut errors));
        }
    }
    (model, errors)
}

fn system(fields: &DeTable<'_>, span: Span, errors: &mut Errors) -> System {
    let t = Table::new("[system]", fields, span, SYSTEM, errors);
    let actions = [("poweroff", MachineAction::PowerOff), ("stay", MachineAction::Stay)];
    System {
        name: t.optional("name", errors, name),
        on_last_vm_off: t.optional("on-last-vm-off", errors, |v, e| table::word(v, &actions, e)),
        kernel_memory: t.optional("kernel-memory", errors, size),
        kernel_args: t.optional("kernel-args", errors, words),
    }
}

fn device(span: Span, name: &str, value: &Value<'_>, errors: &mut Errors) -> Option<Device> {
    if let Err(message) = units::name(name) {
        errors.push(Diagnostic::new(&span, message));
    }
    let t = Table::new("[device]", table::table(value, errors)?, span.clone(), DEVICE, errors);
    let ranges = |key, limit, errors: &mut Errors| {
        t.optional(key, errors, |v, e| table::list(v, e, |v, e| range(v, limit, e)))
            .map(|l| l.value)
            .unwrap_or_default()
    };
    let device = Device {
        name: Located::new(name.to_owned(), span),
        ports: ranges("ports", 0xffff, errors),
        mmio: ranges("mmio", (1 << 52) - 1, errors),
        irqs: t
            .optional("irqs", errors, |v, e| table::list(v, e, |v, e| table::number(v, 0..=15, e)))
            .map(|l| l.value)
            .unwrap_or_default(),
        pci: t.optional("pci", errors, |v, e| understood(v, e, units::pci)),
        dma: t.optional("dma", errors, size),
    };
    let resources = ["ports", "mmio", "irqs"].map(|key| t.optional(key, errors, |_, _| Some(())));
    for resource in resources.iter().flatten().filter(|_| device.pci.is_some()) {
        let message = "the resources of a PCI function are found out, not configured";
        errors.push(Diagnostic::new(&resource.span, message));
    }
    if let Some(dma) = device.dma.as_ref().filter(|_| device.pci.is_none()) {
        errors.push(Diagnostic::new(&dma.span, "only a PCI function has memory for DMA"));
    }
    for pages in &device.mmio {
        if pages.value.0 % 4096 != 0 || (pages.value.1 + 1) % 4096 != 0 {
            let message = "an MMIO range must consist of whole pages of 4096 bytes";
            errors.push(Diagnostic::new(&pages.span, message));
        }
    }
    Some(device)
}

fn component(fields: &DeTable<'_>, span: Span, errors: &mut Errors) -> Domain {
    let t = Table::new("[[component]]", fields, span, COMPONENT, errors);
    let restart = restart(&t, Restart::OnFailure { max: 5 }, errors);
    Domain {
        image: t.required("image", errors, name),
        memory: t.optional("memory", errors, size),
        devices: names(&t, "devices", errors),
        provides: names(&t, "provides", errors),
        stores: stores(&t, errors),
        operator: flag(&t, "operator", errors),
        trusted: flag(&t, "trusted", errors),
        ..domain(&t, restart, errors)
    }
}

fn vm(fields: &DeTable<'_>, span: Span, errors: &mut Errors) -> Domain {
    let t = Table::new("[[vm]]", fields, span, VM, errors);
    let restart = restart(&t, Restart::Never, errors);
    let vcpus =
        t.optional("vcpus", errors, |v, e| table::list(v, e, cpu)).map(|l| (l.span, l.value));
    if let Some((span, list)) = &vcpus
        && !(1..=64).contains(&list.len())
    {
        errors.push(Diagnostic::new(span, "a VM has 1 to 64 vCPUs"));
    }
    let vm = Vm {
        ram: t.required("memory", errors, size),
        vcpus: vcpus
            .map_or_else(|| vec![Located::new(Cpu::Auto, t.span().clone())], |(_, list)| list),
        kernel: t.required("kernel", errors, table::string),
        initrd: t.optional("initrd", errors, table::string),
        cmdline: text(&t, "cmdline", errors),
    };
    let mut domain = domain(&t, restart, errors);
    domain.uses.extend(virtio::parse(&t, errors));
    Domain {
        image: t.optional("image", errors, name),
        memory: t.optional("vmm-memory", errors, size),
        vm: Some(vm),
        ..domain
    }
}

fn stores(t: &Table<'_, '_>, errors: &mut Errors) -> Vec<Store> {
    let Some(found) = t.optional("stores", errors, table::table) else { return Vec::new() };
    let mut stores = Vec::new();
    for (name, value) in found.value {
        if let Err(message) = units::name(name.get_ref()) {
            errors.push(Diagnostic::new(&name.span(), message));
        }
        let Some(fields) = table::table(value, errors) else { continue };
        let t = Table::new("a store", fields, value.span(), STORE, errors);
        stores.push(Store {
            name: Located::new(name.get_ref().clone().into_owned(), name.span()),
            size: t.required("size", errors, size),
            file: t.optional("file", errors, table::string),
        });
    }
    stores.sort_by_key(|s| s.name.span.start);
    stores
}

fn flag(t: &Table<'_, '_>, key: &str, errors: &mut Errors) -> bool {
    t.optional(key, errors, table::boolean).is_some_and(|l| l.value)
}

/// What components and VMs have in common.
fn domain(t: &Table<'_, '_>, restart: Restart, errors: &mut Errors) -> Domain {
    Domain {
        span: t.span().clone(),
        name: t.required("name", errors, name),
        image: None,
        args: text(t, "args", errors),
        memory: None,
        quota: t.optional("quota", errors, size),
        cpu: t.optional("cpu", errors, cpu),
        priority: t.optional("priority", errors, |v, e| table::number(v, 1..=127, e)),
        devices: Vec::new(),
        provides: Vec::new(),
        uses: uses(t, errors),
        stores: Vec::new(),
        operator: false,
        trusted: false,
        restart,
        vm: None,
    }
}

fn uses(t: &Table<'_, '_>, errors: &mut Errors) -> Vec<Use> {
    let Some(found) = t.optional("uses", errors, table::table) else {
        return Vec::new();
    };
    let mut uses = Vec::new();
    for (service, provider) in found.value {
        if let Some(text) = table::string(provider, errors) {
            uses.push(Use {
                service: Located::new(service.get_ref().clone().into_owned(), service.span()),
                provider: Located::new(text, provider.span()),
                device: None,
            });
        }
    }
    uses.sort_by_key(|u| u.service.span.start);
    uses
}

fn restart(t: &Table<'_, '_>, default: Restart, errors: &mut Errors) -> Restart {
    let words = [("on-failure", true), ("never", false)];
    let policy = t.optional("restart", errors, |v, e| table::word(v, &words, e));
    let limit = t.optional("max-restarts", errors, |v, e| table::number(v, 1..=u16::MAX, e));
    match (policy.map(|p| p.value), limit) {
        (None, None) => default,
        (Some(false), Some(limit)) => {
            let message = "`max-restarts` has no meaning with restart = \"never\"";
            errors.push(Diagnostic::new(&limit.span, message));
            Restart::Never
        }
        (Some(false), None) => Restart::Never,
        (Some(true) | None, limit) => Restart::OnFailure { max: limit.map_or(5, |l| l.value) },
    }
}

fn text(t: &Table<'_, '_>, key: &str, errors: &mut Errors) -> String {
    t.optional(key, errors, table::string).map(|l| l.value).unwrap_or_default()
}

fn names(t: &Table<'_, '_>, key: &str, errors: &mut Errors) -> Vec<Located<String>> {
    let found = t.optional(key, errors, |v, e| table::list(v, e, name));
    let list = found.map(|l| l.value).unwrap_or_default();
    for (index, entry) in list.iter().enumerate() {
        if let Some(first) = list.iter().take(index).find(|o| o.value == entry.value) {
            let message = format!("`{}` stands twice in this list", entry.value);
            errors.push(Diagnostic::new(&entry.span, message).also(&first.span, "first here"));
        }
    }
    list
}

/// A string that a function understands.
fn understood<T>(
    value: &Value<'_>,
    errors: &mut Errors,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text = table::string(value, errors)?;
    read(&text).map_err(|m| errors.push(Diagnostic::new(&value.span(), m))).ok()
}

fn name(value: &Value<'_>, errors: &mut Errors) -> Option<String> {
    understood(value, errors, |text| units::name(text).map(|()| text.to_owned()))
}

fn size(value: &Value<'_>, errors: &mut Errors) -> Option<u64> {
    let help = |e: &mut Errors, before: usize| {
        if let Some(last) = e.get_mut(before) {
            last.help.get_or_insert_with(|| "sizes are strings, as in \"512M\"".to_owned());
        }
    };
    let before = errors.len();
    let found = understood(value, errors, units::size);
    if found.is_none() {
        help(errors, before);
    }
    found
}

/// Words for a command line that passes through GRUB's shell.
fn words(value: &Value<'_>, errors: &mut Errors) -> Option<String> {
    understood(value, errors, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || " =-_.,:/".contains(c);
        match text.chars().find(|&c| !fits(c)) {
            Some(c) => Err(format!("`{c}` cannot stand on the hypervisor's command line")),
            None => Ok(text.to_owned()),
        }
    })
}

fn range(value: &Value<'_>, limit: u64, errors: &mut Errors) -> Option<(u64, u64)> {
    understood(value, errors, |text| units::range(text, limit))
}

fn cpu(value: &Value<'_>, errors: &mut Errors) -> Option<Cpu> {
    if value.get_ref().as_str() == Some("auto") {
        return Some(Cpu::Auto);
    }
    if value.get_ref().is_str() {
        errors.push(Diagnostic::new(&value.span(), "expected a CPU index or \"auto\""));
        return None;
    }
    table::number(value, 0..=u16::MAX, errors).map(Cpu::Index)
}
