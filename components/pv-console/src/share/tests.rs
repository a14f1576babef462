use super::{BYTES, PERIOD_MS, Shares};

#[test]
fn who_floods_waits_for_the_next_period_and_others_do_not() {
    let mut shares = Shares::default();
    assert_eq!(shares.left(100, 0), BYTES);
    shares.charge(0, BYTES - 1);
    assert_eq!((shares.left(101, 0), shares.deadline()), (1, None));
    shares.charge(0, 1);
    assert_eq!((shares.left(102, 0), shares.deadline()), (0, Some(100 + PERIOD_MS)));
    assert_eq!(shares.left(102, 1), BYTES);
    assert_eq!(shares.left(100 + PERIOD_MS, 0), BYTES);
    assert_eq!(shares.deadline(), None);
}
