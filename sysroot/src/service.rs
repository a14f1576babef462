//! Typed clients and servers; the protocols are in [`ipc::proto`].

use alloc::boxed::Box;
use core::marker::PhantomData;

use ipc::cap::{MemRights, Range, Rights, Selector, Space};
use ipc::proto::root::{MAX_PORTALS, Publish};
use ipc::proto::service::{
    Dispatch, Error, Incoming, Items, MAX_CAPS, Method, Protocol, put_request, serve, take_reply,
};
use ipc::status::{Result, Status};
use ipc::utcb::{Item, Message, Window};

use crate::cap::{Cap, Portal};
use crate::portal::{CallHandler, Config, Handler};
use crate::utcb::Current;
use crate::{memory, process, selector, syscall, utcb};

/// A client of a service: its session, a portal on each CPU.
pub struct Client<P> {
    portals: Selector,
    protocol: PhantomData<fn() -> P>,
}

impl<P> Clone for Client<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P> Copy for Client<P> {}

impl<P> core::fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Client@{}", self.portals.0)
    }
}

/// Windows that a caller opens for the reply.
#[derive(Clone, Copy, Debug, Default)]
pub struct Windows {
    /// Base selector and order.
    pub objects: Option<(Selector, u8)>,
    /// Address window.
    pub memory: Option<memory::Window>,
}

impl<P: Protocol> Client<P> {
    /// The session whose portals start at a selector.
    #[must_use]
    pub const fn new(portals: Selector) -> Self {
        Self { portals, protocol: PhantomData }
    }

    /// The session with the first provider of the service that the start block names. It can be
    /// there without being alive: calls say so.
    #[must_use]
    pub fn connect() -> Option<Self> {
        Self::connect_where(|_| true)
    }

    /// The session with this provider.
    #[must_use]
    pub fn connect_to(provider: &str) -> Option<Self> {
        Self::connect_where(|p| p == provider)
    }

    /// All sessions of the service, in the order of the configuration. One provider can have
    /// several.
    pub fn all() -> impl Iterator<Item = Self> {
        let uses = process::try_start().into_iter().flat_map(|s| s.uses.iter());
        uses.filter(|u| u.service == P::NAME).map(|u| Self::new(Selector(u64::from(u.portals))))
    }

    fn connect_where(provider: impl Fn(&str) -> bool) -> Option<Self> {
        process::try_start()?
            .uses
            .iter()
            .find(|u| u.service == P::NAME && provider(u.provider))
            .map(|u| Self::new(Selector(u64::from(u.portals))))
    }

    /// The memory that the session comes with.
    #[must_use]
    pub fn shared(&self) -> Option<&'static P::Shared> {
        let uses = &process::try_start()?.uses;
        let used = uses.iter().find(|u| u64::from(u.portals) == self.portals.0)?;
        memory::shared(used.shared?)
    }

    /// Calls the server.
    ///
    /// # Errors
    /// [`Error`]; [`Error::is_gone`] tells that the server is not there.
    pub fn call<M: Method<Protocol = P>>(
        &self,
        request: &M,
    ) -> core::result::Result<M::Reply, Error> {
        self.exchange(request, &[], |message, area| take_reply::<M>(message, area.words))
    }

    /// Calls the server with capabilities attached and windows open for what it hands out. The
    /// items that arrived come with the reply.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn call_with<M: Method<Protocol = P>>(
        &self,
        request: &M,
        items: &[Item],
        windows: Windows,
    ) -> core::result::Result<(M::Reply, Items), Error> {
        if let Some((base, order)) = windows.objects {
            utcb::set_window(Space::Object, Window::open(base.0, order));
        }
        if let Some(window) = windows.memory {
            utcb::set_window(Space::Memory, window.opening());
        }
        let outcome = self.exchange(request, items, |message, area| {
            let arrived = area.items.iter().take(message.items()).take(MAX_CAPS).copied().collect();
            take_reply::<M>(message, area.words).map(|reply| (reply, arrived))
        });
        utcb::set_window(Space::Object, Window::CLOSED);
        utcb::set_window(Space::Memory, Window::CLOSED);
        outcome
    }

    fn exchange<M: Method<Protocol = P>, T>(
        &self,
        request: &M,
        items: &[Item],
        finish: impl FnOnce(Message, ipc::proto::service::Area<'_>) -> core::result::Result<T, Error>,
    ) -> core::result::Result<T, Error> {
        let portal: Cap<Portal> = Cap::new(self.portals.offset(u64::from(utcb::cpu())));
        let message = utcb::with_message(|mut area| put_request(request, items, &mut area))
            .map_err(|_| Error::Status(Status::BadParam))?;
        utcb::call(portal, |_| message, finish).map_err(Error::Status)?
    }
}

/// An item that hands out an object capability; `offset` is its place in the receiver's window.
#[must_use]
pub fn object_item<K, R>(cap: Cap<K, R>, rights: Rights, offset: u64, badge: u64) -> Item {
    Item { range: Range::object(rights).0, base: cap.raw(), offset, badge }
}

/// An item that hands out memory, to the start of the receiver's window.
#[must_use]
pub fn memory_item(pages: memory::Pages, rights: MemRights) -> Item {
    Item::delegate(Range::memory(pages.order(), rights), pages.page(), 0)
}

