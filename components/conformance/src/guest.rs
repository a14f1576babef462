//! A guest of a few instructions, and a monitor that answers its exits.

use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ipc::cap::{MemRights, Range, Rights, Selector};
use ipc::event::Exit;
use ipc::state::{Activity, Inject, Mtd, State};
use ipc::status::{Result, Status};
use sysroot::arch::Entry;
use sysroot::cap::{Cap, Ec, Guest, Vcpu};
use sysroot::memory::Pages;
use sysroot::num::page;
use sysroot::{process, selector, syscall, thread, utcb};

use crate::arch::guest_code;
use crate::check::Failure;
use crate::domain::{Domain, own};

/// Where the guest sees its code.
pub(crate) const CODE: u64 = 0x1000;
/// Where it leaves its results in the data page.
pub(crate) const RESULT: usize = 0x800;

/// Everything an exit carries here.
const ALL: Mtd = Mtd::GPR_ACDB
    .union(Mtd::GPR_BSD)
    .union(Mtd::RIP)
    .union(Mtd::CS_SS)
    .union(Mtd::CR)
    .union(Mtd::EFER_PAT)
    .union(Mtd::QUAL)
    .union(Mtd::INJECT)
    .union(Mtd::ACTIVITY)
    .union(Mtd::DEADLINE);

/// log2 of the selectors of a machine's portals.
const EVENTS_ORDER: u8 = 5;

/// What a test wants of the monitor, and what it saw.
pub(crate) struct Monitor {
    /// Where the guest starts.
    pub entry: AtomicU64,
    /// Injection word for the next reply; 0 for none.
    pub inject: AtomicU64,
    /// Deadline for the next reply; 0 for none.
    pub deadline: AtomicU64,
    /// Value for CR0 at the start; 0 leaves it.
    pub cr0: AtomicU64,
    /// 1: a recall lets a halted guest go on.
    pub resume: AtomicU64,
    /// Exits so far.
    pub count: AtomicUsize,
    /// Number, first two words of the qualification, and instruction length of the first of them.
    pub trace: [[AtomicU64; 4]; 16],
    /// State at the start: rip, base of cs, cr0, rflags.
    pub reset: [AtomicU64; 4],
}

/// The one monitor.
pub(crate) static MONITOR: Monitor = Monitor {
    entry: AtomicU64::new(0),
    inject: AtomicU64::new(0),
    deadline: AtomicU64::new(0),
    cr0: AtomicU64::new(0),
    resume: AtomicU64::new(0),
    count: AtomicUsize::new(0),
    trace: [const { [const { AtomicU64::new(0) }; 4] }; 16],
    reset: [const { AtomicU64::new(0) }; 4],
};

impl Monitor {
    fn clear(&self) {
        for word in [&self.entry, &self.inject, &self.deadline, &self.cr0, &self.resume] {
            word.store(0, Ordering::SeqCst);
        }
        self.count.store(0, Ordering::SeqCst);
        for word in self.trace.iter().flatten().chain(&self.reset) {
            word.store(0, Ordering::SeqCst);
        }
    }

    /// The `n`-th exit: number and two words of qualification.
    pub(crate) fn exit(&self, n: usize) -> (Option<Exit>, u64, u64) {
        let [number, a, b, _] = self.words(n);
        let number = u8::try_from(number).ok().and_then(Exit::from_number);
        (number.filter(|_| n < self.count.load(Ordering::SeqCst)), a, b)
    }

    /// Length of the instruction that the `n`-th exit names.
    pub(crate) fn length(&self, n: usize) -> u64 {
        let [.., length] = self.words(n);
        length
    }

    fn words(&self, n: usize) -> [u64; 4] {
        let words = self.trace.get(n);
        words.map_or([0xff; 4], |words| words.each_ref().map(|w| w.load(Ordering::SeqCst)))
    }

    fn note(&self, id: u64, state: &State) {
        let n = self.count.fetch_add(1, Ordering::SeqCst);
        if let Some(words) = self.trace.get(n) {
            let [a, b, _] = state.qualification;
            for (to, from) in words.iter().zip([id, a, b, state.instruction_length]) {
                to.store(from, Ordering::SeqCst);
            }
        }
    }

    fn answer(&self, exit: Option<Exit>, state: &mut State) -> Mtd {
        let mut mtd = Mtd::RIP | Mtd::GPR_ACDB | Mtd::ACTIVITY;
        state.activity = 0;
        match exit {
            Some(Exit::Startup) => {
                let seen = [state.rip, state.cs.base, state.cr0, state.rflags];
                for (to, from) in self.reset.iter().zip(seen) {
                    to.store(from, Ordering::SeqCst);
                }
                state.cs.selector = 0;
                state.cs.base = 0;
                state.rip = self.entry.load(Ordering::SeqCst);
                let cr0 = self.cr0.load(Ordering::SeqCst);
                if cr0 != 0 {
                    state.cr0 = cr0;
                    mtd |= Mtd::CR;
                }
                mtd |= Mtd::CS_SS;
            }
            Some(Exit::Cpuid) => {
                state.rax = 0x1111_1111;
                state.rbx = 0x2222_2222;
                state.rip += 2;
            }
            // OUT with an immediate port is two bytes long, IN with DX one.
            Some(Exit::Io) => {
                let io = ipc::exit::Io::from_word(state.qualification[0]);
                state.rip += if io.input { 1 } else { 2 };
                if io.input {
                    state.rax = 0xbeef;
                }
            }
            Some(Exit::MsrRead) => {
                state.rax = 0xaaaa;
                state.rdx = 0xbbbb;
                state.rip += 2;
            }
            Some(Exit::MsrWrite) => state.rip += 2,
            Some(Exit::Hlt) => {
                state.rip += 1;
                state.activity = Activity::HALTED.bits();
            }
            Some(Exit::Recall) if self.resume.load(Ordering::SeqCst) != 0 => {}
            _ => state.activity = Activity::HALTED.bits(),
        }
        let inject = self.inject.swap(0, Ordering::SeqCst);
        if inject != 0 {
            state.inject = Inject(inject).0;
            mtd |= Mtd::INJECT;
        }
        let deadline = self.deadline.swap(0, Ordering::SeqCst);
        if deadline != 0 {
            state.deadline = deadline;
            mtd |= Mtd::DEADLINE;
        }
        mtd
    }
}

