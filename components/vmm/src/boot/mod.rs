//! Putting a guest into its memory, and the state in which its first vCPU starts.

pub mod entry;
pub mod layout;
pub mod linux;
