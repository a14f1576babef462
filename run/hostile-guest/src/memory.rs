//! Memory that devices may use and spoil, and their registers.

use core::ptr;

/// First byte of the arena. The program lies below it, and so do the page tables.
pub const ARENA: u64 = 0x40_0000;
/// End of RAM, as the configuration says.
pub const RAM_END: u64 = 0x200_0000;
/// First register page.
pub const REGISTERS: u64 = 0xd000_0000;
/// Bytes of a register page.
pub const PAGE: u64 = 0x1000;
/// Most devices.
const DEVICES: u64 = 32;

/// What can be moved in one access.
pub trait Word: Copy {}
impl Word for u8 {}
impl Word for u16 {}
impl Word for u32 {}
impl Word for u64 {}

fn pointer<W: Word>(at: u64) -> *mut W {
    let size = u64::try_from(size_of::<W>()).unwrap_or(8);
    let inside = |from: u64, to: u64| at >= from && at.saturating_add(size) <= to;
    let good = inside(ARENA, RAM_END) || inside(REGISTERS, REGISTERS + DEVICES * PAGE);
    assert!(good && at.is_multiple_of(size), "access to {at:#x}");
    ptr::with_exposed_provenance_mut(usize::try_from(at).unwrap_or(0))
}

/// Reads a word of the arena or of registers.
pub fn read<W: Word>(at: u64) -> W {
    // SAFETY: an aligned address of RAM that no object of the program lies in, or of registers, both
    // mapped one to one; any bits are a word.
    unsafe { pointer::<W>(at).read_volatile() }
}

/// Writes a word of the arena or of registers.
pub fn write<W: Word>(at: u64, word: W) {
    // SAFETY: as `read`.
    unsafe { pointer::<W>(at).write_volatile(word) };
}

/// Fills `count` bytes of the arena, a multiple of 8.
pub fn fill(at: u64, count: u64, byte: u8) {
    for at in (at..at + count).step_by(8) {
        write(at, u64::from_le_bytes([byte; 8]));
    }
}

/// The command line behind a zero page (Documentation/arch/x86/zero-page.rst in Linux).
///
/// # Safety
/// `zero_page` is what the boot protocol passes.
pub unsafe fn command_line(zero_page: u64) -> &'static str {
    const POINTER: u64 = 0x228;
    let at =
        |address: u64| ptr::with_exposed_provenance::<u8>(usize::try_from(address).unwrap_or(0));
    // SAFETY: the zero page has a whole page, and the pointer's place in it is aligned to 4.
    let text = unsafe { at(zero_page + POINTER).cast::<u32>().read() };
    // SAFETY: it points to a string that ends with a zero, and nothing changes it.
    let text = unsafe { core::ffi::CStr::from_ptr(at(text.into()).cast()) };
    text.to_str().unwrap_or("")
}
