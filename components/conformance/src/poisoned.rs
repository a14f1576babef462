//! A back end that dies of the first thing that it is asked for, and again in its next life, as that
//! is still there: for tests of crash loops under a VM that runs.

use ipc::status::Status;
use sysroot::process;
use virtio::link::{self, Backend, Links};
use virtio::session::{Description, Desk};

/// Device id of a network card (virtio 1.2, 5.1.1): its driver starts without an answer.
const NETWORK: u32 = 1;
/// The queue of frames from the guest.
const TRANSMIT: usize = 1;

struct Poisoned<'a> {
    how: &'a str,
}

impl Backend for Poisoned<'_> {
    fn turn(&mut self, links: &mut Links, at: usize) -> bool {
        if links.get_mut(at).and_then(|link| link.pop(TRANSMIT)).is_some() {
            crate::runner::crash(self.how);
        }
        false
    }
}

/// Serves network cards until one is asked for something, and ends in that way.
///
/// # Errors
/// The service cannot be provided.
pub(crate) fn serve(how: &str) -> Result<core::convert::Infallible, Status> {
    let describe = Description {
        device: NETWORK,
        features: 0,
        queues: 2,
        queue_size: 16,
        config: heapless::Vec::new(),
    };
    let start = process::start();
    let desk = Desk::open(start, |_, _| Ok::<_, &str>(describe.clone()))?;
    let links = Links::of(desk, start).ok_or(Status::BadCap)?;
    link::run(links, &mut Poisoned { how })
}
