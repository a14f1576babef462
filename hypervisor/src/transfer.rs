//! Typed items of a message: capabilities that are delegated or translated.
//!
//! Either all items of a message arrive or none does.

use core::ptr::NonNull;

use heapless::Vec;
use ipc::cap::{Range, Space};
use ipc::status::{Result, Status};
use ipc::utcb::{ITEMS, Item, Utcb, Window};

use crate::arch::percpu::PerCpu;
use crate::cap::{self, Delegation, Owner, PdSpaces};
use crate::cap_call::ports_given;
use crate::destroy;
use crate::num::usize_of;
use crate::object::Obj;
use crate::object::ec::Ec;
use crate::sync::Guard;

/// Transfers the first `count` items of `from` to `to`.
///
/// # Errors
/// `NoWindow`: the receiver opened none that fits. What [`Delegation::check`] and
/// [`cap::translate`] report. Nothing was transferred then.
pub fn items(kernel: &mut Guard, cpu: &PerCpu, from: Obj<Ec>, to: Obj<Ec>, count: usize) -> Result {
    let (Some(source), Some(target)) = (from.utcb, to.utcb) else { return Err(Status::BadState) };
    let mut plans = Vec::<_, ITEMS>::new();
    for n in 0..count.min(ITEMS) {
        let plan = plan(&from.pd.spaces, &to.pd.spaces, read_item(source, n), target)?;
        plans.push(plan).map_err(|_| Status::BadParam)?;
    }
    let mut done = Vec::<_, ITEMS>::new();
    for delegation in plans.iter().filter_map(|(delegation, _)| delegation.as_ref()) {
        match delegation.commit(&mut kernel.frames) {
            // As many places as plans.
            Ok(node) => drop(done.push(node)),
            Err(status) => {
                let mut outcome = cap::Outcome::default();
                let state = &mut **kernel;
                for node in done {
                    cap::remove(&mut state.frames, &mut state.revocations, node, &mut outcome);
                }
                destroy::conclude(kernel, cpu, outcome);
                return Err(status);
            }
        }
    }
    for (n, (delegation, item)) in plans.into_iter().enumerate() {
        let range = Range(item.range);
        if delegation.is_some() && range.space() == Some(Space::Port) {
            ports_given(kernel, cpu, range, item.base);
        }
        write_item(target, n, item);
    }
    Ok(())
}

/// What becomes of one item: a delegation, and how the receiver is told.
fn plan<'a>(
    from: &PdSpaces,
    to: &'a PdSpaces,
    item: Item,
    receiver: NonNull<Utcb>,
) -> Result<(Option<Delegation<'a>>, Item)> {
    let range = Range(item.range);
    let space = range.space().ok_or(Status::BadParam)?;
    if range.is_translate() {
        return Ok((None, cap::translate(from, to, range, item.base)?));
    }
    let (base, order) = read_window(receiver, space).get().ok_or(Status::NoWindow)?;
    if range.order() > order {
        return Err(Status::NoWindow);
    }
    let size = 1u64 << order;
    let place = match space {
        // A port keeps its number, so it has to lie in the window.
        Space::Port if item.base.wrapping_sub(base) < size => item.base,
        Space::Port => return Err(Status::NoWindow),
        Space::Object | Space::Memory => {
            base + (item.offset & (size - 1) & !((1 << range.order()) - 1))
        }
    };
    let delegation = Delegation::check(from, Owner::Pd(to), range, item.base, place, item.badge)?;
    let item = Item { range: delegation.granted().0, base: place, offset: 0, badge: 0 };
    Ok((Some(delegation), item))
}

fn read_item(utcb: NonNull<Utcb>, n: usize) -> Item {
    // SAFETY: a live UTCB frame and an index below ITEMS; the owner may write meanwhile, so each
    // item is read once and checked afterwards.
    unsafe { (&raw const (*utcb.as_ptr()).items).cast::<Item>().add(n).read_volatile() }
}

fn write_item(utcb: NonNull<Utcb>, n: usize, item: Item) {
    // SAFETY: as in `read_item`.
    unsafe { (&raw mut (*utcb.as_ptr()).items).cast::<Item>().add(n).write_volatile(item) };
}

fn read_window(utcb: NonNull<Utcb>, space: Space) -> Window {
    let index = usize_of(u64::from(space.number()));
    // SAFETY: as in `read_item`; there is a window for each space.
    unsafe { (&raw const (*utcb.as_ptr()).windows).cast::<Window>().add(index).read_volatile() }
}
