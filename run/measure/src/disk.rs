//! Throughput and latency of a disk, which is overwritten.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::OFlags;

use crate::exits::Exits;
use crate::{float, quantile, say};

const MIB: u64 = 1 << 20;
/// A block.
const BLOCK: usize = 4 << 10;
/// A large request; the kernel makes several of it where the device takes less.
const LARGE: usize = 1 << 20;
/// How long something is repeated.
const TIME: Duration = Duration::from_millis(1000);
/// Requests in flight where there are several.
const DEPTH: usize = 8;
/// Most that is measured of a disk.
const MOST: u64 = 64 * MIB;

/// Which way data goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Read,
    Write,
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    fn transfer(self, file: &File, buffer: &mut [u8], at: u64) -> Result<()> {
        match self {
            Self::Read => file.read_exact_at(buffer, at),
            Self::Write => file.write_all_at(buffer, at),
        }
    }
}

/// Measures a disk and says the figures.
///
/// # Errors
/// A transfer fails.
pub fn measure(name: &str, device: &Path) -> Result<()> {
    let direct = open(device, OFlags::DIRECT.bits().cast_signed())?;
    let cached = open(device, 0)?;
    let size = rustix::fs::seek(&cached, rustix::fs::SeekFrom::End(0))?.min(MOST);
    if size < 2 * MIB {
        return Err(Error::new(ErrorKind::InvalidInput, "disk too small"));
    }
    let disk = Disk { name, direct, cached, size };
    // Every block is there before anything is measured, and whatever is on the way is warm.
    disk.pass(Way::Write)?;
    disk.pass(Way::Read)?;
    for way in [Way::Read, Way::Write] {
        disk.large(way)?;
    }
    for way in [Way::Read, Way::Write] {
        disk.blocks_through_cache(way)?;
    }
    for way in [Way::Read, Way::Write] {
        disk.random(way)?;
        disk.random_deep(way)?;
    }
    Ok(())
}

fn open(device: &Path, flags: i32) -> Result<File> {
    OpenOptions::new().read(true).write(true).custom_flags(flags).open(device)
}

struct Disk<'a> {
    name: &'a str,
    /// Past the page cache.
    direct: File,
    cached: File,
    size: u64,
}

