//! The local APIC's timer (Intel SDM vol. 3, 10.5.4).
//!
//! Everything is kept in host TSC ticks; the kernel wakes the vCPU when the deadline passes.

/// Frequency of the counter in kHz: one tick per nanosecond.
pub const BUS_KHZ: u64 = 1_000_000;

/// Mode field of the timer's LVT entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Count down once.
    OneShot,
    /// Count down again and again.
    Periodic,
    /// Fire when the TSC reaches the deadline MSR.
    TscDeadline,
}

impl Mode {
    /// From the LVT entry; a reserved mode counts as one-shot.
    #[must_use]
    pub const fn from_lvt(lvt: u32) -> Self {
        match lvt >> 17 & 3 {
            1 => Self::Periodic,
            2 => Self::TscDeadline,
            _ => Self::OneShot,
        }
    }
}

/// Timer state.
#[derive(Clone, Copy, Debug)]
pub struct Timer {
    tsc_khz: u64,
    mode: Mode,
    divide: u32,
    initial: u32,
    /// Host TSC at which it fires; 0 when it is stopped.
    deadline: u64,
    /// What the guest wrote into `IA32_TSC_DEADLINE`, in guest TSC ticks; 0 when disarmed.
    guest_deadline: u64,
}

impl Timer {
    /// A stopped timer.
    #[must_use]
    pub const fn new(tsc_khz: u64) -> Self {
        let tsc_khz = if tsc_khz == 0 { 1 } else { tsc_khz };
        Self { tsc_khz, mode: Mode::OneShot, divide: 0, initial: 0, deadline: 0, guest_deadline: 0 }
    }

    /// Host TSC at which the timer fires; 0 when it is stopped.
    #[must_use]
    pub const fn deadline(&self) -> u64 {
        self.deadline
    }

    /// A write to the LVT entry. A change to or from deadline mode stops the timer.
    pub fn set_mode(&mut self, mode: Mode) {
        if (mode == Mode::TscDeadline) != (self.mode == Mode::TscDeadline) {
            self.stop();
        }
        self.mode = mode;
    }

    /// Stops it.
    pub fn stop(&mut self) {
        (self.initial, self.deadline, self.guest_deadline) = (0, 0, 0);
    }

    /// The divide configuration register.
    #[must_use]
    pub const fn divide(&self) -> u32 {
        self.divide
    }

    /// Writes the divide configuration; it applies from the next start on.
    pub fn set_divide(&mut self, value: u32) {
        self.divide = value & 0b1011;
    }

    /// Bits 0, 1 and 3 of the divide configuration: 0b111 divides by 1, 0 by 2, 1 by 4, ...
    const fn shift(&self) -> u32 {
        ((self.divide & 3 | self.divide >> 1 & 4) + 1) & 7
    }

    fn ticks_to_tsc(&self, count: u32) -> u64 {
        let ticks = u128::from(count) << self.shift();
        let tsc = ticks * u128::from(self.tsc_khz) / u128::from(BUS_KHZ);
        u64::try_from(tsc).unwrap_or(u64::MAX).max(1)
    }

    /// The initial count register.
    #[must_use]
    pub const fn initial(&self) -> u32 {
        self.initial
    }

    /// Writes the initial count: starts the timer, or stops it with 0.
    pub fn start(&mut self, count: u32, now: u64) {
        if self.mode == Mode::TscDeadline {
            return;
        }
        self.initial = count;
        self.deadline = if count == 0 { 0 } else { now.saturating_add(self.ticks_to_tsc(count)) };
    }

    /// The current count register.
    #[must_use]
    pub fn current(&self, now: u64) -> u32 {
        if self.mode == Mode::TscDeadline || self.deadline <= now {
            return 0;
        }
        let ticks =
            u128::from(self.deadline - now) * u128::from(BUS_KHZ) / u128::from(self.tsc_khz);
        u32::try_from(ticks >> self.shift()).unwrap_or(u32::MAX).min(self.initial)
    }

    /// Reads `IA32_TSC_DEADLINE`.
    #[must_use]
    pub const fn tsc_deadline(&self) -> u64 {
        self.guest_deadline
    }

    /// Writes `IA32_TSC_DEADLINE`; it counts in deadline mode only. `offset` is what is added to
    /// the host's TSC to give the guest's.
    pub fn set_tsc_deadline(&mut self, deadline: u64, offset: u64) {
        if self.mode != Mode::TscDeadline {
            return;
        }
        self.guest_deadline = deadline;
        self.set_offset(offset);
    }

    /// Adapts an armed deadline to another TSC offset. A deadline before the host's time began is
    /// long past.
    pub fn set_offset(&mut self, offset: u64) {
        if self.mode == Mode::TscDeadline && self.guest_deadline != 0 {
            let host = self.guest_deadline.wrapping_sub(offset);
            let wrapped = self.guest_deadline < offset && offset < 1 << 63;
            self.deadline = if wrapped { 1 } else { host.max(1) };
        } else if self.mode == Mode::TscDeadline {
            self.deadline = 0;
        }
    }

    /// Whether the timer fired by `now`; then it is stopped or, in periodic mode, armed again.
    pub fn fired(&mut self, now: u64) -> bool {
        if self.deadline == 0 || self.deadline > now {
            return false;
        }
        match self.mode {
            Mode::OneShot => self.deadline = 0,
            Mode::TscDeadline => (self.deadline, self.guest_deadline) = (0, 0),
            Mode::Periodic => {
                // Periods that went by unnoticed are one interrupt.
                let period = self.ticks_to_tsc(self.initial);
                let late = (now - self.deadline) % period;
                self.deadline = now.saturating_add(period - late);
            }
        }
        true
    }
}
