//! Joins TCP segments that follow each other into one packet whose segmentation is left to do, so
//! that a receiver handles one where there were many: the reverse of [`crate::offload`]. Pure.
//!
//! Nothing is lost by it: the headers of what is joined differ in number, length and checksums alone,
//! and in PSH of the last one. Checksums are checked first, as the packet has none of its own.

use alloc::vec::Vec;
use core::ops::Range;

use crate::frame::HEADER;
use crate::header::{Checksum, Segmentation, Todo};
use crate::offload::{IPV4, IPV6, TCP, TCP_CHECKSUM, TCP_PROTOCOL, add, get, ipv4, pseudo, put};

/// EtherTypes.
const IS_IPV4: [u8; 2] = [0x08, 0x00];
const IS_IPV6: [u8; 2] = [0x86, 0xdd];
/// First byte of an IPv4 header without options.
const PLAIN_IPV4: u8 = 0x45;
/// IPv4: what a fragment has in its word of flags and offset, which holds DF besides.
const FRAGMENT: u16 = 0x3fff;
/// TCP flags of a segment that can be joined: ACK, and PSH in the last one.
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
/// Longest IP packet.
const MAX_PACKET: usize = 0xffff;

/// A TCP segment that can be part of a larger packet.
#[derive(Clone, Copy, Debug)]
struct Segment {
    v6: bool,
    /// Where the TCP header begins, and where the payload does.
    tcp: usize,
    headers: usize,
    sequence: u32,
    payload: usize,
    push: bool,
}

impl Segment {
    fn parse(frame: &[u8]) -> Option<Self> {
        let v6 = match get(frame, HEADER - 2).ok()? {
            IS_IPV4 => false,
            IS_IPV6 => true,
            _ => return None,
        };
        let ip = HEADER;
        let (tcp, told, protocol) = if v6 {
            let length = u16::from_be_bytes(get(frame, ip + 4).ok()?);
            let [protocol] = get(frame, ip + 6).ok()?;
            (ip + IPV6, usize::from(length) + IPV6, protocol)
        } else {
            let [first] = get(frame, ip).ok()?;
            let fragment = u16::from_be_bytes(get(frame, ip + 6).ok()?) & FRAGMENT;
            if first != PLAIN_IPV4 || fragment != 0 {
                return None;
            }
            let [protocol] = get(frame, ip + 9).ok()?;
            (ip + IPV4, u16::from_be_bytes(get(frame, ip + 2).ok()?).into(), protocol)
        };
        let [words, flags] = get(frame, tcp + 12).ok()?;
        let headers = tcp + usize::from(words >> 4) * 4;
        let payload = frame.len().checked_sub(headers).filter(|bytes| *bytes > 0)?;
        let sound = u32::from(protocol) == TCP_PROTOCOL
            && ip + told == frame.len()
            && headers >= tcp + TCP
            && flags & !PSH == ACK;
        let sequence = u32::from_be_bytes(get(frame, tcp + 4).ok()?);
        sound.then_some(Self { v6, tcp, headers, sequence, payload, push: flags & PSH != 0 })
    }

    /// Whether the checksums are right, or, where the sender left TCP's to others, that is so.
    fn is_intact(&self, frame: &[u8], todo: Todo) -> bool {
        let part = |range: Range<usize>| frame.get(range).unwrap_or_default();
        let ip = self.v6 || add(0, part(HEADER..self.tcp)) == 0xffff;
        let tcp = match todo {
            Todo { checksum: None, segmentation: None } => pseudo(frame, self.v6, self.tcp)
                .is_ok_and(|sum| add(sum, part(self.tcp..frame.len())) == 0xffff),
            Todo { checksum: Some(sum), segmentation: None } => self.checksum() == Some(sum),
            Todo { .. } => false,
        };
        ip && tcp
    }

    fn checksum(&self) -> Option<Checksum> {
        let (start, offset) = (u16::try_from(self.tcp), u16::try_from(TCP_CHECKSUM));
        Some(Checksum { start: start.ok()?, offset: offset.ok()? })
    }

