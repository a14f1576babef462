//! Names of the boot modules that hold the VMs' files.

use std::collections::BTreeMap;
use std::path::Path;

use super::model::Model;
use super::payload::Payload;

/// Suffix of a kernel's module name.
pub const KERNEL: &str = "kernel";
/// Suffix of an initial RAM disk's module name.
pub const INITRD: &str = "initrd";

/// The VMs' files, each once.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Module name and source.
    pub files: Vec<(String, Payload)>,
    names: BTreeMap<(String, &'static str), String>,
}

impl Modules {
    /// Names a model's files; one that several VMs share is named after the first of them.
    /// Files that do not exist are left out.
    #[must_use]
    pub fn of(model: &Model, folder: &Path) -> Self {
        let mut modules = Self::default();
        for domain in &model.domains {
            let (Some(name), Some(vm)) = (&domain.name, &domain.vm) else {
                continue;
            };
            let kernel = vm.kernel.as_ref().map(|k| (KERNEL, Payload::kernel(&k.value, folder)));
            let initrd = vm.initrd.as_ref().map(|i| (INITRD, Payload::initrd(&i.value, folder)));
            for (kind, payload) in [kernel, initrd].into_iter().flatten() {
                if let Ok(payload) = payload {
                    modules.add(&name.value, kind, payload);
                }
            }
        }
        modules
    }

    fn add(&mut self, vm: &str, kind: &'static str, payload: Payload) {
        let known = self.files.iter().find(|(_, p)| *p == payload).map(|(name, _)| name.clone());
        let module = known.unwrap_or_else(|| {
            let module = format!("{vm}.{kind}");
            self.files.push((module.clone(), payload));
            module
        });
        self.names.insert((vm.to_owned(), kind), module);
    }

    /// Name of the module that holds one of a VM's files.
    #[must_use]
    pub fn name(&self, vm: &str, kind: &'static str) -> Option<String> {
        self.names.get(&(vm.to_owned(), kind)).cloned()
    }
}
