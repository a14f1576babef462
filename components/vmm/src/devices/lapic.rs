//! Local APIC in xAPIC and x2APIC mode (Intel SDM vol. 3, chapter 10).

pub mod timer;

use crate::devices::interrupt::{Address, Inbox, Message, from_icr};
use crate::num::{high32, low8, low32, u64_of};
use timer::{Mode, Timer};

/// `IA32_APIC_BASE`: bootstrap processor.
const BASE_BSP: u64 = 1 << 8;
/// `IA32_APIC_BASE`: x2APIC mode.
const BASE_EXTD: u64 = 1 << 10;
/// `IA32_APIC_BASE`: enabled.
const BASE_ENABLE: u64 = 1 << 11;
/// Register page, where it stays.
const BASE_ADDRESS: u64 = crate::boot::layout::LAPIC;

/// Version 0x14 with six LVT entries.
const VERSION: u32 = 0x14 | 5 << 16;
const SVR_ENABLE: u32 = 1 << 8;
const SVR_WRITABLE: u32 = 0x1ff;
const LVT_MASKED: u32 = 1 << 16;
const ESR_SEND_ILLEGAL_VECTOR: u32 = 1 << 5;
const ESR_ILLEGAL_REGISTER: u32 = 1 << 7;
const ICR_WRITABLE: u64 = 0xffff_ffff_000c_cfff;

// Register numbers: MSR - 0x800, or MMIO offset / 16.
const ID: u32 = 0x02;
const VERSION_REGISTER: u32 = 0x03;
const TPR: u32 = 0x08;
const APR: u32 = 0x09;
const PPR: u32 = 0x0a;
const EOI: u32 = 0x0b;
const RRD: u32 = 0x0c;
const LDR: u32 = 0x0d;
const DFR: u32 = 0x0e;
const SVR: u32 = 0x0f;
const ISR: u32 = 0x10;
const TMR: u32 = 0x18;
const IRR: u32 = 0x20;
const ESR: u32 = 0x28;
const ICR: u32 = 0x30;
const ICR_HIGH: u32 = 0x31;
const LVT_TIMER: u32 = 0x32;
const LVT_ERROR: u32 = 0x37;
const INITIAL_COUNT: u32 = 0x38;
const CURRENT_COUNT: u32 = 0x39;
const DIVIDE: u32 = 0x3e;
const SELF_IPI: u32 = 0x3f;

/// The guest did what raises #GP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault;

/// What a register write asks of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nothing.
    None,
    /// The interrupt in service is done; the vector goes to the I/O APIC if it was level-triggered.
    Eoi {
        /// Level-triggered vector.
        level: Option<u8>,
    },
    /// A message has to be delivered.
    Send(Message),
}

/// A set of 256 vectors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Vectors([u32; 8]);

impl Vectors {
    fn word(&self, index: u32) -> u32 {
        self.0.get(index as usize).copied().unwrap_or(0)
    }

    fn set(&mut self, vector: u8, on: bool) {
        if let Some(word) = self.0.get_mut(usize::from(vector / 32)) {
            let bit = 1 << (vector % 32);
            *word = if on { *word | bit } else { *word & !bit };
        }
    }

    fn has(&self, vector: u8) -> bool {
        self.word(u32::from(vector / 32)) >> (vector % 32) & 1 != 0
    }

    fn is_empty(&self) -> bool {
        self.0 == [0; 8]
    }

    fn highest(&self) -> Option<u8> {
        let (index, word) = self.0.iter().enumerate().rev().find(|(_, word)| **word != 0)?;
        Some(low8(u64_of(index) * 32 + 31 - u64::from(word.leading_zeros())))
    }
}

/// A vCPU's local APIC.
#[derive(Clone, Debug)]
pub struct Lapic {
    id: u32,
    base: u64,
    tpr: u8,
    irr: Vectors,
    isr: Vectors,
    tmr: Vectors,
    svr: u32,
    esr: u32,
    esr_pending: u32,
    ldr: u32,
    dfr: u32,
    icr: u64,
    lvt: [u32; 6],
    timer: Timer,
}

