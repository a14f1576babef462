//! Interrupts and exceptions, as the entry paths hand them over.

use crate::arch::entry::KernelFrame;
use crate::arch::{self, percpu};
use crate::num::low8;
use crate::{interrupt, ipc, log, sched};

/// An interrupt or exception arrived while user code ran; its registers are saved.
#[unsafe(no_mangle)]
extern "sysv64" fn portico_trap() {
    let cpu = percpu::this();
    let Some(ec) = cpu.sched.current.get() else { return };
    let vector = low8(ec.regs.vector.get());
    if vector < 32 {
        ipc::event(cpu, ec, vector);
    } else {
        interrupt::handle(cpu, vector);
    }
    sched::finish(cpu);
}

/// The current execution context has flags.
#[unsafe(no_mangle)]
extern "sysv64" fn portico_settle() {
    sched::settle(percpu::this());
}

/// An exception in kernel mode: a defect of the kernel, or of the machine.
#[unsafe(no_mangle)]
extern "sysv64" fn portico_kernel_fault(frame: *const KernelFrame) -> ! {
    // SAFETY: the stub passes the frame that the processor pushed.
    let frame = unsafe { &*frame };
    let KernelFrame { vector, error, rip, cs, rflags, rsp, ss, .. } = frame;
    log::emergency(format_args!("PANIC: exception {vector}, error {error:#x}"));
    log::emergency(format_args!("  rip {rip:#018x} cs {cs:#x} rflags {rflags:#x}"));
    log::emergency(format_args!("  rsp {rsp:#018x} ss {ss:#x} cr2 {:#x}", arch::tlb::cr2()));
    for (name, value) in KernelFrame::NAMES.iter().zip(frame.registers) {
        log::emergency(format_args!("  {name:3} {value:#018x}"));
    }
    // An entry path that faulted has what was interrupted here.
    arch::entry::stack_from(*rsp, 4, |[a, b]| {
        log::emergency(format_args!("  stack {a:#018x} {b:#018x}"));
    });
    log::stop(frame.rbp())
}
