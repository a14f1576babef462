use super::{component, consistent, select};

/// Ends of components as on a processor with AVX-512, PKRU and AMX.
fn end(component: u32) -> u32 {
    match component {
        2 => 832,
        5 => 1152,
        6 => 1664,
        7 => 2688,
        9 => 2696,
        17 => 2752,
        18 => 10944,
        _ => 0,
    }
}

#[test]
fn only_what_fits_and_is_wanted_is_switched() {
    assert_eq!(select(3, end), 3);
    assert_eq!(select(7, end), 7);
    assert_eq!(select(0x6_02e7, end), 0x2e7);
    assert_eq!(select(0x1f, end), 7);
    assert_eq!(select(0x207, end), 0x207);
    // Half of AVX-512 is none.
    assert_eq!(select(0x67, end), 7);
    // AVX-512 needs AVX.
    assert_eq!(select(0xe3, end), 3);
    assert_eq!(select(0x2e7, |_| 4097), 3);
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
