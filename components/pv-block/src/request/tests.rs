use proptest::prelude::*;

use super::{Extent, HEADER, Limits, MAX_CLEAR, RANGE, Request, Status, parse};

const LIMITS: Limits = Limits { sectors: 100, read_only: false };
const READ_ONLY: Limits = Limits { sectors: 100, read_only: true };

fn header(kind: u32, sector: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..4].copy_from_slice(&kind.to_le_bytes());
    bytes[8..].copy_from_slice(&sector.to_le_bytes());
    bytes
}

fn range(sector: u64, count: u32, flags: u32) -> Option<[u8; RANGE]> {
    let mut bytes = [0; RANGE];
    bytes[..8].copy_from_slice(&sector.to_le_bytes());
    bytes[8..12].copy_from_slice(&count.to_le_bytes());
    bytes[12..].copy_from_slice(&flags.to_le_bytes());
    Some(bytes)
}

#[test]
fn reads_and_writes_cover_whole_sectors() {
    let extent = Extent { sector: 4, count: 2 };
    assert_eq!(parse(header(0, 4), 0, 1024, None, LIMITS), Ok(Request::Read(extent)));
    assert_eq!(parse(header(1, 4), 1024, 0, None, LIMITS), Ok(Request::Write(extent)));
    assert_eq!(parse(header(0, 4), 0, 1023, None, LIMITS), Err(Status::IoError));
    assert_eq!(parse(header(1, 4), 513, 0, None, LIMITS), Err(Status::IoError));
}

#[test]
fn requests_end_with_the_disk() {
    assert!(parse(header(0, 99), 0, 512, None, LIMITS).is_ok());
    assert_eq!(parse(header(0, 99), 0, 1024, None, LIMITS), Err(Status::IoError));
    assert_eq!(parse(header(1, 100), 512, 0, None, LIMITS), Err(Status::IoError));
    assert_eq!(parse(header(0, u64::MAX), 0, 512, None, LIMITS), Err(Status::IoError));
}

#[test]
fn a_read_only_disk_fails_everything_that_writes() {
    assert!(parse(header(0, 0), 0, 512, None, READ_ONLY).is_ok());
    assert_eq!(parse(header(1, 0), 512, 0, None, READ_ONLY), Err(Status::IoError));
    assert_eq!(parse(header(11, 0), 16, 0, range(0, 8, 0), READ_ONLY), Err(Status::IoError));
    assert_eq!(parse(header(13, 0), 16, 0, range(0, 8, 0), READ_ONLY), Err(Status::IoError));
    assert_eq!(parse(header(4, 0), 0, 0, None, READ_ONLY), Ok(Request::Flush));
}

#[test]
fn discard_and_write_zeroes_take_one_range() {
    let clear = Request::Clear(Extent { sector: 8, count: 16 });
    assert_eq!(parse(header(11, 0), 16, 0, range(8, 16, 0), LIMITS), Ok(clear));
    assert_eq!(parse(header(13, 0), 16, 0, range(8, 16, 0), LIMITS), Ok(clear));
    assert_eq!(parse(header(13, 0), 16, 0, range(8, 16, 1), LIMITS), Ok(clear));
    assert_eq!(parse(header(11, 0), 32, 0, range(8, 16, 0), LIMITS), Err(Status::IoError));
    assert_eq!(parse(header(11, 0), 8, 0, None, LIMITS), Err(Status::IoError));
    assert_eq!(parse(header(13, 0), 16, 0, range(99, 2, 0), LIMITS), Err(Status::IoError));
    let large = Limits { sectors: u64::MAX, read_only: false };
    let most = MAX_CLEAR;
    assert!(parse(header(13, 0), 16, 0, range(0, most, 0), large).is_ok());
    assert_eq!(parse(header(13, 0), 16, 0, range(0, most + 1, 0), large), Err(Status::IoError));
}

#[test]
fn flags_that_do_not_exist_are_not_supported() {
    let unsupported = Err(Status::Unsupported);
    assert_eq!(parse(header(11, 0), 16, 0, range(8, 16, 1), LIMITS), unsupported);
    assert_eq!(parse(header(13, 0), 16, 0, range(8, 16, 2), LIMITS), unsupported);
}

#[test]
fn requests_that_do_not_exist_are_not_supported() {
    for kind in [2, 3, 5, 6, 7, 9, 10, 12, 14, 15, u32::MAX] {
        assert_eq!(parse(header(kind, 0), 0, 0, None, LIMITS), Err(Status::Unsupported));
    }
    assert_eq!(parse(header(8, 0), 0, 20, None, LIMITS), Ok(Request::Serial));
}

proptest! {
    /// Whatever arrives: what is accepted lies on the disk.
    #[test]
    fn accepted_requests_lie_on_the_disk(
        head in any::<[u8; HEADER]>(), kind in 0u8..16, small in any::<bool>(),
        readable in any::<u64>(), writable in any::<u64>(),
        range in proptest::option::of(any::<[u8; RANGE]>()), sectors in any::<u64>(),
    ) {
        let mut head = head;
        if small {
            head[..4].copy_from_slice(&u32::from(kind).to_le_bytes());
        }
        let limits = Limits { sectors, read_only: false };
        if let Ok(Request::Read(e) | Request::Write(e) | Request::Clear(e)) =
            parse(head, readable, writable, range, limits)
        {
            prop_assert!(e.sector.checked_add(e.count).is_some_and(|end| end <= sectors));
        }
    }
}
