//! Exceptions and recalls as messages.

use core::sync::atomic::{AtomicU64, Ordering};

use ipc::cap::{Rights, Selector};
use ipc::exit::Exception;
use ipc::state::{Mtd, State};
use ipc::status::Result;
use ipc::utcb::Message;
use sysroot::arch::Entry;
use sysroot::cap::{Cap, Portal, Semaphore};
use sysroot::num::{address, usize_of};
use sysroot::{process, syscall, time, utcb};

use crate::arch;
use crate::check::{Failure, Outcome};
use crate::domain::{Domain, other_cpu, own};
use crate::runner::group;

group!("event":
    exceptions_and_their_error_codes,
    a_page_fault_tells_its_address,
    non_canonical_addresses,
    privileged_instructions_are_refused,
    the_handler_sees_and_changes_registers,
    an_empty_mtd_carries_nothing,
    flags_that_matter_to_the_kernel_stay,
    without_a_handler_the_context_stops,
    without_the_right_there_is_no_handler,
    a_handler_on_another_cpu_is_none,
    a_recall_is_an_event,
    a_recall_ends_no_wait,
);

/// Kinds of attempts of a [`Prober`].
pub(super) const READ: u64 = 0;
/// Write.
pub(super) const WRITE: u64 = 1;
/// Execute.
pub(super) const EXECUTE: u64 = 2;
pub(super) const UNDEFINED: u64 = 3;
const DIVIDE: u64 = 4;
const BREAKPOINT: u64 = 5;
const PRIVILEGED: u64 = 6;
const SOFTWARE_INTERRUPT: u64 = 7;
/// Port input.
pub(super) const INPUT: u64 = 8;
/// Port output.
pub(super) const OUTPUT: u64 = 9;
const CONTROL_REGISTER: u64 = 10;
const INTERRUPTS_OFF: u64 = 11;
/// Use of the FPU.
pub(super) const FLOAT: u64 = 12;
const DEBUG: u64 = 13;
const STACK: u64 = 14;

/// Does what its words say: kind, address, value. Answers with what came of it.
struct Attempts;

impl Entry for Attempts {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        let [kind, address, value] = utcb::with_message(|area| {
            let [kind, address, value, ..] = *area.words;
            [kind, address, value]
        });
        let attempt = match kind {
            READ => arch::read,
            WRITE => arch::write,
            EXECUTE => arch::execute,
            UNDEFINED => arch::undefined,
            DIVIDE => arch::divide,
            BREAKPOINT => arch::breakpoint,
            PRIVILEGED => arch::privileged,
            SOFTWARE_INTERRUPT => arch::software_interrupt,
            INPUT => arch::input,
            OUTPUT => arch::output,
            CONTROL_REGISTER => arch::control_register,
            INTERRUPTS_OFF => arch::interrupts_off,
            DEBUG => arch::debug,
            STACK => arch::stack,
            _ => arch::float,
        };
        // SAFETY: exceptions are handled or meant; tests name addresses that may be accessed.
        let result = unsafe { attempt(address, value) };
        utcb::with_message(|area| {
            let [first, second, ..] = area.words;
            (*first, *second) = (result.fault, result.value);
        });
        Message::new(2, 0).0
    }
}

/// Set in the word of a fault, as exception 0 without error code is 0 itself.
pub(crate) const FAULT: u64 = 1 << 63;

/// Ends an attempt that raised an exception: notes it in `rax` and returns for it.
pub(crate) struct Fixes;

/// Fault address of the last exception.
static ADDRESS: AtomicU64 = AtomicU64::new(0);

impl Entry for Fixes {
    extern "sysv64" fn enter(_id: u64, _mtd: u64) -> u64 {
        utcb::with_state(|state| {
            let [word, fault_address, _] = state.qualification;
            ADDRESS.store(fault_address, Ordering::SeqCst);
            let top: *const u64 = core::ptr::with_exposed_provenance(usize_of(state.rsp));
            // SAFETY: the thread is in this domain, and its attempt left its return address there.
            state.rip = unsafe { top.read() };
            state.rsp += 8;
            state.rax = FAULT | word;
            // Alignment is checked only where that was asked for.
            state.rflags &= !(1 << 18);
        });
        (Mtd::GPR_ACDB | Mtd::GPR_BSD | Mtd::RIP).bits()
    }
}