/// The entry behind all exit portals; the id is the exit's number.
struct Exits;

impl Entry for Exits {
    extern "sysv64" fn enter(id: u64, _mtd: u64) -> u64 {
        let exit = u8::try_from(id).ok().and_then(Exit::from_number);
        utcb::with_state(|state| {
            MONITOR.note(id, state);
            MONITOR.answer(exit, state).bits()
        })
    }
}

/// A machine with one vCPU.
pub(crate) struct Machine {
    /// Its objects.
    pub domain: Domain,
    /// Its nested page table.
    pub space: Cap<Guest>,
    /// Its CPU.
    pub vcpu: Cap<Vcpu>,
    /// Its data page.
    pub data: Pages,
    handler: Cap<Ec>,
    events: Selector,
}

impl Machine {
    /// A machine that runs the program at an offset of the code page, as soon as it is started.
    pub(crate) fn new(cpu: u16, program: u64) -> core::result::Result<Self, Failure> {
        MONITOR.clear();
        MONITOR.entry.store(CODE + program, Ordering::SeqCst);
        let mut domain = own();
        let at = selector::alloc()?;
        let space = match syscall::create_guest(at, process::pd()) {
            Err(Status::NotSupported) => return Err(Failure::Skip("the machine runs no guests")),
            other => other?,
        };
        domain.keep(at);
        let data = Pages::new(0)?;
        let code = Range::memory(0, MemRights::READ | MemRights::EXECUTE);
        // SAFETY: the guest gets a page of its own, and one that it cannot write.
        unsafe {
            syscall::delegate_memory(space, Range::memory(0, MemRights::RW), data.page(), 0)?;
            syscall::delegate_memory(space, code, page(guest_code()), page(CODE))?;
        }
        let handler = domain.handler(cpu)?;
        let events = selector::alloc_range(EVENTS_ORDER)?;
        for (exit, ..) in Exit::ALL {
            Self::portal::<Exits>(handler, events, *exit, ALL)?;
        }
        let at = selector::alloc()?;
        let base = u32::try_from(events.0).map_err(|_| Failure::Skip("selectors"))?;
        let vcpu = syscall::create_vcpu(at, process::pd(), space, cpu, base)?;
        domain.keep(at);
        Ok(Self { domain, space, vcpu, data, handler, events })
    }

    fn portal<E: Entry>(ec: Cap<Ec>, events: Selector, exit: Exit, mtd: Mtd) -> Result<Selector> {
        let number = exit.number().into();
        let at = events.offset(number);
        let entry = sysroot::arch::portal_entry::<E>();
        // SAFETY: an entry of this program on the handler's own stack.
        let portal = unsafe { syscall::create_pt(at, process::pd(), ec, entry, number) }?;
        syscall::set_portal(portal, number, mtd).map(|()| at)
    }

    /// Puts another portal in the place of an exit's.
    pub(crate) fn answer<E: Entry>(&self, exit: Exit, mtd: Mtd) -> Result {
        let at = self.events.offset(exit.number().into());
        syscall::revoke_object(at, Rights::FULL, true)?;
        Self::portal::<E>(self.handler, self.events, exit, mtd).map(drop)
    }

    /// Lets it run; at a higher priority than this thread, so on the same CPU it runs at once.
    pub(crate) fn start(&mut self) -> Result {
        let at = selector::alloc()?;
        let priority = crate::runner::priority() + 1;
        syscall::create_sc(at, process::pd(), self.vcpu, priority, thread::default_budget())?;
        self.domain.keep(at);
        Ok(())
    }

    /// A 32-bit word of the data page.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        self.place(offset).map_or(0, |w| w.load(Ordering::SeqCst))
    }

    /// Sets a 32-bit word of the data page.
    pub(crate) fn set_word(&self, offset: usize, value: u32) {
        if let Some(word) = self.place(offset) {
            word.store(value, Ordering::SeqCst);
        }
    }

    fn place(&self, offset: usize) -> Option<&'static core::sync::atomic::AtomicU32> {
        // SAFETY: atomic, and valid with any content.
        let words: &[core::sync::atomic::AtomicU32; 1024] = unsafe { self.data.view() }?;
        words.get(offset / 4)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It stops before its portals go.
        self.domain.delete(self.vcpu.selector());
        selector::delete_range(self.events, EVENTS_ORDER);
    }
}
