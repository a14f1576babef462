//! Checksums and TCP segments for receivers that leave neither to others. Pure.

use alloc::vec::Vec;
use core::ops::ControlFlow;

use crate::frame::HEADER;
use crate::header::{Checksum, Invalid, Segmentation, Todo};

/// Bytes of the smallest IPv4 and of the IPv6 header.
pub(crate) const IPV4: usize = 20;
pub(crate) const IPV6: usize = 40;
/// Bytes of the smallest TCP header; where its checksum is.
pub(crate) const TCP: usize = 20;
pub(crate) const TCP_CHECKSUM: usize = 16;
/// Number of TCP among the protocols.
pub(crate) const TCP_PROTOCOL: u32 = 6;
/// TCP flags that only the last segment has, FIN and PSH, and only the first, CWR.
const LAST_ONLY: u8 = 0x09;
const FIRST_ONLY: u8 = 0x80;

/// Where the frames go that [`finish`] makes. Behind a break it makes no more.
pub type Out<'a> = dyn FnMut(&[u8]) -> ControlFlow<()> + 'a;

/// Does what is left to do for a frame, and passes the results on, but for the first `skip`.
///
/// # Errors
/// The frame is not what it is said to be.
pub fn finish(frame: &mut [u8], todo: Todo, skip: usize, out: &mut Out<'_>) -> Result<(), Invalid> {
    let whole = match todo {
        Todo { segmentation: Some(how), checksum: Some(sum) } => {
            return segment(frame, how, sum, skip, out);
        }
        Todo { checksum: Some(sum), .. } => {
            complete(frame, sum)?;
            frame
        }
        Todo { .. } => frame,
    };
    if skip == 0 {
        let _ = out(whole);
    }
    Ok(())
}

/// Adds 16-bit words, as the Internet checksum does (RFC 1071): four at a time, as carries may be
/// added at the end.
pub(crate) fn add(sum: u32, bytes: &[u8]) -> u32 {
    let mut total = u64::from(sum);
    let (chunks, rest) = bytes.as_chunks();
    for chunk in chunks {
        let words = u64::from_be_bytes(*chunk);
        total += (words >> 32) + (words & 0xffff_ffff);
    }
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    let words = u64::from_be_bytes(last);
    total += (words >> 32) + (words & 0xffff_ffff);
    while total > 0xffff {
        total = (total & 0xffff) + (total >> 16);
    }
    u32::try_from(total).unwrap_or(0)
}

/// The checksum of a sum. Zero would say that there is none.
fn fold(sum: u32) -> [u8; 2] {
    let sum = !u16::try_from(sum).unwrap_or(0);
    (if sum == 0 { 0xffff } else { sum }).to_be_bytes()
}

fn complete(frame: &mut [u8], Checksum { start, offset }: Checksum) -> Result<(), Invalid> {
    let part = frame.get_mut(usize::from(start)..).ok_or(Invalid)?;
    let sum = fold(add(0, part));
    put(part, offset.into(), sum)
}

pub(crate) fn put<const N: usize>(
    bytes: &mut [u8],
    at: usize,
    value: [u8; N],
) -> Result<(), Invalid> {
    bytes.get_mut(at..at + N).ok_or(Invalid)?.copy_from_slice(&value);
    Ok(())
}

pub(crate) fn get<const N: usize>(bytes: &[u8], at: usize) -> Result<[u8; N], Invalid> {
    bytes.get(at..).and_then(|b| b.first_chunk()).copied().ok_or(Invalid)
}

/// Cuts a TCP packet into segments.
fn segment(
    frame: &[u8],
    Segmentation { v6, size }: Segmentation,
    sum: Checksum,
    skip: usize,
    out: &mut Out<'_>,
) -> Result<(), Invalid> {
    let tcp = usize::from(sum.start);
    let smallest = HEADER + if v6 { IPV6 } else { IPV4 };
    let [kind] = get(frame, HEADER)?;
    let expected = if v6 { 6 } else { 4 };
    if tcp < smallest || kind >> 4 != expected || usize::from(sum.offset) != TCP_CHECKSUM {
        return Err(Invalid);
    }
    let [words] = get(frame, tcp + 12)?;
    let headers = tcp + usize::from(words >> 4) * 4;
    if headers < tcp + TCP {
        return Err(Invalid);
    }
    let (headers, payload) = frame.split_at_checked(headers).ok_or(Invalid)?;
    let sequence = u32::from_be_bytes(get(headers, tcp + 4)?);
    let [flags] = get(headers, tcp + 13)?;
    let id = u16::from_be_bytes(get(headers, HEADER + 4)?);
    let size = usize::from(size);
    let count = payload.len().div_ceil(size);
    let mut segment = Vec::with_capacity(headers.len() + size);
    for (n, part) in payload.chunks(size).enumerate().skip(skip) {
        segment.clear();
        segment.extend_from_slice(headers);
        segment.extend_from_slice(part);
        let behind = u32::try_from(n * size).map_err(|_| Invalid)?;
        put(&mut segment, tcp + 4, sequence.wrapping_add(behind).to_be_bytes())?;
        let mut kept = flags;
        if n + 1 < count {
            kept &= !LAST_ONLY;
        }
        if n > 0 {
            kept &= !FIRST_ONLY;
        }
        put(&mut segment, tcp + 13, [kept])?;
        if v6 {
            let length = u16::try_from(segment.len() - HEADER - IPV6).map_err(|_| Invalid)?;
            put(&mut segment, HEADER + 4, length.to_be_bytes())?;
        } else {
            let number = id.wrapping_add(u16::try_from(n).map_err(|_| Invalid)?);
            ipv4(&mut segment, tcp, number)?;
        }
        let pseudo = pseudo(&segment, v6, tcp)?;
        put(&mut segment, tcp + TCP_CHECKSUM, [0, 0])?;
        let sum = add(pseudo, segment.get(tcp..).ok_or(Invalid)?);
        put(&mut segment, tcp + TCP_CHECKSUM, fold(sum))?;
        if out(&segment).is_break() {
            break;
        }
    }
    Ok(())
}

/// Sum over the pseudo-header of a TCP packet that begins at `tcp`: addresses, protocol, length.
pub(crate) fn pseudo(frame: &[u8], v6: bool, tcp: usize) -> Result<u32, Invalid> {
    let addresses = if v6 { HEADER + 8..HEADER + IPV6 } else { HEADER + 12..HEADER + IPV4 };
    let length = frame.len().checked_sub(tcp).and_then(|n| u32::try_from(n).ok()).ok_or(Invalid)?;
    let sum = add(TCP_PROTOCOL, frame.get(addresses).ok_or(Invalid)?);
    Ok(add(sum, &length.to_be_bytes()))
}

/// Length, number and checksum of an IPv4 header that ends at `end`.
pub(crate) fn ipv4(segment: &mut [u8], end: usize, number: u16) -> Result<(), Invalid> {
    let length = u16::try_from(segment.len() - HEADER).map_err(|_| Invalid)?;
    put(segment, HEADER + 2, length.to_be_bytes())?;
    put(segment, HEADER + 4, number.to_be_bytes())?;
    put(segment, HEADER + 10, [0, 0])?;
    let sum = add(0, segment.get(HEADER..end).ok_or(Invalid)?);
    put(segment, HEADER + 10, fold(sum))
}

#[cfg(test)]
pub(crate) mod tests;
