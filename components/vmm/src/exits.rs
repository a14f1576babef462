//! What happens at each exit.

mod memory;
mod msr;
mod port;

use ipc::event::Exit;
use ipc::exit::{ControlRegister, Exception};
use ipc::state::Mtd;

use crate::cpu::{self, CR0_PG, CR4_OSXSAVE, EFER_LMA, EFER_LME, RFLAGS_IF};
use crate::num::{high32, low32};
use crate::policy::cpuid::{Registers, View, is_valid_xcr0};
use crate::report::{GuestFault, Stop};
use crate::vcpu::{EVERYTHING, Handling, Run};

/// All general-purpose registers.
const GPR: Mtd = Mtd::GPR_ACDB.union(Mtd::GPR_BSD).union(Mtd::GPR_R8);
/// What decides whether an event can be delivered.
const EVENTS: Mtd = Mtd::RIP.union(Mtd::INJECT).union(Mtd::ACTIVITY);
/// What executing an instruction takes.
const EXECUTE: Mtd =
    GPR.union(EVENTS).union(Mtd::CS_SS).union(Mtd::DATA_SEG).union(Mtd::CR).union(Mtd::EFER_PAT);
/// KVM's "no such hypercall", as a register.
const ENOSYS: u64 = 1000u64.wrapping_neg();

/// The groups that the portal of an exit transfers. What is rarely needed is fetched.
#[must_use]
pub const fn portal(exit: Exit) -> Mtd {
    match exit {
        Exit::Startup => Mtd::empty(),
        Exit::Cpuid | Exit::Hypercall => Mtd::GPR_ACDB.union(Mtd::RIP),
        Exit::Io | Exit::MsrRead | Exit::MsrWrite => Mtd::GPR_ACDB.union(Mtd::RIP).union(Mtd::QUAL),
        Exit::Hlt => Mtd::RIP.union(Mtd::ACTIVITY),
        Exit::Recall | Exit::Deadline | Exit::InterruptWindow | Exit::NmiWindow => {
            EVENTS.union(Mtd::CR8)
        }
        Exit::CacheControl | Exit::InvalidOpcode | Exit::Rdpmc | Exit::Monitor => Mtd::RIP,
        Exit::Xsetbv => Mtd::GPR_ACDB.union(Mtd::RIP).union(Mtd::CS_SS).union(Mtd::CR),
        // Without what only other instructions than plain stores need.
        Exit::Memory => EXECUTE.difference(Mtd::DATA_SEG).union(Mtd::QUAL),
        Exit::ControlRegister => EXECUTE.union(Mtd::QUAL),
        Exit::Exception => EVENTS.union(Mtd::QUAL),
        Exit::Unknown | Exit::EntryFailed | Exit::Shutdown | Exit::TaskSwitch => Mtd::all(),
    }
}

/// Handles an exit of a running VM. Returns whether events may have come up meanwhile.
pub(crate) fn dispatch(h: &mut Handling<'_, '_>, exit: Exit) -> Result<bool, Stop> {
    let q = h.state.qualification;
    match exit {
        Exit::Cpuid => {
            // Nothing comes up but a single-step trap.
            h.cpuid()?;
            return Ok(h.event.is_valid());
        }
        Exit::Io => h.io()?,
        Exit::MsrRead => h.msr_read(low32(q[0]))?,
        Exit::MsrWrite => h.msr_write(low32(q[0]))?,
        Exit::Hlt => h.hlt()?,
        Exit::Memory => h.memory()?,
        Exit::Deadline => {
            h.tick();
            h.vm.devices().lock().flush();
        }
        Exit::InterruptWindow => h.window_came(false),
        Exit::NmiWindow => h.window_came(true),
        Exit::Recall => {}
        Exit::Exception => h.exception()?,
        Exit::ControlRegister => h.control_register()?,
        Exit::Hypercall => {
            // None is offered, and whoever asks is told so.
            h.state.rax = ENOSYS;
            h.reply |= Mtd::GPR_ACDB;
            h.advance(3)?;
        }
        Exit::Xsetbv => h.xsetbv()?,
        // Caches are coherent with everything that a guest can reach.
        Exit::CacheControl => h.advance(2)?,
        Exit::InvalidOpcode | Exit::Monitor => h.raise_ud()?,
        Exit::Rdpmc => h.raise_gp()?,
        Exit::Shutdown => return Err(GuestFault::TripleFault.into()),
        Exit::TaskSwitch => return Err(GuestFault::TaskSwitch.into()),
        Exit::EntryFailed => return Err(GuestFault::EntryFailed(q).into()),
        Exit::Unknown => return Err(GuestFault::UnknownExit(q).into()),
        Exit::Startup => {}
    }
    Ok(true)
}

