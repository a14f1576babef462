//! Page tables, read out of a machine's memory and walked as the processor does it.
//!
//! All page tables of host address spaces lie in the kernel's memory; the kernel's own root is its
//! first page, and every other root has the same entries for the kernel's part.

use std::fmt;

/// Slots of the kernel's part in a root table.
const KERNEL_SLOTS: [u64; 3] = [509, 510, 511];
/// First slot of the upper half.
const UPPER_HALF: u64 = 256;

const PRESENT: u64 = 1 << 0;
const WRITE: u64 = 1 << 1;
const USER: u64 = 1 << 2;
const UNCACHED: u64 = 1 << 4;
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
const PAGE: u64 = 4096;

/// The kernel's memory at one moment.
pub struct Dump {
    /// Physical address.
    pub base: u64,
    /// Content.
    pub bytes: Vec<u8>,
    /// Where the kernel's image may lie: first byte and size.
    pub image: (u64, u64),
}

/// What is wrong with a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It can be written and executed.
    WritableAndExecutable,
    /// User mode reaches a page in the upper half.
    OpenToUser,
    /// A page of the lower half is out of user mode's reach: it is the kernel's.
    KernelBelow,
    /// The kernel's part maps memory that is neither its own nor a device's.
    ForeignMemory,
    /// A table lies outside the kernel's memory.
    TableElsewhere,
}

/// A bad page: the root table, the address, and what is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bad {
    root: u64,
    address: u64,
    fault: Fault,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:#x} (root table {:#x})", self.fault, self.address, self.root)
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Address spaces, the kernel's own included.
    pub spaces: usize,
    /// Mapped pages of any size.
    pub pages: usize,
    /// Those of user mode.
    pub user: usize,
    /// What is wrong.
    pub bad: Vec<Bad>,
}

impl Dump {
    /// A word at a physical address.
    #[must_use]
    pub fn word(&self, address: u64) -> Option<u64> {
        let at = usize::try_from(address.checked_sub(self.base)?).ok()?;
        Some(u64::from_le_bytes(*self.bytes.get(at..)?.first_chunk()?))
    }

    fn holds(&self, address: u64) -> bool {
        self.word(address).is_some()
    }

    /// Walks every address space.
    #[must_use]
    pub fn check(&self) -> Seen {
        let mut seen = Seen::default();
        let kernel = |root| KERNEL_SLOTS.map(|slot| self.word(root + 8 * slot).unwrap_or(0));
        let own = kernel(self.base);
        let pages = u64::try_from(self.bytes.len()).unwrap_or(0) / PAGE;
        for root in (0..pages).map(|n| self.base + n * PAGE) {
            if kernel(root) == own && own.iter().all(|entry| entry & PRESENT != 0) {
                seen.spaces += 1;
                let top = Table { table: root, level: 4, address: 0, flags: WRITE | USER };
                self.walk(root, top, &mut seen);
            }
        }
        seen
    }

    fn walk(&self, root: u64, from: Table, seen: &mut Seen) {
        for index in 0..512 {
            let shift = 12 + 9 * (from.level - 1);
            let sign = if from.level == 4 && index >= UPPER_HALF { 0xffff << 48 } else { 0 };
            let address = from.address | index << shift | sign;
            let mut bad = |fault| seen.bad.push(Bad { root, address, fault });
            let Some(entry) = self.word(from.table + 8 * index) else {
                return bad(Fault::TableElsewhere);
            };
            if entry & PRESENT == 0 {
                continue;
            }
            // Write and user access need every level, execution is denied by any.
            let flags = from.flags & entry & (WRITE | USER) | (from.flags | entry) & NO_EXECUTE;
            let upper = address >> 63 != 0;
            if upper && entry & USER != 0 {
                bad(Fault::OpenToUser);
            }
            if from.level > 1 && entry & LARGE == 0 {
                let next = Table { table: entry & ADDRESS, level: from.level - 1, address, flags };
                self.walk(root, next, seen);
                continue;
            }
            if flags & WRITE != 0 && flags & NO_EXECUTE == 0 {
                bad(Fault::WritableAndExecutable);
            }
            if !upper && flags & USER == 0 {
                bad(Fault::KernelBelow);
            }
            let frame = entry & ADDRESS & !((1 << shift) - 1);
            let image = self.image.0..self.image.0 + self.image.1;
            let own = self.holds(frame) || image.contains(&frame) || entry & UNCACHED != 0;
            if upper && !own {
                bad(Fault::ForeignMemory);
            }
            seen.pages += 1;
            seen.user += usize::from(flags & USER != 0);
        }
    }
}

