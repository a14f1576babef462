//! The loop that moves bytes between the port, the log and the consoles.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::Selector;
use ipc::proto::console::{Console, INPUT, LOG, LOG_ORDER, LogRing, OUTPUT};
use ipc::proto::ring::{Consumer, Producer, RECORD_TEXT, pop_record};
use ipc::proto::service::Protocol;
use ipc::proto::start::Start;
use sysroot::cap::Cap;
use sysroot::num::usize_of;
use sysroot::port::Ports;
use sysroot::{log, process, selector, service, syscall, time};
use virtio::link::Links;

use crate::device::{Consoles, Device, Turn, describe};
use crate::mux::{Mux, Typed};
use crate::session::{Desk, LINES, Terminal, UART};
use crate::uart::Uart;

/// Bytes that are taken from one console before the next one's turn.
const CHUNK: usize = 256;
/// How often a busy transmitter is asked before the loop goes to sleep until it interrupts.
const PATIENCE: u32 = 200;
/// How long the loop waits for a busy transmitter's interrupt.
const RESEND_MS: u64 = 20;

/// Runs the component.
pub fn main() {
    let start = process::start();
    let Some(ports) = start.devices.iter().find_map(|d| Ports::of(d, 0)) else {
        log!("no serial port in the configuration");
        process::exit(1);
    };
    let uart = Uart::new(ports);
    if !uart.is_present() {
        log!("no serial port at {:#x}", ports.first());
        process::exit(1);
    }
    let Some(desk) = Desk::create(start) else {
        log!("too little memory for {} clients", start.clients.len());
        process::exit(1);
    };
    match service::provide::<Console, _>(desk) {
        Ok(clients) => log!("serial port at {:#x}, {clients} clients", ports.first()),
        Err(status) => {
            log!("cannot serve clients: {status}");
            process::exit(1);
        }
    }
    let opened = virtio::session::Desk::open(start, |_, _| Ok::<_, &str>(describe()));
    let Some(links) = opened.ok().and_then(|desk| Links::of(desk, start)) else {
        log!("cannot serve virtio consoles");
        process::exit(1);
    };
    for interrupt in start.devices.iter().flat_map(|d| d.interrupts.iter()) {
        let source = Cap::new(Selector(interrupt.selector.into()));
        let semaphore = process::semaphore();
        let bound = syscall::bind_interrupt(source, start.cpu, semaphore, UART, interrupt.trigger);
        if let Err(status) = bound {
            log!("interrupt line {}: {status}", interrupt.line);
        }
    }
    process::ready();
    Loop::new(start, desk, uart, links).run();
}

impl Desk {
    /// Everything that clients may ask for.
    fn create(start: &Start<'_>) -> Option<&'static Self> {
        let vms = start.clients.iter().enumerate();
        let vms = vms.filter(|(_, c)| c.vm && c.service == Console::NAME).enumerate();
        let terminals = vms
            .map(|(n, (client, c))| Terminal::new(client, n, c.shared?))
            .collect::<Option<_>>()?;
        let bell = selector::alloc()
            .and_then(|at| syscall::derive(process::pd(), process::semaphore(), at, LINES))
            .ok()?;
        Some(Box::leak(Box::new(Self {
            terminals,
            lines: (0..start.cpus).map(|_| LogRing::new()).collect(),
            bell,
            attached: AtomicU64::new(1),
        })))
    }
}

/// One console on this side.
struct Line {
    terminal: &'static Terminal,
    output: Consumer<'static, OUTPUT>,
    input: Producer<'static, INPUT>,
    /// Typed characters that the client has not taken yet.
    typed: VecDeque<u8>,
    broken: bool,
}

/// The loop's state.
struct Loop {
    start: &'static Start<'static>,
    desk: &'static Desk,
    uart: Uart<Ports>,
    mux: Mux,
    lines: Vec<Line>,
    log: Vec<Source>,
    links: Links,
    devices: Vec<Device>,
}

/// A log line that was taken out of its ring.
struct Entry {
    ms: u64,
    name: Vec<u8>,
    text: Vec<u8>,
}

/// A ring of log lines.
struct Source {
    ring: Consumer<'static, LOG>,
    /// It holds the root task's records, which carry names; otherwise numbers of clients.
    named: bool,
    /// The oldest line that was not printed.
    next: Option<Entry>,
}

impl Source {
    /// Takes the next line out of the ring where none is waiting.
    fn fill(&mut self, start: &Start<'_>) {
        if self.next.is_some() {
            return;
        }
        let mut buffer = [0; RECORD_TEXT];
        // A damaged ring was emptied.
        let Ok(Some(record)) = pop_record(&mut self.ring, &mut buffer) else { return };
        let source = usize::from(record.source);
        let (name, text) = if self.named {
            record.text.split_at_checked(source).unwrap_or((&[], record.text))
        } else {
            let name = start.clients.get(source).map_or("?", |c| c.name);
            (name.as_bytes(), record.text)
        };
        self.next = Some(Entry { ms: record.ms.into(), name: name.into(), text: text.into() });
    }
}

impl Loop {
    fn new(
        start: &'static Start<'static>,
        desk: &'static Desk,
        uart: Uart<Ports>,
        links: Links,
    ) -> Self {
        let mut mux = Mux::new();
        let line = |terminal: &'static Terminal| {
            mux.add(start.clients.get(terminal.client).map_or("", |c| c.name));
            Line {
                terminal,
                output: terminal.shared.output.consumer(),
                input: terminal.shared.input.producer(),
                typed: VecDeque::new(),
                broken: false,
            }
        };
        let lines: Vec<Line> = desk.terminals.iter().map(line).collect();
        // A VM's virtio console is the same as that of its serial port.
        let client = |n: usize| start.clients.get(n).map(|c| c.name);
        let same = |name| lines.iter().position(|l| client(l.terminal.client) == Some(name));
        let devices = (0..links.len()).filter_map(|at| links.get(at)).map(|link| link.name());
        let devices = devices.map(|name| Device::new(same(name).unwrap_or(usize::MAX))).collect();
        let source = |named| move |ring| Source { ring, named, next: None };
        let root = root_rings(start).into_iter().map(source(true));
        let clients = desk.lines.iter().map(LogRing::consumer).map(source(false));
        Self { start, desk, uart, mux, lines, log: root.chain(clients).collect(), links, devices }
    }