/// A domain with a handler that attempts things, and another that ends what faults.
pub(super) struct Prober {
    /// The domain.
    pub domain: Domain,
    portal: Cap<Portal>,
}

/// Event base in the prober's domain.
const EVENTS: u32 = 512;
/// Exceptions that it fixes.
const FIXED: [u64; 8] = [0, 1, 3, 6, 7, 12, 13, 14];

impl Prober {
    /// A prober on the CPU of this thread.
    pub(super) fn new() -> Result<Self> {
        Self::within(Domain::new(400)?, EVENTS)
    }

    /// The same in a domain where the selectors from `base` on are free for its events.
    pub(super) fn within(mut domain: Domain, base: u32) -> Result<Self> {
        let cpu = process::start().cpu;
        let events = domain.serve::<Fixes>(cpu, 0)?;
        domain.route(base, &FIXED, events, Mtd::HOST, 0)?;
        let handler = domain.handler_with(cpu, base)?;
        let portal = domain.portal::<Attempts>(handler, 0)?;
        Ok(Self { domain, portal })
    }

    /// What an attempt read, or the exception that it raised.
    pub(super) fn access(
        &self,
        kind: u64,
        address: u64,
        value: u64,
    ) -> core::result::Result<core::result::Result<u64, Exception>, Failure> {
        let (_, [fault, value, ..]) = super::ipc::call(self.portal, &[kind, address, value])?;
        Ok(if fault == 0 { Ok(value) } else { Err(Exception::from_word(fault & !FAULT)) })
    }
}

/// Vector of the exception that an attempt raises.
pub(super) fn vector(
    p: &Prober,
    kind: u64,
    address: u64,
) -> core::result::Result<Option<u8>, Failure> {
    Ok(p.access(kind, address, 0)?.err().map(|e| e.vector))
}

fn exceptions_and_their_error_codes() -> Outcome {
    let p = ok!(Prober::new());
    same!(vector(&p, DIVIDE, 0)?, Some(0));
    same!(vector(&p, UNDEFINED, 0)?, Some(6));
    same!(vector(&p, BREAKPOINT, 0)?, Some(3));
    // Components have no FPU.
    same!(vector(&p, FLOAT, 0)?, Some(7));
    same!(vector(&p, DEBUG, 0)?, Some(1));
    // The stack segment has a vector of its own; QEMU takes the general one.
    let beyond = p.access(STACK, 1 << 62, 0)?;
    check!(matches!(beyond, Err(Exception { vector: 12 | 13, error: Some(0) })));
    let refused = p.access(SOFTWARE_INTERRUPT, 0, 0)?;
    // Index 0x80 of the interrupt table.
    same!(refused, Err(Exception { vector: 13, error: Some(0x80 << 3 | 2) }));
    // An attempt that raises nothing, in between.
    same!(p.access(READ, address(&FIXED), 0)?, Ok(0));
    Ok(())
}

fn a_page_fault_tells_its_address() -> Outcome {
    let p = ok!(Prober::new());
    for at in [0, 8, 0x7000_1234, 0x7fff_ffff_eff8] {
        let fault = p.access(READ, at, 0)?;
        same!(fault, Err(Exception { vector: 14, error: Some(4) }));
        same!(ADDRESS.load(Ordering::SeqCst), at);
    }
    // The kernel's half exists for nobody.
    for at in [0xffff_8000_0000_0000, 0xffff_ff00_0000_0000, 0xffff_ffff_8000_0000, u64::MAX - 7] {
        match p.access(READ, at, 0)? {
            Err(Exception { vector: 14, error: Some(error) }) => same!(error & !1, 4),
            other => same!(other, Ok(0)),
        }
        same!(ADDRESS.load(Ordering::SeqCst), at);
    }
    Ok(())
}

