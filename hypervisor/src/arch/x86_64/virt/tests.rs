use std::boxed::Box;
use std::ptr::NonNull;
use std::vec::Vec;

use core::cell::UnsafeCell;
use ipc::state::{Activity, Inject, InjectKind, Mtd, Segment, State};

use super::allow::{self, Limits, Mode};
use super::tag::{Renewed, Tag, Tags};
use super::{Guest, Platform, Vendor};
use crate::mem::paging::Format;
use crate::mem::pool::Page;

#[repr(C, align(4096))]
struct Memory([u8; 6 * 4096]);

/// Zeroed pages for ever; on the host nothing looks at physical addresses.
fn pages() -> NonNull<Page> {
    let memory = Box::leak(Box::new(Memory([0; 6 * 4096])));
    NonNull::from(memory).cast()
}

const VENDORS: [Vendor; 2] = [Vendor::Svm, Vendor::Vmx];

fn platform(vendor: Vendor) -> &'static Platform {
    let caps = super::vmx::tests::caps();
    // SAFETY: the pages are fresh and large enough.
    Box::leak(Box::new(unsafe { Platform::new(vendor, caps, pages()) }))
}

fn guest(vendor: Vendor) -> Guest {
    // SAFETY: the pages are fresh; the guest never runs.
    unsafe { Guest::new(platform(vendor), [pages(), pages()], 0x1000) }
}

fn stored(guest: &Guest) -> State {
    let mut state = State::new();
    guest.store(Mtd::all(), UnsafeCell::from_mut(&mut state));
    state
}

/// A state in 64-bit mode.
fn long_mode() -> State {
    let mut s = stored(&guest(Vendor::Svm));
    s.cr0 = 0x8005_0033;
    s.cr3 = 0x10_0000;
    s.cr4 = 0x620;
    s.efer = 0xd01;
    s.rflags = 0x202;
    s.rip = 0xffff_ffff_8100_0000;
    s.cs = Segment { selector: 0x10, attributes: 0xa09b, limit: u32::MAX, base: 0 };
    s.ss = Segment { selector: 0x18, attributes: 0xc093, limit: u32::MAX, base: 0 };
    s
}

const LIMITS: Limits = Limits {
    cr4: 0x77_0fff & !(1 << 13),
    efer: 0xd01,
    xcr0: 0x2e7,
    physical: 48,
    linear: 48,
    tsc_aux: true,
};

#[test]
fn a_new_guest_is_in_its_reset_state() {
    for vendor in VENDORS {
        let s = stored(&guest(vendor));
        assert_eq!((s.rip, s.rflags, s.cs.selector), (0xfff0, 2, 0xf000));
        assert_eq!((s.cs.base, s.cs.limit, s.cs.attributes), (0xffff_0000, 0xffff, 0x9b));
        assert_eq!((s.cr0, s.cr3, s.cr4, s.efer), (0x10, 0, 0, 0));
        assert_eq!((s.dr6, s.dr7, s.xcr0), (0xffff_0ff0, 0x400, 1));
        assert_eq!(s.pat, 0x0007_0406_0007_0406);
        assert_eq!((s.inject, s.activity, s.deadline), (0, 0, 0));
        assert_eq!(guest(vendor).refused(), Mtd::empty());
        let format = match vendor {
            Vendor::Svm => Format::Npt,
            Vendor::Vmx => Format::Ept,
        };
        assert_eq!(platform(vendor).nested().0, format);
    }
}

