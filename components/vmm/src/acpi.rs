//! Hardware-reduced ACPI tables (ACPI 6.5, 4.1): all that a guest learns about its platform.
//!
//! No PIC, PIT, CMOS clock, VGA or SCI exists, and the tables say so; the guest neither probes nor
//! waits for them. Power-off goes through the sleep control register, restart through the reset
//! register ([`crate::devices::pm`]).

use alloc::vec::Vec;
use core::fmt;

use acpi_tables::aml::{
    Device, EISAName, IO, Interrupt, Memory32Fixed, Name, Package, ResourceTemplate, Scope,
};
use acpi_tables::fadt::{FADTBuilder, Flags, PmProfile};
use acpi_tables::gas::{AccessSize, AddressSpace, GAS};
use acpi_tables::madt::{
    EnabledStatus, IoApic, LocalInterruptController, MADT, ProcessorLocalApic,
};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, aml};

use crate::boot::layout;
use crate::devices::virtio::{FIRST_GSI, page};
use crate::devices::{pm, uart16550};
use crate::memory::{NotRam, Ram};
use crate::num::{low8, low32, u64_of};

const OEM_ID: [u8; 6] = *b"PORTIC";
const OEM_TABLE_ID: [u8; 8] = *b"PORTICOV";
const OEM_REVISION: u32 = 1;
/// ACPI id of the I/O APIC.
const IOAPIC_ID: u8 = 0;
/// `IAPC_BOOT_ARCH` (ACPI 6.5, table 5.11): no VGA to probe, no MSI restrictions; the 8042 and
/// legacy-device bits stay clear. Bit 5: no CMOS real-time clock.
const BOOT_ARCH: u16 = 1 << 2 | 1 << 5;
/// Most vCPUs that the tables describe: xAPIC ids end at 254.
pub const MAX_VCPUS: u32 = 254;

/// Why tables could not be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcpiError {
    /// They need more room than the area has.
    TooBig,
    /// The area is not RAM.
    Memory(NotRam),
}

impl fmt::Display for AcpiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig => f.write_str("ACPI tables do not fit into their area"),
            Self::Memory(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for AcpiError {}

impl From<NotRam> for AcpiError {
    fn from(e: NotRam) -> Self {
        Self::Memory(e)
    }
}

/// Writes all tables for a VM of `vcpus` vCPUs and `virtio` devices and returns the address of the root pointer.
///
/// # Errors
/// See [`AcpiError`].
pub fn write(ram: &Ram, vcpus: u32, virtio: usize) -> Result<u64, AcpiError> {
    let rsdp = layout::ACPI;
    let mut area = Area { ram, next: rsdp + align(u64_of(Rsdp::len())) };
    let dsdt = area.put(&dsdt(vcpus, virtio))?;
    let fadt = area.put(&fadt(dsdt))?;
    let madt = area.put(&madt(vcpus))?;
    let mut xsdt = XSDT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = area.put(&xsdt)?;
    let mut root = Vec::new();
    Rsdp::new(OEM_ID, xsdt).to_aml_bytes(&mut root);
    ram.write(rsdp, &root)?;
    Ok(rsdp)
}

/// The next free address in the table area.
struct Area<'a> {
    ram: &'a Ram,
    next: u64,
}

impl Area<'_> {
    fn put(&mut self, table: &dyn Aml) -> Result<u64, AcpiError> {
        let mut bytes = Vec::new();
        table.to_aml_bytes(&mut bytes);
        let at = self.next;
        let end = at + u64_of(bytes.len());
        if end > layout::ACPI_END {
            return Err(AcpiError::TooBig);
        }
        self.ram.write(at, &bytes)?;
        self.next = align(end);
        Ok(at)
    }
}

const fn align(at: u64) -> u64 {
    (at + 63) & !63
}

fn register(port: u16) -> GAS {
    GAS::new(AddressSpace::SystemIo, 8, 0, AccessSize::ByteAccess, u64::from(port))
}

