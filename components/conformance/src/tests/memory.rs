//! Memory: delegation, rights, revocation.

use core::sync::atomic::AtomicU64;
use core::sync::atomic::Ordering::SeqCst;

use ipc::cap::{MemRights, Range, Rights};
use ipc::exit::Exception;
use ipc::proto::start::{PAGES, layout};
use ipc::status::{Result, Status};
use sysroot::cap::{Cap, Pd};
use sysroot::memory::Pages;
use sysroot::num::{page, u64_of, usize_of};
use sysroot::{process, syscall};

use super::event::{EXECUTE, Prober, READ, WRITE};
use crate::check::{Failure, Outcome};
use crate::devices::Card;
use crate::domain::{Domain, with_rights};
use crate::runner::group;

group!("memory":
    malformed_ranges,
    what_is_not_held,
    a_destination_in_use,
    the_right_to_delegate,
    both_sides_see_the_same_memory,
    a_read_only_page_cannot_be_written,
    a_page_without_execute_cannot_be_executed,
    revocation_takes_it_away,
    revocation_of_the_right_to_write,
    revocation_reaches_through_domains,
    revocation_spares_the_holder_or_not,
    a_part_of_a_derived_range_takes_all_of_it,
    query_tells_what_is_held,
    aliases_in_the_own_domain,
    large_ranges,
    device_memory_can_be_write_combining,
);

const AT: u64 = super::FREE_ADDRESSES;

fn give(to: Cap<Pd>, range: Range, from: u64, at: u64) -> Result {
    // SAFETY: tests use the memory through cells that may change, or not at all.
    unsafe { syscall::delegate_memory(to, range, from, at) }
}

fn revoke(range: Range, page: u64) -> Result {
    // SAFETY: as above.
    unsafe { syscall::revoke_memory(range, page) }
}

/// A page fault with this error code.
const fn fault(error: u32) -> core::result::Result<u64, Exception> {
    Err(Exception { vector: 14, error: Some(error) })
}

const NOT_PRESENT: u32 = 0b100;
const WRITE_NOT_PRESENT: u32 = 0b110;
const WRITE_PROTECTED: u32 = 0b111;

fn malformed_ranges() -> Outcome {
    let d = ok!(Domain::bare(100));
    let heap = page(layout::HEAP.base);
    let read = MemRights::READ;
    let cases = [
        (Range::memory(0, MemRights::empty()), heap),
        (Range::memory(0, MemRights::WRITE), heap),
        (Range::memory(0, MemRights::EXECUTE), heap),
        (Range::memory(1, read), heap + 1),
        (Range::memory(19, read), heap),
        (Range::memory(63, read), 0),
        (Range::memory(0, read), u64::MAX),
        (Range(Range::memory(0, read).0 | 1 << 19), heap),
        (Range::memory(0, read).include_self(), heap),
        (Range::memory(0, read).translate(), heap),
        (Range::memory(0, read).write_combining(), heap),
        (Range(Range::memory(0, read).0 | 0xf8 << 8), heap),
    ];
    for (range, from) in cases {
        let result = give(d.pd, range, from, page(AT));
        same!((range, result), (range, Err(Status::BadParam)));
    }
    for at in [0, 0x7_ffff_ffff, 0x8_0000_0000, u64::MAX] {
        refused!(give(d.pd, Range::memory(0, read), heap, at), BadParam);
    }
    refused!(give(d.pd, Range::memory(1, read), heap, page(AT) + 1), BadParam);
    Ok(())
}

fn what_is_not_held() -> Outcome {
    let d = ok!(Domain::bare(100));
    let range = Range::memory(0, MemRights::READ);
    refused!(give(d.pd, range, page(AT), page(AT)), BadCap);
    // The UTCB is the kernel's.
    refused!(give(d.pd, range, page(layout::THREADS.base), page(AT)), BadCap);
    // The largest range that there can be.
    refused!(give(d.pd, Range::memory(18, MemRights::READ), 0, 1 << 18), BadCap);
    // More than one capability covers.
    let (held, first) = ok!(syscall::query(range, page(layout::IMAGE.base)));
    let more = Range::memory(held.order() + 9, MemRights::READ);
    let first = first & !((1 << more.order()) - 1);
    refused!(give(d.pd, more, first, page(layout::GUEST_RAM.base)), BadCap);
    // Rights that are not there are left out; none left is an error.
    ok!(give(d.pd, Range::memory(0, MemRights::RW), page(layout::IMAGE.base), page(AT)));
    Ok(())
}

fn a_destination_in_use() -> Outcome {
    let d = ok!(Domain::bare(100));
    let heap = page(layout::HEAP.base);
    let range = Range::memory(0, MemRights::READ);
    ok!(give(d.pd, range, heap, page(AT) + 3));
    refused!(give(d.pd, range, heap + 1, page(AT) + 3), Exists);
    refused!(give(d.pd, Range::memory(2, MemRights::READ), heap, page(AT)), Exists);
    refused!(give(process::pd(), range, heap, page(layout::THREADS.base)), Exists);
    Ok(())
}