    fn run(mut self) {
        loop {
            let mut moved = self.receive();
            moved |= self.take_log_lines();
            moved |= self.take_output();
            moved |= self.serve_devices();
            self.mux.tick(time::uptime_ms());
            moved |= self.transmit();
            if moved {
                continue;
            }
            let now = time::uptime_ms();
            // A port whose interrupt does not come must not stop the output.
            let resend = (!self.mux.pending().is_empty()).then_some(now + RESEND_MS);
            let deadline = self.mux.deadline().into_iter().chain(resend).min();
            let deadline = deadline.map(|ms| time::deadline_in_ms(ms.saturating_sub(now)));
            let badges = process::semaphore().down_all(deadline).unwrap_or(0);
            if badges & UART != 0 {
                self.uart.acknowledge();
            }
        }
    }

    /// Typed characters go where they belong.
    fn receive(&mut self) -> bool {
        let mut any = false;
        while let Some(byte) = self.uart.receive() {
            any = true;
            if let Typed::To(index, byte) = self.mux.typed(byte)
                && let Some(line) = self.lines.get_mut(index)
                && line.typed.len() < INPUT
            {
                line.typed.push_back(byte);
            }
        }
        let attached = self.mux.attached().and_then(|n| u64::try_from(n + 1).ok());
        self.desk.attached.store(attached.unwrap_or(0), Ordering::Relaxed);
        for (index, line) in self.lines.iter_mut().enumerate() {
            let by_device = self.devices.iter().any(|d| d.active && d.console == index);
            if line.typed.is_empty() || by_device {
                continue;
            }
            let waiting = line.typed.make_contiguous();
            // A client that broke its ring gets no input.
            let moved = line.input.push(waiting).unwrap_or_default();
            line.typed.drain(..moved.bytes);
            if moved.wake {
                line.terminal.notify();
            }
        }
        any
    }

    /// Log lines of all rings, the oldest first.
    fn take_log_lines(&mut self) -> bool {
        let now = time::uptime_ms();
        let mut any = false;
        while self.mux.has_room() {
            for source in &mut self.log {
                source.fill(self.start);
            }
            let waiting = self.log.iter_mut().filter(|s| s.next.is_some());
            let oldest = waiting.min_by_key(|s| s.next.as_ref().map(|e| e.ms));
            let Some(entry) = oldest.and_then(|s| s.next.take()) else { break };
            self.mux.log(now, entry.ms, &entry.name, &entry.text);
            any = true;
        }
        any
    }

    /// A chunk of each console's output, so that none keeps the others waiting.
    fn take_output(&mut self) -> bool {
        let now = time::uptime_ms();
        let mut any = false;
        let mut buffer = [0; CHUNK];
        for (index, line) in self.lines.iter_mut().enumerate() {
            if !self.mux.has_room() {
                break;
            }
            match line.output.pop(&mut buffer) {
                Ok(moved) => {
                    any |= moved.bytes > 0;
                    self.mux.console(now, index, buffer.get(..moved.bytes).unwrap_or(&[]));
                    if moved.wake {
                        line.terminal.notify();
                    }
                }
                Err(_) => {
                    line.output.clear();
                    if !line.broken {
                        line.broken = true;
                        let client = self.start.clients.get(line.terminal.client);
                        let name = client.map_or("?", |c| c.name);
                        self.mux.log(now, now, b"", b"console: output ring damaged by:");
                        self.mux.log(now, now, name.as_bytes(), b"(dropped what was in it)");
                    }
                }
            }
        }
        any
    }

    /// A turn for each virtio console. Whether there is more to do at once.
    fn serve_devices(&mut self) -> bool {
        let now = time::uptime_ms();
        let consoles = Screen { mux: &mut self.mux, lines: &mut self.lines, now };
        self.links.round(&mut Turn { devices: &mut self.devices, consoles })
    }

    /// Sends what the port takes. Whether there is more that it takes soon.
    fn transmit(&mut self) -> bool {
        let mut patience = PATIENCE;
        while !self.mux.pending().is_empty() {
            match self.uart.send(self.mux.pending()) {
                0 if patience == 0 => {
                    self.uart.set_transmit_interrupt(true);
                    return false;
                }
                0 => patience -= 1,
                count => self.mux.sent(count),
            }
        }
        self.uart.set_transmit_interrupt(false);
        false
    }
}

/// The consoles, as their virtio devices see them.
struct Screen<'a> {
    mux: &'a mut Mux,
    lines: &'a mut [Line],
    now: u64,
}

impl Consoles for Screen<'_> {
    fn has_room(&self) -> bool {
        self.mux.has_room()
    }

    fn print(&mut self, console: usize, bytes: &[u8]) {
        self.mux.console(self.now, console, bytes);
    }

    fn typed(&mut self, console: usize) -> &[u8] {
        self.lines.get_mut(console).map_or(&[], |line| line.typed.make_contiguous())
    }

    fn taken(&mut self, console: usize, count: usize) {
        if let Some(line) = self.lines.get_mut(console) {
            line.typed.drain(..count.min(line.typed.len()));
        }
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
