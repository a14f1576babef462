//! What stays when the component dies: what was taken from others and did not reach the port yet,
//! what was typed and did not reach anybody, and the logs since boot.
//!
//! It lies in the store `state` of the component, or in its heap where there is none. The component
//! can die between any two instructions, so everything that belongs together takes effect by one
//! store: [`Keep::print`] writes bytes where nobody looks, notes in the [`Intent`] which ends and
//! positions follow, arms it, and only then changes them. Who finds an armed intent finishes it. So
//! what was taken from a ring or a queue is printed once.
//!
//! Only the component's loop works on it. Stores take effect in the order of the program: against
//! the compiler by fences, against the processor because it takes an interrupt between two
//! instructions.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering, compiler_fence};

use alloc::string::String;
use alloc::vec::Vec;

use ipc::proto::console::LogRing;
use ipc::proto::start::MAX_CLIENTS;
use sysroot::num::{u64_of, usize_of};

/// Bytes that wait for the port at most; sources wait when it is reached.
pub const OUTPUT: usize = 16 * 1024;
/// Typed characters that wait for a console that does not take them.
pub const TYPED: usize = 512;
/// Most logs.
pub const LOGS: usize = 48;
/// Bytes of a log's name; what is longer is cut off.
const NAME: usize = 32;
/// First word of memory that was used before: changes with the layout.
const MAGIC: u64 = u64::from_le_bytes(*b"PCONKEP1");

/// Positions of the first byte that is there and behind the last one, counted from boot on.
#[derive(Debug, Default)]
#[repr(C)]
struct Span {
    begin: AtomicU64,
    end: AtomicU64,
}

/// Head of a log.
#[derive(Debug)]
#[repr(C)]
struct Title {
    /// Padded with zeroes. The first one that is all zero begins the free ones.
    name: [AtomicU8; NAME],
    span: Span,
}

/// Changes that belong together.
#[derive(Debug, Default)]
#[repr(C)]
struct Intent {
    /// Not zero: they take effect.
    armed: AtomicU64,
    /// New end of the output.
    output: AtomicU64,
    /// A log, plus 1, and its new end.
    log: AtomicU64,
    end: AtomicU64,
    /// Where it came from, and how far that was taken.
    source: AtomicU64,
    position: AtomicU64,
}

/// What is kept, but for log lines under way and the contents of logs. All zero is empty; all of it
/// is valid with any content.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Head {
    /// [`MAGIC`] mixed with the sizes.
    magic: AtomicU64,
    /// What is attached, as the multiplexer numbers it; and what was before.
    attached: AtomicU64,
    before: AtomicU64,
    intent: Intent,
    output: Span,
    typed: [Span; MAX_CLIENTS],
    /// How far the output queue of each device was taken: [`Mark::to_word`].
    marks: [AtomicU64; MAX_CLIENTS],
    titles: [Title; LOGS],
    waiting: [AtomicU8; OUTPUT],
    keys: [[AtomicU8; TYPED]; MAX_CLIENTS],
}

impl Default for Head {
    fn default() -> Self {
        let title = || Title { name: [const { AtomicU8::new(0) }; NAME], span: Span::default() };
        Self {
            magic: AtomicU64::new(0),
            attached: AtomicU64::new(0),
            before: AtomicU64::new(0),
            intent: Intent::default(),
            output: Span::default(),
            typed: core::array::from_fn(|_| Span::default()),
            marks: [const { AtomicU64::new(0) }; MAX_CLIENTS],
            titles: core::array::from_fn(|_| title()),
            waiting: [const { AtomicU8::new(0) }; OUTPUT],
            keys: [const { [const { AtomicU8::new(0) }; TYPED] }; MAX_CLIENTS],
        }
    }
}

/// Where the bytes of [`Keep::print`] came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// From nowhere that would have to know.
    Own,
    /// From the output ring of a terminal, up to a position.
    Terminal(usize, u32),
    /// From a ring of log lines of clients, up to a position.
    Lines(usize, u32),
    /// From the output queue of a device.
    Device(usize, Mark),
}

impl Source {
    fn to_words(self) -> (u64, u64) {
        match self {
            Self::Own => (0, 0),
            Self::Terminal(n, position) => (1 << 32 | u64_of(n), position.into()),
            Self::Lines(n, position) => (2 << 32 | u64_of(n), position.into()),
            Self::Device(n, mark) => (3 << 32 | u64_of(n), mark.to_word()),
        }
    }

