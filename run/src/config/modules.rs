//! Names of the boot modules that hold files of VMs and stores.

use std::collections::BTreeMap;
use std::path::Path;

use super::model::Model;
use super::payload::Payload;

/// Suffix of a kernel's module name.
pub const KERNEL: &str = "kernel";
/// Suffix of an initial RAM disk's module name.
pub const INITRD: &str = "initrd";

/// Files, each once.
#[derive(Clone, Debug, Default)]
pub struct Modules {
    /// Module name and source.
    pub files: Vec<(String, Payload)>,
    names: BTreeMap<(String, String), String>,
}

impl Modules {
    /// Names a model's files; one that several share is named after the first of them.
    /// Files that do not exist are left out.
    #[must_use]
    pub fn of(model: &Model, folder: &Path) -> Self {
        let mut modules = Self::default();
        for domain in &model.domains {
            let Some(name) = &domain.name else { continue };
            for store in &domain.stores {
                let file = store.file.as_ref().map(|f| Payload::store(&f.value, folder));
                if let Some(Ok(payload)) = file {
                    modules.add(&name.value, &store.name.value, payload);
                }
            }
            let Some(vm) = &domain.vm else { continue };
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

    fn add(&mut self, owner: &str, kind: &str, payload: Payload) {
        let known = self.files.iter().find(|(_, p)| *p == payload).map(|(name, _)| name.clone());
        let module = known.unwrap_or_else(|| {
            let module = format!("{owner}.{kind}");
            self.files.push((module.clone(), payload));
            module
        });
        self.names.insert((owner.to_owned(), kind.to_owned()), module);
    }

    /// Name of the module that holds one of the files of a VM, or of a store.
    #[must_use]
    pub fn name(&self, owner: &str, kind: &str) -> Option<String> {
        self.names.get(&(owner.to_owned(), kind.to_owned())).cloned()
    }
}
