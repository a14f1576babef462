//! The Linux boot protocol for x86-64 bzImages
//! (Documentation/arch/x86/boot.rst and zero-page.rst in the kernel's sources).

use core::fmt;

use super::{entry, layout};
use crate::memory::{NotRam, Ram};
use crate::num::{low8, low16, low32, u64_of, usize_of};

// Offsets in the image and in the zero page: the same for the setup header.
const SETUP_SECTS: usize = 0x1f1;
const BOOT_FLAG: usize = 0x1fe;
const HEADER_LEN: usize = 0x201;
const MAGIC: usize = 0x202;
const VERSION: usize = 0x206;
const LOADFLAGS: usize = 0x211;
const INITRD_ADDR_MAX: usize = 0x22c;
const KERNEL_ALIGNMENT: usize = 0x230;
const RELOCATABLE: usize = 0x234;
const XLOADFLAGS: usize = 0x236;
const CMDLINE_SIZE: usize = 0x238;
const PREF_ADDRESS: usize = 0x258;
const INIT_SIZE: usize = 0x260;

// Fields of the zero page only.
const ZP_ACPI_RSDP: u64 = 0x070;
const ZP_E820_ENTRIES: u64 = 0x1e8;
const ZP_HEADER: u64 = 0x1f1;
const ZP_VID_MODE: u64 = 0x1fa;
const ZP_TYPE_OF_LOADER: u64 = 0x210;
const ZP_LOADFLAGS: u64 = 0x211;
const ZP_RAMDISK_IMAGE: u64 = 0x218;
const ZP_RAMDISK_SIZE: u64 = 0x21c;
const ZP_CMD_LINE_PTR: u64 = 0x228;
const ZP_SETUP_DATA: u64 = 0x250;
const ZP_E820_TABLE: u64 = 0x2d0;
const ZP_SIZE: u64 = 0x1000;

/// First protocol with `xloadflags`, which says whether there is a 64-bit entry.
const MIN_VERSION: u16 = 0x020c;
const LOADED_HIGH: u8 = 1;
const XLF_KERNEL_64: u16 = 1;
/// "An undefined boot loader".
const LOADER_TYPE: u8 = 0xff;
const VID_MODE_NORMAL: u64 = 0xffff;
/// The 64-bit entry lies this far into the protected-mode code.
const ENTRY_64: u64 = 0x200;
/// The setup header lies between these offsets of the zero page.
const HEADER_MAX: usize = 0x290;

/// Why a kernel cannot be booted. All of it is the fault of the configuration or of the files that
/// it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootError {
    /// The file ends before its header or its code does.
    Truncated {
        /// Bytes the header asks for.
        needed: u64,
        /// Bytes there are.
        have: u64,
    },
    /// The file lacks the marks of a bzImage.
    NotBzImage,
    /// The kernel speaks an old version of the boot protocol.
    OldProtocol(u16),
    /// The kernel has no 64-bit entry.
    Not64Bit,
    /// The image is a zImage that loads low.
    LoadsLow,
    /// `kernel_alignment` is not a power of two.
    BadAlignment(u32),
    /// The kernel does not fit into RAM.
    KernelTooBig {
        /// RAM that would be enough for the kernel alone.
        needed: u64,
        /// RAM there is.
        have: u64,
    },
    /// The initial RAM disk does not fit beside the kernel.
    InitrdTooBig {
        /// Its size.
        size: u64,
        /// Room for it.
        room: u64,
    },
    /// The command line is longer than the kernel or the layout allows.
    CommandLineTooLong {
        /// Its length.
        len: u64,
        /// Longest that is accepted.
        max: u64,
    },
    /// The command line holds a zero byte.
    CommandLineZero,
    /// RAM is smaller than any guest needs.
    RamTooSmall(u64),
    /// A structure lies outside RAM.
    Memory(NotRam),
}

impl fmt::Display for BootError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Truncated { needed, have } => {
                write!(f, "kernel image is cut off: {have} bytes of {needed}")
            }
            Self::NotBzImage => f.write_str("kernel image is not a Linux bzImage"),
            Self::OldProtocol(v) => write!(
                f,
                "kernel speaks boot protocol {}.{:02}, 2.12 or later is needed",
                v >> 8,
                v & 0xff
            ),
            Self::Not64Bit => f.write_str("kernel has no 64-bit entry"),
            Self::LoadsLow => f.write_str("kernel is a zImage that loads below 1 MiB"),
            Self::BadAlignment(a) => write!(f, "kernel alignment {a:#x} is not a power of two"),
            Self::KernelTooBig { needed, have } => {
                write!(f, "kernel needs {} MiB of RAM, the VM has {}", mib(*needed), mib(*have))
            }
            Self::InitrdTooBig { size, room } => {
                write!(f, "initrd has {} KiB, room is for {}", size / 1024, room / 1024)
            }
            Self::CommandLineTooLong { len, max } => {
                write!(f, "command line has {len} bytes, at most {max} are accepted")
            }
            Self::CommandLineZero => f.write_str("command line holds a zero byte"),
            Self::RamTooSmall(size) => write!(
                f,
                "{} MiB of RAM are too few, a guest needs {}",
                mib(*size),
                mib(layout::MIN_RAM)
            ),
            Self::Memory(e) => e.fmt(f),
        }
    }
}

