//! The paravirtual interface that Linux knows under the name of KVM
//! (Documentation/virt/kvm/x86/{cpuid,msr}.rst): clock and silent end of interrupt.

use crate::memory::{NotRam, Ram};

/// `MSR_KVM_WALL_CLOCK_NEW`.
pub const MSR_WALL_CLOCK: u32 = 0x4b56_4d00;
/// `MSR_KVM_SYSTEM_TIME_NEW`.
pub const MSR_SYSTEM_TIME: u32 = 0x4b56_4d01;
/// `MSR_KVM_PV_EOI_EN`.
pub const MSR_PV_EOI: u32 = 0x4b56_4d04;

/// Feature bits of CPUID leaf 0x4000_0001.
pub mod feature {
    /// Delays by port accesses are not needed.
    pub const NO_IO_DELAY: u32 = 1 << 1;
    /// Clock at the MSRs above.
    pub const CLOCK: u32 = 1 << 3;
    /// PV EOI.
    pub const EOI: u32 = 1 << 6;
    /// The clock is the same on all vCPUs.
    pub const CLOCK_STABLE: u32 = 1 << 24;
}

const ENABLED: u64 = 1;
const FLAG_TSC_STABLE: u64 = 1;
/// Bytes of `pvclock_vcpu_time_info`.
const TIME_INFO: u64 = 32;

/// The clock of a VM: nanoseconds since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Clock {
    /// Host TSC when the VM started.
    start: u64,
    /// Multiplier and shift from TSC ticks to nanoseconds.
    scale: Scale,
    /// Wall clock time at the start, in nanoseconds since 1970.
    wall: u64,
}

/// `ns = ((ticks << shift) * multiplier) >> 32`; a negative shift is to the right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    multiplier: u32,
    shift: i8,
}

impl Scale {
    fn new(tsc_khz: u64) -> Self {
        // The multiplier has its top bit set: the most precision there is.
        let khz = u128::from(tsc_khz.max(1));
        let mut shift = 0i8;
        let factor = |shift: i8| -> u128 {
            let numerator = 1_000_000u128 << 32;
            if shift >= 0 { numerator / (khz << shift) } else { (numerator << -shift) / khz }
        };
        while factor(shift) > u128::from(u32::MAX) && shift < 31 {
            shift += 1;
        }
        while factor(shift) < 1 << 31 && shift > -31 {
            shift -= 1;
        }
        Self { multiplier: u32::try_from(factor(shift)).unwrap_or(u32::MAX), shift }
    }
}

impl Clock {
    /// A clock that starts at host TSC `start`, at `wall` nanoseconds since 1970.
    #[must_use]
    pub fn new(tsc_khz: u64, start: u64, wall: u64) -> Self {
        Self { start, scale: Scale::new(tsc_khz), wall }
    }

    /// Writes `pvclock_vcpu_time_info`. It stays true as long as the TSC offset does: the guest
    /// computes the rest itself.
    fn write_time(&self, ram: &Ram, gpa: u64, tsc_offset: u64) -> Result<(), NotRam> {
        if !ram.contains(gpa, TIME_INFO) {
            return Err(NotRam { gpa, len: TIME_INFO });
        }
        let version = ram.read_word(gpa, 4)? & !1;
        ram.write_word(gpa, 4, version + 1)?;
        ram.write_word(gpa + 8, 8, self.start.wrapping_add(tsc_offset))?;
        ram.write_word(gpa + 16, 8, 0)?;
        ram.write_word(gpa + 24, 4, u64::from(self.scale.multiplier))?;
        let shift = u64::from(self.scale.shift.cast_unsigned());
        ram.write_word(gpa + 28, 4, shift | FLAG_TSC_STABLE << 8)?;
        ram.write_word(gpa, 4, version + 2)
    }

    /// Writes `pvclock_wall_clock`: the time of day when the system time was 0.
    ///
    /// # Errors
    /// The guest named an address that is not RAM.
    pub fn write_wall(&self, ram: &Ram, gpa: u64) -> Result<(), NotRam> {
        const NANOS: u64 = 1_000_000_000;
        if !ram.contains(gpa, 12) {
            return Err(NotRam { gpa, len: 12 });
        }
        let version = ram.read_word(gpa, 4)? & !1;
        ram.write_word(gpa, 4, version + 1)?;
        ram.write_word(gpa + 4, 4, self.wall / NANOS)?;
        ram.write_word(gpa + 8, 4, self.wall % NANOS)?;
        ram.write_word(gpa, 4, version + 2)
    }
}

/// Per-vCPU part of the interface.
#[derive(Clone, Copy, Debug, Default)]
pub struct PvCpu {
    system_time: u64,
    eoi: u64,
    /// The guest has been told that its next EOI needs no exit.
    eoi_offered: bool,
}

impl PvCpu {
    /// `MSR_KVM_SYSTEM_TIME_NEW`.
    #[must_use]
    pub fn system_time(&self) -> u64 {
        self.system_time
    }

    /// Writes it: bit 0 enables, the rest is the address of the structure.
    ///
    /// # Errors
    /// The guest named an address that is not RAM.
    pub fn set_system_time(
        &mut self,
        value: u64,
        clock: &Clock,
        ram: &Ram,
        tsc_offset: u64,
    ) -> Result<(), NotRam> {
        if value & ENABLED != 0 {
            clock.write_time(ram, value & !ENABLED, tsc_offset)?;
        }
        self.system_time = value;
        Ok(())
    }

    /// Writes the structure anew after a change of the TSC offset. An address that is RAM stays so.
    pub fn refresh(&self, clock: &Clock, ram: &Ram, tsc_offset: u64) {
        if self.system_time & ENABLED != 0 {
            let _ = clock.write_time(ram, self.system_time & !ENABLED, tsc_offset);
        }
    }

    /// `MSR_KVM_PV_EOI_EN`.
    #[must_use]
    pub fn eoi(&self) -> u64 {
        self.eoi
    }

    /// Writes it: bit 0 enables, the rest is the address of a word, aligned to 4 bytes.
    ///
    /// # Errors
    /// The address is misaligned or not RAM.
    pub fn set_eoi(&mut self, value: u64, ram: &Ram) -> Result<(), NotRam> {
        if value & ENABLED != 0 {
            let gpa = value & !ENABLED;
            if gpa & 3 != 0 || !ram.contains(gpa, 4) {
                return Err(NotRam { gpa, len: 4 });
            }
        }
        self.eoi = value;
        self.eoi_offered = false;
        Ok(())
    }

    /// Tells the guest that its next EOI needs no exit. An offer stands until it is collected: the
    /// guest may have taken it, and its next EOI would be another one's.
    pub fn offer_eoi(&mut self, ram: &Ram) {
        if self.eoi & ENABLED != 0 && !self.eoi_offered {
            self.eoi_offered = ram.set_bits_u32(self.eoi & !ENABLED, 1).is_ok();
        }
    }

    /// Withdraws the offer. Returns whether the guest had taken it: its interrupt is done.
    pub fn collect_eoi(&mut self, ram: &Ram) -> bool {
        if !self.eoi_offered {
            return false;
        }
        self.eoi_offered = false;
        let gpa = self.eoi & !ENABLED;
        // The vCPU is not running, and no other one touches its word.
        match ram.read_word(gpa, 4) {
            Ok(word) if word & 1 != 0 => {
                let _ = ram.write_word(gpa, 4, word & !1);
                false
            }
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests;