impl Handling<'_, '_> {
    fn cpuid(&mut self) -> Result<(), Stop> {
        let (leaf, sub) = (low32(self.state.rax), low32(self.state.rcx));
        if let Some(counted) = self.vm.counted(leaf, sub) {
            return self.cpuid_is(counted);
        }
        // Only leaf 1 shows CR4.
        let osxsave = leaf == 1 && {
            self.need(Mtd::CR)?;
            self.state.cr4 & CR4_OSXSAVE != 0
        };
        let view = View {
            id: self.cpu.index,
            osxsave,
            xcr0: self.cpu.xcr0,
            apic: self.cpu.lapic.address().enabled,
        };
        self.cpuid_is(self.vm.cpuid().read(leaf, sub, &view))
    }

    fn cpuid_is(&mut self, registers: Registers) -> Result<(), Stop> {
        let [a, b, c, d] = registers.map(u64::from);
        (self.state.rax, self.state.rbx, self.state.rcx, self.state.rdx) = (a, b, c, d);
        self.reply |= Mtd::GPR_ACDB;
        self.advance(2)
    }

    fn hlt(&mut self) -> Result<(), Stop> {
        self.advance(1)?;
        self.tick();
        if self.event.is_valid() {
            return Ok(());
        }
        self.cpu.run = Run::Halted;
        self.vm.devices().lock().flush();
        // Application processors end like this when a guest restarts; the first one when it is over.
        if self.state.rflags & RFLAGS_IF == 0 && self.cpu.index == 0 {
            let rip = self.state.rip;
            self.host.log(format_args!("guest halted with interrupts off at {rip:#x}"));
        }
        Ok(())
    }

    /// Lets the local APIC's timer catch up.
    fn tick(&mut self) {
        let now = self.host.tsc();
        self.cpu.lapic.tick(now);
    }

    /// An exception that the kernel intercepted is the guest's all the same.
    fn exception(&mut self) -> Result<(), Stop> {
        const PAGE_FAULT: u8 = 14;
        let [word, address, _] = self.state.qualification;
        let Exception { vector, error } = Exception::from_word(word);
        if vector == PAGE_FAULT {
            self.need(Mtd::CR)?;
            self.state.cr2 = address;
            self.reply |= Mtd::CR;
        }
        self.raise(vector, error)
    }

    fn xsetbv(&mut self) -> Result<(), Stop> {
        let value = u64::from(low32(self.state.rdx)) << 32 | u64::from(low32(self.state.rax));
        let register = low32(self.state.rcx);
        if self.state.cr4 & CR4_OSXSAVE == 0 {
            return self.raise_ud();
        }
        let legal = register == 0 && is_valid_xcr0(value, self.vm.cpuid().xcr0());
        if cpu::cpl(self.state) != 0 || !legal {
            return self.raise_gp();
        }
        self.cpu.xcr0 = value;
        (self.state.xcr0, self.state.xss) = (value, 0);
        self.reply |= Mtd::XSTATE;
        self.advance(3)
    }

    /// MOV to and from control registers, where the processor has them exit.
    fn control_register(&mut self) -> Result<(), Stop> {
        let ControlRegister { register, write, gpr } =
            ControlRegister::from_word(self.state.qualification[0]);
        if !write {
            self.need(Mtd::CR8)?;
            let value = match register {
                0 => self.state.cr0,
                2 => self.state.cr2,
                3 => self.state.cr3,
                4 => self.state.cr4,
                8 => self.state.cr8,
                n => return Err(GuestFault::ControlRegister(n).into()),
            };
            *cpu::gpr_mut(self.state, gpr) = value;
            self.reply |= GPR;
            return self.advance(3);
        }
        let value = cpu::gpr(self.state, gpr);
        match register {
            0 => {
                // What the processor does when paging is switched (Intel SDM vol. 3, 9.8.5).
                let long = value & CR0_PG != 0 && self.state.efer & EFER_LME != 0;
                self.state.efer = self.state.efer & !EFER_LMA | if long { EFER_LMA } else { 0 };
                self.state.cr0 = value;
                self.reply |= Mtd::CR | Mtd::EFER_PAT;
            }
            2 => {
                self.state.cr2 = value;
                self.reply |= Mtd::CR;
            }
            3 => {
                // Bit 63 keeps translations; it is not stored.
                self.state.cr3 = value & !(1 << 63);
                self.reply |= Mtd::CR;
            }
            4 => {
                self.state.cr4 = value;
                self.reply |= Mtd::CR;
            }
            8 if value <= 0xf => {
                self.state.cr8 = value;
                self.cpu.lapic.set_tpr(crate::num::low8(value << 4));
                self.reply |= Mtd::CR8;
            }
            8 => return self.raise_gp(),
            n => return Err(GuestFault::ControlRegister(n).into()),
        }
        self.advance(3)
    }

    /// Puts a 64-bit result into `edx:eax`.
    fn set_edx_eax(&mut self, value: u64) {
        self.state.rax = u64::from(low32(value));
        self.state.rdx = u64::from(high32(value));
        self.reply |= Mtd::GPR_ACDB;
    }

    /// Everything that executing an instruction takes.
    fn need_execute(&mut self) -> Result<(), Stop> {
        self.need(EXECUTE & EVERYTHING)
    }
}