    fn from_words(word: u64, position: u64) -> Self {
        let n = usize_of(word & 0xffff_ffff);
        match (word >> 32, u32::try_from(position)) {
            (1, Ok(position)) => Self::Terminal(n, position),
            (2, Ok(position)) => Self::Lines(n, position),
            (3, _) => Self::Device(n, Mark::from_word(position)),
            _ => Self::Own,
        }
    }
}

/// How far the output queue of a device was printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Low bits of the epoch.
    pub epoch: u16,
    /// Index in the used ring that the chain will have.
    pub index: u16,
    /// Bytes of the chain that were printed.
    pub printed: u32,
}

impl Mark {
    fn to_word(self) -> u64 {
        u64::from(self.epoch) << 48 | u64::from(self.index) << 32 | u64::from(self.printed)
    }

    fn from_word(word: u64) -> Self {
        let [p0, p1, p2, p3, i0, i1, e0, e1] = word.to_le_bytes();
        Self {
            epoch: u16::from_le_bytes([e0, e1]),
            index: u16::from_le_bytes([i0, i1]),
            printed: u32::from_le_bytes([p0, p1, p2, p3]),
        }
    }
}

/// Stores in the order of the program, and nothing before or after it.
#[inline(always)]
fn store(cell: &AtomicU64, value: u64) {
    #[cfg(test)]
    tests::burn();
    compiler_fence(Ordering::SeqCst);
    cell.store(value, Ordering::Release);
    compiler_fence(Ordering::SeqCst);
}

fn load(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Acquire)
}

/// Bytes in a circle.
#[derive(Clone, Copy, Debug)]
struct Belt<'a> {
    span: &'a Span,
    data: &'a [AtomicU8],
}

impl<'a> Belt<'a> {
    /// Whatever the positions are, they make sense afterwards.
    fn new(span: &'a Span, data: &'a [AtomicU8]) -> Self {
        let belt = Self { span, data };
        let (begin, end) = (load(&span.begin), load(&span.end));
        if end.checked_sub(begin).is_none_or(|n| n > u64_of(data.len())) {
            store(&span.begin, end);
        }
        belt
    }

    fn begin(&self) -> u64 {
        load(&self.span.begin)
    }

    fn end(&self) -> u64 {
        load(&self.span.end)
    }

    fn len(&self) -> usize {
        usize_of(self.end() - self.begin())
    }

    fn room(&self) -> usize {
        self.data.len().saturating_sub(self.len())
    }

    fn slot(&self, position: u64) -> Option<&AtomicU8> {
        let size = u64_of(self.data.len());
        self.data.get(usize_of(position.checked_rem(size)?))
    }

    /// Writes bytes behind the end, where they are not seen yet; the new end. The oldest ones make
    /// room.
    fn write(&self, parts: &[&[u8]]) -> u64 {
        let at = self.end();
        let end = parts.iter().fold(at, |end, part| end + u64_of(part.len()));
        let begin = end.saturating_sub(u64_of(self.data.len()));
        if begin > self.begin() {
            // More than there is room for at all: the last of it stays.
            store(&self.span.begin, begin.min(at));
        }
        let bytes = parts.iter().flat_map(|part| part.iter());
        for (at, byte) in (at..).zip(bytes).filter(|(at, _)| *at >= begin) {
            if let Some(slot) = self.slot(at) {
                slot.store(*byte, Ordering::Relaxed);
            }
        }
        end
    }

    /// Shows bytes up to this end.
    fn publish(&self, end: u64) {
        store(&self.span.end, end);
        let least = end.saturating_sub(u64_of(self.data.len()));
        if self.begin() < least {
            store(&self.span.begin, least);
        }
    }

    /// Copies bytes from a position on; how many.
    fn read(&self, at: u64, to: &mut [u8]) -> usize {
        if at < self.begin() {
            return 0;
        }
        let count = usize_of(self.end().saturating_sub(at)).min(to.len());
        for (position, byte) in (at..).zip(to.iter_mut().take(count)) {
            *byte = self.slot(position).map_or(0, |s| s.load(Ordering::Relaxed));
        }
        count
    }

    /// Drops the first bytes.
    fn drop_first(&self, count: usize) {
        store(&self.span.begin, self.begin() + u64_of(count.min(self.len())));
    }
}