    /// Whether the headers are the same, but for what differs from segment to segment.
    fn is_like(&self, headers: &[u8], other: &[u8]) -> bool {
        let tcp = self.tcp;
        let ip = if self.v6 {
            [0..HEADER + 4, HEADER + 6..tcp + 4, 0..0]
        } else {
            [0..HEADER + 2, HEADER + 6..HEADER + 10, HEADER + 12..tcp + 4]
        };
        let tcp =
            [tcp + 8..tcp + 13, tcp + 14..tcp + TCP_CHECKSUM, tcp + TCP_CHECKSUM + 2..self.headers];
        ip.into_iter().chain(tcp).all(|range| {
            let part = headers.get(range.clone());
            part.is_some() && part == other.get(range)
        })
    }
}

/// Segments that were joined so far.
#[derive(Debug, Default)]
pub struct Joined {
    /// The headers of the first one, and all payload.
    bytes: Vec<u8>,
    first: Option<Segment>,
    /// What was left to do for the first one.
    todo: Todo,
    /// Nothing can be added.
    closed: bool,
}

impl Joined {
    /// With nothing in it.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            first: None,
            todo: Todo { checksum: None, segmentation: None },
            closed: false,
        }
    }

    /// Takes a frame, if it is a segment that follows what is there, or may be the first one. What is
    /// there has to go on its way before a frame that is not taken.
    pub fn take(&mut self, frame: &[u8], todo: Todo) -> bool {
        let Some(segment) = Segment::parse(frame) else { return false };
        let Some(first) = self.first else {
            if !segment.is_intact(frame, todo) {
                return false;
            }
            self.bytes.extend_from_slice(frame);
            (self.first, self.todo, self.closed) = (Some(segment), todo, segment.push);
            return true;
        };
        let behind = self.bytes.len() - first.headers;
        let follows = !self.closed
            && segment.headers == first.headers
            && u32::try_from(behind)
                .is_ok_and(|n| segment.sequence == first.sequence.wrapping_add(n))
            && segment.payload <= first.payload
            && self.bytes.len() + segment.payload <= HEADER + MAX_PACKET
            && first.is_like(&self.bytes, frame)
            && segment.is_intact(frame, todo);
        if follows {
            self.bytes.extend_from_slice(frame.get(segment.headers..).unwrap_or(&[]));
            // Only the last one may be shorter.
            self.closed = segment.push || segment.payload < first.payload;
            if segment.push
                && let Some(flags) = self.bytes.get_mut(first.tcp + 13)
            {
                *flags |= PSH;
            }
        }
        follows
    }

    /// Whether there is nothing.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.first.is_none()
    }

    /// Completes the packet; what is left to do for it.
    pub fn finish(&mut self) -> Todo {
        self.packet().unwrap_or(self.todo)
    }

    /// The same where there are several segments.
    fn packet(&mut self) -> Option<Todo> {
        let first = self.first.filter(|first| self.bytes.len() > first.headers + first.payload)?;
        let bytes = self.bytes.as_mut_slice();
        if first.v6 {
            let length = u16::try_from(bytes.len() - first.tcp).ok()?;
            put(bytes, HEADER + 4, length.to_be_bytes()).ok()?;
        } else {
            let number = u16::from_be_bytes(get(bytes, HEADER + 4).ok()?);
            ipv4(bytes, first.tcp, number).ok()?;
        }
        let sum = u16::try_from(pseudo(bytes, first.v6, first.tcp).ok()?).ok()?;
        put(bytes, first.tcp + TCP_CHECKSUM, sum.to_be_bytes()).ok()?;
        let size = u16::try_from(first.payload).ok()?;
        let segmentation = Some(Segmentation { v6: first.v6, size });
        Some(Todo { checksum: first.checksum(), segmentation })
    }

    /// The packet, once it is complete.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Begins anew.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.first = None;
    }
}

#[cfg(test)]
pub(crate) mod tests;