fn non_canonical_addresses() -> Outcome {
    let p = ok!(Prober::new());
    for at in [0x8000_0000_0000, 0x1234_5678_9abc_def0, 0xffff_7fff_ffff_fff8] {
        same!(vector(&p, READ, at)?, Some(13));
        same!(vector(&p, WRITE, at)?, Some(13));
    }
    Ok(())
}

fn privileged_instructions_are_refused() -> Outcome {
    let p = ok!(Prober::new());
    for kind in [PRIVILEGED, CONTROL_REGISTER, INTERRUPTS_OFF] {
        same!((kind, vector(&p, kind, 0)?), (kind, Some(13)));
    }
    Ok(())
}

/// Runs [`arch::registers`] and answers with them.
struct Registers;

impl Entry for Registers {
    extern "sysv64" fn enter(_id: u64, _descriptor: u64) -> u64 {
        let mut all = [0; 14];
        // SAFETY: the exception is handled; there is room for the registers.
        unsafe { arch::registers(all.as_mut_ptr()) };
        utcb::with_message(|area| {
            for (to, from) in area.words.iter_mut().zip(all) {
                *to = from;
            }
        });
        Message::new(14, 0).0
    }
}

/// Adds 0x1000 to every register that came, and steps over the instruction.
struct Changes;

/// What [`Changes`] is to take back.
static TAKE: AtomicU64 = AtomicU64::new(0);
/// Whether the registers were as the thread had set them.
static SEEN: AtomicU64 = AtomicU64::new(0);

fn all_registers(s: &mut State) -> [&mut u64; 14] {
    [
        &mut s.rax, &mut s.rbx, &mut s.rcx, &mut s.rdx, &mut s.rbp, &mut s.rsi, &mut s.r8,
        &mut s.r9, &mut s.r10, &mut s.r11, &mut s.r12, &mut s.r13, &mut s.r14, &mut s.r15,
    ]
}

/// Their values while the exception is raised.
const VALUES: [u64; 14] = [
    0x100, 0x101, 0x102, 0x103, 0x104, 0x105, 0x108, 0x109, 0x10a, 0x10b, 0x10c, 0x10d, 0x10e,
    0x10f,
];

impl Entry for Changes {
    extern "sysv64" fn enter(_id: u64, _mtd: u64) -> u64 {
        utcb::with_state(|state| {
            let values = all_registers(state).map(|r| *r);
            SEEN.store(u64::from(values == VALUES && state.rdi == 0x106), Ordering::SeqCst);
            for register in all_registers(state) {
                *register += 0x1000;
            }
            // UD2 is two bytes long.
            state.rip += 2;
        });
        TAKE.load(Ordering::SeqCst)
    }
}

fn registers_with(take: Mtd) -> core::result::Result<[u64; 14], Failure> {
    let cpu = process::start().cpu;
    let mut d = Domain::new(400)?;
    TAKE.store(take.bits(), Ordering::SeqCst);
    let events = d.serve::<Changes>(cpu, 0)?;
    d.route(EVENTS, &[6], events, Mtd::HOST, 0)?;
    let handler = d.handler_with(cpu, EVENTS)?;
    let portal = d.portal::<Registers>(handler, 0)?;
    let registers = utcb::call(
        portal,
        |_| Message::EMPTY,
        |_, area| {
            let mut all = [0; 14];
            for (to, from) in all.iter_mut().zip(area.words.iter()) {
                *to = *from;
            }
            all
        },
    )?;
    Ok(registers)
}

fn the_handler_sees_and_changes_registers() -> Outcome {
    let all = Mtd::GPR_ACDB | Mtd::GPR_BSD | Mtd::GPR_R8 | Mtd::RIP;
    same!(registers_with(all)?, VALUES.map(|v| v + 0x1000));
    same!(SEEN.load(Ordering::SeqCst), 1);
    // Only what the reply names is taken back.
    same!(registers_with(Mtd::RIP)?, VALUES);
    let some = registers_with(Mtd::RIP | Mtd::GPR_R8)?;
    let expected: [u64; 14] = core::array::from_fn(|n| {
        VALUES.get(n).copied().unwrap_or(0) + if n >= 6 { 0x1000 } else { 0 }
    });
    same!(some, expected);
    Ok(())
}