/// Takes bytes out that went to the port.
#[derive(Debug)]
pub struct Sender<'a> {
    begin: &'a AtomicU64,
    at: u64,
}

impl Sender<'_> {
    /// The port took a byte. Where the component dies between the port's instruction and this, the
    /// next life sends the byte again: so this is next to nothing.
    #[inline(always)]
    pub fn took(&mut self) {
        self.at += 1;
        store(self.begin, self.at);
    }
}

/// The memory that stays.
#[derive(Clone, Debug)]
pub struct Keep {
    head: &'static Head,
    /// Log lines of clients by CPU; the handler there is the only producer.
    lines: &'static [LogRing],
    /// Contents of the logs.
    logs: Vec<&'static [AtomicU8]>,
}

impl Keep {
    /// Goes on with memory as it was left; starts anew where it is of another kind. `logs` is the
    /// number of logs.
    #[must_use]
    pub fn new(
        head: &'static Head,
        lines: &'static [LogRing],
        data: &'static [AtomicU8],
        logs: usize,
    ) -> Self {
        let logs = logs.clamp(1, LOGS);
        let size = data.len() / logs;
        let magic = MAGIC ^ u64_of(size) ^ u64_of(logs) << 32 ^ u64_of(lines.len()) << 40;
        let logs = data.chunks_exact(size.max(1)).take(logs).collect();
        let keep = Self { head, lines, logs };
        if load(&head.magic) != magic {
            keep.reset();
            store(&head.magic, magic);
        }
        keep.finish();
        keep
    }

    fn reset(&self) {
        let head = self.head;
        for cell in [&head.magic, &head.attached, &head.before, &head.intent.armed] {
            store(cell, 0);
        }
        let spans = head.typed.iter().chain(head.titles.iter().map(|t| &t.span));
        for span in spans.chain([&head.output]) {
            store(&span.begin, 0);
            store(&span.end, 0);
        }
        head.marks.iter().for_each(|mark| store(mark, 0));
        let names = head.titles.iter().flat_map(|title| &title.name);
        names.for_each(|byte| byte.store(0, Ordering::Relaxed));
        self.lines.iter().for_each(LogRing::reset);
    }

    /// Does here what an armed intent says.
    fn finish(&self) {
        let intent = &self.head.intent;
        if load(&intent.armed) == 0 {
            return;
        }
        self.output().publish(load(&intent.output));
        let log = load(&intent.log).checked_sub(1).and_then(|n| self.log(usize_of(n)));
        if let Some(log) = log {
            log.publish(load(&intent.end));
        }
        if let Source::Device(n, mark) = self.source()
            && let Some(cell) = self.head.marks.get(n)
        {
            store(cell, mark.to_word());
        }
    }

    fn source(&self) -> Source {
        let intent = &self.head.intent;
        Source::from_words(load(&intent.source), load(&intent.position))
    }

    /// A source that was not told, before the component died, how far it was taken. Call
    /// [`Self::settled`] when it knows.
    #[must_use]
    pub fn unsettled(&self) -> Option<Source> {
        (load(&self.head.intent.armed) != 0).then(|| self.source())
    }

    /// The source knows.
    pub fn settled(&self) {
        store(&self.head.intent.armed, 0);
    }

    /// Takes bytes over from a source: `port` for the port, `text` for a log. Then `tell` tells the
    /// source how far it was taken.
    pub fn print(
        &self,
        port: &[&[u8]],
        log: Option<(usize, &[&[u8]])>,
        source: Source,
        tell: impl FnOnce(),
    ) {
        let intent = &self.head.intent;
        let output = self.output().write(port);
        let log = log.and_then(|(n, text)| Some((n, self.log(n)?.write(text))));
        let (word, position) = source.to_words();
        store(&intent.output, output);
        store(&intent.log, log.map_or(0, |(n, _)| u64_of(n) + 1));
        store(&intent.end, log.map_or(0, |(_, end)| end));
        store(&intent.source, word);
        store(&intent.position, position);
        store(&intent.armed, 1);
        self.finish();
        tell();
        self.settled();
    }

