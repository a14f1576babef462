//! Every packed word of the ABI survives the way to the kernel and back.
#![allow(clippy::unwrap_used, reason = "tests")]

use core::mem::{align_of, offset_of, size_of};

use ipc::cap::{Held, MemRights, ObjectType, Range, Rights, Space};
use ipc::event::Exit;
use ipc::exit::{ControlRegister, Exception, Io};
use ipc::info::Info;
use ipc::state::{Inject, InjectKind, State};
use ipc::status::Status;
use ipc::syscall::{Call, Number};
use ipc::utcb::{ITEMS, Message, Utcb, WORDS, Window};

#[test]
fn numbers_are_dense_and_reversible() {
    for (n, (call, ..)) in Call::ALL.iter().enumerate() {
        assert_eq!(usize::from(call.number()), n);
        assert_eq!(Call::from_number(call.number()), Some(*call));
    }
    for (n, (status, ..)) in Status::ALL.iter().enumerate() {
        assert_eq!(usize::from(status.number()), n);
    }
    for (n, (exit, ..)) in Exit::ALL.iter().enumerate() {
        assert_eq!(usize::from(exit.number()), n);
    }
    assert_eq!(Call::from_number(u8::try_from(Call::ALL.len()).unwrap()), None);
    assert!(u64::try_from(Exit::ALL.len()).unwrap() <= ipc::event::VCPU_EVENTS);
}

#[test]
fn status_register() {
    assert_eq!(Status::from_register(0), Ok(()));
    assert_eq!(Status::from_register(8), Err(Status::Quota));
    assert_eq!(Status::from_register(200), Err(Status::NotSupported));
    assert_eq!(Status::from_register(u64::MAX), Err(Status::NotSupported));
}

#[test]
fn number_word() {
    let n = Number::new(Call::CreateEc).flags(3).cpu(0xabcd).selector(0xdead_beef);
    assert_eq!(n.call(), Some(Call::CreateEc));
    assert_eq!((n.get_flags(), n.get_cpu(), n.get_selector()), (3, 0xabcd, 0xdead_beef));
    assert_eq!(Number(0xff).call(), None);
}

#[test]
fn range_word() {
    let r = Range::memory(18, MemRights::RW).include_self().write_combining();
    assert_eq!((r.space(), r.order(), r.rights()), (Some(Space::Memory), 18, 3));
    assert!(r.is_include_self() && r.is_write_combining() && !r.is_translate());
    let r = Range::object(Rights::FULL).translate();
    assert_eq!((r.space(), r.order(), r.rights()), (Some(Space::Object), 0, 0x1f));
    assert!(r.is_translate());
    assert_eq!(Range(3).space(), None);
    for order in 0..64 {
        assert_eq!(Range::port(order).order(), order);
        assert_eq!(Range::port(order).0 & !Range::VALID, 0);
    }
}

#[test]
fn held_word() {
    let held = Held::new(ObjectType::Sm, 5, 9);
    assert_eq!((held.object(), held.rights(), held.order()), (Some(ObjectType::Sm), 5, 9));
}

#[test]
fn message_is_capped() {
    assert_eq!((Message::new(3, 2).words(), Message::new(3, 2).items()), (3, 2));
    assert_eq!(Message(u64::MAX).words(), WORDS);
    assert_eq!(Message(u64::MAX).items(), ITEMS);
    assert_eq!(Message::new(usize::MAX, usize::MAX).words(), WORDS);
}

#[test]
fn window_must_be_open_and_aligned() {
    assert_eq!(Window::CLOSED.get(), None);
    assert_eq!(Window::open(0x40, 6).get(), Some((0x40, 6)));
    assert_eq!(Window::open(0x41, 6).get(), None);
    assert_eq!(Window { base: 0, order: 0x180 }.get(), None);
}

#[test]
fn injection_word() {
    assert!(!Inject::NONE.is_valid());
    let i = Inject::interrupt(0x31).with_interrupt_window();
    assert_eq!((i.vector(), i.kind(), i.error()), (0x31, Some(InjectKind::Interrupt), None));
    assert!(i.is_valid() && i.wants_interrupt_window() && !i.wants_nmi_window());
    assert_eq!(i.event(), Inject::interrupt(0x31));
    let e = Inject::exception(13, Some(0xffff_0000));
    assert_eq!(
        (e.vector(), e.kind(), e.error()),
        (13, Some(InjectKind::Exception), Some(0xffff_0000))
    );
    assert_eq!(Inject::nmi().with_nmi_window().kind(), Some(InjectKind::Nmi));
}

#[test]
fn qualifications() {
    for size in [1, 2, 4] {
        for flags in 0..8u8 {
            let io = Io {
                port: 0x3f8 + u16::from(flags),
                size,
                input: flags & 1 != 0,
                string: flags & 2 != 0,
                rep: flags & 4 != 0,
                address_size: 8,
            };
            assert_eq!(Io::from_word(io.to_word()), io);
        }
    }
    for error in [None, Some(0), Some(u32::MAX)] {
        let e = Exception { vector: 14, error };
        assert_eq!(Exception::from_word(e.to_word()), e);
    }
    let c = ControlRegister { register: 8, write: true, gpr: 15 };
    assert_eq!(ControlRegister::from_word(c.to_word()), c);
}

#[test]
fn layouts() {
    assert_eq!((size_of::<Utcb>(), align_of::<Utcb>()), (4096, 4096));
    assert_eq!(offset_of!(Utcb, windows), 0);
    assert_eq!(offset_of!(Utcb, user), 48);
    assert_eq!(offset_of!(Utcb, state), 128);
    assert_eq!(offset_of!(Utcb, items), 768);
    assert_eq!(offset_of!(Utcb, words), 1792);
    assert_eq!(offset_of!(State, rip), 128);
    assert_eq!(offset_of!(State, cs), 176);
    assert_eq!(offset_of!(State, cr0), 336);
    assert_eq!(size_of::<Info>(), 4096);
}

#[test]
fn module_names() {
    let module = ipc::info::Module { base: 0, size: 0, name: *b"0123456789abcdef0123456789abcdef" };
    assert_eq!(module.name().len(), 32);
    let module = ipc::info::Module { name: [0xff; 32], ..module };
    assert_eq!(module.name(), "");
}