fn fadt(dsdt: u64) -> impl Aml {
    let mut table = FADTBuilder::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION)
        .dsdt_64(dsdt)
        .preferred_pm_profile(PmProfile::EnterpriseServer)
        .flag(Flags::HwReducedAcpi)
        .flag(Flags::ResetRegSup)
        // WBINVD works, and there are neither power nor sleep buttons as fixed hardware.
        .flag(Flags::Wbinvd)
        .flag(Flags::PwrButton)
        .flag(Flags::SlpButton)
        .flag(Flags::Headless);
    table.iapc_boot_arch = BOOT_ARCH.into();
    table.reset_reg = register(pm::RESET);
    table.reset_value = pm::RESET_VALUE;
    table.sleep_control_reg = register(pm::SLEEP_CONTROL);
    table.sleep_status_reg = register(pm::SLEEP_STATUS);
    table.finalize()
}

fn madt(vcpus: u32) -> impl Aml {
    // The address fits: it is below 4 GiB by construction.
    let lapic = low32(layout::LAPIC);
    let ioapic = low32(layout::IOAPIC);
    let address = LocalInterruptController::Address(lapic);
    let mut table = MADT::new(OEM_ID, OEM_TABLE_ID, OEM_REVISION, address);
    for id in 0..vcpus.min(MAX_VCPUS) {
        let id = low8(u64::from(id));
        table.add_structure(ProcessorLocalApic::new(id, id, EnabledStatus::Enabled));
    }
    table.add_structure(IoApic::new(IOAPIC_ID, ioapic, 0));
    table
}

fn dsdt(vcpus: u32, virtio: usize) -> impl Aml {
    let mut body = Vec::new();
    // SLP_TYP of S5 for the sleep control register (ACPI 6.5, 7.4.2 and 4.8.3.7).
    let s5 = pm::SLEEP_TYPE_S5;
    Name::new("_S5_".into(), &Package::new(alloc::vec![&s5, &s5])).to_aml_bytes(&mut body);
    let com1 = Com1 {};
    let processors = Processors(vcpus.min(MAX_VCPUS));
    let virtio = Virtio(low32(u64_of(virtio)));
    Scope::new("_SB_".into(), alloc::vec![&processors, &com1, &virtio]).to_aml_bytes(&mut body);
    let mut table = Sdt::new(*b"DSDT", 36, 2, OEM_ID, OEM_TABLE_ID, OEM_REVISION);
    table.append_slice(&body);
    Raw(table)
}

struct Raw(Sdt);

impl Aml for Raw {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        sink.vec(self.0.as_slice());
    }
}

/// One processor device per vCPU; `_UID` matches the MADT.
struct Processors(u32);

impl Aml for Processors {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        for id in 0..self.0 {
            let name = alloc::format!("C{id:03X}");
            Device::new(
                name.as_str().into(),
                alloc::vec![
                    &Name::new("_HID".into(), &"ACPI0007"),
                    &Name::new("_UID".into(), &id),
                ],
            )
            .to_aml_bytes(sink);
        }
    }
}

/// The serial port: a 16550 at its customary place.
struct Com1 {}

impl Aml for Com1 {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        let ports = IO::new(uart16550::COM1, uart16550::COM1, 1, uart16550::PORTS);
        let irq = Interrupt::new(true, true, false, false, uart16550::COM1_GSI);
        Device::new(
            "COM1".into(),
            alloc::vec![
                &Name::new("_HID".into(), &EISAName::new("PNP0501")),
                &Name::new("_UID".into(), &aml::ZERO),
                &Name::new("_CRS".into(), &ResourceTemplate::new(alloc::vec![&ports, &irq])),
            ],
        )
        .to_aml_bytes(sink);
    }
}

/// Virtio devices: a page of registers and an edge-triggered interrupt each. Edges save the guest
/// the exit at the end of the interrupt.
struct Virtio(u32);

impl Aml for Virtio {
    fn to_aml_bytes(&self, sink: &mut dyn acpi_tables::AmlSink) {
        for n in 0..self.0 {
            let page = low32(layout::VIRTIO + u64::from(n) * page::SIZE);
            let registers = Memory32Fixed::new(true, page, low32(page::USED));
            let irq = Interrupt::new(true, true, false, false, FIRST_GSI + n);
            let name = alloc::format!("V{n:03X}");
            Device::new(
                name.as_str().into(),
                alloc::vec![
                    &Name::new("_HID".into(), &"LNRO0005"),
                    &Name::new("_UID".into(), &n),
                    &Name::new(
                        "_CRS".into(),
                        &ResourceTemplate::new(alloc::vec![&registers, &irq])
                    ),
                ],
            )
            .to_aml_bytes(sink);
        }
    }
}

#[cfg(test)]
mod tests;
