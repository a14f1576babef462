//! Guest-virtual to guest-physical addresses, by walking the guest's page tables as the processor
//! does (Intel SDM vol. 3, chapter 4).

use core::fmt;

use ipc::state::State;

use crate::cpu::{
    self, CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PSE, CR4_SMAP, CR4_SMEP, EFER_LMA, EFER_NXE,
    RFLAGS_AC,
};
use crate::memory::{NotRam, Ram};
use crate::num::low32;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const ACCESSED: u64 = 1 << 5;
const DIRTY: u64 = 1 << 6;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

const ERROR_PRESENT: u32 = 1 << 0;
const ERROR_WRITE: u32 = 1 << 1;
const ERROR_USER: u32 = 1 << 2;
const ERROR_FETCH: u32 = 1 << 4;

/// What an address is translated for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// A read.
    Read,
    /// A write.
    Write,
    /// An instruction fetch.
    Fetch,
}

/// Why an address has no translation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalkError {
    /// The guest's tables do not allow it: #PF with this error code.
    PageFault(u32),
    /// The address is not canonical: #GP or #SS.
    NonCanonical,
    /// A page table lies outside RAM.
    TableNotRam(NotRam),
}

impl fmt::Display for WalkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PageFault(error) => write!(f, "page fault with error code {error:#x}"),
            Self::NonCanonical => f.write_str("address is not canonical"),
            Self::TableNotRam(e) => write!(f, "page table: {e}"),
        }
    }
}

impl core::error::Error for WalkError {}

impl From<NotRam> for WalkError {
    fn from(e: NotRam) -> Self {
        Self::TableNotRam(e)
    }
}

/// Shape of the page tables.
#[derive(Clone, Copy)]
struct Shape {
    levels: u32,
    /// Index bits per level.
    bits: u32,
    /// Bytes per entry.
    entry: u64,
    /// The top level has four entries without permission and accessed bits.
    pae: bool,
}

impl Shape {
    fn of(state: &State) -> Self {
        let long = state.efer & EFER_LMA != 0;
        if long {
            let levels = if state.cr4 & CR4_LA57 != 0 { 5 } else { 4 };
            Self { levels, bits: 9, entry: 8, pae: false }
        } else if state.cr4 & CR4_PAE != 0 {
            Self { levels: 3, bits: 9, entry: 8, pae: true }
        } else {
            Self { levels: 2, bits: 10, entry: 4, pae: false }
        }
    }

    fn is_leaf(self, level: u32, entry: u64, state: &State) -> bool {
        match level {
            1 => true,
            2 => entry & LARGE != 0 && (self.entry == 8 || state.cr4 & CR4_PSE != 0),
            3 => entry & LARGE != 0 && !self.pae,
            _ => false,
        }
    }

    /// Physical address in a leaf at `level`.
    fn target(self, level: u32, entry: u64, linear: u64) -> u64 {
        let size = 1 << (12 + self.bits * (level - 1));
        let base = if self.entry == 4 && level == 2 {
            // PSE-36: bits 32 to 39 are in bits 13 to 20.
            entry & 0xffc0_0000 | (entry >> 13 & 0xff) << 32
        } else {
            entry & ADDRESS & !(size - 1)
        };
        base | linear & (size - 1)
    }
}