impl core::error::Error for BootError {}

impl From<NotRam> for BootError {
    fn from(e: NotRam) -> Self {
        Self::Memory(e)
    }
}

const fn mib(bytes: u64) -> u64 {
    bytes.div_ceil(1 << 20)
}

/// What the setup header of a bzImage says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Protocol version.
    pub version: u16,
    /// Offset of the protected-mode code in the file.
    pub code_offset: u64,
    /// Alignment of the load address.
    pub alignment: u64,
    /// Whether it may be loaded elsewhere than at its preferred address.
    pub relocatable: bool,
    /// Address it likes to run at.
    pub pref_address: u64,
    /// Bytes from the load address that it uses before it reads the memory map.
    pub init_size: u64,
    /// Last address an initrd may occupy.
    pub initrd_max: u64,
    /// Longest command line without the terminating zero.
    pub cmdline_max: u64,
    /// End of the setup header in the file and in the zero page.
    header_end: usize,
}

impl Header {
    /// Reads and validates the header of an image.
    ///
    /// # Errors
    /// See [`BootError`].
    pub fn parse(image: &[u8]) -> Result<Self, BootError> {
        if word(image, BOOT_FLAG, 2)? != 0xaa55 || word(image, MAGIC, 4)? != 0x5372_6448 {
            return Err(BootError::NotBzImage);
        }
        let version = low16(word(image, VERSION, 2)?);
        if version < MIN_VERSION {
            return Err(BootError::OldProtocol(version));
        }
        if low8(word(image, LOADFLAGS, 1)?) & LOADED_HIGH == 0 {
            return Err(BootError::LoadsLow);
        }
        if low16(word(image, XLOADFLAGS, 2)?) & XLF_KERNEL_64 == 0 {
            return Err(BootError::Not64Bit);
        }
        let alignment = low32(word(image, KERNEL_ALIGNMENT, 4)?);
        if !alignment.is_power_of_two() {
            return Err(BootError::BadAlignment(alignment));
        }
        // Zero means four sectors, for the oldest kernels.
        let sectors = match word(image, SETUP_SECTS, 1)? {
            0 => 4,
            n => n,
        };
        let code_offset = (sectors + 1) * 512;
        let have = u64_of(image.len());
        if have <= code_offset + ENTRY_64 {
            return Err(BootError::Truncated { needed: code_offset + ENTRY_64 + 1, have });
        }
        let header_end = (MAGIC + usize_of(word(image, HEADER_LEN, 1)?)).min(HEADER_MAX);
        Ok(Self {
            version,
            code_offset,
            alignment: u64::from(alignment).max(0x1000),
            relocatable: word(image, RELOCATABLE, 1)? != 0,
            pref_address: word(image, PREF_ADDRESS, 8)?,
            init_size: word(image, INIT_SIZE, 4)?,
            initrd_max: word(image, INITRD_ADDR_MAX, 4)?,
            cmdline_max: word(image, CMDLINE_SIZE, 4)?,
            header_end,
        })
    }

    /// Where the kernel goes, and the end of what it occupies.
    fn place(&self, code_len: u64, ram: &Ram) -> Result<(u64, u64), BootError> {
        // The decompressor works in place within `init_size`; an image may not lie about it.
        let size = self.init_size.max(code_len);
        let have = ram.low_size();
        let lowest = layout::HIGH_START.next_multiple_of(self.alignment);
        let preferred = self.pref_address.max(layout::HIGH_START);
        for load in [preferred, lowest] {
            let fixed = !self.relocatable && load != self.pref_address;
            if let Some(end) = load.checked_add(size)
                && end <= have
                && !fixed
            {
                return Ok((load, end));
            }
        }
        let least = if self.relocatable { lowest } else { preferred };
        Err(BootError::KernelTooBig { needed: least.saturating_add(size), have })
    }
}

/// What to boot.
#[derive(Clone, Copy, Debug)]
pub struct Payload<'a> {
    /// The bzImage.
    pub kernel: &'a [u8],
    /// Initial RAM disk; empty for none.
    pub initrd: &'a [u8],
    /// Command line.
    pub cmdline: &'a str,
    /// Guest-physical address of the ACPI root pointer.
    pub rsdp: u64,
}

/// Where a loaded kernel starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Address of the 64-bit entry.
    pub entry: u64,
    /// Address of the zero page.
    pub zero_page: u64,
    /// Load address of the kernel.
    pub kernel: u64,
    /// Address of the initial RAM disk; 0 for none.
    pub initrd: u64,
}

