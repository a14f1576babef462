//! The virtual-machine monitor: everything of a VM that is not the CPU itself.
//!
//! One process per VM. The kernel turns each exit of a vCPU into a call to one of the portals that
//! the VMM created; the answer carries the state that changed. All of that logic is here and runs
//! on any host under test; the program around it (`main.rs`) only connects it with the kernel.
//!
//! | module | holds |
//! |---|---|
//! | [`vm`] | configuration, construction, restart |
//! | [`vcpu`], [`exits`] | a vCPU's state and injection; what happens at each exit |
//! | [`memory`] | guest RAM |
//! | [`boot`], [`acpi`] | what a guest finds when it starts |
//! | [`bus`] | which port and which address belongs to which device |
//! | [`devices`] | device models |
//! | [`policy`] | what a guest sees of CPUID, MSRs and absent ports, with the reason |
//! | [`walk`], [`decode`], [`emulate`] | instructions that touch devices through memory |
//! | [`console`] | the other end of the serial line |
//! | [`report`] | why a VM stopped |
//! | [`component`] | all of this as a component: guest space, vCPUs, console session |
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss
    )
)]

extern crate alloc;

pub mod acpi;
pub mod boot;
pub mod bus;
#[allow(unsafe_code, reason = "memory that the root task mapped, and system calls")]
pub mod component;
pub mod console;
pub mod cpu;
pub mod decode;
pub mod devices;
pub mod emulate;
pub mod exits;
pub mod host;
pub mod memory;
pub mod num;
pub mod policy;
pub mod report;
pub mod vcpu;
pub mod vm;
pub mod walk;