#[test]
fn every_group_survives_the_way_in_and_out() {
    for vendor in VENDORS {
        let mut s = long_mode();
        (s.rax, s.rcx, s.rdx, s.rbx) = (1, 2, 3, 4);
        (s.rsp, s.rbp, s.rsi, s.rdi) = (5, 6, 7, 8);
        (s.r8, s.r9, s.r10, s.r11) = (9, 10, 11, 12);
        (s.r12, s.r13, s.r14, s.r15) = (13, 14, 15, 16);
        (s.cr2, s.cr8, s.dr6, s.dr7) = (0x1234, 9, 0xffff_4ff1, 0x401);
        s.dr = [0x1000, 0x2000, 3, 4];
        s.pat = 0x0605_0401_0007_0406;
        (s.star, s.lstar, s.cstar) = (0x23_0010_0000_0000, 0xffff_ffff_8000_1000, 0x4000);
        (s.fmask, s.kernel_gs_base) = (0x4_7700, 0xffff_8880_0000_0000);
        (s.sysenter_cs, s.sysenter_esp, s.sysenter_eip) = (0x10, 0x2000, 0x3000);
        (s.tsc_offset, s.deadline) = (u64::MAX - 5, 77);
        s.ds = Segment { selector: 0x2b, attributes: 0xc0f3, limit: u32::MAX, base: 0 };
        s.fs = Segment { selector: 0, attributes: 0xc093, limit: u32::MAX, base: 0x7fff_0000_0000 };
        s.gs = Segment { selector: 0, attributes: 0, limit: 0, base: 0xffff_8880_0000_0000 };
        s.tr = Segment {
            selector: 0x40,
            attributes: 0x8b,
            limit: 0x206f,
            base: 0xffff_fe00_0000_1000,
        };
        s.gdtr = Segment { selector: 0, attributes: 0, limit: 0x7f, base: 0xffff_fe00_0000_0000 };
        s.inject = Inject::exception(14, Some(6)).with_interrupt_window().0;
        s.activity = (Activity::INTERRUPT_SHADOW | Activity::NMI_BLOCKED).bits();
        let mut g = guest(vendor);
        g.load(Mtd::all(), &UnsafeCell::new(s.clone()));
        assert_eq!(g.refused(), Mtd::empty());
        assert_eq!(stored(&g), s);
        // Group by group as well, each leaving the others alone.
        let mut g = guest(vendor);
        for (name, mtd) in Mtd::all().iter_names() {
            let before = stored(&g);
            let merged = if Mtd::CR.union(Mtd::EFER_PAT).union(Mtd::CS_SS).contains(mtd) {
                Mtd::CR | Mtd::EFER_PAT | Mtd::CS_SS
            } else {
                mtd
            };
            g.load(merged, &UnsafeCell::new(s.clone()));
            assert_eq!(g.refused(), Mtd::empty(), "{name}");
            let mut expected = before;
            guest_of(vendor, &s).store(merged, UnsafeCell::from_mut(&mut expected));
            // RIP and ACTIVITY both have a say about the shadow.
            expected.activity = stored(&g).activity;
            assert_eq!(stored(&g), expected, "{name}");
        }
    }
}

fn guest_of(vendor: Vendor, state: &State) -> Guest {
    let mut g = guest(vendor);
    g.load(Mtd::all(), &UnsafeCell::new(state.clone()));
    g
}

#[test]
fn store_touches_only_what_is_asked_for() {
    for vendor in VENDORS {
        let g = guest_of(vendor, &long_mode());
        let mut s = State::new();
        g.store(Mtd::RIP, UnsafeCell::from_mut(&mut s));
        assert_eq!((s.rip, s.rflags), (0xffff_ffff_8100_0000, 0x202));
        s.rip = 0;
        s.rflags = 0;
        assert_eq!(s, State::new());
    }
}

