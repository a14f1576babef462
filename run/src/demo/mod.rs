//! What a VM can run without the user bringing anything: Debian's kernel and a small RAM disk.

pub mod cpio;
pub mod debian;
pub mod disk;
pub mod initramfs;
pub mod modules;
