//! Physical memory that is not given to anybody: first fit over sorted ranges.

use alloc::vec::Vec;

/// Bytes of a page.
pub const PAGE: u64 = ipc::PAGE_SIZE as u64;
/// Bytes of a large page.
pub const LARGE_PAGE: u64 = 2 << 20;

/// A range of physical memory; base and size are multiples of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First byte.
    pub base: u64,
    /// Size in bytes.
    pub size: u64,
}

impl Span {
    /// The first byte behind it.
    #[must_use]
    pub const fn end(self) -> u64 {
        self.base + self.size
    }
}

/// Free memory: sorted, disjoint spans that do not touch each other.
#[derive(Debug, Default)]
pub struct Memory {
    free: Vec<Span>,
}

impl Memory {
    /// No memory.
    #[must_use]
    pub const fn new() -> Self {
        Self { free: Vec::new() }
    }

    /// Adds a span, cut to whole pages. What is free already is not added twice.
    pub fn add(&mut self, base: u64, size: u64) {
        let end = base.saturating_add(size) & !(PAGE - 1);
        let Some(mut base) = base.checked_next_multiple_of(PAGE) else { return };
        // Memory that is free already splits the span into the gaps between.
        for span in self.free.clone() {
            if base < span.end() && span.base < end {
                self.insert(base, span.base);
                base = span.end();
            }
        }
        self.insert(base, end);
    }

    fn insert(&mut self, base: u64, end: u64) {
        if base >= end {
            return;
        }
        let at = self.free.partition_point(|s| s.base < base);
        self.free.insert(at, Span { base, size: end - base });
        self.join(at);
        if let Some(before) = at.checked_sub(1) {
            self.join(before);
        }
    }

    /// Joins the span at `index` with its successor where they touch.
    fn join(&mut self, index: usize) {
        let next = self.free.get(index + 1).copied();
        if let (Some(span), Some(next)) = (self.free.get_mut(index), next)
            && span.end() == next.base
        {
            span.size += next.size;
            self.free.remove(index + 1);
        }
    }

    /// Takes `size` bytes (rounded up to pages) at a multiple of `align`, a power of two.
    pub fn take(&mut self, size: u64, align: u64) -> Option<Span> {
        let size = size.checked_next_multiple_of(PAGE).filter(|&s| s > 0)?;
        let align = align.max(PAGE);
        let (index, span, base) = self.free.iter().enumerate().find_map(|(index, span)| {
            let base = span.base.checked_next_multiple_of(align)?;
            (base.checked_add(size)? <= span.end()).then_some((index, *span, base))
        })?;
        self.free.remove(index);
        self.insert(span.base, base);
        self.insert(base + size, span.end());
        Some(Span { base, size })
    }

    /// Takes `size` bytes as well aligned as possible, at least to `align`: the better aligned,
    /// the fewer capabilities it takes to hand them out.
    pub fn take_aligned(&mut self, size: u64, align: u64) -> Option<Span> {
        let mut best = if size == 0 { align } else { 1 << size.ilog2() };
        best = best.min(1 << 30);
        while best > align {
            if let Some(span) = self.take(size, best) {
                return Some(span);
            }
            best /= 2;
        }
        self.take(size, align)
    }

    /// Takes `size` bytes, in one piece if possible, else in as few as there need to be; all but
    /// the last one are multiples of `align` in size.
    pub fn take_pieces(&mut self, size: u64, align: u64) -> Option<Vec<Span>> {
        let mut left = size.checked_next_multiple_of(PAGE)?;
        let mut pieces = Vec::new();
        while left > 0 {
            let piece = self.take_aligned(left, align).or_else(|| {
                let largest = self.free.iter().map(|s| usable(*s, align)).max()?;
                self.take(largest, align)
            });
            let Some(piece) = piece else {
                for piece in pieces {
                    self.give(piece);
                }
                return None;
            };
            left = left.saturating_sub(piece.size);
            pieces.push(piece);
        }
        Some(pieces)
    }

    /// Gives back what was taken.
    pub fn give(&mut self, span: Span) {
        self.add(span.base, span.size);
    }

    /// Free bytes.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.free.iter().map(|s| s.size).sum()
    }

    /// Size of the largest span.
    #[must_use]
    pub fn largest(&self) -> u64 {
        self.free.iter().map(|s| s.size).max().unwrap_or(0)
    }

    /// The free spans, in order.
    #[must_use]
    pub fn spans(&self) -> &[Span] {
        &self.free
    }
}

/// Bytes of a span that lie in whole multiples of `align`.
fn usable(span: Span, align: u64) -> u64 {
    let align = align.max(PAGE);
    let base = span.base.checked_next_multiple_of(align).unwrap_or(span.end());
    span.end().saturating_sub(base) & !(align - 1)
}

/// Splits a range that is to appear at another address into naturally aligned powers of two of
/// pages: source page, destination page, order.
pub fn chunks(source: u64, to: u64, size: u64) -> impl Iterator<Item = (u64, u64, u8)> {
    let (mut from, mut to) = (source / PAGE, to / PAGE);
    let mut left = size.div_ceil(PAGE);
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let order = left.ilog2().min(from.trailing_zeros()).min(to.trailing_zeros());
        let order = u8::try_from(order).unwrap_or(0);
        let item = (from, to, order);
        let pages = 1u64 << order;
        from += pages;
        to += pages;
        left -= pages;
        Some(item)
    })
}

/// Splits a port range in the same way: first port and order.
pub fn port_chunks(first: u16, count: u16) -> impl Iterator<Item = (u16, u8)> {
    let (mut at, mut left) = (u32::from(first), u32::from(count).min(0x1_0000 - u32::from(first)));
    core::iter::from_fn(move || {
        if left == 0 {
            return None;
        }
        let order = left.ilog2().min(at.trailing_zeros());
        let item = (u16::try_from(at).unwrap_or(0), u8::try_from(order).unwrap_or(0));
        at += 1 << order;
        left -= 1 << order;
        Some(item)
    })
}

#[cfg(test)]
mod tests;
