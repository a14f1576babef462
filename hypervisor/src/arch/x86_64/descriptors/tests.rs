//! Descriptors, taken apart as the processor does it.

use super::{Descriptors, IO_BITMAP_OFFSET, KERNEL_CODE, STAR_SYSRET, TASK_STATE, TSS_LIMIT, gate};
use crate::arch::layout::{in_window, window};
use crate::arch::regs::{USER_CS, USER_SS};

#[test]
fn the_task_state_segment_covers_bitmap_and_terminator() {
    let at = |offset| in_window(3, offset);
    let Descriptors { gdt, tss } = Descriptors::new(3);
    let (low, high) = (gdt[usize::from(TASK_STATE / 8)], gdt[usize::from(TASK_STATE / 8) + 1]);
    let base = low >> 16 & 0xff_ffff | (low >> 56) << 24 | high << 32;
    let limit = low & 0xffff | (low >> 48 & 0xf) << 16;
    assert_eq!(base, at(window::TSS));
    assert_eq!((limit, low >> 40 & 0xff), (TSS_LIMIT, 0x89));
    assert_eq!(base + u64::from(IO_BITMAP_OFFSET), at(window::IO_BITMAP));
    assert_eq!(limit, u64::from(IO_BITMAP_OFFSET) + 65536 / 8);
    assert!({ tss.iomap_base } > TSS_LIMIT as u16, "no ports until some are granted");
    let (rsp, ist) = (tss.privilege_stack_table, tss.interrupt_stack_table);
    assert_eq!(rsp[0].as_u64(), at(window::STACK_TOP));
    for (stack, (_, end)) in ist.iter().zip(window::IST) {
        assert_eq!(stack.as_u64(), at(end));
    }
}

#[test]
fn selectors_are_what_syscall_and_sysret_derive() {
    let Descriptors { gdt, .. } = Descriptors::new(0);
    let segment = |selector: u16| gdt[usize::from(selector / 8)];
    let [user_code, user_data] = [STAR_SYSRET + 16, STAR_SYSRET + 8];
    assert_eq!((u64::from(user_code), u64::from(user_data)), (USER_CS, USER_SS));
    // Code is 64-bit; the privilege level is in bits 45 and 46.
    for (selector, level) in [(KERNEL_CODE, 0), (user_code, 3)] {
        assert_eq!(segment(selector) >> 53 & 1, 1);
        assert_eq!(segment(selector) >> 45 & 3, level);
    }
    assert_eq!(segment(user_data) >> 45 & 3, 3);
}

#[test]
fn gates_lead_to_their_stubs() {
    let stub = 0xffff_ffff_8012_3456;
    for vector in 0..=255 {
        let [low, high] = gate(vector, stub);
        assert_eq!(low & 0xffff | (low >> 48) << 16 | high << 32, stub);
        assert_eq!(low >> 16 & 0xffff, KERNEL_CODE.into());
        assert_eq!(low >> 40 & 0x9f, 0x8e, "present interrupt gate");
        let ring = if vector == 3 || vector == 4 { 3 } else { 0 };
        assert_eq!(low >> 45 & 3, ring);
        let ist = [(2, 1), (8, 2), (18, 3)].into_iter().find(|(v, _)| *v == vector);
        assert_eq!(low >> 32 & 7, ist.map_or(0, |(_, ist)| ist));
    }
}
