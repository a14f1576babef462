//! The trace: what each CPU counts, and a ring of records of what it did last.
//!
//! From [`ADDRESS`] on the root task holds a control page, which it may write, and then [`PAGES`]
//! pages for each CPU, which it may read: a [`Ring`] each. It delegates them like any memory.
//! Whoever can write the control page decides whether records are written: while its first word is
//! not zero. Counters count always. Whoever can read the pages sees what every component does.
//!
//! An execution context appears as a number that no other one has at the same time.

use core::sync::atomic::AtomicU64;

/// Where the control page is in the root task; the rings follow, by CPU number.
pub const ADDRESS: u64 = 0x7fff_8000_0000;
/// Pages of a CPU's ring.
pub const PAGES: u64 = 4;
/// Records in a ring.
pub const RECORDS: usize = 504;
/// Room for counters.
pub const COUNTERS: usize = 31;

numbered! {
    /// What a CPU counts.
    pub enum Counter: u8 {
        /// Scheduling contexts that were chosen to run.
        Switch = 0,
        /// Interrupts, those between CPUs included.
        Interrupt = 1,
        /// Exits of vCPUs that went to a VMM.
        Exit = 2,
        /// Exceptions and recalls that went to a portal, and those exits.
        Event = 3,
        /// Calls and events that found their handler busy and helped it.
        Help = 4,
        /// Rendezvous that it took part in.
        Rendezvous = 5,
        /// Times it became idle.
        Idle = 6,
        /// Calls and events that reached their handler.
        Call = 7,
        /// Not counted: the pages of kernel memory that were free when it last became idle.
        FreePages = 8,
    }
}

numbered! {
    /// What a record is about.
    pub enum Kind: u8 {
        /// A scheduling context was chosen: the execution context that runs on it, its priority.
        Switch = 1,
        /// A call or an event: the execution context that it came from, the one that handles it.
        Call = 2,
        /// A reply: the execution context that replied, the one that runs on.
        Reply = 3,
        /// A vCPU exit: the vCPU, the number of the [`crate::event::Exit`].
        Exit = 4,
        /// An interrupt: its vector, zero.
        Interrupt = 5,
    }
}

/// What a CPU counted and recorded. The kernel writes it while it is read: a record may be
/// overwritten once [`Self::head`] has moved on by [`RECORDS`] since.
#[derive(Debug)]
#[repr(C)]
pub struct Ring {
    /// By number of the [`Counter`].
    pub counters: [AtomicU64; COUNTERS],
    /// How many records were ever written; the next one goes to this number modulo [`RECORDS`].
    pub head: AtomicU64,
    /// TSC, number of the [`Kind`], and the two words that this kind has.
    pub records: [[AtomicU64; 4]; RECORDS],
}

const _: () = assert!(core::mem::size_of::<Ring>() == 4 * crate::PAGE_SIZE);

impl Ring {
    /// A counter.
    #[must_use]
    pub fn counter(&self, counter: Counter) -> Option<&AtomicU64> {
        self.counters.get(usize::from(counter.number()))
    }

    /// The place of the record with this number.
    #[must_use]
    pub fn record(&self, number: u64) -> Option<&[AtomicU64; 4]> {
        let index = number % u64::try_from(RECORDS).unwrap_or(1);
        self.records.get(usize::try_from(index).unwrap_or(0))
    }
}
