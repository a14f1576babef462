//! Typed service protocols between components: serde types, postcard on the wire.
//!
//! A service is declared once, with the `message!` and `service!` macros in a module of its own
//! here. From the declaration follow the types on the wire, a trait that the server implements,
//! and what the typed client of `sysroot` needs. Sizes are checked at compile time, protocol and
//! version in every call. A malformed message gets an error reply and nothing else.
//!
//! | module | holds |
//! |---|---|
//! | [`wire`] | serde values in message words |
//! | [`service`] | what a service is; the server's side of a call |
//! | [`start`] | the start block, by which the root task tells a component what it was given |
//! | [`root`] | the root task's own service |
//! | [`console`] | the console service |
//! | [`counter`] | the service of an example |
//! | [`virtio`] | the service of back ends of virtio devices |
//! | [`board`] | pages by which a component and the root task tell each other of changes |
//! | [`ring`] | byte rings in shared memory |

#[macro_use]
mod macros;
pub mod board;
pub mod console;
pub mod counter;
pub mod ring;
pub mod root;
pub mod service;
pub mod start;
pub mod virtio;
pub mod wire;

/// log2 of the pages that each session of a service shares; `None` for none.
#[must_use]
pub fn shared_order(service_name: &str) -> Option<u8> {
    use service::Protocol;
    match service_name {
        console::Console::NAME => console::Console::SHARED_ORDER,
        virtio::Virtio::NAME => virtio::Virtio::SHARED_ORDER,
        _ => None,
    }
}

#[cfg(test)]
mod tests;