/// A table on the way, and what the entries to it allow.
#[derive(Clone, Copy)]
struct Table {
    table: u64,
    level: u32,
    address: u64,
    flags: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: u64 = 0x7000_0000;
    const IMAGE: u64 = 0x100_0000;
    const RX: u64 = PRESENT;
    const RW: u64 = PRESENT | WRITE | NO_EXECUTE;
    const TABLE: u64 = PRESENT | WRITE;

    /// A root with a page of the kernel's image and one of user mode, made of these leaves.
    fn dump(kernel: u64, user: u64) -> Dump {
        let mut d = Dump { base: BASE, bytes: vec![0; 0x8000], image: (IMAGE, 0x1000) };
        let frame = |n: u64| BASE + n * PAGE;
        for slot in [509, 510] {
            set(&mut d, frame(0) + 8 * slot, frame(7) | TABLE);
        }
        for (n, slot) in [(1, 511), (2, 510), (3, 0)] {
            set(&mut d, frame(n - 1) + 8 * slot, frame(n) | TABLE);
        }
        set(&mut d, frame(3), kernel);
        for (n, slot) in [(4, 0), (5, 1), (6, 2)] {
            let from = if n == 4 { 0 } else { n - 1 };
            set(&mut d, frame(from) + 8 * slot, frame(n) | TABLE | USER);
        }
        set(&mut d, frame(6) + 8 * 3, user);
        d
    }

    fn set(d: &mut Dump, address: u64, value: u64) {
        let at = usize::try_from(address - d.base).unwrap();
        d.bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }

    fn faults(d: &Dump) -> Vec<Fault> {
        d.check().bad.iter().map(|bad| bad.fault).collect()
    }

    #[test]
    fn good_tables_pass() {
        let d = dump(IMAGE | RX, 0x5000 | RW | USER);
        let seen = d.check();
        assert_eq!((seen.spaces, seen.pages, seen.user), (1, 2, 1));
        assert_eq!(seen.bad, []);
        assert_eq!(faults(&dump(BASE | RW, 0x5000 | RX | USER)), []);
        assert_eq!(faults(&dump(0xfee0_0000 | RW | UNCACHED, 0)), []);
    }

    #[test]
    fn each_fault_is_found() {
        let good = (IMAGE | RX, 0x5000 | RW | USER);
        let cases = [
            ((IMAGE | PRESENT | WRITE, good.1), Fault::WritableAndExecutable),
            ((good.0, 0x5000 | PRESENT | WRITE | USER), Fault::WritableAndExecutable),
            ((IMAGE | RX | USER, good.1), Fault::OpenToUser),
            ((good.0, 0x5000 | RW), Fault::KernelBelow),
            ((0x5000 | RW, good.1), Fault::ForeignMemory),
        ];
        for ((kernel, user), fault) in cases {
            assert_eq!(faults(&dump(kernel, user)), [fault]);
        }
    }

    #[test]
    fn tables_outside_are_found() {
        let mut d = dump(IMAGE | RX, 0x5000 | RW | USER);
        set(&mut d, BASE + 8 * 5, 0x1000 | TABLE | USER);
        assert_eq!(faults(&d), [Fault::TableElsewhere]);
    }

    #[test]
    fn permissions_of_upper_levels_count() {
        // Writable by the leaf, not by the way to it.
        let mut d = dump(IMAGE | RX, 0x5000 | PRESENT | WRITE | USER);
        let way = d.word(BASE).unwrap();
        set(&mut d, BASE, way & !WRITE);
        assert_eq!(faults(&d), []);
    }
}
