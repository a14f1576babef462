//! The virtio block device: features, configuration space, and the jobs that requests become.
//!
//! A request is done in pieces, so that no request keeps other guests waiting, and pieces of
//! several requests can be under way on a medium that answers later.

use alloc::vec::Vec;

use ipc::proto::virtio::MAX_CONFIG;
use sysroot::num::u64_of;
use virtio::chain::Chain;
use virtio::link::{Backend, Link, Links, TURN};
use virtio::session::{Description, Tally};

use crate::SECTOR;
use crate::disk::{Disk, Piece, remote};
use crate::medium::{Completion, Medium, PIECE, Tag};
use crate::request::{Extent, HEADER, MAX_CLEAR, Malformed, RANGE, Request, Status, parse};

/// Device id (virtio 1.2, 5.2.1).
const BLOCK: u32 = 2;
/// Most descriptors of the queue.
const QUEUE_SIZE: u16 = 256;
/// Most segments of a request: with header and status it fits the queue.
const SEGMENTS: u32 = 254;
/// Sectors of a guest that are worked on before the next one's turn: 1 MiB.
const BUDGET: u64 = 2048;

/// Features (virtio 1.2, 5.2.3).
mod feature {
    pub const SEG_MAX: u64 = 1 << 2;
    pub const RO: u64 = 1 << 5;
    pub const BLK_SIZE: u64 = 1 << 6;
    pub const FLUSH: u64 = 1 << 9;
    pub const DISCARD: u64 = 1 << 13;
    pub const WRITE_ZEROES: u64 = 1 << 14;
}

/// The device that a disk is.
#[must_use]
pub fn describe(disk: &Disk) -> Description {
    use feature::{BLK_SIZE, DISCARD, FLUSH, RO, SEG_MAX, WRITE_ZEROES};
    let writing = if disk.read_only { RO } else { DISCARD | WRITE_ZEROES };
    Description {
        device: BLOCK,
        features: SEG_MAX | BLK_SIZE | FLUSH | writing,
        queues: 1,
        queue_size: QUEUE_SIZE,
        config: config(disk.part.count),
    }
}

/// The configuration space (virtio 1.2, 5.2.4).
fn config(sectors: u64) -> heapless::Vec<u8, MAX_CONFIG> {
    let mut bytes = [0; 60];
    let mut put = |at: usize, value: &[u8]| {
        if let Some(to) = bytes.get_mut(at..at + value.len()) {
            to.copy_from_slice(value);
        }
    };
    put(0, &sectors.to_le_bytes());
    put(12, &SEGMENTS.to_le_bytes());
    // Size of a block.
    put(20, &512u32.to_le_bytes());
    // Number of queues.
    put(34, &1u16.to_le_bytes());
    // Discard and write-zeroes: most sectors, most ranges; alignment of discards; zeroes may
    // give back space.
    put(36, &MAX_CLEAR.to_le_bytes());
    put(40, &1u32.to_le_bytes());
    put(44, &8u32.to_le_bytes());
    put(48, &MAX_CLEAR.to_le_bytes());
    put(52, &1u32.to_le_bytes());
    put(56, &[1]);
    bytes.into_iter().collect()
}

/// A request that is being done.
#[derive(Debug)]
struct Job {
    chain: Chain,
    request: Request,
    /// Sectors whose pieces were done or started.
    begun: u64,
    /// Pieces under way.
    pending: u32,
    status: Status,
    /// The medium was told to make it permanent.
    flushed: bool,
}

impl Job {
    /// The sectors that it is about.
    const fn extent(&self) -> Extent {
        match self.request {
            Request::Read(extent) | Request::Write(extent) | Request::Clear(extent) => extent,
            Request::Flush | Request::Serial => Extent { sector: 0, count: 0 },
        }
    }

    /// Counts it when it has ended.
    fn count(&self, tally: &Tally) {
        let bytes = self.extent().count * SECTOR;
        match (self.status, self.request) {
            (Status::Ok, Request::Read(_)) => {
                Tally::add(&tally.to_guest, 1);
                Tally::add(&tally.bytes_to_guest, bytes);
            }
            (Status::Ok, Request::Write(_)) => {
                Tally::add(&tally.from_guest, 1);
                Tally::add(&tally.bytes_from_guest, bytes);
            }
            (Status::Ok, _) => Tally::add(&tally.from_guest, 1),
            _ => Tally::add(&tally.failed, 1),
        }
    }

    /// The piece of at most `most` sectors behind `offset`.
    fn piece(&self, offset: u64, most: u64) -> Extent {
        let Extent { sector, count } = self.extent();
        Extent { sector: sector + offset, count: (count - offset).min(most) }
    }
}

/// What a chain became.
enum Begun {
    /// The job with this index.
    Job(usize),
    /// It was answered.
    Refused,
}

