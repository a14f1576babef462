//! Tags that tell the TLB entries of guests apart: ASIDs on one vendor, VPIDs on the other.
//!
//! Each CPU hands out its tags in order. A guest whose translations became stale gets a fresh tag
//! instead of a flush; when the tags run out, everything is flushed once and a new generation
//! begins. Tag 0 is the host's.

/// One CPU's supply of tags.
#[derive(Debug)]
pub(super) struct Tags {
    /// Identifies the CPU.
    cpu: u64,
    generation: u64,
    next: u32,
    /// One more than the largest tag.
    limit: u32,
    /// All entries of all tags are to be flushed on the next entry, which ends that where it
    /// succeeds.
    pub(super) flush: bool,
}

/// A guest's tag, and for what it is valid.
#[derive(Debug, Default)]
pub(super) struct Tag {
    cpu: u64,
    generation: u64,
    space: u64,
    /// The number for the processor.
    pub(super) value: u32,
}

/// What happened to a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Renewed {
    /// It is still good.
    Kept,
    /// It is another one, on the same CPU as before.
    New,
    /// It is another one, and the guest ran elsewhere before.
    Moved,
}

impl Tags {
    /// The supply of CPU `cpu` (not 0) with tags 1 to `limit` - 1.
    pub(super) const fn new(cpu: u64, limit: u32) -> Self {
        // What firmware left in the TLB is flushed with the first entry.
        Self { cpu, generation: 1, next: 1, limit, flush: true }
    }

    /// Makes `tag` good for this CPU and generation `space` of the guest's memory.
    pub(super) fn renew(&mut self, tag: &mut Tag, space: u64) -> Renewed {
        if tag.cpu == self.cpu && tag.generation == self.generation && tag.space == space {
            return Renewed::Kept;
        }
        self.replace(tag, space)
    }

    #[cold]
    fn replace(&mut self, tag: &mut Tag, space: u64) -> Renewed {
        if self.next >= self.limit {
            self.generation += 1;
            self.next = 1;
            self.flush = true;
        }
        let moved = tag.cpu != self.cpu;
        *tag = Tag { cpu: self.cpu, generation: self.generation, space, value: self.next };
        self.next += 1;
        if moved { Renewed::Moved } else { Renewed::New }
    }
}