impl Lapic {
    /// After reset; the one with id 0 is the bootstrap processor's.
    #[must_use]
    pub fn new(id: u32, tsc_khz: u64) -> Self {
        let bsp = if id == 0 { BASE_BSP } else { 0 };
        let mut lapic = Self {
            id,
            base: BASE_ADDRESS | BASE_ENABLE | bsp,
            tpr: 0,
            irr: Vectors::default(),
            isr: Vectors::default(),
            tmr: Vectors::default(),
            svr: 0,
            esr: 0,
            esr_pending: 0,
            ldr: 0,
            dfr: 0,
            icr: 0,
            lvt: [0; 6],
            timer: Timer::new(tsc_khz),
        };
        lapic.init();
        lapic
    }

    /// INIT: everything but `IA32_APIC_BASE` and the id (Intel SDM vol. 3, 10.4.7.3).
    pub fn init(&mut self) {
        (self.irr, self.isr, self.tmr) =
            (Vectors::default(), Vectors::default(), Vectors::default());
        (self.tpr, self.svr, self.esr, self.esr_pending) = (0, 0xff, 0, 0);
        (self.ldr, self.dfr, self.icr) = (0, u32::MAX, 0);
        self.lvt = [LVT_MASKED; 6];
        self.timer.set_mode(Mode::OneShot);
        self.timer.stop();
        self.timer.set_divide(0);
        self.update_ldr();
    }

    /// Switches to x2APIC mode, as firmware of many machines does.
    pub fn enable_x2apic(&mut self) {
        self.base |= BASE_EXTD;
        self.update_ldr();
    }

    /// How it can be addressed.
    #[must_use]
    pub fn address(&self) -> Address {
        Address {
            id: self.id,
            enabled: self.base & BASE_ENABLE != 0,
            x2apic: self.is_x2apic(),
            software_enabled: self.svr & SVR_ENABLE != 0,
            ldr: self.ldr,
            cluster: self.dfr >> 28 == 0,
        }
    }

    /// Whether it is in x2APIC mode: registers are MSRs.
    #[must_use]
    pub fn is_x2apic(&self) -> bool {
        self.base & (BASE_EXTD | BASE_ENABLE) == BASE_EXTD | BASE_ENABLE
    }

    /// Whether its registers are memory-mapped.
    #[must_use]
    pub fn is_xapic(&self) -> bool {
        self.base & (BASE_EXTD | BASE_ENABLE) == BASE_ENABLE
    }

    /// In x2APIC mode the logical id follows from the id (Intel SDM vol. 3, 10.12.10.2).
    fn update_ldr(&mut self) {
        if self.is_x2apic() {
            self.ldr = (self.id >> 4) << 16 | 1 << (self.id & 0xf);
        }
    }

    /// `IA32_APIC_BASE`.
    #[must_use]
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Writes `IA32_APIC_BASE` (transitions: Intel SDM vol. 3, 10.12.5). The page cannot move.
    ///
    /// # Errors
    /// The transition is illegal, or the page would move.
    pub fn set_base(&mut self, value: u64) -> Result<(), Fault> {
        const MODE: u64 = BASE_EXTD | BASE_ENABLE;
        if value & !(MODE | BASE_BSP) != BASE_ADDRESS {
            return Err(Fault);
        }
        match (self.base & MODE, value & MODE) {
            (_, BASE_EXTD) | (MODE, BASE_ENABLE) | (0, MODE) => return Err(Fault),
            (from, 0) if from != 0 => {
                self.base &= !MODE;
                self.init();
            }
            (_, to) => self.base = self.base & !MODE | to,
        }
        self.update_ldr();
        Ok(())
    }

    /// A device or another APIC sent a vector.
    pub fn accept(&mut self, vector: u8, level: bool) {
        self.irr.set(vector, true);
        self.tmr.set(vector, level);
    }

    /// Takes over the vectors that wait in the inbox.
    pub fn take_vectors(&mut self, inbox: &Inbox) {
        for (index, edge, level) in inbox.take_vectors() {
            if let (Some(irr), Some(tmr)) = (self.irr.0.get_mut(index), self.tmr.0.get_mut(index)) {
                *irr |= edge | level;
                *tmr = *tmr & !edge | level;
            }
        }
    }

    /// Raises the timer's interrupt if it is due.
    pub fn tick(&mut self, now: u64) {
        if self.timer.fired(now) {
            self.raise_lvt(LVT_TIMER);
        }
    }

    /// Host TSC at which [`Self::tick`] has something to do; 0 for never.
    #[must_use]
    pub fn deadline(&self) -> u64 {
        if self.lvt(LVT_TIMER) & LVT_MASKED == 0 { self.timer.deadline() } else { 0 }
    }