/// A disk and what is being done to it.
#[derive(Debug)]
struct Drive {
    disk: Disk,
    jobs: Vec<Option<Job>>,
    /// The job whose pieces are being started.
    current: Option<usize>,
    /// Pieces under way, those of earlier generations included.
    pending: u32,
    /// Counts set-ups.
    generation: u64,
    /// Without the feature, what was acknowledged is permanent (virtio 1.2, 5.2.6.2).
    write_through: bool,
}

impl Drive {
    /// Keeps a job; its index.
    fn keep(&mut self, job: Job) -> usize {
        let place = self.jobs.iter().position(Option::is_none).unwrap_or(self.jobs.len());
        match self.jobs.get_mut(place) {
            Some(empty) => *empty = Some(job),
            None => self.jobs.push(Some(job)),
        }
        place
    }
}

/// All disks.
#[derive(Debug, Default)]
pub struct Block {
    media: Vec<Medium>,
    /// By client.
    drives: Vec<Option<Drive>>,
}

impl Block {
    /// Disks on these media.
    #[must_use]
    pub const fn new(media: Vec<Medium>) -> Self {
        Self { media, drives: Vec::new() }
    }

    /// The media.
    pub const fn media(&mut self) -> &mut Vec<Medium> {
        &mut self.media
    }

    /// Gives a client a disk.
    pub fn attach(&mut self, client: usize, disk: Disk) {
        if self.drives.len() <= client {
            self.drives.resize_with(client + 1, || None);
        }
        let drive = Drive {
            disk,
            jobs: Vec::new(),
            current: None,
            pending: 0,
            generation: 0,
            write_through: false,
        };
        if let Some(place) = self.drives.get_mut(client) {
            *place = Some(drive);
        }
    }

    /// The disks.
    pub fn disks(&self) -> impl Iterator<Item = &Disk> {
        self.drives.iter().flatten().map(|d| &d.disk)
    }
}

/// A medium finished a piece.
fn finished(drives: &mut [Option<Drive>], links: &mut Links, done: Completion<'_>) {
    let Completion { tag, ok, data } = done;
    let Some(drive) = drives.get_mut(tag.drive).and_then(Option::as_mut) else { return };
    drive.pending = drive.pending.saturating_sub(1);
    if tag.generation != drive.generation {
        return;
    }
    let Some(job) = drive.jobs.get_mut(tag.job).and_then(Option::as_mut) else { return };
    job.pending = job.pending.saturating_sub(1);
    let at = (0..links.len()).find(|&n| links.get(n).is_some_and(|l| l.client() == tag.drive));
    let Some(link) = at.and_then(|n| links.get_mut(n)) else { return };
    let mut good = ok;
    if let (Request::Read(_), Some(ram)) = (job.request, link.ram()) {
        let mut to = job.chain.writable();
        to.advance(tag.offset * SECTOR);
        let piece = job.piece(tag.offset, data.size() / SECTOR);
        good &= drive.disk.arrived(ram, &mut to, piece, data) == Piece::Done;
    }
    if !good {
        job.status = Status::IoError;
    }
}

impl Drive {
    /// Goes on with the current job, or the next one; `None` where there is nothing to do by now,
    /// else how many sectors that took.
    fn advance(&mut self, medium: &mut Medium, link: &mut Link) -> Option<u64> {
        let index = match self.current {
            Some(index) => index,
            None => match self.begin(link)? {
                Begun::Job(index) => *self.current.insert(index),
                Begun::Refused => return Some(1),
            },
        };
        let tag = Tag { drive: link.client(), generation: self.generation, job: index, offset: 0 };
        let job = self.jobs.get_mut(index).and_then(Option::as_mut)?;
        let ram = link.ram()?;
        let tag = Tag { offset: job.begun, ..tag };
        let piece = job.piece(job.begun, PIECE);
        let outcome = match job.request {
            _ if job.status != Status::Ok => Piece::Failed,
            Request::Read(_) => {
                let mut to = job.chain.writable();
                to.advance(job.begun * SECTOR);
                self.disk.read(medium, ram, &mut to, piece, tag)
            }
            Request::Write(_) => {
                let mut from = job.chain.readable();
                from.advance(u64_of(HEADER) + job.begun * SECTOR);
                self.disk.write(medium, ram, &mut from, piece, tag)
            }
            Request::Clear(_) => self.disk.clear(medium, piece, tag),
            Request::Flush => self.disk.flush(medium, tag),
            Request::Serial => {
                let mut to = job.chain.writable();
                let room = to.left().saturating_sub(1);
                let mut to = to.take(room);
                match to.write(ram, &self.disk.serial) {
                    Ok(_) => Piece::Done,
                    Err(_) => Piece::Failed,
                }
            }
        };
        let mut count = piece.count;
        match outcome {
            Piece::Busy => return None,
            Piece::Started(sectors) => {
                job.pending += 1;
                self.pending += 1;
                count = count.min(sectors);
            }
            Piece::Done => {}
            Piece::Failed => job.status = Status::IoError,
        }
        job.begun += count;
        if job.begun >= job.extent().count || job.status != Status::Ok {
            self.current = None;
        }
        Some(count.max(1))
    }

