//! What a guest can ask its VMM beyond what other hypervisors have: CPUID leaves with numbers of the
//! guest's own exits.
//!
//! Leaf [`LEAF`] has the last leaf in `eax` and [`SIGNATURE`] in `ebx`, `ecx`, `edx`. Leaf
//! [`EXITS`] has, with the number of an [`crate::event::Exit`] in `ecx`, how often the VM has exited for that
//! reason since it was started: the low half in `eax`, the high half in `ebx`. Any program in the
//! guest can read them.

/// The leaf that says that there are such leaves.
pub const LEAF: u32 = 0x4000_0100;
/// The leaf of exits.
pub const EXITS: u32 = LEAF + 1;
/// "PorticoVMM\0\0".
pub const SIGNATURE: [u32; 3] =
    [u32::from_le_bytes(*b"Port"), u32::from_le_bytes(*b"icoV"), u32::from_le_bytes(*b"MM\0\0")];