    /// Log lines of clients by CPU.
    #[must_use]
    pub const fn lines(&self) -> &'static [LogRing] {
        self.lines
    }

    fn output(&self) -> Belt<'static> {
        Belt::new(&self.head.output, &self.head.waiting)
    }

    /// Bytes of output for which there is room.
    #[must_use]
    pub fn room(&self) -> usize {
        self.output().room()
    }

    /// Whether nothing waits for the port.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.output().len() == 0
    }

    /// Copies what waits for the port; how many bytes.
    pub fn pending(&self, to: &mut [u8]) -> usize {
        self.output().read(self.output().begin(), to)
    }

    /// Counts what goes to the port.
    #[must_use]
    pub fn sender(&self) -> Sender<'static> {
        let output = self.output();
        Sender { begin: &output.span.begin, at: output.begin() }
    }

    /// The last byte that went to the port, or will.
    #[must_use]
    pub fn last(&self) -> Option<u8> {
        let end = self.output().end().checked_sub(1)?;
        self.output().slot(end).map(|slot| slot.load(Ordering::Relaxed))
    }

    fn keys(&self, console: usize) -> Option<Belt<'static>> {
        let span = self.head.typed.get(console)?;
        Some(Belt::new(span, self.head.keys.get(console)?))
    }

    /// Takes a character that was typed for a console. Without room it is lost.
    pub fn type_to(&self, console: usize, byte: u8) {
        if let Some(keys) = self.keys(console).filter(|keys| keys.room() > 0) {
            keys.publish(keys.write(&[&[byte]]));
        }
    }

    /// Copies what was typed for a console and not taken yet; how many characters.
    pub fn typed(&self, console: usize, to: &mut [u8]) -> usize {
        self.keys(console).map_or(0, |keys| keys.read(keys.begin(), to))
    }

    /// The console took so many of them.
    pub fn taken(&self, console: usize, count: usize) {
        if let Some(keys) = self.keys(console) {
            keys.drop_first(count);
        }
    }

    /// What is attached, and what was before, as [`Self::attach`] was told; 0 at first.
    #[must_use]
    pub fn attached(&self) -> (u64, u64) {
        (load(&self.head.attached), load(&self.head.before))
    }

    /// Notes what is attached.
    pub fn attach(&self, what: u64, before: u64) {
        store(&self.head.before, before);
        store(&self.head.attached, what);
    }

    /// How far the output queue of a device was taken.
    #[must_use]
    pub fn mark(&self, device: usize) -> Mark {
        self.head.marks.get(device).map_or(Mark::default(), |cell| Mark::from_word(load(cell)))
    }

    fn log(&self, log: usize) -> Option<Belt<'static>> {
        Some(Belt::new(&self.head.titles.get(log)?.span, self.logs.get(log).copied()?))
    }

    /// The log with this name. Where there are no more, names share the last one.
    pub fn log_of(&self, name: &str) -> usize {
        let end = (0..=name.len().min(NAME)).rev().find(|&n| name.is_char_boundary(n));
        let name = end.and_then(|end| name.get(..end)).unwrap_or("");
        let last = self.logs.len().saturating_sub(1);
        for n in 0..last {
            match self.title(n) {
                free if free.is_empty() => {
                    let bytes = self.head.titles.get(n).map(|t| &t.name);
                    for (slot, byte) in bytes.into_iter().flatten().zip(name.bytes()) {
                        slot.store(byte, Ordering::Relaxed);
                    }
                    return n;
                }
                taken if taken == name => return n,
                _ => {}
            }
        }
        last
    }

    /// Name of a log; empty where there is none.
    #[must_use]
    pub fn title(&self, log: usize) -> String {
        let Some(title) = self.head.titles.get(log) else { return String::new() };
        let bytes = title.name.iter().map(|byte| byte.load(Ordering::Relaxed));
        let bytes: Vec<u8> = bytes.take_while(|&b| b != 0).collect();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Number of logs that there can be.
    #[must_use]
    pub const fn logs(&self) -> usize {
        self.logs.len()
    }

    /// The positions of the first and behind the last byte of a log.
    #[must_use]
    pub fn extent(&self, log: usize) -> (u64, u64) {
        self.log(log).map_or((0, 0), |log| (log.begin(), log.end()))
    }

    /// Copies bytes of a log from a position on; how many. None where that position is gone.
    pub fn read(&self, log: usize, at: u64, to: &mut [u8]) -> usize {
        self.log(log).map_or(0, |log| log.read(at, to))
    }
}

#[cfg(test)]
pub(crate) mod tests;
