extern crate std;

use std::vec::Vec;

use crate::proto::ring::{Corrupt, Moved, RECORD_TEXT, Record, Ring, pop_record};

#[test]
fn bytes_come_out_in_order_across_the_wrap() {
    let ring = Ring::<8>::new();
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    let (mut sent, mut got) = (0u8, Vec::new());
    for round in 0..1000usize {
        let chunk: Vec<u8> = (0..round % 7).map(|i| sent.wrapping_add(i as u8)).collect();
        let moved = p.push(&chunk).unwrap();
        sent = sent.wrapping_add(moved.bytes as u8);
        let mut buffer = [0; 5];
        let n = c.pop(&mut buffer[..round % 6]).unwrap().bytes;
        got.extend_from_slice(&buffer[..n]);
    }
    let expected: Vec<u8> = (0..got.len()).map(|i| i as u8).collect();
    assert_eq!(got, expected);
}

#[test]
fn the_consumer_is_woken_only_when_it_had_caught_up() {
    let ring = Ring::<8>::new();
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    assert_eq!(p.push(b"ab"), Ok(Moved { bytes: 2, wake: true }));
    assert_eq!(p.push(b"c"), Ok(Moved { bytes: 1, wake: false }));
    let mut buffer = [0; 8];
    assert_eq!(c.pop(&mut buffer), Ok(Moved { bytes: 3, wake: false }));
    assert_eq!(p.push(b"d"), Ok(Moved { bytes: 1, wake: true }));
}

#[test]
fn a_producer_without_room_is_woken() {
    let ring = Ring::<4>::new();
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    assert_eq!(p.push(b"abcdef").unwrap().bytes, 4);
    let mut buffer = [0; 1];
    assert_eq!(c.pop(&mut buffer), Ok(Moved { bytes: 1, wake: true }));
    assert_eq!(c.pop(&mut buffer), Ok(Moved { bytes: 1, wake: false }));
}

#[test]
fn indices_that_cannot_be_are_reported() {
    let ring = Ring::<8>::new();
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    // A producer that claims 9 bytes in a ring of 8.
    let mut liar = ring.producer();
    for _ in 0..9 {
        ring.consumer().clear();
        let _ = liar.push(b"x").unwrap();
    }
    assert_eq!(c.pop(&mut [0; 4]), Err(Corrupt));
    // The consumer's index is now ahead of the honest producer's.
    assert_eq!(p.push(b"x"), Err(Corrupt));
}

#[test]
fn records_go_whole_or_not_at_all() {
    let ring = Ring::<32>::new();
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    let record = Record { source: 3, ms: 77, text: b"hello world" };
    assert!(record.push(&mut p).unwrap().wake);
    assert_eq!(record.push(&mut p).unwrap().bytes, 0);
    let mut buffer = [0; RECORD_TEXT];
    assert_eq!(pop_record(&mut c, &mut buffer), Ok(Some(record)));
    assert_eq!(pop_record(&mut c, &mut buffer), Ok(None));
}

#[test]
fn broken_records_are_dropped() {
    let ring = Ring::<32>::new();
    let (mut p, mut c) = (ring.producer(), ring.consumer());
    let mut buffer = [0; RECORD_TEXT];
    let _ = p.push(&[200, 0, 0, 0, 0, 0, 0, 0, 1]).unwrap();
    assert_eq!(pop_record(&mut c, &mut buffer), Err(Corrupt));
    assert_eq!(pop_record(&mut c, &mut buffer), Ok(None));
    let _ = p.push(&[1, 2, 3]).unwrap();
    assert_eq!(pop_record(&mut c, &mut buffer), Err(Corrupt));
    assert_eq!(pop_record(&mut c, &mut buffer), Ok(None));
}

#[test]
fn two_threads() {
    static RING: Ring<64> = Ring::new();
    let total = 200_000usize;
    let producer = std::thread::spawn(move || {
        let (mut p, mut sent) = (RING.producer(), 0usize);
        while sent < total {
            let chunk: Vec<u8> = (sent..(sent + 13).min(total)).map(|i| i as u8).collect();
            sent += p.push(&chunk).unwrap().bytes;
        }
    });
    let (mut c, mut got) = (RING.consumer(), 0usize);
    while got < total {
        let mut buffer = [0; 17];
        let n = c.pop(&mut buffer).unwrap().bytes;
        for &b in &buffer[..n] {
            assert_eq!(b, got as u8);
            got += 1;
        }
    }
    producer.join().unwrap();
}
