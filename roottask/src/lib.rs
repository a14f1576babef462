//! The root task: the first component. It holds everything at the start, creates all others with
//! exactly what the configuration names, and then keeps only what it needs to supervise them.
//!
//! | module | holds |
//! |---|---|
//! | [`memory`], [`image`], [`plan`], [`policy`], [`ram`], [`firmware`], [`pci`] | decisions, without effects |
//! | [`boot`] | from the first instruction to the supervisor's thread |
//! | [`supervisor`] | the life of the system: starts, reports, restarts, the end |
//! | [`cleaner`] | clears memory beside the supervisor |
//! | [`spawn`], [`start_block`], [`grant`], [`functions`] | creating one component |
//! | [`desk`], [`place`] | the root task's service and the handler of its components' exceptions |
//! | [`output`], [`serial`], [`clock`], [`power`], [`arch`] | log lines, switching off, the entry point |
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod arch;
pub mod boot;
pub mod cleaner;
pub mod clock;
pub mod desk;
pub mod firmware;
pub mod functions;
pub mod grant;
pub mod image;
pub mod memory;
pub mod output;
pub mod pci;
pub mod place;
pub mod plan;
pub mod policy;
pub mod power;
pub mod ram;
pub mod serial;
pub mod spawn;
pub mod start_block;
pub mod supervisor;
