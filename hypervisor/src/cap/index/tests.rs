#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "tests"
)]

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{Entry, Index, Links};

struct Item {
    key: u64,
    id: u64,
    links: Links<&'static Item>,
}

impl PartialEq for Item {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self, other)
    }
}

impl Eq for Item {}

impl Entry for &'static Item {
    fn key(&self) -> u64 {
        self.key
    }

    fn id(&self) -> u64 {
        self.id
    }

    fn links(&self) -> &Links<Self> {
        &self.links
    }
}

fn item(key: u64, id: u64) -> &'static Item {
    Box::leak(Box::new(Item { key, id, links: Links::new() }))
}

#[test]
fn sorted_input_stays_balanced() {
    let index = Index::new();
    let items: Vec<_> = (0..1000).map(|i| item(i, 0)).collect();
    for &item in &items {
        index.insert(item);
        index.check().unwrap();
    }
    assert_eq!(index.first().unwrap().key, 0);
    assert!(index.floor(u64::MAX).unwrap().key == 999 && index.ceil(1000).is_none());
    for &item in items.iter().rev() {
        index.remove(item);
        assert!(!item.links.is_linked());
        index.check().unwrap();
    }
    assert!(index.any().is_none() && index.first().is_none() && index.floor(9).is_none());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn like_an_ordered_set(steps in prop::collection::vec((0..60_u64, 0..4_u64, 0..80_u64), 1..300)) {
        let index = Index::new();
        let items: Vec<_> = (0..240).map(|i| item(i / 4, i % 4)).collect();
        let mut model = BTreeSet::new();
        for (key, id, probe) in steps {
            let item = items[(key * 4 + id) as usize];
            if model.insert((key, id)) {
                index.insert(item);
            } else {
                model.remove(&(key, id));
                index.remove(item);
            }
            prop_assert_eq!(index.check(), Ok(model.len()));
            let floor = model.range(..=(probe, u64::MAX)).next_back().copied();
            let ceil = model.range((probe, 0)..).next().copied();
            prop_assert_eq!(index.floor(probe).map(|i| (i.key, i.id)), floor);
            prop_assert_eq!(index.ceil(probe).map(|i| (i.key, i.id)), ceil);
            prop_assert_eq!(index.any().is_none(), model.is_empty());
        }
    }
}