#[test]
fn values_that_no_processor_has_are_refused_and_change_nothing() {
    for vendor in VENDORS {
        type Spoil = fn(&mut State);
        let cases: Vec<(Mtd, Spoil)> = std::vec![
            (Mtd::RIP, |s| s.rflags |= 1 << 15),
            (Mtd::RIP, |s| s.rflags |= 1 << 32),
            (Mtd::RIP, |s| s.rflags |= 1 << 17),
            (Mtd::CS_SS, |s| s.cs.attributes |= 1 << 14),
            (Mtd::DATA_SEG, |s| s.fs.base = 1 << 60),
            (Mtd::DATA_SEG, |s| s.gs.base = 1 << 60),
            (Mtd::SYS_SEG, |s| s.tr.base = 1 << 60),
            (Mtd::SYS_SEG, |s| s.idtr.base = 1 << 60),
            (Mtd::SYS_SEG, |s| s.gdtr.limit = 0x1_0000),
            (Mtd::CR, |s| s.cr0 |= 1 << 32),
            (Mtd::CR, |s| s.cr0 |= 1 << 6),
            (Mtd::CR, |s| s.cr0 &= !1),
            (Mtd::CR, |s| s.cr3 |= 1 << 62),
            (Mtd::CR, |s| s.cr4 |= 1 << 13),
            (Mtd::CR, |s| s.cr4 |= 1 << 63),
            (Mtd::CR, |s| s.cr4 &= !(1 << 5)),
            (Mtd::CR8, |s| s.cr8 = 16),
            (Mtd::DR, |s| s.dr6 |= 1 << 32),
            (Mtd::DR, |s| s.dr7 |= 1 << 32),
            (Mtd::EFER_PAT, |s| s.efer |= 1 << 12),
            (Mtd::EFER_PAT, |s| s.pat = 2),
            (Mtd::EFER_PAT, |s| s.pat = 3 << 56),
            (Mtd::EFER_PAT, |s| s.pat = 8),
            (Mtd::SYSCALL_MSR, |s| s.lstar = 1 << 60),
            (Mtd::SYSCALL_MSR, |s| s.kernel_gs_base = 1 << 60),
            (Mtd::SYSENTER_MSR, |s| s.sysenter_eip = 1 << 60),
            (Mtd::XSTATE, |s| s.xcr0 = 0),
            (Mtd::XSTATE, |s| s.xcr0 = 5),
            (Mtd::XSTATE, |s| s.xcr0 |= 1 << 17),
            (Mtd::XSTATE, |s| s.xss = 1 << 11),
            (Mtd::INJECT, |s| s.inject = 1 << 14),
            (Mtd::ACTIVITY, |s| s.activity = 1 << 3),
            (Mtd::TSC, |s| s.tsc_aux = 1 << 32),
        ];
        for (mtd, spoil) in cases {
            let mut g = guest_of(vendor, &long_mode());
            let before = stored(&g);
            let mut bad = before.clone();
            spoil(&mut bad);
            assert_ne!(bad, before);
            g.load(mtd, &UnsafeCell::new(bad.clone()));
            assert_eq!(g.refused(), mtd, "{bad:?}");
            assert_eq!(stored(&g), before);
            // The rest of a message is taken.
            let mut g = guest(vendor);
            g.load(Mtd::all(), &UnsafeCell::new(bad.clone()));
            assert!(g.refused().contains(mtd));
            assert_eq!(stored(&g).r15, bad.r15);
        }
    }
}

#[test]
fn what_is_not_virtual_is_set_right() {
    for vendor in VENDORS {
        let mut g = guest(vendor);
        let mut s = stored(&g);
        s.cr0 = 0x6000_0000;
        s.rflags = 0;
        s.dr6 = 0;
        s.dr7 = 0;
        s.fmask = u64::MAX;
        g.load(Mtd::CR | Mtd::RIP | Mtd::DR | Mtd::SYSCALL_MSR, &UnsafeCell::new(s.clone()));
        assert_eq!(g.refused(), Mtd::empty());
        let s = stored(&g);
        assert_eq!((s.cr0, s.rflags, s.dr6, s.dr7), (0x10, 2, 0xffff_0ff0, 0x400));
        assert_eq!(s.fmask, 0xffff_ffff);
    }
}

#[test]
fn long_mode_follows_from_the_registers() {
    for vendor in VENDORS {
        let mut g = guest(vendor);
        let mut s = long_mode();
        s.efer = 0x901;
        g.load(Mtd::all(), &UnsafeCell::new(s.clone()));
        assert_eq!(stored(&g).efer, 0xd01);
        s.cr0 &= !(1 << 31);
        s.efer = 0xd01;
        g.load(Mtd::CR, &UnsafeCell::new(s.clone()));
        assert_eq!(stored(&g).efer, 0x901);
    }
}

#[test]
fn moving_rip_ends_the_interrupt_shadow() {
    for vendor in VENDORS {
        let mut g = guest_of(vendor, &long_mode());
        let mut s = stored(&g);
        s.activity = Activity::INTERRUPT_SHADOW.bits();
        g.load(Mtd::ACTIVITY, &UnsafeCell::new(s.clone()));
        g.load(Mtd::RIP, &UnsafeCell::new(s.clone()));
        assert_eq!(stored(&g).activity, Activity::INTERRUPT_SHADOW.bits());
        s.rip += 1;
        g.load(Mtd::RIP, &UnsafeCell::new(s.clone()));
        assert_eq!(stored(&g).activity, 0);
        s.rip += 1;
        g.load(Mtd::RIP | Mtd::ACTIVITY, &UnsafeCell::new(s.clone()));
        assert_eq!(stored(&g).activity, Activity::INTERRUPT_SHADOW.bits());
    }
}

