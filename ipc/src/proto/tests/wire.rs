use heapless::{String, Vec};

use crate::proto::wire::{Body, Error, MAX_BODY, Wire, encode, length_prefix};
use crate::utcb::WORDS;

message! {
    /// Every kind of field.
    pub struct All {
        /// Number.
        pub a: u64,
        /// Text.
        pub b: String<20>,
        /// List.
        pub c: Vec<u16, 5>,
        /// Option.
        pub d: Option<i32>,
        /// Flag.
        pub e: bool,
        /// Enum.
        pub f: Choice,
    }
}

message! {
    /// An enum.
    pub enum Choice {
        /// One.
        One,
        /// Two.
        Two,
    }
}

fn largest() -> All {
    All {
        a: u64::MAX,
        b: String::try_from("abcdefghijklmnopqrst").unwrap(),
        c: Vec::from_slice(&[u16::MAX; 5]).unwrap(),
        d: Some(i32::MIN),
        e: true,
        f: Choice::Two,
    }
}

#[test]
fn values_survive_the_words() {
    let mut words = [u64::MAX; WORDS - 1];
    let used = encode(&largest(), &mut words).unwrap();
    assert_eq!(Body::copy(&words[..used]).decode::<All>(), Ok(largest()));
}

#[test]
fn the_declared_maximum_is_what_the_largest_value_takes() {
    let mut words = [0; WORDS - 1];
    let used = encode(&largest(), &mut words).unwrap();
    assert_eq!(used, All::MAX.div_ceil(8));
    assert_eq!(All::MAX, 10 + 21 + 16 + 6 + 1 + 1);
}

#[test]
fn unused_bytes_of_the_last_word_are_zero() {
    let mut words = [u64::MAX; 4];
    assert_eq!(encode(&7u8, &mut words), Ok(1));
    assert_eq!(words[0], 7);
    assert_eq!(words[1], u64::MAX);
}

#[test]
fn what_does_not_fit_is_refused() {
    assert_eq!(encode(&largest(), &mut [0; 2]), Err(Error));
}

#[test]
fn every_truncation_is_refused_or_decodes_without_panic() {
    let mut words = [0; WORDS - 1];
    let used = encode(&largest(), &mut words).unwrap();
    for n in 0..used {
        assert_eq!(Body::copy(&words[..n]).decode::<All>(), Err(Error));
    }
}

#[test]
fn length_prefixes() {
    assert_eq!([0, 1, 127, 128, 16383, 16384].map(length_prefix), [1, 1, 1, 2, 2, 3]);
    assert_eq!(MAX_BODY, 2296);
}
