//! What is joined is what was cut, and nothing else is joined.

use core::ops::ControlFlow;

use proptest::prelude::*;

use super::Joined;
use crate::header::{Checksum, Segmentation, Todo};
use crate::offload::finish;
use crate::offload::tests::packet;

/// The segments that a packet is cut into.
pub(crate) fn cut(v6: bool, options: usize, payload: &[u8], size: u16) -> Vec<Vec<u8>> {
    let (mut frame, mut todo) = packet(v6, options, payload);
    // ACK and PSH.
    frame[tcp(v6) + 13] = 0x18;
    todo.segmentation = Some(Segmentation { v6, size });
    let mut segments = Vec::new();
    finish(&mut frame, todo, 0, &mut |segment| {
        segments.push(segment.to_vec());
        ControlFlow::Continue(())
    })
    .unwrap();
    segments
}

const fn tcp(v6: bool) -> usize {
    14 + if v6 { 40 } else { 20 }
}

fn join(segments: &[Vec<u8>]) -> (Todo, Vec<u8>) {
    let mut joined = Joined::new();
    for segment in segments {
        assert!(joined.take(segment, Todo::default()));
    }
    (joined.finish(), joined.bytes().to_vec())
}

#[test]
fn one_segment_stays_as_it_is() {
    let segments = cut(false, 4, &[7; 100], 200);
    assert_eq!(join(&segments), (Todo::default(), segments[0].clone()));
    let mut joined = Joined::new();
    assert!(joined.is_empty() && joined.take(&segments[0], Todo::default()) && !joined.is_empty());
    joined.clear();
    assert!(joined.is_empty() && joined.bytes().is_empty());
}

#[test]
fn checksums_that_were_left_out_are_not_asked_for() {
    for v6 in [false, true] {
        let mut segments = cut(v6, 0, &[7; 1000], 500);
        let todo = Todo {
            checksum: Some(Checksum { start: tcp(v6) as u16, offset: 16 }),
            segmentation: None,
        };
        for segment in &mut segments {
            segment[tcp(v6) + 17] ^= 1;
        }
        let mut joined = Joined::new();
        assert!(!joined.take(&segments[0], Todo::default()));
        assert!(joined.take(&segments[0], todo) && joined.take(&segments[1], todo));
        assert_eq!(joined.finish().segmentation, Some(Segmentation { v6, size: 500 }));
        let other = Todo { checksum: Some(Checksum { start: 20, offset: 16 }), ..todo };
        assert!(!Joined::new().take(&segments[0], other));
    }
}

/// Each byte of a header makes a difference, but TCP's checksum where it was left out.
#[test]
fn only_segments_of_one_stream_are_joined() {
    for v6 in [false, true] {
        let (tcp, options) = (tcp(v6), 12);
        let segments = cut(v6, options, &[9; 1000], 500);
        let checksum = Some(Checksum { start: tcp as u16, offset: 16 });
        let todo = Todo { checksum, segmentation: None };
        for at in 0..tcp + 20 + options {
            let mut other = segments[1].clone();
            other[at] ^= 0x40;
            let mut joined = Joined::new();
            assert!(joined.take(&segments[0], todo));
            let free = (tcp + 16..tcp + 18).contains(&at);
            assert_eq!(joined.take(&other, todo), free, "byte {at}, v6 {v6}");
        }
    }
}

/// Two that are alike but for a field with a checksum of its own.
#[test]
fn packets_of_another_lifetime_are_another_stream() {
    let segments = cut(false, 0, &[9; 1000], 500);
    let mut other = segments[1].clone();
    let sum = u16::from_be_bytes([other[24], other[25]]);
    other[22] -= 1;
    other[24..26].copy_from_slice(&(sum + 0x100).to_be_bytes());
    assert!(Joined::new().take(&other, Todo::default()));
    let mut joined = Joined::new();
    assert!(joined.take(&segments[0], Todo::default()));
    assert!(!joined.take(&other, Todo::default()));
}