impl Disk<'_> {
    /// Transfers the whole disk once, in large requests.
    fn pass(&self, way: Way) -> Result<()> {
        let mut space = Aligned::new(LARGE);
        let large = u64::try_from(LARGE).unwrap_or(MIB);
        (0..self.size / large).try_for_each(|n| way.transfer(&self.direct, space.get(), n * large))
    }

    /// Large requests one behind the other, past the page cache.
    fn large(&self, way: Way) -> Result<()> {
        let name = format!("{}/seq-{}-1m", self.name, way.name());
        let exits = Exits::now();
        let start = Instant::now();
        let mut passes = 0;
        while start.elapsed() < TIME || passes == 0 {
            self.pass(way)?;
            passes += 1;
        }
        let mib = float(passes * self.size / MIB);
        say(&name, "MiB/s", mib / start.elapsed().as_secs_f64());
        Exits::say_since(exits.as_ref(), &name, "exits/MiB", mib);
        Ok(())
    }

    /// Blocks one behind the other as programs do it: read-ahead and write-back gather them.
    fn blocks_through_cache(&self, way: Way) -> Result<()> {
        let name = format!("{}/seq-{}-4k", self.name, way.name());
        let mut block = vec![0x5a; BLOCK];
        let step = u64::try_from(BLOCK).unwrap_or(4096);
        // Empty caches.
        std::fs::write("/proc/sys/vm/drop_caches", "3")?;
        let exits = Exits::now();
        let start = Instant::now();
        for at in (0..self.size).step_by(BLOCK) {
            way.transfer(&self.cached, &mut block, at)?;
        }
        if way == Way::Write {
            self.cached.sync_all()?;
        }
        let mib = float(self.size / MIB);
        say(&name, "MiB/s", mib / start.elapsed().as_secs_f64());
        let requests = float(self.size / step);
        Exits::say_since(exits.as_ref(), &name, "exits/block", requests);
        Ok(())
    }

    /// Blocks anywhere, one at a time: how long one takes.
    fn random(&self, way: Way) -> Result<()> {
        let name = format!("{}/rand-{}-4k", self.name, way.name());
        let mut space = Aligned::new(BLOCK);
        let mut places = Places::new(self.size, 1);
        let mut times = Vec::new();
        let exits = Exits::now();
        let start = Instant::now();
        while start.elapsed() < TIME {
            let begin = Instant::now();
            way.transfer(&self.direct, space.get(), places.next())?;
            times.push(begin.elapsed().as_secs_f64() * 1e6);
        }
        let count = float(u64::try_from(times.len()).unwrap_or(u64::MAX));
        say(&name, "IO/s", count / start.elapsed().as_secs_f64());
        Exits::say_since(exits.as_ref(), &name, "exits/request", count);
        times.sort_by(f64::total_cmp);
        say(format_args!("{name}/latency"), "us", quantile(&times, 0.5));
        say(format_args!("{name}/latency-p99"), "us", quantile(&times, 0.99));
        Ok(())
    }

    /// Blocks anywhere, several at a time.
    fn random_deep(&self, way: Way) -> Result<()> {
        let name = format!("{}/rand-{}-4k-x{DEPTH}", self.name, way.name());
        let done = AtomicU64::new(0);
        let exits = Exits::now();
        let start = Instant::now();
        let work = |seed| {
            let mut space = Aligned::new(BLOCK);
            let mut places = Places::new(self.size, seed);
            while start.elapsed() < TIME {
                way.transfer(&self.direct, space.get(), places.next())?;
                // Counts only.
                done.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        std::thread::scope(|scope| {
            let threads = (1..=DEPTH).map(|n| {
                let seed = u64::try_from(n).unwrap_or(1);
                scope.spawn(move || work(seed))
            });
            let threads: Vec<_> = threads.collect();
            let ends = threads.into_iter().map(|thread| {
                thread.join().unwrap_or_else(|_| Err(Error::other("a thread panicked")))
            });
            ends.collect::<Result<()>>()
        })?;
        let count = float(done.into_inner());
        say(&name, "IO/s", count / start.elapsed().as_secs_f64());
        Exits::say_since(exits.as_ref(), &name, "exits/request", count);
        Ok(())
    }
}

/// A buffer that begins at a page, as transfers past the page cache want it.
struct Aligned {
    bytes: Vec<u8>,
    start: usize,
    len: usize,
}

impl Aligned {
    fn new(len: usize) -> Self {
        let bytes = vec![0xa5; len + BLOCK];
        let start = bytes.as_ptr().align_offset(BLOCK);
        Self { bytes, start, len }
    }

    fn get(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.start..self.start + self.len).unwrap_or_default()
    }
}

/// Places of blocks on a disk: the same ones in each run.
struct Places {
    blocks: u64,
    state: u64,
}

impl Places {
    fn new(size: u64, seed: u64) -> Self {
        let block = u64::try_from(BLOCK).unwrap_or(4096);
        Self { blocks: (size / block).max(1), state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    }

    /// Xorshift (Marsaglia 2003).
    fn next(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % self.blocks * u64::try_from(BLOCK).unwrap_or(4096)
    }
}

#[cfg(test)]
mod tests {
    use super::{Aligned, BLOCK, Places};

    #[test]
    fn places_are_blocks_of_the_disk() {
        let mut places = Places::new(1 << 20, 3);
        let list: Vec<u64> = (0..1000).map(|_| places.next()).collect();
        assert!(list.iter().all(|at| at % 4096 == 0 && *at < 1 << 20));
        assert!(list.iter().any(|at| *at > 1 << 19) && list.iter().any(|at| *at < 1 << 19));
    }

    #[test]
    fn buffers_begin_at_a_page() {
        let mut space = Aligned::new(BLOCK);
        assert_eq!(space.get().len(), BLOCK);
        assert_eq!(space.get().as_ptr().align_offset(BLOCK), 0);
    }
}