/// Notes whether the state area was touched, and fixes the thread without looking at it.
struct Blind;

impl Entry for Blind {
    extern "sysv64" fn enter(_id: u64, mtd: u64) -> u64 {
        utcb::with_state(|state| {
            SEEN.store(
                mtd << 32 | state.rip | state.qualification[0] | state.rax,
                Ordering::SeqCst,
            );
            state.rip = SKIP.load(Ordering::SeqCst);
        });
        Mtd::RIP.bits()
    }
}

/// Address behind the `ud2` in [`arch::undefined`].
static SKIP: AtomicU64 = AtomicU64::new(0);

fn an_empty_mtd_carries_nothing() -> Outcome {
    let cpu = process::start().cpu;
    let mut d = ok!(Domain::new(400));
    // The instruction before is three moves and exclusive ors long: 3 + 2 + 2 bytes, UD2 2.
    let entry = address(arch::undefined as *const ());
    SKIP.store(entry + 9, Ordering::SeqCst);
    let events = ok!(d.serve::<Blind>(cpu, 0));
    ok!(d.route(EVENTS, &[6], events, Mtd::empty(), 0));
    let handler = ok!(d.handler_with(cpu, EVENTS));
    let portal = ok!(d.portal::<Attempts>(handler, 0));
    let (_, [fault, ..]) = ok!(super::ipc::call(portal, &[UNDEFINED]));
    same!(fault, 0);
    same!(SEEN.load(Ordering::SeqCst), 0);
    Ok(())
}

/// Sets every flag there is and steps over the instruction.
struct Flags;

impl Entry for Flags {
    extern "sysv64" fn enter(_id: u64, _mtd: u64) -> u64 {
        utcb::with_state(|state| {
            SEEN.store(state.rflags, Ordering::SeqCst);
            if state.rflags & 1 == 0 {
                // All but the trap flag: that would raise an exception of its own.
                state.rflags = !0x100;
            } else {
                state.rip = SKIP.load(Ordering::SeqCst);
                state.rflags = 0x202;
            }
        });
        Mtd::RIP.bits()
    }
}

fn flags_that_matter_to_the_kernel_stay() -> Outcome {
    let cpu = process::start().cpu;
    let mut d = ok!(Domain::new(400));
    SKIP.store(address(arch::undefined as *const ()) + 9, Ordering::SeqCst);
    let events = ok!(d.serve::<Flags>(cpu, 0));
    ok!(d.route(EVENTS, &[6], events, Mtd::RIP, 0));
    let handler = ok!(d.handler_with(cpu, EVENTS));
    let portal = ok!(d.portal::<Attempts>(handler, 0));
    ok!(super::ipc::call(portal, &[UNDEFINED]));
    let flags = SEEN.load(Ordering::SeqCst);
    // Interrupts on; no privilege level, nested task, virtual mode or virtual interrupts.
    same!(flags & 0x200, 0x200);
    same!(flags & (0x3000 | 0x4000 | 0x2_0000 | 0x8_0000 | 0x10_0000), 0);
    Ok(())
}

fn without_a_handler_the_context_stops() -> Outcome {
    let cpu = process::start().cpu;
    let mut d = ok!(Domain::new(400));
    let portal = ok!(d.serve::<Attempts>(cpu, 0));
    refused!(super::ipc::call(portal, &[UNDEFINED]), Aborted);
    // It is stopped for good, and says so.
    refused!(super::ipc::call(portal, &[READ]), Aborted);
    Ok(())
}

fn without_the_right_there_is_no_handler() -> Outcome {
    let cpu = process::start().cpu;
    let mut d = ok!(Domain::new(400));
    let events = ok!(d.serve::<Fixes>(cpu, 0));
    ok!(syscall::set_portal(events, 0, Mtd::HOST));
    ok!(d.give(events, u64::from(EVENTS) + 6, Rights::PT_CALL | Rights::PT_CTRL));
    let handler = ok!(d.handler_with(cpu, EVENTS));
    let portal = ok!(d.portal::<Attempts>(handler, 0));
    refused!(super::ipc::call(portal, &[UNDEFINED]), Aborted);
    Ok(())
}

