#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use core::ptr::NonNull;

use proptest::prelude::*;

use super::{Account, Status};
use crate::mem::frames::Frames;
use crate::mem::pool::PAGE_SIZE;
use crate::mem::tests::Region;

#[test]
fn quota_is_exact() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let account = Account::new(0);
    root.transfer(&account, 3).unwrap();
    assert_eq!(root.transfer(&account, 1000), Err(Status::Quota));
    let pages = [0; 3].map(|_| account.alloc_page(frames).unwrap());
    assert_eq!(account.alloc_page(frames), Err(Status::Quota));
    assert_eq!(account.alloc(frames, 1_u64), Err(Status::Quota));
    assert_eq!(account.transfer(root, 1), Err(Status::Quota));
    assert_eq!((account.limit(), account.used()), (3, 3));
    for page in pages {
        // SAFETY: it is unused.
        unsafe { account.free_page(frames, page) };
    }
    account.surrender(root);
    assert_eq!((account.limit(), account.used()), (0, 0));
    assert_eq!(root.limit(), frames.free_pages());
}

#[test]
fn objects_are_dropped_and_aligned() {
    struct Noisy<'a>(&'a core::cell::Cell<u32>, [u8; 500]);
    impl Drop for Noisy<'_> {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    let drops = core::cell::Cell::new(0);
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let object = root.alloc(frames, Noisy(&drops, [7; 500])).unwrap();
    assert_eq!(object.addr().get() % 512, 0);
    // SAFETY: the object is alive.
    assert_eq!(unsafe { object.as_ref() }.1, [7; 500]);
    assert_eq!(root.used(), 1);
    // SAFETY: nobody uses it.
    unsafe { Account::free(frames, object) };
    assert_eq!((drops.get(), root.used()), (1, 0));

    frames.fail_after = Some(0);
    assert!(root.alloc(frames, Noisy(&drops, [7; 500])).is_err());
    assert_eq!((drops.get(), root.used()), (2, 0));
}

#[test]
fn largest_class() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let a = root.alloc(frames, [1_u64; 256]).unwrap();
    let b = root.alloc(frames, [2_u64; 256]).unwrap();
    assert_eq!(root.used(), 2);
    // SAFETY: allocated above, freed once.
    unsafe {
        assert_eq!((a.read(), b.read()), ([1; 256], [2; 256]));
        Account::free(frames, a);
        Account::free(frames, b);
    }
    assert_eq!(root.used(), 0);
}

#[test]
fn freed_slots_of_full_pages_are_used_again() {
    let mut region = Region::new(64);
    let Region { frames, root, .. } = &mut *region;
    let mut objects: Vec<_> =
        (0..3 * 7).map(|_| root.alloc(frames, [0_u64; 64]).unwrap()).collect();
    assert_eq!(root.used(), 3);
    for picks in [vec![3], vec![2, 9, 16], vec![0, 1, 7, 8, 20]] {
        for &i in &picks {
            // SAFETY: the object was allocated and is replaced below.
            unsafe { Account::free(frames, objects[i]) };
        }
        for &i in &picks {
            objects[i] = root.alloc(frames, [0; 64]).unwrap();
        }
        assert_eq!(root.used(), 3);
    }
    objects.sort();
    objects.dedup();
    assert_eq!(objects.len(), 21);
    for object in objects {
        // SAFETY: the object was allocated above.
        unsafe { Account::free(frames, object) };
    }
    assert_eq!(root.used(), 0);
}

#[derive(Clone, Copy, Debug)]
enum Object {
    Small(NonNull<[u64; 8]>),
    Middle(NonNull<[u64; 25]>),
    Large(NonNull<[u64; 100]>),
}

impl Object {
    fn new(account: &Account, frames: &mut Frames, size: u8, tag: u64) -> Option<Self> {
        Some(match size {
            0 => Self::Small(account.alloc(frames, [tag; 8]).ok()?),
            1 => Self::Middle(account.alloc(frames, [tag; 25]).ok()?),
            _ => Self::Large(account.alloc(frames, [tag; 100]).ok()?),
        })
    }

    fn words(&self) -> &[u64] {
        // SAFETY: the objects of the test live until `free`.
        unsafe {
            match self {
                Self::Small(p) => p.as_ref(),
                Self::Middle(p) => p.as_ref(),
                Self::Large(p) => p.as_ref(),
            }
        }
    }

    fn free(self, frames: &mut Frames) {
        // SAFETY: each object is freed once.
        unsafe {
            match self {
                Self::Small(p) => Account::free(frames, p),
                Self::Middle(p) => Account::free(frames, p),
                Self::Large(p) => Account::free(frames, p),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    /// Two accounts, objects of several classes: contents stay intact, no page is kept without an
    /// object, and no object shares a page with one of another account.
    #[test]
    fn random_use(steps in prop::collection::vec((0..3_u8, 0..2_usize, any::<usize>()), 1..400)) {
        let mut region = Region::new(64);
        let frames = &mut region.frames;
        let accounts = [Account::new(20), Account::new(9)];
        let total = frames.free_pages();
        let mut held: Vec<(Object, u64, usize)> = Vec::new();
        let mut tag = 0;
        for (size, account, pick) in steps {
            tag += 1;
            if pick % 3 != 0 {
                let used = accounts[account].used();
                match Object::new(&accounts[account], frames, size, tag) {
                    Some(object) => held.push((object, tag, account)),
                    None => prop_assert_eq!(accounts[account].limit(), used),
                }
            } else if !held.is_empty() {
                let (object, tag, _) = held.swap_remove(pick % held.len());
                prop_assert!(object.words().iter().all(|&w| w == tag));
                object.free(frames);
            }
            let mut pages = std::collections::BTreeMap::new();
            for (object, _, account) in &held {
                let page = object.words().as_ptr().addr() as u64 / PAGE_SIZE;
                prop_assert_eq!(*pages.entry(page).or_insert(account), account);
            }
            for (i, account) in accounts.iter().enumerate() {
                let pages = pages.values().filter(|a| ***a == i).count();
                prop_assert_eq!(account.used(), pages as u64);
            }
            prop_assert_eq!(frames.free_pages(), total - pages.len() as u64);
        }
        for (object, tag, _) in held {
            prop_assert!(object.words().iter().all(|&w| w == tag));
            object.free(frames);
        }
        prop_assert_eq!(frames.free_pages(), total);
    }
}
