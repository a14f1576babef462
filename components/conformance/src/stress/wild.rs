//! A domain that calls the kernel with numbers that mean nothing, beside the operators: nobody else
//! may notice.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ipc::cap::{MemRights, Range, Rights, Space};
use ipc::proto::start::layout;
use ipc::status::Result;
use ipc::syscall::{Call, EC_GLOBAL, Number};
use ipc::utcb::{Item, Window};
use sysroot::num::u64_of;
use sysroot::{process, time, utcb};

use super::random::Random;
use crate::domain::Domain;
use crate::tests::Echo;

/// Its own domain, a semaphore and a handler; more is what it makes itself.
const PD: u64 = 600;
const SELECTORS: u64 = 48;
/// Pages of its image, to hand around, and where to.
const IMAGE: u64 = layout::IMAGE.base >> 12;
const ROOM: u64 = layout::GUEST_RAM.base >> 12;
/// Priorities of what it creates are below everything else.
const PRIORITIES: u64 = 8;

static SEED: AtomicU64 = AtomicU64::new(0);
static STOP: AtomicBool = AtomicBool::new(false);
static CALLS: AtomicU64 = AtomicU64::new(0);
/// End of a stack that what it creates may use.
static STACK: AtomicU64 = AtomicU64::new(0);

/// Lets one run on a CPU.
pub(super) fn start(cpu: u16, seed: u64) -> Result<Domain> {
    SEED.store(seed, Ordering::SeqCst);
    STOP.store(false, Ordering::SeqCst);
    let mut domain = Domain::new(120)?;
    domain.give(domain.pd, PD, Rights::FULL)?;
    let sm = domain.semaphore(0)?;
    domain.give(sm, PD + 1, Rights::FULL)?;
    let handler = domain.handler(cpu)?;
    domain.give(handler, PD + 2, Rights::FULL)?;
    STACK.store(domain.stack_end(), Ordering::SeqCst);
    domain.spawn(cpu, crate::runner::priority(), wild)?;
    Ok(domain)
}

/// Stops them.
pub(super) fn stop() {
    STOP.store(true, Ordering::SeqCst);
}

/// How many calls they made.
pub(super) fn calls() -> u64 {
    CALLS.load(Ordering::SeqCst)
}

extern "sysv64" fn wild(_utcb: u64) -> ! {
    let mut random = Random::new(SEED.fetch_add(1, Ordering::SeqCst));
    while !STOP.load(Ordering::Relaxed) {
        let (number, [rdi, rsi, rdx, r10, r8]) = call(&mut random);
        if random.below(16) == 0 {
            let mut message = [0; 3];
            message.fill_with(|| selector(&mut random));
            let [base, offset, range] = message;
            utcb::set_window(Space::Object, Window::open(PD + 32, random.order(4)));
            utcb::with_message(|area| {
                for item in area.items.iter_mut().take(4) {
                    *item =
                        Item { range: self::range(&mut random, range).0, base, offset, badge: 0 };
                }
            });
        }
        // SAFETY: what it can reach is its own domain; it starts nothing but what is harmless, and
        // takes nothing from under its own code and stack.
        _ = unsafe { sysroot::arch::syscall(number.0, rdi, rsi, rdx, r10, r8) };
        CALLS.fetch_add(1, Ordering::Relaxed);
    }
    process::park()
}

fn selector(random: &mut Random) -> u64 {
    match random.below(16) {
        0 => random.next(),
        1 => random.below(0x1_1000),
        2..5 => PD,
        _ => PD + random.below(SELECTORS),
    }
}

fn range(random: &mut Random, any: u64) -> Range {
    let rights = random.byte(u8::MAX);
    match random.below(8) {
        0 => Range(any),
        1 => Range::port(random.order(17)),
        2..4 => Range::memory(random.order(19), MemRights::from_bits_retain(rights & 5)),
        4 => Range::object(Rights::from_bits_retain(rights)),
        5 => Range::object(Rights::FULL).translate(),
        _ => Range::object(Rights::FULL),
    }
}

fn call(random: &mut Random) -> (Number, [u64; 5]) {
    let all = u64_of(Call::ALL.len());
    let call = match random.below(all + 1) {
        n if n == u64::from(Call::Reply.number()) => u64::from(Call::Up.number()),
        n => n,
    };
    let mut a: [u64; 5] = core::array::from_fn(|_| selector(random));
    let mut number = Number(call);
    if random.below(3) == 0 {
        number = number.flags(random.byte(4));
    }
    if random.below(4) == 0 {
        number = number.cpu(random.order(9).into());
    }
    if random.below(4) == 0 {
        number = number.selector(0x200);
    }
    let [rdi, rsi, rdx, r10, r8] = &mut a;
    match number.call() {
        Some(Call::Call) => *rsi = random.below(5) << 16 | random.below(300),
        // Never for ever.
        Some(Call::Down) => *rsi = time::now() + random.below(100_000),
        Some(Call::CreatePd) => *rdx = random.below(60),
        Some(Call::CreateEc) => {
            *rsi = PD;
            *rdx = (ROOM + 0x1_0000 + random.below(64)) << 12;
            *r10 = STACK.load(Ordering::Relaxed);
            *r8 = u64_of(crate::tests::never as *const () as usize);
            number = number.flags(EC_GLOBAL * random.byte(2)).cpu(utcb::cpu());
        }
        Some(Call::CreateSc) => {
            *r10 = random.below(PRIORITIES);
            *r8 = 1 + random.below(1 << 24);
        }
        Some(Call::CreatePt) => *r10 = sysroot::arch::portal_entry::<Echo>(),
        Some(Call::Delegate) => {
            let any = *r8;
            *rsi = range(random, any).0;
            match Range(*rsi).space() {
                Some(Space::Memory) => {
                    *rdx = IMAGE + random.below(64);
                    *r10 = ROOM + random.below(1024);
                    *r8 = 0;
                }
                Some(Space::Port) => *r10 = *rdx,
                _ => *r8 = if random.below(2) == 0 { 0 } else { *r8 },
            }
        }
        Some(Call::Revoke | Call::Query) => {
            let any = *r8;
            let mut what = range(random, any);
            // Its own code, stack and heap stay.
            if what.space() == Some(Space::Memory) || what.space().is_none() {
                what = Range::memory(what.order().min(9), MemRights::RW);
                *rsi = ROOM + random.below(1024);
            }
            *rdi = if random.below(2) == 0 { what.0 } else { what.include_self().0 };
        }
        Some(Call::CtrlPd) => *rsi = random.below(16),
        _ => {}
    }
    (number, a)
}