    /// Reads `IA32_TSC_DEADLINE`.
    #[must_use]
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline()
    }

    /// Writes `IA32_TSC_DEADLINE`.
    pub fn set_tsc_deadline(&mut self, deadline: u64, tsc_offset: u64, now: u64) {
        self.timer.set_tsc_deadline(deadline, tsc_offset);
        self.tick(now);
    }

    /// The guest's TSC moved against the host's.
    pub fn set_tsc_offset(&mut self, tsc_offset: u64) {
        self.timer.set_offset(tsc_offset);
    }

    fn lvt(&self, register: u32) -> u32 {
        self.lvt.get((register - LVT_TIMER) as usize).copied().unwrap_or(LVT_MASKED)
    }

    fn raise_lvt(&mut self, register: u32) {
        let lvt = self.lvt(register);
        if lvt & LVT_MASKED == 0 && lvt >> 8 & 7 == 0 {
            self.accept(low8(u64::from(lvt)), false);
        }
    }

    fn error(&mut self, bit: u32) {
        self.esr_pending |= bit;
        self.raise_lvt(LVT_ERROR);
    }

    /// Task priority, which `CR8` mirrors.
    #[must_use]
    pub fn tpr(&self) -> u8 {
        self.tpr
    }

    /// Sets the task priority.
    pub fn set_tpr(&mut self, tpr: u8) {
        self.tpr = tpr;
    }

    /// Processor priority (Intel SDM vol. 3, 10.8.3.1).
    #[must_use]
    pub fn ppr(&self) -> u8 {
        let service = self.isr.highest().unwrap_or(0) & 0xf0;
        if self.tpr & 0xf0 >= service { self.tpr } else { service }
    }

    /// Whether any vector is requested, deliverable or not.
    #[inline]
    #[must_use]
    pub fn has_requests(&self) -> bool {
        !self.irr.is_empty()
    }

    /// The vector to deliver next, if the processor's priority allows one.
    #[must_use]
    pub fn pending(&self) -> Option<u8> {
        if self.svr & SVR_ENABLE == 0 || self.base & BASE_ENABLE == 0 {
            return None;
        }
        self.irr.highest().filter(|vector| vector & 0xf0 > self.ppr() & 0xf0)
    }

    /// The processor takes the vector: it goes from requested to in service.
    pub fn acknowledge(&mut self, vector: u8) {
        self.irr.set(vector, false);
        self.isr.set(vector, true);
    }

    /// End of interrupt: the vector, if it was level-triggered.
    pub fn eoi(&mut self) -> Option<u8> {
        let vector = self.isr.highest()?;
        self.isr.set(vector, false);
        self.tmr.has(vector).then_some(vector)
    }

    /// Whether the next EOI can do without an exit: no other vector waits for it, and no I/O APIC.
    #[must_use]
    pub fn eoi_is_silent(&self) -> bool {
        self.irr.is_empty() && self.isr.highest().is_some_and(|vector| !self.tmr.has(vector))
    }

    /// Reads a register in x2APIC mode.
    ///
    /// # Errors
    /// The mode is off, or there is no such register to read.
    pub fn read_msr(&mut self, register: u32, now: u64) -> Result<u64, Fault> {
        if !self.is_x2apic() {
            return Err(Fault);
        }
        match register {
            ID => Ok(u64::from(self.id)),
            ICR => Ok(self.icr),
            EOI | DFR | ICR_HIGH | SELF_IPI | APR | RRD => Err(Fault),
            other => self.read(other, now).map(u64::from).ok_or(Fault),
        }
    }

    /// Writes a register in x2APIC mode.
    ///
    /// # Errors
    /// The mode is off, there is no such register to write, or a reserved bit is set.
    pub fn write_msr(&mut self, register: u32, value: u64, now: u64) -> Result<Effect, Fault> {
        if !self.is_x2apic() {
            return Err(Fault);
        }
        if register == ICR {
            return Ok(self.send(value));
        }
        if high32(value) != 0 {
            return Err(Fault);
        }
        match register {
            EOI | ESR if value != 0 => Err(Fault),
            ID | LDR | DFR | ICR_HIGH => Err(Fault),
            SELF_IPI => Ok(self.send(1 << 18 | value & 0xff)),
            other => self.write(other, low32(value), now).ok_or(Fault),
        }
    }

    /// Reads four bytes of the register page.
    pub fn read_mmio(&mut self, offset: u64, now: u64) -> u32 {
        match low32(offset >> 4) {
            ID => self.id << 24,
            register => self.read(register, now).unwrap_or_else(|| {
                self.error(ESR_ILLEGAL_REGISTER);
                0
            }),
        }
    }

    /// Writes four bytes of the register page.
    pub fn write_mmio(&mut self, offset: u64, value: u32, now: u64) -> Effect {
        match low32(offset >> 4) {
            // Fixed, and read-only on current processors.
            ID => Effect::None,
            LDR => {
                self.ldr = value & 0xff00_0000;
                Effect::None
            }
            DFR => {
                self.dfr = value | 0x0fff_ffff;
                Effect::None
            }
            ICR => self.send(self.icr & 0xffff_ffff_0000_0000 | u64::from(value)),
            ICR_HIGH => {
                self.icr = self.icr & 0xffff_ffff | u64::from(value & 0xff00_0000) << 32;
                Effect::None
            }
            SELF_IPI => {
                self.error(ESR_ILLEGAL_REGISTER);
                Effect::None
            }
            register => self.write(register, value, now).unwrap_or_else(|| {
                self.error(ESR_ILLEGAL_REGISTER);
                Effect::None
            }),
        }
    }

    /// Registers that both modes share; `None` for those that do not exist or cannot be read.
    fn read(&self, register: u32, now: u64) -> Option<u32> {
        Some(match register {
            VERSION_REGISTER => VERSION,
            TPR => u32::from(self.tpr),
            PPR | APR => u32::from(self.ppr()),
            LDR => self.ldr,
            DFR => self.dfr,
            SVR => self.svr,
            EOI | RRD => 0,
            ISR..=0x17 => self.isr.word(register - ISR),
            TMR..=0x1f => self.tmr.word(register - TMR),
            IRR..=0x27 => self.irr.word(register - IRR),
            ESR => self.esr,
            ICR => low32(self.icr),
            ICR_HIGH => high32(self.icr),
            LVT_TIMER..=LVT_ERROR => self.lvt(register),
            INITIAL_COUNT => self.timer.initial(),
            CURRENT_COUNT => self.timer.current(now),
            DIVIDE => self.timer.divide(),
            _ => return None,
        })
    }

    /// The same for writes.
    fn write(&mut self, register: u32, value: u32, now: u64) -> Option<Effect> {
        match register {
            TPR => self.tpr = low8(u64::from(value)),
            EOI => return Some(Effect::Eoi { level: self.eoi() }),
            SVR => self.set_svr(value),
            ESR => (self.esr, self.esr_pending) = (self.esr_pending, 0),
            LVT_TIMER..=LVT_ERROR => self.set_lvt(register, value, now),
            INITIAL_COUNT => self.timer.start(value, now),
            DIVIDE => self.timer.set_divide(value),
            _ => return None,
        }
        Some(Effect::None)
    }

    fn set_svr(&mut self, value: u32) {
        self.svr = value & SVR_WRITABLE;
        if self.svr & SVR_ENABLE == 0 {
            for lvt in &mut self.lvt {
                *lvt |= LVT_MASKED;
            }
        }
    }

    fn set_lvt(&mut self, register: u32, value: u32, now: u64) {
        /// Writable bits by entry: timer, thermal, performance, LINT0, LINT1, error.
        const WRITABLE: [u32; 6] = [0x7_00ff, 0x1_07ff, 0x1_07ff, 0x1_a7ff, 0x1_a7ff, 0x1_00ff];
        let index = (register - LVT_TIMER) as usize;
        // An interrupt that fell due under the old entry is delivered, or lost, as that said.
        if register == LVT_TIMER {
            self.tick(now);
            self.timer.set_mode(Mode::from_lvt(value));
        }
        let disabled = if self.svr & SVR_ENABLE == 0 { LVT_MASKED } else { 0 };
        if let (Some(lvt), Some(writable)) = (self.lvt.get_mut(index), WRITABLE.get(index)) {
            *lvt = value & writable | disabled;
        }
    }

    fn send(&mut self, icr: u64) -> Effect {
        self.icr = icr & ICR_WRITABLE;
        let message = from_icr(self.icr, self.id, self.is_x2apic());
        let vectored = self.icr >> 8 & 7 <= 1;
        if vectored && message.vector < 16 {
            self.error(ESR_SEND_ILLEGAL_VECTOR);
            return Effect::None;
        }
        Effect::Send(message)
    }
}

#[cfg(test)]
mod tests;
