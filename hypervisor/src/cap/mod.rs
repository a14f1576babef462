//! Capabilities: what a protection domain may name, and what was derived from what.
//!
//! Everything a domain holds (an object at a selector, a range of pages, a range of ports) is a
//! [`node`] of one derivation forest. [`spaces`] bundles the spaces of a domain; [`install`] plants
//! first capabilities, [`delegate`] derives, [`revoke`] takes back. All of that happens under the
//! kernel lock, shown by `&mut Frames`; only the lookup of an object capability
//! ([`objspace::ObjectSpace`]) takes no lock.

pub mod delegate;
pub mod header;
pub mod index;
pub mod install;
pub mod node;
pub mod objspace;
pub mod outcome;
pub mod query;
pub mod revoke;
pub mod spaces;
mod word;

pub use delegate::Delegation;
pub use header::{Object, ObjectHeader, ObjectList};
pub use install::{install_memory, install_object, install_ports};
pub use node::Owner;
pub use objspace::ObjectSpace;
pub use outcome::Outcome;
pub use query::{query, translate, watch};
pub use revoke::{Revocations, Ticket, destroy, remove, revoke};
pub use spaces::{GuestSpace, PdSpaces};

#[cfg(test)]
mod tests;