/// log2 of the selectors that a server's handler has open for capabilities of its clients. Where it
/// keeps what came in with a call, it keeps the whole range: that many selectors, naturally aligned.
pub const WINDOW_ORDER: u8 = 4;

const _: () = assert!(1 << WINDOW_ORDER == MAX_CAPS);

/// A server behind portals.
#[derive(Debug)]
pub struct Served<P, S: 'static> {
    server: &'static S,
    protocol: PhantomData<fn() -> P>,
}

impl<P, S> Served<P, S> {
    /// Wraps the server's state.
    #[must_use]
    pub const fn new(server: &'static S) -> Self {
        Self { server, protocol: PhantomData }
    }
}

impl<P: Protocol + 'static, S: Dispatch<P> + Sync + 'static> CallHandler for Served<P, S> {
    fn call(&self, id: u64, message: Message) -> Message {
        let mut call = Incoming::new(id);
        let reply = serve::<P, S>(self.server, &mut call, message, &mut Current);
        if message.items() > 0 {
            dispose(&call);
        }
        reply
    }
}

/// After a call that brought capabilities: opens another window where the server kept them, takes
/// them out of the window where not.
fn dispose(call: &Incoming) {
    let base = || match call.replaced {
        // What it replaced came in a window of its own, like this.
        Some(old) => Ok(emptied(Selector(old.0 & !((1 << WINDOW_ORDER) - 1)))),
        None => selector::alloc_range(WINDOW_ORDER),
    };
    if call.keep
        && let Ok(base) = base()
    {
        return memory::open_objects(base, WINDOW_ORDER);
    }
    for object in call.objects() {
        let _ = syscall::revoke_object(object, Rights::FULL, true);
    }
}

/// A window with nothing in it.
fn emptied(base: Selector) -> Selector {
    for offset in 0..1 << WINDOW_ORDER {
        let _ = syscall::revoke_object(base.offset(offset), Rights::FULL, true);
    }
    base
}

/// Creates a handler on `cpu` that serves `P` and accepts object capabilities.
///
/// # Errors
/// As [`Handler::new`].
pub fn handler<P, S>(cpu: u16, server: &'static S) -> Result<Handler<Served<P, S>>>
where
    P: Protocol + 'static,
    S: Dispatch<P> + Sync + 'static,
{
    let served = Box::leak(Box::new(Served::new(server)));
    let handler = Handler::new(Config::on(cpu), served)?;
    // SAFETY: there is no portal to it yet.
    unsafe { accept_objects(&handler)? };
    Ok(handler)
}

/// Opens a window for object capabilities of clients, as handlers of [`Served`] expect it.
///
/// # Safety
/// The handler handles no call yet.
///
/// # Errors
/// [`Status::Quota`] where no selectors are left.
pub unsafe fn accept_objects<H: Sync + 'static>(handler: &Handler<H>) -> Result {
    let base = selector::alloc_range(WINDOW_ORDER)?;
    // SAFETY: the caller's promise; the window takes no memory.
    unsafe { handler.set_window(Space::Object, Window::open(base.0, WINDOW_ORDER)) };
    Ok(())
}

/// Serves `P` to every client that the start block names: a handler on each CPU that has clients,
/// a portal for each client and CPU, all handed to the root task. The session in
/// [`Incoming::session`] is the client's index in [`ipc::proto::start::Start::clients`]. Returns
/// how many clients there are.
///
/// # Errors
/// As [`Handler::new`]; [`Status::Aborted`] where the root task refuses a portal.
pub fn provide<P, S>(server: &'static S) -> Result<usize>
where
    P: Protocol + 'static,
    S: Dispatch<P> + Sync + 'static,
{
    let start = process::start();
    let mut handlers: alloc::vec::Vec<Option<Handler<Served<P, S>>>> = alloc::vec::Vec::new();
    handlers.resize_with(usize::from(start.cpus), || None);
    let mut served = 0;
    for (index, client) in start.clients.iter().enumerate() {
        if client.service != P::NAME {
            continue;
        }
        served += 1;
        let session = crate::num::u64_of(index);
        let mut batch: heapless::Vec<(u16, Cap<Portal>), MAX_PORTALS> = heapless::Vec::new();
        for (cpu, place) in (0u16..).zip(handlers.iter_mut()) {
            if client.cpus >> cpu & 1 == 0 {
                continue;
            }
            let handler = match place {
                Some(handler) => handler,
                None => place.insert(handler::<P, S>(cpu, server)?),
            };
            if batch.push((cpu, handler.portal(session)?)).is_err() {
                return Err(Status::Overflow);
            }
            if batch.is_full() {
                publish(index, &batch)?;
                batch.clear();
            }
        }
        publish(index, &batch)?;
    }
    Ok(served)
}

fn publish(client: usize, portals: &[(u16, Cap<Portal>)]) -> Result {
    if portals.is_empty() {
        return Ok(());
    }
    let root = process::root().ok_or(Status::BadState)?;
    let cpus = portals.iter().fold(0, |mask, (cpu, _)| mask | 1 << cpu);
    let items: Items = (0..)
        .zip(portals)
        .map(|(offset, &(_, portal))| object_item(portal, Rights::PT_CALL, offset, 0))
        .collect();
    let client = u16::try_from(client).map_err(|_| Status::BadParam)?;
    root.call_with(&Publish { client, cpus }, &items, Windows::default())
        .map(drop)
        .map_err(|_| Status::Aborted)
}
