use super::{Action, TABLE, lookup};

#[test]
fn sorted_and_disjoint() {
    for pair in TABLE.windows(2) {
        assert!(pair[0].first <= pair[0].last && pair[0].last < pair[1].first, "{pair:x?}");
    }
    for entry in TABLE {
        assert!(!entry.reason.is_empty());
    }
}

#[test]
fn lookups() {
    assert_eq!(lookup(0x6e0).unwrap().action, Action::TscDeadline);
    assert_eq!(lookup(0x80b).unwrap().action, Action::X2Apic);
    assert_eq!(lookup(0xc000_0080).unwrap().action, Action::Efer);
    assert_eq!(lookup(0x4b56_4d04).unwrap().action, Action::KvmEoi);
    assert_eq!(lookup(0x207).unwrap().action, Action::Absent);
    assert!(lookup(0).is_none());
    assert!(lookup(0xdead_beef).is_none());
    assert!(lookup(u32::MAX).is_none());
}
