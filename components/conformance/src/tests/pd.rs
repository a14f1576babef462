//! Protection domains and their accounts.

use ipc::cap::Rights;
use sysroot::cap::{Cap, Pd};
use sysroot::{process, selector, syscall};

use crate::check::Outcome;
use crate::domain::{Domain, empty, own, with_rights};
use crate::runner::{group, used};

group!("pd":
    quota_moves_to_the_new_domain_and_back,
    destruction_gives_back_everything,
    more_than_there_is_is_refused,
    too_little_for_its_own_tables_is_refused,
    a_selector_in_use_is_refused,
    rights_are_checked,
    quota_can_be_added,
    every_object_is_charged_and_exhaustion_is_a_status,
    domains_in_domains,
);

fn quota_moves_to_the_new_domain_and_back() -> Outcome {
    // The first one makes room for its selector.
    drop(ok!(Domain::bare(100)));
    let before = ok!(syscall::account(process::pd()));
    let d = ok!(Domain::bare(100));
    let during = ok!(syscall::account(process::pd()));
    let theirs = ok!(syscall::account(d.pd));
    same!(theirs.limit, 100);
    check!(theirs.used > 0 && theirs.used < 10);
    same!(before.limit - during.limit, 100);
    drop(d);
    same!(ok!(syscall::account(process::pd())), before);
    Ok(())
}

fn destruction_gives_back_everything() -> Outcome {
    let fill = |d: &mut Domain| -> Outcome {
        for n in 10..200 {
            let at = selector::alloc()?;
            ok!(syscall::create_sm(at, d.pd, 0));
            d.keep(at);
            ok!(d.give(Cap::<sysroot::cap::Semaphore>::new(at), n, Rights::FULL));
        }
        Ok(())
    };
    let round = || -> Outcome {
        let mut d = ok!(Domain::new(300));
        fill(&mut d)?;
        Ok(())
    };
    round()?;
    let before = used()?;
    for _ in 0..5 {
        round()?;
    }
    same!(used()?, before);
    Ok(())
}

fn more_than_there_is_is_refused() -> Outcome {
    let account = ok!(syscall::account(process::pd()));
    let at = empty()?;
    refused!(syscall::create_pd(at, process::pd(), account.limit + 1), Quota);
    refused!(syscall::create_pd(at, process::pd(), account.limit - account.used + 1), Quota);
    refused!(syscall::create_pd(at, process::pd(), u64::MAX), Quota);
    same!(ok!(syscall::account(process::pd())), account);
    Ok(())
}

fn too_little_for_its_own_tables_is_refused() -> Outcome {
    let at = empty()?;
    // Make room for the selector.
    ok!(syscall::create_sm(at, process::pd(), 0));
    selector::delete(at);
    let before = ok!(syscall::account(process::pd()));
    refused!(syscall::create_pd(at, process::pd(), 0), Quota);
    same!(ok!(syscall::account(process::pd())), before);
    Ok(())
}

fn a_selector_in_use_is_refused() -> Outcome {
    let d = ok!(Domain::bare(50));
    refused!(syscall::create_pd(d.pd.selector(), process::pd(), 50), Exists);
    Ok(())
}

fn rights_are_checked() -> Outcome {
    let mut d = ok!(Domain::bare(50));
    let at = empty()?;
    let pd = d.pd;
    let weak = ok!(with_rights(&mut d, pd, Rights::PD_DELEGATE | Rights::PD_CTRL));
    refused!(syscall::create_pd(at, weak, 1), BadRight);
    refused!(syscall::create_sm(at, weak, 0), BadRight);
    refused!(syscall::create_guest(at, weak), BadRight);
    refused!(syscall::move_quota(process::pd(), 1, weak), BadRight);
    let weak = ok!(with_rights(&mut d, pd, Rights::PD_CREATE | Rights::PD_CTRL));
    refused!(syscall::delegate_object(weak, process::pd(), at, Rights::FULL, 0), BadRight);
    let weak = ok!(with_rights(&mut d, pd, Rights::PD_CREATE | Rights::PD_DELEGATE));
    refused!(syscall::account(weak), BadRight);
    refused!(syscall::move_quota(weak, 1, process::pd()), BadRight);
    Ok(())
}

fn quota_can_be_added() -> Outcome {
    let d = ok!(Domain::bare(50));
    let before = ok!(syscall::account(process::pd()));
    let after = ok!(syscall::move_quota(d.pd, 25, process::pd()));
    same!(after.limit, 75);
    same!(ok!(syscall::account(process::pd())).limit, before.limit - 25);
    refused!(syscall::move_quota(d.pd, before.limit, process::pd()), Quota);
    refused!(syscall::move_quota(process::pd(), 75, d.pd), Quota);
    let back = ok!(syscall::move_quota(process::pd(), 25, d.pd));
    same!(back.limit, before.limit);
    Ok(())
}

/// Creates objects in a small domain until there is no memory left, and compares the accounts.
fn exhaust(mut create: impl FnMut(&mut Domain) -> ipc::status::Result) -> Outcome {
    let mut d = ok!(Domain::new(60));
    let mut count = 0;
    let status = loop {
        match create(&mut d) {
            Ok(()) => count += 1,
            Err(status) => break status,
        }
        check!(count < 20_000);
    };
    same!(status, ipc::status::Status::Quota);
    let account = ok!(syscall::account(d.pd));
    check!(account.used <= account.limit);
    // A failed call changes nothing.
    let again = create(&mut d);
    same!(again, Err(ipc::status::Status::Quota));
    same!(ok!(syscall::account(d.pd)), account);
    Ok(())
}

fn every_object_is_charged_and_exhaustion_is_a_status() -> Outcome {
    let before = used()?;
    exhaust(|d| {
        let at = selector::alloc()?;
        let created = syscall::create_sm(at, d.pd, 0).map(drop);
        match created {
            Ok(()) => d.keep(at),
            Err(_) => selector::free(at),
        }
        created
    })?;
    let mut next = 100;
    exhaust(|d| {
        next += 1;
        d.give(process::semaphore(), next, Rights::SM_UP).inspect_err(|_| next -= 1)
    })?;
    let mut page = sysroot::num::page(super::FREE_ADDRESSES);
    let heap = sysroot::num::page(ipc::proto::start::layout::HEAP.base);
    exhaust(|d| {
        // Each page in a page table of its own.
        page += 512;
        let range = ipc::cap::Range::memory(0, ipc::cap::MemRights::READ);
        // SAFETY: nobody runs in the domain.
        unsafe { syscall::delegate_memory(d.pd, range, heap, page) }.inspect_err(|_| page -= 512)
    })?;
    // The component's own object space may have grown, not more.
    check!(used()? <= before + 64);
    Ok(())
}

fn domains_in_domains() -> Outcome {
    let d = ok!(Domain::bare(200));
    let at = empty()?;
    let inner: Cap<Pd> = ok!(syscall::create_pd(at, d.pd, 100));
    same!(ok!(syscall::account(d.pd)).limit, 100);
    let innermost = empty()?;
    let pd = ok!(syscall::create_pd(innermost, inner, 50));
    same!(ok!(syscall::account(pd)).limit, 50);
    // The middle one goes first.
    selector::delete(at);
    same!(ok!(syscall::account(pd)).limit, 50);
    selector::delete(innermost);
    same!(ok!(syscall::account(d.pd)).limit, 200);
    let _ = own();
    Ok(())
}