/// Loads a kernel with everything that the 64-bit entry needs.
///
/// # Errors
/// See [`BootError`]; RAM may have been written by then.
pub fn load(ram: &Ram, payload: &Payload<'_>) -> Result<Loaded, BootError> {
    if ram.size() < layout::MIN_RAM {
        return Err(BootError::RamTooSmall(ram.size()));
    }
    let header = Header::parse(payload.kernel)?;
    let cmdline = payload.cmdline.as_bytes();
    let cmdline_max = header.cmdline_max.min(layout::COMMAND_LINE_SIZE - 1);
    if u64_of(cmdline.len()) > cmdline_max {
        return Err(BootError::CommandLineTooLong { len: u64_of(cmdline.len()), max: cmdline_max });
    }
    if cmdline.contains(&0) {
        return Err(BootError::CommandLineZero);
    }
    let code = payload.kernel.get(usize_of(header.code_offset)..).unwrap_or(&[]);
    let (kernel, kernel_end) = header.place(u64_of(code.len()), ram)?;
    let initrd = place_initrd(&header, kernel_end, u64_of(payload.initrd.len()), ram)?;

    ram.write(kernel, code)?;
    if initrd != 0 {
        ram.write(initrd, payload.initrd)?;
    }
    ram.write(layout::COMMAND_LINE, cmdline)?;
    ram.write(layout::COMMAND_LINE + u64_of(cmdline.len()), &[0])?;
    write_zero_page(ram, payload, &header, initrd)?;
    entry::write_tables(ram)?;
    entry::write_reset_vector(ram)?;
    Ok(Loaded { entry: kernel + ENTRY_64, zero_page: layout::ZERO_PAGE, kernel, initrd })
}

/// As high as kernel and RAM allow, so that it is out of the way of the decompressed kernel.
fn place_initrd(header: &Header, kernel_end: u64, size: u64, ram: &Ram) -> Result<u64, BootError> {
    if size == 0 {
        return Ok(0);
    }
    let top = ram.low_size().min(header.initrd_max.saturating_add(1));
    match top.checked_sub(size).map(|at| at & !0xfff) {
        Some(at) if at >= kernel_end => Ok(at),
        _ => Err(BootError::InitrdTooBig { size, room: top.saturating_sub(kernel_end) }),
    }
}

fn write_zero_page(
    ram: &Ram,
    payload: &Payload<'_>,
    header: &Header,
    initrd: u64,
) -> Result<(), BootError> {
    let page = layout::ZERO_PAGE;
    for offset in (0..ZP_SIZE).step_by(8) {
        ram.write_word(page + offset, 8, 0)?;
    }
    let setup = payload.kernel.get(SETUP_SECTS..header.header_end).unwrap_or(&[]);
    ram.write(page + ZP_HEADER, setup)?;
    ram.write_word(page + ZP_VID_MODE, 2, VID_MODE_NORMAL)?;
    ram.write_word(page + ZP_TYPE_OF_LOADER, 1, u64::from(LOADER_TYPE))?;
    ram.write_word(page + ZP_LOADFLAGS, 1, u64::from(LOADED_HIGH))?;
    ram.write_word(page + ZP_RAMDISK_IMAGE, 4, initrd)?;
    ram.write_word(page + ZP_RAMDISK_SIZE, 4, u64_of(payload.initrd.len()))?;
    ram.write_word(page + ZP_CMD_LINE_PTR, 4, layout::COMMAND_LINE)?;
    ram.write_word(page + ZP_SETUP_DATA, 8, 0)?;
    ram.write_word(page + ZP_ACPI_RSDP, 8, payload.rsdp)?;
    let mut count = 0;
    for E820 { base, size, kind } in e820(ram) {
        let at = page + ZP_E820_TABLE + count * 20;
        ram.write_word(at, 8, base)?;
        ram.write_word(at + 8, 8, size)?;
        ram.write_word(at + 16, 4, u64::from(kind))?;
        count += 1;
    }
    ram.write_word(page + ZP_E820_ENTRIES, 1, count)?;
    Ok(())
}

/// An entry of the memory map (ACPI 6.5, 15.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct E820 {
    /// First byte.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
    /// 1 RAM, 2 reserved, 3 ACPI tables.
    pub kind: u32,
}

/// The guest's memory map.
pub fn e820(ram: &Ram) -> impl Iterator<Item = E820> + use<> {
    const RAM: u32 = 1;
    const RESERVED: u32 = 2;
    const ACPI: u32 = 3;
    let low = [
        E820 { base: 0, size: layout::LOW_END, kind: RAM },
        E820 { base: layout::LOW_END, size: layout::ACPI - layout::LOW_END, kind: RESERVED },
        E820 { base: layout::ACPI, size: layout::ACPI_END - layout::ACPI, kind: ACPI },
        E820 {
            base: layout::FIRMWARE,
            size: layout::HIGH_START - layout::FIRMWARE,
            kind: RESERVED,
        },
    ];
    low.into_iter().chain(ram.regions().map(|r| {
        let skip = if r.gpa == 0 { layout::HIGH_START } else { 0 };
        E820 { base: r.gpa + skip, size: r.size - skip, kind: RAM }
    }))
}

/// A little-endian field of the image.
fn word(image: &[u8], offset: usize, size: usize) -> Result<u64, BootError> {
    let needed = offset + size;
    let field = image
        .get(offset..needed)
        .ok_or(BootError::Truncated { needed: u64_of(needed), have: u64_of(image.len()) })?;
    Ok(field.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
pub(crate) mod tests;
