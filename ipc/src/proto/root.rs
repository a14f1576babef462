//! The root task's own service: what every component may ask of its supervisor.

use heapless::String;

/// Longest line that goes in one message.
pub const LINE: usize = 1024;

message! {
    /// Prints a line in the component's name.
    pub struct Log {
        /// The line, without its end.
        pub text: String<LINE>,
    }
}

message! {
    /// The component has ended. Code 0 is an orderly end; anything else counts as a failure, to
    /// which the root task applies the restart policy.
    pub struct Exit {
        /// Reason.
        pub code: u32,
    }
}

message! {
    /// Hands over the session portals of a client, attached in the order of the CPUs in `cpus`.
    pub struct Publish {
        /// Index in [`super::start::Start::clients`].
        pub client: u16,
        /// The CPUs, one bit each.
        pub cpus: u64,
    }
}

message! {
    /// The component has started up.
    pub struct Ready {}
}

message! {
    /// The component does not touch the RAM of a client's VM any more.
    pub struct Released {
        /// Index in [`super::start::Start::clients`].
        pub client: u16,
        /// [`super::board::Life`] that it saw, an unmapped one.
        pub life: u32,
    }
}

service! {
    /// The root task's service. The session is the component.
    pub service Root = "root", version 1;
    /// Prints a line.
    1 => log: Log => ();
    /// Ends the component. It is torn down after the reply.
    2 => exit: Exit => ();
    /// Takes session portals.
    3 => publish: Publish => ();
    /// Notes that the component works.
    4 => ready: Ready => ();
    /// Notes that a client's memory can be taken away.
    5 => released: Released => ();
}

/// Most portals in one [`Publish`].
pub const MAX_PORTALS: usize = super::service::MAX_CAPS;

/// Exit code of a component that panicked.
pub const PANIC: u32 = 101;
