//! The loop that moves bytes between the port, the log and the consoles.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::Selector;
use ipc::proto::console::{Console, INPUT, LogRing, OUTPUT};
use ipc::proto::ring::{Consumer, Producer};
use ipc::proto::service::Protocol;
use ipc::proto::start::Start;
use sysroot::cap::Cap;
use sysroot::num::u64_of;
use sysroot::port::Ports;
use sysroot::{log, process, selector, service, syscall, time};
use virtio::link::Links;

use crate::device::{Consoles, Device, Turn, describe};
use crate::keep::{Keep, Mark, Source};
use crate::mux::{self, Mux, Target, Typed};
use crate::office::Office;
use crate::operator::session::Session;
use crate::session::{Desk, LINES, Terminal, UART};
use crate::share::Shares;
use crate::uart::Uart;

mod keep;
mod lines;

use lines::Lines;

/// Bytes that are taken from one console before the next one's turn.
const CHUNK: usize = 256;
/// Log lines that are taken before the consoles' turn.
const LINES_IN_A_ROUND: usize = 8;
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
    let keep = keep::open(start);
    let Some(desk) = Desk::create(start, keep.lines()) else {
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
    Loop::new(start, desk, uart, links, keep).run();
}

impl Desk {
    /// Everything that clients may ask for.
    fn create(start: &Start<'_>, lines: &'static [LogRing]) -> Option<&'static Self> {
        let vms = start.clients.iter().enumerate();
        let vms = vms.filter(|(_, c)| c.vm && c.service == Console::NAME).enumerate();
        let terminals = vms
            .map(|(n, (client, c))| Terminal::new(client, n, c.shared?))
            .collect::<Option<_>>()?;
        let bell = selector::alloc()
            .and_then(|at| syscall::derive(process::pd(), process::semaphore(), at, LINES))
            .ok()?;
        Some(Box::leak(Box::new(Self { terminals, lines, bell, attached: AtomicU64::new(1) })))
    }
}

/// The terminal of a VM's serial port on this side.
struct Line {
    terminal: &'static Terminal,
    name: &'static str,
    output: Consumer<'static, OUTPUT>,
    input: Producer<'static, INPUT>,
    broken: bool,
}

/// The loop's state.
struct Loop {
    desk: &'static Desk,
    uart: Uart<Ports>,
    mux: Mux,
    session: Session,
    shares: Shares,
    /// Consoles with a terminal; those that devices alone have follow.
    lines: Vec<Line>,
    log: Vec<Lines>,
    links: Links,
    devices: Vec<Device>,
    /// Log lines come before consoles in this round.
    log_first: bool,
}

