//! Switching the machine off.

use ipc::info::{Info, MemoryKind};
use sysroot::num::usize_of;
use sysroot::{arch, log, time};

use crate::firmware::{Physical, power_off};

/// Firmware tables, which the kernel maps one to one, readable.
pub struct Tables<'a>(pub &'a Info);

impl Physical for Tables<'_> {
    fn bytes(&self, address: u64, size: u64) -> Option<&[u8]> {
        let end = address.checked_add(size)?;
        let kernel = MemoryKind::Kernel.number();
        let readable = self.0.memory().iter().any(|m| {
            m.kind != u64::from(kernel)
                && m.base <= address
                && m.base.checked_add(m.size).is_some_and(|m_end| end <= m_end)
        });
        if !readable || address == 0 {
            return None;
        }
        let start = core::ptr::with_exposed_provenance(usize_of(address));
        // SAFETY: the range is in memory that the root task holds, mapped where it physically is;
        // nobody writes firmware tables.
        Some(unsafe { core::slice::from_raw_parts(start, usize_of(size)) })
    }
}

/// Switches the machine off. Where that does not work, says so and returns.
pub fn off(info: &Info) {
    log!("root: powering off");
    // What has been printed shall reach the operator.
    time::sleep_ms(50);
    let Some(how) = power_off(&Tables(info), info.rsdp) else {
        log!("root: the firmware names no way to power off; halted");
        return;
    };
    // SAFETY: the root task holds all ports; these registers switch the machine off.
    unsafe {
        if let Some((port, value)) = how.sleep {
            arch::out8(port, value);
        }
        if let Some((port, value)) = how.pm1a {
            // Legacy mode (SCI_EN clear) ignores the register.
            if let Some((command, enable)) = how.enable
                && arch::in16(port) & 1 == 0
            {
                arch::out8(command, enable);
                time::sleep_ms(10);
            }
            arch::out16(port, value);
        }
        if let Some((port, value)) = how.pm1b {
            arch::out16(port, value);
        }
    }
    time::sleep_ms(500);
    log!("root: power off did not work; halted");
}