fn a_handler_on_another_cpu_is_none() -> Outcome {
    let other = other_cpu().ok_or(Failure::Skip("one CPU"))?;
    let mut d = ok!(Domain::new(400));
    let events = ok!(d.serve::<Fixes>(other, 0));
    ok!(d.route(EVENTS, &[6], events, Mtd::HOST, 0));
    let handler = ok!(d.handler_with(process::start().cpu, EVENTS));
    let portal = ok!(d.portal::<Attempts>(handler, 0));
    refused!(super::ipc::call(portal, &[UNDEFINED]), Aborted);
    Ok(())
}

/// Event number of a recall.
const RECALL: u64 = 31;

/// Counts recalls and lets the thread go on.
struct Recalled;

static COUNT: AtomicU64 = AtomicU64::new(0);
static BELL: AtomicU64 = AtomicU64::new(0);

impl Entry for Recalled {
    extern "sysv64" fn enter(_id: u64, _mtd: u64) -> u64 {
        COUNT.fetch_add(1, Ordering::SeqCst);
        Mtd::empty().bits()
    }
}

static TURNS: AtomicU64 = AtomicU64::new(0);

extern "sysv64" fn turns(_utcb: u64) -> ! {
    loop {
        TURNS.fetch_add(1, Ordering::SeqCst);
        core::hint::spin_loop();
    }
}

/// A base for events in the own object space, with the recall portal there.
fn recall_base(d: &mut Domain, cpu: u16) -> core::result::Result<u32, Failure> {
    let base = sysroot::selector::alloc_range(5)?;
    let events = d.serve::<Recalled>(cpu, 0)?;
    let base = u32::try_from(base.0).map_err(|_| Failure::Skip("selectors"))?;
    d.route(base, &[RECALL], events, Mtd::empty(), 0)?;
    d.keep(Selector(u64::from(base) + RECALL));
    COUNT.store(0, Ordering::SeqCst);
    Ok(base)
}

fn a_recall_is_an_event() -> Outcome {
    for cpu in core::iter::once(process::start().cpu).chain(other_cpu()) {
        let mut d = own();
        let base = recall_base(&mut d, cpu)?;
        let thread = ok!(d.thread(cpu, base, turns));
        ok!(d.start(thread, crate::runner::priority() - 1));
        time::sleep_ms(5);
        for n in 1..=5 {
            ok!(syscall::recall(thread));
            eventually!(COUNT.load(Ordering::SeqCst) == n);
        }
        let before = TURNS.load(Ordering::SeqCst);
        eventually!(TURNS.load(Ordering::SeqCst) > before);
    }
    Ok(())
}

extern "sysv64" fn waits(_utcb: u64) -> ! {
    let bell: Cap<Semaphore> = Cap::new(Selector(BELL.load(Ordering::SeqCst)));
    let seen = match bell.down() {
        Ok(_) => 1,
        Err(status) => 0xe000 | u64::from(status.number()),
    };
    SEEN.store(seen, Ordering::SeqCst);
    super::never(0)
}

fn a_recall_ends_no_wait() -> Outcome {
    let mut d = own();
    let cpu = process::start().cpu;
    let base = recall_base(&mut d, cpu)?;
    let bell = ok!(d.semaphore(0));
    BELL.store(bell.raw(), Ordering::SeqCst);
    SEEN.store(0, Ordering::SeqCst);
    let thread = ok!(d.thread(cpu, base, waits));
    ok!(d.start(thread, crate::runner::priority() + 1));
    ok!(syscall::recall(thread));
    time::sleep_ms(2);
    same!(SEEN.load(Ordering::SeqCst), 0);
    ok!(bell.up());
    eventually!(SEEN.load(Ordering::SeqCst) == 1);
    same!(COUNT.load(Ordering::SeqCst), 1);
    Ok(())
}
