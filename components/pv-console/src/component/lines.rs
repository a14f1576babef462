//! Rings of log lines.

use alloc::vec::Vec;

use ipc::proto::console::{LOG, LOG_ORDER, LogRing};
use ipc::proto::ring::{Consumer, RECORD_TEXT, peek_record};
use ipc::proto::start::Start;
use sysroot::num::usize_of;

use crate::keep::Source;
use crate::mux::{Line, Mux};

/// A log line that waits in its ring.
pub(super) struct Entry {
    /// When it was written.
    pub(super) ms: u64,
    name: Vec<u8>,
    text: Vec<u8>,
    /// Bytes that it takes in the ring.
    length: usize,
}

/// Who writes into a ring.
#[derive(Clone, Copy)]
enum Writer {
    /// The root task: records carry names.
    Root,
    /// The handler on a CPU: records carry numbers of clients.
    Clients(usize),
}

/// A ring of log lines.
pub(super) struct Lines {
    start: &'static Start<'static>,
    ring: Consumer<'static, LOG>,
    writer: Writer,
    /// The oldest line.
    next: Option<Entry>,
}

impl Lines {
    /// The root task's rings, and those of the clients.
    pub(super) fn all(start: &'static Start<'static>, clients: &'static [LogRing]) -> Vec<Self> {
        let new = |writer, ring| Self { start, ring, writer, next: None };
        let root = root_rings(start).into_iter().map(|ring| new(Writer::Root, ring));
        let clients = clients.iter().enumerate();
        let clients = clients.map(|(cpu, ring)| new(Writer::Clients(cpu), ring.consumer()));
        root.chain(clients).collect()
    }

    /// The CPU whose handler writes, where that is one of this component.
    pub(super) const fn cpu(&self) -> Option<usize> {
        match self.writer {
            Writer::Root => None,
            Writer::Clients(cpu) => Some(cpu),
        }
    }

    /// Goes on behind what was printed.
    pub(super) fn seek(&mut self, position: u32) {
        self.ring.seek(position);
    }

    /// The oldest line, once [`Self::fill`] has looked.
    pub(super) const fn next(&self) -> Option<&Entry> {
        self.next.as_ref()
    }

    /// Looks for the oldest line.
    pub(super) fn fill(&mut self) {
        if self.next.is_some() {
            return;
        }
        let mut buffer = [0; RECORD_TEXT];
        // A damaged ring was emptied.
        let Ok(Some((record, length))) = peek_record(&mut self.ring, &mut buffer) else { return };
        let source = usize::from(record.source);
        let (name, text) = match self.writer {
            Writer::Root => record.text.split_at_checked(source).unwrap_or((&[], record.text)),
            Writer::Clients(_) => {
                let name = self.start.clients.get(source).map_or("?", |c| c.name);
                (name.as_bytes(), record.text)
            }
        };
        let (name, text) = (name.into(), text.into());
        self.next = Some(Entry { ms: record.ms.into(), name, text, length });
    }

    /// Prints that line; whether the operator's prompt is to be drawn again.
    pub(super) fn print(&mut self, mux: &mut Mux, at_prompt: bool) -> bool {
        let Some(entry) = self.next.take() else { return false };
        let source = match self.writer {
            // Where this component dies, the root task prints what is in its rings itself.
            Writer::Root => Source::Own,
            Writer::Clients(cpu) => Source::Lines(cpu, self.ring.after(entry.length)),
        };
        let line = Line { ms: entry.ms, name: &entry.name, text: &entry.text };
        // Who writes log lines tries again by itself where there is no room.
        mux.log(&line, at_prompt, source, || _ = self.ring.consume(entry.length))
    }
}

/// The root task's log rings.
fn root_rings(start: &Start<'_>) -> Vec<Consumer<'static, LOG>> {
    let Some(area) = start.log else { return Vec::new() };
    let stride = usize_of(ipc::PAGE_SIZE as u64) << LOG_ORDER;
    (0..usize_of(area.size) / stride)
        .map(|n| {
            let address = usize_of(area.base) + n * stride;
            // SAFETY: the root task mapped the area for good; rings are atomic throughout and
            // valid with any content.
            unsafe { &*core::ptr::with_exposed_provenance::<LogRing>(address) }.consumer()
        })
        .collect()
}