#[test]
fn nothing_follows_a_push_a_short_segment_or_a_gap() {
    let segments = cut(false, 0, &[1; 1600], 400);
    let mut pushed = segments.clone();
    let (push, sum) = (34 + 13, 34 + 16);
    pushed[1][push] |= 8;
    let old = u16::from_be_bytes([pushed[1][sum], pushed[1][sum + 1]]);
    pushed[1][sum..sum + 2].copy_from_slice(&old.wrapping_sub(8).to_be_bytes());
    let mut joined = Joined::new();
    assert!(joined.take(&pushed[0], Todo::default()));
    assert!(joined.take(&pushed[1], Todo::default()));
    assert!(!joined.take(&pushed[2], Todo::default()));
    joined.finish();
    assert_eq!(joined.bytes()[push], 0x18);

    for (first, next) in [(0, 2), (1, 0), (0, 0), (3, 0)] {
        let mut joined = Joined::new();
        assert!(joined.take(&segments[first], Todo::default()));
        assert!(!joined.take(&segments[next], Todo::default()), "{next} behind {first}");
    }
    let short = cut(false, 0, &[1; 500], 400);
    let mut joined = Joined::new();
    assert!(joined.take(&short[0], Todo::default()) && joined.take(&short[1], Todo::default()));
    assert!(!joined.take(&segments[1], Todo::default()));
}

#[test]
fn no_packet_is_longer_than_its_length_can_tell() {
    let segments = cut(false, 0, &vec![1; 70_000], 1400);
    let mut joined = Joined::new();
    let taken = segments.iter().take_while(|s| joined.take(s, Todo::default())).count();
    assert_eq!(taken, (65_535 - 40) / 1400);
    joined.finish();
    assert_eq!(
        usize::from(u16::from_be_bytes([joined.bytes()[16], joined.bytes()[17]])),
        40 + taken * 1400
    );
}

proptest! {
    #[test]
    fn what_is_joined_is_what_was_cut(
        v6: bool,
        options in 0usize..10,
        size in 100u16..2000,
        payload in proptest::collection::vec(any::<u8>(), 1..5000),
    ) {
        let segments = cut(v6, options * 4, &payload, size);
        let (todo, mut bytes) = join(&segments);
        if segments.len() > 1 {
            prop_assert_eq!(todo.segmentation, Some(Segmentation { v6, size }));
        }
        // Cut again, each segment is the same to the last bit.
        let mut again = Vec::new();
        finish(&mut bytes, todo, 0, &mut |segment| {
            again.push(segment.to_vec());
            ControlFlow::Continue(())
        }).unwrap();
        prop_assert_eq!(again, segments);
    }

    /// A bit that fell over is never joined to anything: neither first nor behind another.
    #[test]
    fn what_was_damaged_is_not_taken(v6: bool, at in 14usize..500, bit in 0u32..8) {
        let segments = cut(v6, 4, &[0x5a; 900], 450);
        let mut damaged = segments[1].clone();
        let at = at.min(damaged.len() - 1);
        damaged[at] ^= 1 << bit;
        let mut joined = Joined::new();
        prop_assert!(joined.take(&segments[0], Todo::default()));
        // The traffic class and flow label of IPv6 have no checksum, but are to be the same.
        prop_assert!(!joined.take(&damaged, Todo::default()));
    }

    #[test]
    fn no_frame_does_harm(frames in proptest::collection::vec(
        proptest::collection::vec(any::<u8>(), 0..120), 1..4), v6: bool, header in 0usize..100)
    {
        let like = &cut(v6, 0, &[3; 100], 60)[0];
        let mut joined = Joined::new();
        for mut frame in frames {
            let same = header.min(frame.len()).min(like.len());
            frame[..same].copy_from_slice(&like[..same]);
            let _ = joined.take(&frame, Todo::default());
        }
        joined.finish();
    }
}