/// Translates a linear address.
///
/// # Errors
/// See [`WalkError`].
pub fn translate(ram: &Ram, state: &State, linear: u64, access: Access) -> Result<u64, WalkError> {
    let long = state.efer & EFER_LMA != 0;
    if state.cr0 & CR0_PG == 0 {
        return Ok(linear & 0xffff_ffff);
    }
    let shape = Shape::of(state);
    let linear = if long { linear } else { linear & 0xffff_ffff };
    let width = 12 + shape.bits * shape.levels;
    if long && !is_canonical(linear, width) {
        return Err(WalkError::NonCanonical);
    }
    let mut walk = Walk::default();
    let mut table = if shape.pae { state.cr3 & 0xffff_ffe0 } else { state.cr3 & ADDRESS };
    for level in (1..=shape.levels).rev() {
        let shift = 12 + shape.bits * (level - 1);
        let index = linear >> shift & ((1 << shape.bits) - 1);
        let at = table + index * shape.entry;
        let entry = ram.read_word(at, shape.entry)?;
        if entry & PRESENT == 0 {
            return Err(walk.fault(state, access, false));
        }
        if shape.pae && level == 3 {
            table = entry & ADDRESS;
            continue;
        }
        let leaf = shape.is_leaf(level, entry, state);
        walk.step(at, entry);
        if leaf {
            walk.check(state, access)?;
            walk.mark(ram, shape, access)?;
            return Ok(shape.target(level, entry, linear));
        }
        table = entry & if shape.entry == 4 { 0xffff_f000 } else { ADDRESS };
    }
    Err(walk.fault(state, access, false))
}

const fn is_canonical(linear: u64, width: u32) -> bool {
    let shift = 64 - width;
    (linear.cast_signed() << shift >> shift).cast_unsigned() == linear
}

/// Permissions collected on the way, and the entries that were used.
struct Walk {
    write: bool,
    user: bool,
    no_execute: bool,
    used: [(u64, u64); 5],
    count: usize,
}

impl Default for Walk {
    fn default() -> Self {
        Self { write: true, user: true, no_execute: false, used: [(0, 0); 5], count: 0 }
    }
}

impl Walk {
    fn step(&mut self, at: u64, entry: u64) {
        self.write &= entry & WRITE != 0;
        self.user &= entry & USER != 0;
        self.no_execute |= entry & NO_EXECUTE != 0;
        if let Some(slot) = self.used.get_mut(self.count) {
            *slot = (at, entry);
            self.count += 1;
        }
    }

    /// Access rights (Intel SDM vol. 3, 4.6.1).
    fn check(&self, state: &State, access: Access) -> Result<(), WalkError> {
        let user_mode = cpu::cpl(state) == 3;
        let allowed = match access {
            _ if user_mode && !self.user => false,
            Access::Write if !self.write && (user_mode || state.cr0 & CR0_WP != 0) => false,
            Access::Fetch if self.no_execute && state.efer & EFER_NXE != 0 => false,
            Access::Fetch => user_mode || !self.user || state.cr4 & CR4_SMEP == 0,
            Access::Read | Access::Write => {
                user_mode
                    || !self.user
                    || state.cr4 & CR4_SMAP == 0
                    || state.rflags & RFLAGS_AC != 0
            }
        };
        if allowed { Ok(()) } else { Err(self.fault(state, access, true)) }
    }

    fn fault(&self, state: &State, access: Access, present: bool) -> WalkError {
        let fetch_bit = state.efer & EFER_NXE != 0 || state.cr4 & CR4_SMEP != 0;
        let mut error = if present { ERROR_PRESENT } else { 0 };
        if access == Access::Write {
            error |= ERROR_WRITE;
        }
        if cpu::cpl(state) == 3 {
            error |= ERROR_USER;
        }
        if access == Access::Fetch && fetch_bit {
            error |= ERROR_FETCH;
        }
        WalkError::PageFault(error)
    }

    /// Sets accessed bits, and the dirty bit of the leaf for a write.
    fn mark(&self, ram: &Ram, shape: Shape, access: Access) -> Result<(), WalkError> {
        let last = self.count.saturating_sub(1);
        for (n, (at, entry)) in self.used.iter().take(self.count).enumerate() {
            let dirty = if n == last && access == Access::Write { DIRTY } else { 0 };
            let bits = ACCESSED | dirty;
            if entry & bits == bits {
                continue;
            }
            if shape.entry == 8 {
                ram.set_bits_u64(*at, bits)?;
            } else {
                ram.set_bits_u32(*at, low32(bits))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