    /// Makes a job of the next chain; `None` where there is none, or the driver broke a rule.
    fn begin(&mut self, link: &mut Link) -> Option<Begun> {
        let chain = link.pop(0)?;
        let ram = link.ram()?.clone();
        let mut readable = chain.readable();
        let header = readable.read_array::<HEADER>(&ram);
        let Ok(Some(header)) = header else {
            link.give_up(Malformed::Header);
            return None;
        };
        let Some(room) = chain.writable().left().checked_sub(1) else {
            link.give_up(Malformed::NoStatus);
            return None;
        };
        let payload = readable.left();
        let range = readable.read_array::<RANGE>(&ram).ok().flatten();
        match parse(header, payload, room, range, self.disk.limits()) {
            Ok(request) => {
                let status = Status::Ok;
                let job = Job { chain, request, begun: 0, pending: 0, status, flushed: false };
                Some(Begun::Job(self.keep(job)))
            }
            Err(status) => {
                Tally::add(&link.tally().failed, 1);
                answer(link, chain, status);
                Some(Begun::Refused)
            }
        }
    }

    /// Completes jobs all of whose pieces are done.
    fn complete(&mut self, medium: &mut Medium, link: &mut Link) {
        for index in 0..self.jobs.len() {
            let Some(place) = self.jobs.get_mut(index) else { return };
            let Some(job) = place.as_mut() else { continue };
            if job.pending > 0 || self.current == Some(index) {
                continue;
            }
            let changes = matches!(job.request, Request::Write(_) | Request::Clear(_));
            if self.write_through && changes && !job.flushed && job.status == Status::Ok {
                let (drive, generation) = (link.client(), self.generation);
                let tag = Tag { drive, generation, job: index, offset: 0 };
                match self.disk.flush(medium, tag) {
                    Piece::Busy => continue,
                    Piece::Started(_) => {
                        job.flushed = true;
                        job.pending += 1;
                        self.pending += 1;
                        continue;
                    }
                    Piece::Failed => job.status = Status::IoError,
                    Piece::Done => {}
                }
            }
            if let Some(job) = place.take() {
                job.count(link.tally());
                answer(link, job.chain, job.status);
            }
        }
    }
}

/// Writes the status of a request and gives its chain back.
fn answer(link: &mut Link, chain: Chain, status: Status) {
    let Some(ram) = link.ram() else { return };
    let mut rest = chain.writable();
    let payload = rest.left().saturating_sub(1);
    rest.advance(payload);
    // The segments were checked to be RAM.
    let _ = rest.write(ram, &[status.number()]);
    let written = u32::try_from(payload + 1).unwrap_or(u32::MAX);
    link.complete(0, chain, written);
}

impl Backend for Block {
    fn enter(&mut self, links: &mut Links, at: usize) {
        let Some(link) = links.get(at) else { return };
        if let Some(drive) = self.drives.get_mut(link.client()).and_then(Option::as_mut) {
            drive.write_through = link.features() & feature::FLUSH == 0;
        }
    }

    fn leave(&mut self, links: &mut Links, at: usize) -> bool {
        let drive = links.get(at).and_then(|l| self.drives.get_mut(l.client()));
        let Some(drive) = drive.and_then(Option::as_mut) else { return true };
        drive.generation += 1;
        drive.jobs.clear();
        drive.current = None;
        // What is under way is waited for: it must not come after what the next driver writes.
        drive.pending == 0
    }

    fn woken(&mut self, links: &mut Links, _badges: u64) {
        let Self { media, drives } = self;
        for disk in media.iter_mut().filter_map(remote) {
            while disk.finish(&mut |done| finished(drives, links, done)) {}
        }
    }

    fn rest(&mut self) -> bool {
        // All of them are to tell.
        let ended = self.media.iter_mut().filter_map(remote).filter_map(|d| d.rest().then_some(()));
        ended.count() > 0
    }

    fn turn(&mut self, links: &mut Links, at: usize) -> bool {
        let Some(link) = links.get_mut(at) else { return false };
        let Some(drive) = self.drives.get_mut(link.client()).and_then(Option::as_mut) else {
            return false;
        };
        let Some(medium) = self.media.get_mut(drive.disk.medium) else { return false };
        let mut sectors = 0;
        let mut more = false;
        for _ in 0..TURN {
            more = false;
            let Some(count) = drive.advance(medium, link) else { break };
            sectors += count;
            drive.complete(medium, link);
            more = true;
            if sectors >= BUDGET {
                break;
            }
        }
        drive.complete(medium, link);
        more
    }
}

#[cfg(test)]
mod tests;
