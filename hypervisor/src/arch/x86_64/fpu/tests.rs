use super::{component, consistent, select};

#[test]
fn only_what_is_wanted_is_switched() {
    assert_eq!(select(3), 3);
    assert_eq!(select(7), 7);
    assert_eq!(select(0x6_02e7), 0x2e7);
    assert_eq!(select(0x1f), 7);
    assert_eq!(select(0x207), 0x207);
    // Half of AVX-512 is none.
    assert_eq!(select(0x67), 7);
    // AVX-512 needs AVX.
    assert_eq!(select(0xe3), 3);
}

#[test]
fn xcr0_rules() {
    for good in [1, 3, 7, 0xe7, 0x2e7, 0x201] {
        assert!(consistent(good));
    }
    for bad in [0, 2, 5, 6, 0x27, 0x67, 0xe3] {
        assert!(!consistent(bad));
    }
    assert_eq!(component::AVX512, 0xe0);
}
