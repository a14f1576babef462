//! What the component is: its start block, and the capabilities that come with it.

use ipc::cap::{Rights, Selector};
use ipc::proto::board::{Figures, Life, Orders};
use ipc::proto::ring::Shareable;
use ipc::proto::root;
use ipc::proto::service::Error;
use ipc::proto::start::{Area, Device, PARK_SELECTOR, Start, Store};
use ipc::status::Status;
use spin::Once;

use crate::cap::{Cap, Down, Pd, Sc, Semaphore};
use crate::num::{u64_of, usize_of};
use crate::service::{Client, Windows, object_item};

static START: Once<Start<'static>> = Once::new();

/// Installs the start block. The first one stays.
pub fn init(start: Start<'static>) {
    START.call_once(|| start);
}

/// The start block; `None` before it is installed.
#[must_use]
pub fn try_start() -> Option<&'static Start<'static>> {
    START.get()
}

/// The start block. Every component has one when its `main` runs.
#[must_use]
pub fn start() -> &'static Start<'static> {
    match START.get() {
        Some(start) => start,
        None => fatal("no start block"),
    }
}

/// Name of the component.
#[must_use]
pub fn name() -> &'static str {
    try_start().map_or("", |s| s.name)
}

/// Its protection domain.
#[must_use]
pub fn pd() -> Cap<Pd> {
    Cap::new(Selector(u64::from(start().objects.pd)))
}

/// The scheduling context of its main thread.
#[must_use]
pub fn sc() -> Cap<Sc> {
    Cap::new(Selector(u64::from(start().objects.sc)))
}

/// Its main semaphore: the one to wait on for everything. Derive capabilities with a badge from it
/// and hand them out; the badge [`ipc::proto::start::NOTIFY`] is the root task's.
#[must_use]
pub fn semaphore() -> Cap<Semaphore> {
    Cap::new(Selector(u64::from(start().objects.semaphore)))
}

/// First selector of the event portals that the root task serves, for threads on `cpu`.
#[must_use]
pub fn events(cpu: u16) -> u32 {
    /// [`ipc::event::HOST_EVENTS`] in the width of a selector.
    const STRIDE: u32 = 32;
    const _: () = assert!(STRIDE as u64 == ipc::event::HOST_EVENTS);
    start().objects.events + u32::from(cpu) * STRIDE
}

/// A device by its name in the configuration.
#[must_use]
pub fn device(name: &str) -> Option<&'static Device<'static>> {
    start().devices.iter().find(|d| d.name == name)
}

/// A store by its name in the configuration.
#[must_use]
pub fn store(name: &str) -> Option<&'static Store<'static>> {
    start().stores.iter().find(|s| s.name == name)
}

/// Whether the argument string contains this word.
#[must_use]
pub fn has_argument(word: &str) -> bool {
    has_word(start().args, word)
}

/// The value of `key=value` in the argument string.
#[must_use]
pub fn argument(key: &str) -> Option<&'static str> {
    value(start().args, key)
}

/// Whether an argument string, the component's or a client's, contains this word.
#[must_use]
pub fn has_word(args: &str, word: &str) -> bool {
    args.split_ascii_whitespace().any(|a| a == word)
}

/// The value of `key=value` in an argument string.
#[must_use]
pub fn value<'a>(args: &'a str, key: &str) -> Option<&'a str> {
    args.split_ascii_whitespace()
        .find_map(|a| a.strip_prefix(key).and_then(|rest| rest.strip_prefix('=')))
}

/// What the root task tells the component while it runs; look again after each
/// [`ipc::proto::start::NOTIFY`].
#[must_use]
pub fn orders() -> Option<&'static Orders> {
    page(try_start()?.orders)
}

/// Where the component tells what it counted.
#[must_use]
pub fn figures() -> Option<&'static Figures> {
    page(try_start()?.figures)
}

/// A page that the root task and this component share.
fn page<T: Shareable>(area: Area) -> Option<&'static T> {
    let start = core::ptr::with_exposed_provenance::<T>(usize_of(area.base));
    if start.is_null() || u64_of(size_of::<T>()) > area.size {
        return None;
    }
    // SAFETY: the start block says that the page is mapped; the root task never takes it away.
    // Such types are atomic throughout and valid with any content; where the page is read-only,
    // a write faults, which ends the component.
    Some(unsafe { &*start })
}

/// Tells the root task that the component does not touch the RAM of a client's VM any more, of
/// which it saw the end in [`Orders::life`].
///
/// # Errors
/// The root task does not know the client.
pub fn release(client: usize, life: Life) -> Result<(), Error> {
    let gone = Error::Status(Status::BadParam);
    let client = u16::try_from(client).map_err(|_| gone)?;
    root().ok_or(gone)?.call(&root::Released { client, life: life.0 })
}

/// The root task's service.
#[must_use]
pub fn root() -> Option<Client<root::Root>> {
    try_start()
        .map(|s| s.objects.root)
        .filter(|&portals| portals != 0)
        .map(|portals| Client::new(Selector(u64::from(portals))))
}

/// Tells the root task that the component has started up.
pub fn ready() {
    if let Some(root) = root() {
        let _ = root.call(&root::Ready {});
    }
}

/// Shows the time of a scheduling context, a thread's or a vCPU's, as the component's own.
///
/// # Errors
/// There are too many.
pub fn account(context: Cap<Sc>) -> Result<(), Error> {
    let Some(root) = root() else { return Ok(()) };
    let item = object_item(context, Rights::SC_CTRL, 0, 0);
    root.call_with(&root::Account {}, &[item], Windows::default()).map(drop)
}

/// Ends the component. Code 0 is an orderly end; a VM is off when its VMM has ended.
pub fn exit(code: u32) -> ! {
    if let Some(root) = root() {
        let _ = root.call(&root::Exit { code });
    }
    park()
}

/// Stops the current thread for good.
pub fn park() -> ! {
    let never: Cap<Semaphore, Down> = Cap::new(Selector(u64::from(PARK_SELECTOR)));
    loop {
        let _ = never.down();
        core::hint::spin_loop();
    }
}

/// Ends the component because of a bug in it.
pub fn fatal(reason: &str) -> ! {
    crate::log::line(reason);
    exit(root::PANIC)
}