fn the_right_to_delegate() -> Outcome {
    let mut d = ok!(Domain::bare(100));
    let pd = d.pd;
    let weak = ok!(with_rights(&mut d, pd, Rights::PD_CREATE | Rights::PD_CTRL));
    let range = Range::memory(0, MemRights::READ);
    refused!(give(weak, range, page(layout::HEAP.base), page(AT)), BadRight);
    refused!(syscall::delegate_ports(weak, 0, 0xf4), BadRight);
    Ok(())
}

/// The first word of pages.
fn cell(pages: Pages) -> core::result::Result<&'static AtomicU64, Failure> {
    // SAFETY: atomic, and valid with any content.
    unsafe { pages.view() }.ok_or(Failure::Skip("no pages"))
}

fn both_sides_see_the_same_memory() -> Outcome {
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(0));
    ok!(give(p.domain.pd, Range::memory(0, MemRights::RW), memory.page(), page(AT)));
    cell(memory)?.store(0x1234, SeqCst);
    same!(p.access(READ, AT, 0)?, Ok(0x1234));
    same!(p.access(WRITE, AT, 0x5678)?, Ok(0));
    same!(cell(memory)?.load(SeqCst), 0x5678);
    Ok(())
}

fn a_read_only_page_cannot_be_written() -> Outcome {
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(0));
    ok!(give(p.domain.pd, Range::memory(0, MemRights::READ), memory.page(), page(AT)));
    same!(p.access(READ, AT, 0)?, Ok(cell(memory)?.load(SeqCst)));
    same!(p.access(WRITE, AT, 1)?, fault(WRITE_PROTECTED));
    Ok(())
}

fn a_page_without_execute_cannot_be_executed() -> Outcome {
    const FETCH: u32 = 0b1_0101;
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(0));
    // RET
    cell(memory)?.store(0xc3, SeqCst);
    ok!(give(p.domain.pd, Range::memory(0, MemRights::RW), memory.page(), page(AT)));
    same!(p.access(EXECUTE, AT, 0)?, fault(FETCH));
    // Code of this program can be executed where the right is handed on.
    let code = page(layout::IMAGE.base);
    let rx = MemRights::READ | MemRights::EXECUTE;
    ok!(give(p.domain.pd, Range::memory(0, rx), code, page(AT) + 1));
    ok!(give(p.domain.pd, Range::memory(0, MemRights::READ), code, page(AT) + 2));
    same!(p.access(EXECUTE, AT + 0x2000, 0)?, fault(FETCH));
    Ok(())
}

fn revocation_takes_it_away() -> Outcome {
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(0));
    let range = Range::memory(0, MemRights::RW);
    for _ in 0..20 {
        ok!(give(p.domain.pd, range, memory.page(), page(AT)));
        same!(p.access(WRITE, AT, 7)?, Ok(0));
        ok!(revoke(Range::memory(0, MemRights::all()), memory.page()));
        same!(p.access(READ, AT, 0)?, fault(NOT_PRESENT));
        same!(p.access(WRITE, AT, 0)?, fault(WRITE_NOT_PRESENT));
    }
    // The holder keeps it.
    cell(memory)?.store(1, SeqCst);
    Ok(())
}

fn revocation_of_the_right_to_write() -> Outcome {
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(0));
    ok!(give(p.domain.pd, Range::memory(0, MemRights::RW), memory.page(), page(AT)));
    same!(p.access(WRITE, AT, 7)?, Ok(0));
    ok!(revoke(Range::memory(0, MemRights::WRITE), memory.page()));
    same!(p.access(READ, AT, 0)?, Ok(7));
    same!(p.access(WRITE, AT, 8)?, fault(WRITE_PROTECTED));
    cell(memory)?.store(9, SeqCst);
    same!(p.access(READ, AT, 0)?, Ok(9));
    Ok(())
}

fn revocation_reaches_through_domains() -> Outcome {
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(0));
    let rw = Range::memory(0, MemRights::RW);
    // Here, to an alias, to the other domain.
    let alias = page(super::FREE_ADDRESSES) + 0x100;
    ok!(give(process::pd(), rw, memory.page(), alias));
    ok!(give(p.domain.pd, rw, alias, page(AT)));
    same!(p.access(WRITE, AT, 7)?, Ok(0));
    ok!(revoke(Range::memory(0, MemRights::all()), memory.page()));
    same!(p.access(READ, AT, 0)?, fault(NOT_PRESENT));
    let (held, _) = ok!(syscall::query(rw, alias));
    same!(held.rights(), 0);
    Ok(())
}