#[test]
fn an_event_or_a_recall_ends_a_halt() {
    for vendor in VENDORS {
        let mut g = guest(vendor);
        let mut s = State::new();
        s.activity = Activity::HALTED.bits();
        g.load(Mtd::ACTIVITY, &UnsafeCell::new(s.clone()));
        assert!(g.waits().0);
        s.inject = Inject::NONE.with_interrupt_window().0;
        g.load(Mtd::INJECT, &UnsafeCell::new(s.clone()));
        assert!(g.waits().0);
        s.inject = Inject::interrupt(0x30).0;
        g.load(Mtd::INJECT | Mtd::ACTIVITY, &UnsafeCell::new(s.clone()));
        assert!(!g.waits().0);
        // It is still to be delivered.
        g.load(Mtd::ACTIVITY, &UnsafeCell::new(s.clone()));
        assert!(!g.waits().0);
        s.inject = 0;
        g.load(Mtd::INJECT | Mtd::ACTIVITY, &UnsafeCell::new(s.clone()));
        assert!(g.waits().0);
        g.stop(false);
        assert!(!g.waits().0);
    }
}

#[test]
fn the_privilege_level_travels_in_ss() {
    for vendor in VENDORS {
        for level in 0..4 {
            let mut s = long_mode();
            s.ss.attributes |= level << 5;
            assert_eq!(stored(&guest_of(vendor, &s)).ss.attributes, s.ss.attributes);
        }
    }
}

#[test]
fn canonical_addresses() {
    for good in [0, 0x7fff_ffff_ffff, 0xffff_8000_0000_0000, u64::MAX] {
        assert!(LIMITS.canonical(good));
    }
    for bad in [0x8000_0000_0000, 0xffff_7fff_ffff_ffff, 1 << 63] {
        assert!(!LIMITS.canonical(bad));
    }
    let wide = Limits { linear: 57, ..LIMITS };
    assert!(wide.canonical(0x8000_0000_0000) && !wide.canonical(1 << 56));
}

#[test]
fn memory_types() {
    for byte in 0..=255_u64 {
        let allowed = matches!(byte, 0 | 1 | 4..=7);
        for place in 0..8 {
            assert_eq!(allow::pat(byte << (8 * place)), allowed);
        }
    }
}

#[test]
fn modes() {
    let real = Mode { cr0: 0x10, cr4: 0, efer: 0, rflags: 2, cs_attributes: 0x9b };
    assert_eq!(real.settle(), Some(0));
    let paged = Mode { cr0: 0x8001_0011, ..real };
    assert_eq!(paged.settle(), Some(0));
    let long = Mode { cr4: 0x20, efer: 0x100, cs_attributes: 0xa09b, ..paged };
    assert_eq!(long.settle(), Some(0x500));
    assert_eq!(Mode { cr4: 0, ..long }.settle(), None);
    assert_eq!(Mode { cs_attributes: 0xe09b, ..long }.settle(), None);
    assert_eq!(Mode { cs_attributes: 0xc09b, ..long }.settle(), Some(0x500));
    assert_eq!(Mode { rflags: 0x2_0002, ..long }.settle(), None);
    assert_eq!(Mode { rflags: 0x2_0002, ..paged }.settle(), Some(0));
    assert_eq!(Mode { rflags: 0x2_0002, ..real }.settle(), None);
    assert_eq!(Mode { cr0: 0x8000_0010, ..paged }.settle(), None);
    assert_eq!(Mode { cr4: 1 << 17, ..paged }.settle(), None);
    assert_eq!(Mode { cr4: 0x2_0020, ..long }.settle(), Some(0x500));
    assert_eq!(Mode { cr4: 0x80_0020, ..long }.settle(), Some(0x500));
    assert_eq!(Mode { cr4: 0x80_0020, cr0: 0x8000_0011, ..long }.settle(), None);
    // Enabled, not active: LMA is the processor's.
    assert_eq!(Mode { efer: 0x500, ..real }.settle(), Some(0x100));
}