impl Loop {
    fn new(
        start: &'static Start<'static>,
        desk: &'static Desk,
        uart: Uart<Ports>,
        links: Links,
        keep: Keep,
    ) -> Self {
        let mut mux = Mux::new(keep);
        let line = |terminal: &'static Terminal| {
            let name = start.clients.get(terminal.client).map_or("", |c| c.name);
            mux.add(name);
            Line {
                terminal,
                name,
                output: terminal.shared.output.consumer(),
                input: terminal.shared.input.producer(),
                broken: false,
            }
        };
        let lines: Vec<Line> = desk.terminals.iter().map(line).collect();
        // A VM's virtio console is the same as that of its serial port.
        let names = (0..links.len()).filter_map(|at| links.get(at)).map(|link| link.name());
        let devices = names.map(|name| {
            let same = mux.consoles().position(|console| console == name);
            Device::new(same.unwrap_or_else(|| mux.add(name)))
        });
        let devices = devices.collect();
        let mut this = Self {
            desk,
            uart,
            mux,
            session: Session::default(),
            shares: Shares::default(),
            lines,
            log: Lines::all(start, desk.lines),
            links,
            devices,
            log_first: false,
        };
        this.settle();
        this
    }

    /// Tells a source what a life before took and could not tell any more.
    fn settle(&mut self) {
        match self.mux.keep().unsettled() {
            Some(Source::Terminal(n, position)) => {
                if let Some(line) = self.lines.get_mut(n) {
                    line.output.seek(position);
                }
            }
            Some(Source::Lines(cpu, position)) => {
                let mut lines = self.log.iter_mut();
                if let Some(lines) = lines.find(|lines| lines.cpu() == Some(cpu)) {
                    lines.seek(position);
                }
            }
            // Devices read their marks.
            Some(Source::Device(..) | Source::Own) | None => {}
        }
        self.mux.keep().settled();
    }

    fn run(mut self) {
        if self.mux.attached() == Target::Operator {
            self.session.enter();
        }
        loop {
            let now = time::uptime_ms();
            let mut moved = self.receive(now);
            self.log_first = !self.log_first;
            if self.log_first {
                moved |= self.take_log_lines(now);
            }
            moved |= self.take_output(now);
            moved |= self.serve_devices(now);
            if !self.log_first {
                moved |= self.take_log_lines(now);
            }
            moved |= self.serve_operator(now);
            moved |= self.transmit();
            if moved {
                continue;
            }
            let now = time::uptime_ms();
            // A port whose interrupt does not come must not stop the output.
            let resend = (!self.mux.keep().is_idle()).then_some(now + RESEND_MS);
            let deadlines =
                [self.mux.deadline(), self.shares.deadline(), self.session.deadline(), resend];
            let deadline = deadlines.into_iter().flatten().min();
            let deadline = deadline.map(|ms| time::deadline_in_ms(ms.saturating_sub(now)));
            let deadline = [deadline, self.links.deadline()].into_iter().flatten().min();
            let badges = process::semaphore().down_all(deadline).unwrap_or(0);
            if badges & UART != 0 {
                self.uart.acknowledge();
            }
        }
    }

    /// Typed characters go where they belong.
    fn receive(&mut self, now: u64) -> bool {
        let mut any = false;
        while let Some(byte) = self.uart.receive() {
            any = true;
            match self.mux.typed(byte) {
                Typed::Operator(byte) => {
                    self.session.key(byte, now, &mut Office { mux: &mut self.mux });
                    self.show_session();
                }
                Typed::Enter => self.session.enter(),
                Typed::Done => {}
            }
        }
        let attached = match self.mux.attached() {
            Target::Console(n) => u64_of(n + 1),
            Target::Operator => 0,
        };
        self.desk.attached.store(attached, Ordering::Relaxed);
        for (index, line) in self.lines.iter_mut().enumerate() {
            if !Device::take_keys(&self.devices, &self.links, index) {
                line.hand_over(index, self.mux.keep());
            }
        }
        any
    }

    /// Log lines of all rings, the oldest first.
    fn take_log_lines(&mut self, now: u64) -> bool {
        let mut any = false;
        for _ in 0..LINES_IN_A_ROUND {
            for lines in &mut self.log {
                lines.fill();
            }
            let waiting = self.log.iter_mut().filter_map(|l| Some((l.next()?.ms, l)));
            let Some((_, lines)) = waiting.min_by_key(|(ms, _)| *ms) else { break };
            let at_prompt = self.session.is_at_prompt();
            if !self.mux.may_log(now, at_prompt) {
                break;
            }
            if lines.print(&mut self.mux, at_prompt) {
                self.session.prompt();
                self.show_session();
            }
            any = true;
        }
        any
    }

    /// A chunk of each console's output, so that none keeps the others waiting.
    fn take_output(&mut self, now: u64) -> bool {
        let mut any = false;
        let mut buffer = [0; CHUNK];
        for (index, line) in self.lines.iter_mut().enumerate() {
            let Ok(count) = line.output.peek(0, &mut buffer) else {
                line.damaged(&mut self.mux, now);
                continue;
            };
            let count = count.min(self.shares.left(now, index));
            let bytes = buffer.get(..count).unwrap_or(&[]);
            let count = self.mux.accepts(index, bytes).min(count);
            let Some(bytes) = bytes.get(..count).filter(|bytes| !bytes.is_empty()) else {
                continue;
            };
            let source = Source::Terminal(index, line.output.after(count));
            let mut wake = false;
            self.mux.console(index, bytes, source, || wake = line.output.consume(count));
            self.shares.charge(index, count);
            if wake {
                line.terminal.notify();
            }
            any = true;
        }
        any
    }

    /// A turn for each virtio console. Whether there is more to do at once.
    fn serve_devices(&mut self, now: u64) -> bool {
        let consoles = Screen { mux: &mut self.mux, shares: &mut self.shares, now };
        self.links.round(&mut Turn { devices: &mut self.devices, consoles })
    }

    /// The operator's session goes on. Whether it has more to do at once.
    fn serve_operator(&mut self, now: u64) -> bool {
        let worked = self.session.work(now, &mut Office { mux: &mut self.mux });
        self.show_session() || worked
    }

    /// Shows what the operator's session has to say; whether anything.
    fn show_session(&mut self) -> bool {
        let count = self.mux.operator(self.session.output());
        self.session.shown(count);
        count > 0
    }

    /// Sends what the port takes; whether anything.
    fn transmit(&mut self) -> bool {
        let mut patience = PATIENCE;
        let mut any = false;
        let mut buffer = [0; CHUNK];
        loop {
            let keep = self.mux.keep();
            let count = keep.pending(&mut buffer);
            if count == 0 {
                break;
            }
            let mut sender = keep.sender();
            match self.uart.send(buffer.get(..count).unwrap_or(&[]), || sender.took()) {
                0 if patience == 0 => {
                    self.uart.set_transmit_interrupt(true);
                    return any;
                }
                0 => patience -= 1,
                _ => any = true,
            }
        }
        self.uart.set_transmit_interrupt(false);
        any
    }
}