fn revocation_spares_the_holder_or_not() -> Outcome {
    let memory = ok!(Pages::new(0));
    let rw = Range::memory(0, MemRights::RW);
    let alias = page(super::FREE_ADDRESSES) + 0x100;
    ok!(give(process::pd(), rw, memory.page(), alias));
    ok!(revoke(Range::memory(0, MemRights::all()), alias));
    same!(ok!(syscall::query(rw, alias)).0.rights(), MemRights::RW.bits());
    ok!(revoke(Range::memory(0, MemRights::WRITE).include_self(), alias));
    same!(ok!(syscall::query(rw, alias)).0.rights(), MemRights::READ.bits());
    ok!(revoke(Range::memory(0, MemRights::all()).include_self(), alias));
    same!(ok!(syscall::query(rw, alias)).0.rights(), 0);
    // Nothing there: nothing to do.
    ok!(revoke(Range::memory(0, MemRights::all()).include_self(), alias));
    refused!(revoke(Range::memory(1, MemRights::all()), alias + 1), BadParam);
    refused!(revoke(Range::memory(0, MemRights::empty()), alias), BadParam);
    Ok(())
}

fn a_part_of_a_derived_range_takes_all_of_it() -> Outcome {
    let p = ok!(Prober::new());
    let memory = ok!(Pages::new(2));
    ok!(give(p.domain.pd, Range::memory(2, MemRights::RW), memory.page(), page(AT)));
    same!(p.access(READ, AT + 0x3000, 0)?, Ok(0));
    ok!(revoke(Range::memory(0, MemRights::all()), memory.page() + 1));
    same!(p.access(READ, AT + 0x1000, 0)?, fault(NOT_PRESENT));
    same!(p.access(READ, AT + 0x3000, 0)?, fault(NOT_PRESENT));
    // Part of one's own cannot be given up.
    let own = Range::memory(0, MemRights::all()).include_self();
    refused!(revoke(own, memory.page()), BadParam);
    Ok(())
}

fn query_tells_what_is_held() -> Outcome {
    let range = Range::memory(0, MemRights::READ);
    let (held, first) = ok!(syscall::query(range, page(layout::HEAP.base) + 1));
    same!(held.rights(), MemRights::RW.bits());
    check!(held.order() > 0);
    same!(first, page(layout::HEAP.base));
    let (held, _) = ok!(syscall::query(range, page(layout::IMAGE.base)));
    same!(held.rights(), (MemRights::READ | MemRights::EXECUTE).bits());
    same!(ok!(syscall::query(range, page(super::FREE_ADDRESSES))).0.rights(), 0);
    same!(ok!(syscall::query(range, u64::MAX)).0.rights(), 0);
    // What lies between start block and stack is not mapped.
    let guard = page(layout::THREADS.base) + 1 + u64_of(PAGES);
    same!(ok!(syscall::query(range, guard)).0.rights(), 0);
    Ok(())
}

fn aliases_in_the_own_domain() -> Outcome {
    let memory = ok!(Pages::new(0));
    let alias = super::FREE_ADDRESSES + 0x20_0000;
    ok!(give(process::pd(), Range::memory(0, MemRights::RW), memory.page(), page(alias)));
    let place: *const AtomicU64 = core::ptr::with_exposed_provenance(usize_of(alias));
    cell(memory)?.store(0xabcd, SeqCst);
    // SAFETY: mapped above; atomic.
    same!(unsafe { &*place }.load(SeqCst), 0xabcd);
    ok!(revoke(Range::memory(0, MemRights::all()), memory.page()));
    Ok(())
}

fn large_ranges() -> Outcome {
    let p = ok!(Prober::new());
    let (held, first) =
        ok!(syscall::query(Range::memory(0, MemRights::READ), page(layout::HEAP.base)));
    if held.order() < 9 {
        return Err(Failure::Skip("the heap is not in large pieces"));
    }
    let order = held.order();
    ok!(give(
        p.domain.pd,
        Range::memory(order, MemRights::READ),
        first,
        page(layout::GUEST_RAM.base)
    ));
    let end = layout::GUEST_RAM.base + (4096 << order) - 8;
    check!(p.access(READ, end, 0)?.is_ok());
    same!(p.access(READ, end + 8, 0)?, fault(NOT_PRESENT));
    same!(p.access(WRITE, end, 0)?, fault(WRITE_PROTECTED));
    Ok(())
}

fn device_memory_can_be_write_combining() -> Outcome {
    let card = Card::find()?;
    let alias = super::FREE_ADDRESSES + 0x50_0000;
    let combining = Range::memory(0, MemRights::READ).write_combining();
    ok!(give(process::pd(), combining, page(card.registers.base), page(alias)));
    same!(card.status_at(alias), card.status_at(card.registers.base));
    // What is derived from it is so as well.
    let next = alias + 0x1000;
    ok!(give(process::pd(), Range::memory(0, MemRights::READ), page(alias), page(next)));
    same!(card.status_at(next), card.status_at(alias));
    ok!(revoke(Range::memory(0, MemRights::all()).include_self(), page(alias)));
    Ok(())
}
