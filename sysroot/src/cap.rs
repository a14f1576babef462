//! Typed capabilities: an object of another type, or a right that is not held, does not compile.
//!
//! A [`Cap`] is a selector with two types: what kind of object it names, and which rights its
//! holder counts on. The kernel checks both all the same.
//!
//! ```
//! use sysroot::cap::{Cap, Semaphore, Up};
//! fn signal(bell: Cap<Semaphore, Up>) {
//!     let _ = bell.up();
//! }
//! ```
//!
//! What may only be signalled cannot be waited for:
//!
//! ```compile_fail
//! use sysroot::cap::{Cap, Semaphore, Up};
//! fn wait(bell: Cap<Semaphore, Up>) {
//!     let _ = bell.down();
//! }
//! ```
//!
//! Nor is a semaphore a portal:
//!
//! ```compile_fail
//! use sysroot::cap::{Cap, Portal, Semaphore};
//! fn portal(bell: Cap<Semaphore>) -> Cap<Portal> {
//!     bell
//! }
//! ```

use core::marker::PhantomData;

use ipc::cap::{ObjectType, Rights, Selector};

/// A kind of kernel object.
pub trait Kind {
    /// Its number in the ABI.
    const TYPE: ObjectType;
}

macro_rules! kinds {
    ($($(#[$doc:meta])+ $name:ident = $number:ident;)+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {}

            impl Kind for $name {
                const TYPE: ObjectType = ObjectType::$number;
            }
        )+
    };
}

kinds! {
    /// Protection domain.
    Pd = Pd;
    /// Execution context.
    Ec = Ec;
    /// Virtual CPU.
    Vcpu = Vcpu;
    /// Scheduling context.
    Sc = Sc;
    /// Portal.
    Portal = Pt;
    /// Semaphore.
    Semaphore = Sm;
    /// Guest space.
    Guest = Guest;
    /// Interrupt.
    Interrupt = Interrupt;
}

/// A set of rights of objects of kind `K`.
pub trait RightsOf<K> {
    /// The bits.
    const BITS: Rights;
}

/// The set contains the right `R`.
pub trait Holds<R> {}

/// All rights that the object type has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {}

impl<K> RightsOf<K> for Full {
    const BITS: Rights = Rights::FULL;
}

macro_rules! rights {
    ($($(#[$doc:meta])+ $name:ident: $kind:ident = $bits:expr;)+) => {
        $(
            $(#[$doc])+
            #[derive(Clone, Copy, Debug, PartialEq, Eq)]
            pub enum $name {}

            impl RightsOf<$kind> for $name {
                const BITS: Rights = $bits;
            }

            impl Holds<$name> for $name {}
            impl Holds<$name> for Full {}
        )+
    };
}

rights! {
    /// May be signalled.
    Up: Semaphore = Rights::SM_UP;
    /// May be waited for.
    Down: Semaphore = Rights::SM_DOWN;
    /// May be called.
    Call: Portal = Rights::PT_CALL;
    /// May deliver events.
    Event: Portal = Rights::PT_EVENT;
    /// May be recalled, read and written.
    Control: Ec = Rights::EC_CTRL;
}

/// A capability in the own object space. It is a name: copies name the same capability.
pub struct Cap<K, R = Full> {
    selector: Selector,
    types: PhantomData<fn() -> (K, R)>,
}

impl<K, R> Clone for Cap<K, R> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<K, R> Copy for Cap<K, R> {}

impl<K, R> PartialEq for Cap<K, R> {
    fn eq(&self, other: &Self) -> bool {
        self.selector == other.selector
    }
}

impl<K, R> Eq for Cap<K, R> {}

impl<K: Kind, R> core::fmt::Debug for Cap<K, R> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}@{}", K::TYPE.name(), self.selector.0)
    }
}

impl<K, R> Cap<K, R> {
    /// The capability at a selector, taken to be of this kind and with these rights.
    #[inline]
    #[must_use]
    pub const fn new(selector: Selector) -> Self {
        Self { selector, types: PhantomData }
    }

    /// Where it is.
    #[inline]
    #[must_use]
    pub const fn selector(self) -> Selector {
        self.selector
    }

    /// Where it is, as system calls take it.
    #[inline]
    #[must_use]
    pub const fn raw(self) -> u64 {
        self.selector.0
    }

    /// The rights that its type promises.
    #[must_use]
    pub const fn rights(self) -> Rights
    where
        R: RightsOf<K>,
    {
        R::BITS
    }

    /// The same capability with fewer promises.
    #[must_use]
    pub const fn restrict<Less>(self) -> Cap<K, Less>
    where
        R: Holds<Less>,
        Less: RightsOf<K>,
    {
        Cap::new(self.selector)
    }
}