impl Line {
    /// What was typed goes to the client, as far as it takes it.
    fn hand_over(&mut self, index: usize, keep: &Keep) {
        let mut buffer = [0; CHUNK];
        loop {
            let count = keep.typed(index, &mut buffer);
            // A client that broke its ring gets no input.
            let moved = self.input.push(buffer.get(..count).unwrap_or(&[])).unwrap_or_default();
            keep.taken(index, moved.bytes);
            if moved.wake {
                self.terminal.notify();
            }
            if moved.bytes == 0 {
                return;
            }
        }
    }

    /// The client broke its ring.
    fn damaged(&mut self, mux: &mut Mux, now: u64) {
        self.output.clear();
        if !core::mem::replace(&mut self.broken, true) {
            let text = alloc::format!("console: {} damaged its output ring", self.name);
            let line = mux::Line { ms: now, name: b"", text: text.as_bytes() };
            mux.log(&line, false, Source::Own, || {});
        }
    }
}

/// The consoles, as their virtio devices see them.
struct Screen<'a> {
    mux: &'a mut Mux,
    shares: &'a mut Shares,
    now: u64,
}

impl Consoles for Screen<'_> {
    fn accepts(&mut self, console: usize, bytes: &[u8]) -> usize {
        let share = self.shares.left(self.now, console).min(bytes.len());
        self.mux.accepts(console, bytes.get(..share).unwrap_or(&[]))
    }

    fn print(&mut self, console: usize, bytes: &[u8], device: usize, mark: Mark) {
        self.shares.charge(console, bytes.len());
        self.mux.console(console, bytes, Source::Device(device, mark), || {});
    }

    fn printed(&self, device: usize) -> Mark {
        self.mux.keep().mark(device)
    }

    fn typed(&self, console: usize, to: &mut [u8]) -> usize {
        self.mux.keep().typed(console, to)
    }

    fn taken(&mut self, console: usize, count: usize) {
        self.mux.keep().taken(console, count);
    }
}
