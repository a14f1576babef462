//! The root task's own service: what every component may ask of its supervisor.

use heapless::{String, Vec};

use super::board::EXITS;

/// Longest name of a component.
pub const NAME: usize = 31;

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

message! {
    /// Attached: scheduling contexts of the component whose time operators are to see as its own,
    /// besides that of the main thread.
    pub struct Account {}
}

/// Most scheduling contexts that a component can attach to [`Account`] in its life.
pub const MAX_ACCOUNTED: usize = super::start::MAX_VCPUS;

message! {
    /// Asks for the state of a component. For operators.
    pub struct List {
        /// Its number, from 0 on; [`super::service::Fault::NotFound`] behind the last one.
        pub index: u16,
    }
}

message! {
    /// Where a component is in its life.
    pub enum State {
        /// It waits for services that it uses, or for its turn.
        Waiting,
        /// It runs.
        Running,
        /// It is a VM that stands still.
        Paused,
        /// It failed and is started again after a pause.
        Restarting,
        /// It ended in order.
        Ended,
        /// It failed, and is not started again unless the operator says so.
        Failed,
    }
}

message! {
    /// How a life ended.
    pub enum Cause {
        /// None ended so far.
        Nothing,
        /// It ended itself; the detail is its code.
        Exit,
        /// It raised an exception; the detail is the vector.
        Fault,
        /// The operator ended it.
        Killed,
        /// It kept the RAM of a VM that was gone.
        Silent,
    }
}

message! {
    /// The state of a component.
    pub struct Entry {
        /// Its name.
        pub name: String<NAME>,
        /// Its program.
        pub image: String<NAME>,
        /// Where it is.
        pub state: State,
        /// Whether it runs a VM.
        pub vm: bool,
        /// CPU of its main thread.
        pub cpu: u16,
        /// How often it was started again.
        pub restarts: u32,
        /// How its last life ended.
        pub cause: Cause,
        /// More about that.
        pub detail: u32,
        /// Milliseconds since it was started; 0 while it does not run.
        pub uptime_ms: u64,
        /// Milliseconds of CPU time in this life: of its main thread, and of what it named in
        /// [`Account`].
        pub cpu_ms: u64,
        /// Bytes of memory that it has: its program's and its stores.
        pub memory: u64,
        /// Bytes of RAM of its VM.
        pub ram: u64,
        /// Pages of kernel memory in use.
        pub kernel_used: u64,
        /// Pages of kernel memory that it may use.
        pub kernel_limit: u64,
        /// Exits of its VM by the number of [`crate::event::Exit`].
        pub exits: Vec<u64, EXITS>,
    }
}

message! {
    /// Ends a component at once, as a failure would; its restart policy decides what follows, but
    /// the end does not count as a failure. For operators, as what follows.
    pub struct Kill {
        /// Which one.
        pub name: String<NAME>,
    }
}

message! {
    /// Starts a component anew, whether it runs or not.
    pub struct Restart {
        /// Which one.
        pub name: String<NAME>,
    }
}

message! {
    /// Makes a VM stand still.
    pub struct Pause {
        /// Which one.
        pub name: String<NAME>,
    }
}

message! {
    /// Lets a VM go on.
    pub struct Resume {
        /// Which one.
        pub name: String<NAME>,
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
    /// Reads the state of a component. This and what follows is refused with
    /// [`super::service::Fault::Denied`] to all but operators.
    6 => list: List => Entry;
    /// Ends a component. Like the others, it is carried out soon after the reply;
    /// [`super::service::Fault::Busy`] says that the last order was not carried out yet.
    7 => kill: Kill => ();
    /// Starts a component anew.
    8 => restart: Restart => ();
    /// Stops a VM; [`super::service::Fault::Invalid`] for others.
    9 => pause: Pause => ();
    /// Lets a VM go on.
    10 => resume: Resume => ();
    /// Counts the time of scheduling contexts; for everybody.
    11 => account: Account => ();
}

/// Most portals in one [`Publish`].
pub const MAX_PORTALS: usize = super::service::MAX_CAPS;

/// Exit code of a component that panicked.
pub const PANIC: u32 = 101;