#[test]
fn events() {
    const KINDS: [(u8, Option<InjectKind>); 8] = [
        (0, Some(InjectKind::Interrupt)),
        (1, None),
        (2, Some(InjectKind::Nmi)),
        (3, Some(InjectKind::Exception)),
        (4, Some(InjectKind::SoftwareInterrupt)),
        (5, None),
        (6, None),
        (7, None),
    ];
    let real = Mode { cr0: 0x10, cr4: 0, efer: 0, rflags: 0x202, cs_attributes: 0x9b };
    let protected = Mode { cr0: 0x11, ..real };
    let long = Mode { cr0: 0x8000_0011, efer: 0x500, cs_attributes: 0xa09b, ..real };
    let none = Activity::empty();
    for (number, kind) in KINDS {
        let plain = Inject(Inject::VALID | u64::from(number) << 8 | 2);
        assert_eq!(plain.kind(), kind);
        let expected = match kind {
            None => false,
            Some(InjectKind::Exception) => false,
            Some(_) => true,
        };
        assert_eq!(allow::event(plain, &protected, none), expected, "{number}");
    }
    let closed = Mode { rflags: 2, ..protected };
    let interrupt = Inject::interrupt(0x20);
    assert!(!allow::event(interrupt, &closed, none));
    assert!(!allow::event(interrupt, &protected, Activity::INTERRUPT_SHADOW));
    assert!(allow::event(interrupt, &protected, Activity::NMI_BLOCKED));
    assert!(allow::event(Inject::nmi(), &closed, none));
    assert!(!allow::event(Inject::nmi(), &closed, Activity::NMI_BLOCKED));
    assert!(!allow::event(Inject::nmi(), &closed, Activity::INTERRUPT_SHADOW));
    assert!(!allow::event(Inject(Inject::nmi().0 | 1), &protected, none));
    for vector in 0..=255_u8 {
        let with = matches!(vector, 8 | 10 | 11 | 12 | 13 | 14 | 17 | 21);
        let exists = vector < 32 && vector != 2;
        let code = Inject::exception(vector, Some(0));
        let bare = Inject::exception(vector, None);
        assert_eq!(allow::event(code, &protected, none), exists && with);
        assert_eq!(allow::event(bare, &protected, none), exists && !with);
        assert_eq!(allow::event(bare, &real, none), exists);
        assert!(!allow::event(code, &real, none));
        let exists = exists && vector != 4 && vector != 5;
        assert_eq!(allow::event(bare, &long, none), exists && !with);
    }
}

#[test]
fn a_tag_is_good_for_one_cpu_one_generation_and_one_state_of_memory() {
    let mut a = Tags::new(0x1000, 4);
    let mut b = Tags::new(0x2000, 4);
    let (mut x, mut y) = (Tag::default(), Tag::default());
    assert!(a.flush);
    assert_eq!(a.renew(&mut x, 1), Renewed::Moved);
    a.flush = false;
    assert_eq!(x.value, 1);
    assert_eq!(a.renew(&mut x, 1), Renewed::Kept);
    assert_eq!(a.renew(&mut y, 1), Renewed::Moved);
    assert_eq!(y.value, 2);
    // Its memory changed.
    assert_eq!(a.renew(&mut x, 2), Renewed::New);
    assert_eq!(x.value, 3);
    assert!(!a.flush);
    // No tag is left: all entries go, and older tags are worth nothing.
    assert_eq!(a.renew(&mut x, 3), Renewed::New);
    assert!(a.flush);
    assert_eq!(x.value, 1);
    assert_eq!(a.renew(&mut y, 1), Renewed::New);
    assert_eq!(y.value, 2);
    // Elsewhere and back: what it left behind under its old tag is not used again.
    assert_eq!(b.renew(&mut y, 1), Renewed::Moved);
    assert_eq!(a.renew(&mut y, 1), Renewed::Moved);
    assert_eq!(y.value, 3);
}

#[test]
fn no_two_guests_share_a_tag_between_flushes() {
    let mut tags = Tags::new(1, 16);
    let mut live: Vec<Tag> = Vec::new();
    for round in 0..200_u64 {
        let mut tag = Tag::default();
        let _ = tags.renew(&mut tag, round);
        assert!(tag.value > 0 && tag.value < 16);
        if tags.flush {
            live.clear();
            tags.flush = false;
        }
        assert!(live.iter().all(|other| other.value != tag.value));
        live.push(tag);
    }
}
