use super::largest_order;

#[test]
fn ranges_are_aligned_in_both_spaces() {
    assert_eq!(largest_order(0x10_0000, 0, 0x2_0000), 17);
    assert_eq!(largest_order(0x10_0000, 0, 0x2_ffff), 17);
    assert_eq!(largest_order(0x10_0200, 0x200, 0x1_0000), 9);
    assert_eq!(largest_order(0x10_0001, 1, 100), 0);
    assert_eq!(largest_order(0, 0, 1), 0);
    assert_eq!(largest_order(0, 0, u64::MAX), 62);
}
