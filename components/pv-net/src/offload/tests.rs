//! Segments against a receiver that checks everything.

use core::ops::ControlFlow;

use proptest::prelude::*;

use super::{add, finish};
use crate::header::{Checksum, Invalid, Segmentation, Todo};

const ETHERNET: usize = 14;

pub(crate) fn packet(v6: bool, options: usize, payload: &[u8]) -> (Vec<u8>, Todo) {
    let ip = if v6 { 40 } else { 20 };
    let tcp = ETHERNET + ip;
    let mut frame = vec![0; tcp + 20 + options];
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    frame[12..14].copy_from_slice(if v6 { &[0x86, 0xdd] } else { &[8, 0] });
    if v6 {
        frame[14] = 0x60;
        frame[20] = 6;
        frame[22..54].copy_from_slice(&(1..33).collect::<Vec<u8>>());
    } else {
        frame[14] = 0x45;
        frame[18..20].copy_from_slice(&0xfffe_u16.to_be_bytes());
        frame[22] = 64;
        frame[23] = 6;
        frame[26..34].copy_from_slice(&[10, 0, 0, 1, 10, 0, 0, 2]);
    }
    frame[tcp + 4..tcp + 8].copy_from_slice(&0xffff_ff00_u32.to_be_bytes());
    frame[tcp + 12] = (((20 + options) / 4) << 4) as u8;
    frame[tcp + 13] = 0x99;
    frame.extend_from_slice(payload);
    let todo = Todo {
        checksum: Some(Checksum { start: tcp as u16, offset: 16 }),
        segmentation: Some(Segmentation { v6, size: 100 }),
    };
    (frame, todo)
}

fn drop_it(_: &[u8]) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

/// Checks a segment as a receiver would; its sequence number, flags and payload.
fn receive(segment: &[u8], v6: bool) -> (u32, u8, Vec<u8>) {
    let tcp = ETHERNET + if v6 { 40 } else { 20 };
    let length = (segment.len() - tcp) as u32;
    let addresses = if v6 {
        let told = u16::from_be_bytes([segment[18], segment[19]]);
        assert_eq!(u32::from(told), length);
        &segment[22..54]
    } else {
        let told = u16::from_be_bytes([segment[16], segment[17]]);
        assert_eq!(usize::from(told), segment.len() - ETHERNET);
        assert_eq!(add(0, &segment[14..34]), 0xffff, "IPv4 checksum");
        &segment[26..34]
    };
    let sum = add(add(add(6, addresses), &length.to_be_bytes()), &segment[tcp..]);
    assert_eq!(sum, 0xffff, "TCP checksum");
    let sequence = u32::from_be_bytes(segment[tcp + 4..tcp + 8].try_into().unwrap());
    let headers = tcp + usize::from(segment[tcp + 12] >> 4) * 4;
    (sequence, segment[tcp + 13], segment[headers..].to_vec())
}

#[test]
fn checksum_is_completed_where_its_sum_stands() {
    let mut frame = vec![1, 2, 3, 4, 0x12, 0x34, 0x56, 0, 0];
    let todo = Todo { checksum: Some(Checksum { start: 4, offset: 3 }), segmentation: None };
    let mut out = Vec::new();
    let mut keep = |f: &[u8]| {
        out = f.to_vec();
        ControlFlow::Continue(())
    };
    finish(&mut frame, todo, 0, &mut keep).unwrap();
    assert_eq!(&out[..7], &[1, 2, 3, 4, 0x12, 0x34, 0x56]);
    let sum = !(0x1234_u16 + 0x5600);
    assert_eq!(&out[7..], &sum.to_be_bytes());
}

#[test]
fn what_is_no_tcp_packet_is_refused() {
    let (frame, todo) = packet(false, 0, &[7; 300]);
    let refused = |frame: &[u8], todo| finish(&mut frame.to_vec(), todo, 0, &mut drop_it);
    let v6 = Todo { segmentation: Some(Segmentation { v6: true, size: 100 }), ..todo };
    assert_eq!(refused(&frame, v6), Err(Invalid));
    for start in [0, 13, 33, 353, 0xffff] {
        let checksum = Some(Checksum { start, offset: 16 });
        assert_eq!(refused(&frame, Todo { checksum, ..todo }), Err(Invalid), "{start}");
    }
    let mut short = frame.clone();
    short[34 + 12] = 0x40;
    assert_eq!(refused(&short, todo), Err(Invalid));
    short[34 + 12] = 0xf0;
    assert_eq!(refused(&short[..60], todo), Err(Invalid));
}

proptest! {
    /// Word by word, as RFC 1071 says it.
    #[test]
    fn sums(sum in 0u32..0x2_0000, bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let words = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b)));
        let expected = words.fold(sum, |sum, word| sum + word);
        let mut expected = (expected & 0xffff) + (expected >> 16);
        expected = (expected & 0xffff) + (expected >> 16);
        prop_assert_eq!(add(sum, &bytes), expected);
    }

    #[test]
    fn segments_make_up_the_packet(
        v6: bool,
        options in 0usize..10,
        size in 1u16..2000,
        payload in proptest::collection::vec(any::<u8>(), 1..5000),
        room in 1usize..50,
    ) {
        let (frame, mut todo) = packet(v6, options * 4, &payload);
        todo.segmentation = Some(Segmentation { v6, size });
        let mut whole = Vec::new();
        let mut flags = Vec::new();
        loop {
            let before = flags.len();
            finish(&mut frame.clone(), todo, before, &mut |segment| {
                if flags.len() == before + room {
                    return ControlFlow::Break(());
                }
                let (sequence, flag, part) = receive(segment, v6);
                assert_eq!(sequence, 0xffff_ff00_u32.wrapping_add(whole.len() as u32));
                assert!(part.len() <= usize::from(size));
                whole.extend_from_slice(&part);
                flags.push(flag);
                ControlFlow::Continue(())
            }).unwrap();
            if flags.len() < before + room {
                break;
            }
        }
        prop_assert_eq!(whole, payload);
        let last = flags.len() - 1;
        for (n, flag) in flags.into_iter().enumerate() {
            let expected = 0x10 | if n == 0 { 0x80 } else { 0 } | if n == last { 9 } else { 0 };
            prop_assert_eq!(flag, expected);
        }
    }

    #[test]
    fn no_frame_does_harm(
        mut frame in proptest::collection::vec(any::<u8>(), 0..200),
        start in 0u16..250, offset in 0u16..250, size in 1u16..50, v6: bool,
    ) {
        let todo = Todo {
            checksum: Some(Checksum { start, offset }),
            segmentation: Some(Segmentation { v6, size }),
        };
        let _ = finish(&mut frame.clone(), todo, 0, &mut drop_it);
        let _ = finish(&mut frame, Todo { segmentation: None, ..todo }, 0, &mut drop_it);
    }
}
