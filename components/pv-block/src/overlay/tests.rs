use core::sync::atomic::AtomicU64;

use proptest::prelude::*;

use super::{BLOCK, Layout, Overlay, OverlayError, Place, WriteError};

const SECTORS: u64 = 100;

/// A store whose content outlives overlays.
struct Store {
    head: Vec<AtomicU64>,
    data: Vec<u8>,
}

impl Store {
    fn new(slots: u64) -> Self {
        let layout = Layout::new(SECTORS, 8192 + slots * 4096).unwrap();
        assert_eq!(u64::from(layout.slots), slots);
        Self {
            head: (0..layout.words).map(|_| AtomicU64::new(0)).collect(),
            data: vec![0xee; slots as usize * 4096],
        }
    }

    fn open(&mut self) -> Overlay<'_> {
        Overlay::open(SECTORS, &self.head, &mut self.data).unwrap()
    }
}

fn write(overlay: &mut Overlay<'_>, sector: u64, count: u64, value: u8) -> Result<(), WriteError> {
    overlay.write(sector, count, |to| {
        to.fill(value);
        true
    })
}

/// The first byte of a sector; `None` where it is the medium's.
fn read(overlay: &Overlay<'_>, sector: u64) -> Option<u8> {
    match overlay.locate(sector, 1).0 {
        Place::Slot(at) => {
            let bytes = overlay.bytes(at, 512).unwrap();
            assert!(bytes.iter().all(|b| *b == bytes[0]));
            Some(bytes[0])
        }
        Place::Zero => Some(0),
        Place::Medium => None,
    }
}

#[test]
fn a_new_overlay_shows_the_medium() {
    let mut store = Store::new(4);
    let overlay = store.open();
    assert_eq!(overlay.locate(0, SECTORS), (Place::Medium, SECTORS));
    assert_eq!(overlay.free(), 4);
}

#[test]
fn a_write_covers_its_sectors_only() {
    let mut store = Store::new(4);
    let mut overlay = store.open();
    write(&mut overlay, 6, 4, 7).unwrap();
    for sector in 0..16 {
        assert_eq!(read(&overlay, sector), (6..10).contains(&sector).then_some(7), "{sector}");
    }
    assert_eq!(overlay.free(), 2);
    assert_eq!(overlay.locate(0, 100), (Place::Medium, 6));
}

#[test]
fn adjacent_sectors_of_a_slot_are_one_run() {
    let mut store = Store::new(4);
    let mut overlay = store.open();
    write(&mut overlay, 8, 8, 1).unwrap();
    let (place, run) = overlay.locate(9, 20);
    assert_eq!(run, 7);
    assert!(matches!(place, Place::Slot(at) if at % 4096 == 512));
}

#[test]
fn it_survives_its_component() {
    let mut store = Store::new(4);
    write(&mut store.open(), 3, 2, 9).unwrap();
    store.open().clear(4, 1);
    let overlay = store.open();
    assert_eq!(read(&overlay, 3), Some(9));
    assert_eq!(read(&overlay, 4), Some(0));
    assert_eq!(read(&overlay, 5), None);
    assert_eq!(overlay.free(), 3);
}

#[test]
fn cleared_sectors_are_zero_and_give_back_their_slot() {
    let mut store = Store::new(1);
    let mut overlay = store.open();
    write(&mut overlay, 0, 8, 5).unwrap();
    overlay.clear(0, 7);
    assert_eq!((read(&overlay, 0), read(&overlay, 7), overlay.free()), (Some(0), Some(5), 0));
    overlay.clear(7, 1);
    assert_eq!((read(&overlay, 7), overlay.free()), (Some(0), 1));
    write(&mut overlay, 2, 1, 6).unwrap();
    assert_eq!((read(&overlay, 1), read(&overlay, 2)), (Some(0), Some(6)));
}

#[test]
fn a_full_overlay_refuses_and_goes_on() {
    let mut store = Store::new(1);
    let mut overlay = store.open();
    assert_eq!(write(&mut overlay, 0, 16, 1), Err(WriteError::Full));
    assert_eq!(write(&mut overlay, 50, 1, 1), Err(WriteError::Full));
    write(&mut overlay, 0, 8, 2).unwrap();
    assert_eq!(read(&overlay, 7), Some(2));
    assert_eq!(read(&overlay, 8), None);
}

#[test]
fn what_cannot_be_had_is_not_written_and_takes_no_room() {
    let mut store = Store::new(2);
    let mut overlay = store.open();
    write(&mut overlay, 0, 1, 3).unwrap();
    assert_eq!(overlay.write(1, 1, |_| false), Err(WriteError::NoData));
    assert_eq!(overlay.write(8, 1, |_| false), Err(WriteError::NoData));
    assert_eq!((read(&overlay, 0), read(&overlay, 1), read(&overlay, 8)), (Some(3), None, None));
    assert_eq!(overlay.free(), 1);
}

#[test]
fn stores_of_others_are_left_alone() {
    let mut store = Store::new(1);
    drop(store.open());
    let other = Overlay::open(SECTORS - 1, &store.head, &mut store.data).err();
    assert_eq!(other, Some(OverlayError::OtherDisk { sectors: SECTORS }));
    *store.head[0].get_mut() = 1;
    let foreign = Overlay::open(SECTORS, &store.head, &mut store.data).err();
    assert_eq!(foreign, Some(OverlayError::Foreign));
}

#[test]
fn a_damaged_map_is_noticed() {
    let mut store = Store::new(2);
    drop(store.open());
    *store.head[512].get_mut() = 3;
    let damaged = Overlay::open(SECTORS, &store.head, &mut store.data).err();
    assert_eq!(damaged, Some(OverlayError::Damaged));
    *store.head[512].get_mut() = 1;
    *store.head[513].get_mut() = 1;
    let damaged = Overlay::open(SECTORS, &store.head, &mut store.data).err();
    assert_eq!(damaged, Some(OverlayError::Damaged));
}

#[test]
fn small_stores_are_refused() {
    assert_eq!(Layout::new(SECTORS, 8192 + 4095), Err(OverlayError::TooSmall));
    assert_eq!(Layout::new(u64::MAX, u64::MAX), Err(OverlayError::TooSmall));
    assert!(Layout::new(SECTORS, 8192 + 4096).is_ok());
    let head: Vec<AtomicU64> = (0..512).map(|_| AtomicU64::new(0)).collect();
    assert_eq!(Overlay::open(1, &head, &mut []).err(), Some(OverlayError::TooSmall));
}

/// A step of a guest, or the end of the component.
#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64, u8),
    Clear(u64, u64),
    Restart,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..SECTORS, 1u64..30, 1u8..255).prop_map(|(s, n, v)| Step::Write(s, n, v)),
        2 => (0..SECTORS, 1u64..30).prop_map(|(s, n)| Step::Clear(s, n)),
        1 => Just(Step::Restart),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    /// Any history, with restarts in between, against a list of sectors. With few slots, writes
    /// fail: those sectors hold old or new content, all others what they held.
    #[test]
    fn behaves_like_a_list_of_sectors(steps in steps(), slots in 1u64..16) {
        let mut store = Store::new(slots);
        let mut model: Vec<Option<u8>> = vec![None; SECTORS as usize];
        let mut overlay = store.open();
        for step in steps {
            match step {
                Step::Write(sector, count, value) => {
                    let end = (sector + count).min(SECTORS);
                    let outcome = write(&mut overlay, sector, end - sector, value);
                    for at in sector..end {
                        let seen = read(&overlay, at);
                        let place = &mut model[at as usize];
                        if outcome.is_ok() {
                            prop_assert_eq!(seen, Some(value));
                        } else {
                            prop_assert!(seen == Some(value) || seen == *place);
                        }
                        *place = seen;
                    }
                }
                Step::Clear(sector, count) => {
                    let end = (sector + count).min(SECTORS);
                    overlay.clear(sector, end - sector);
                    model[sector as usize..end as usize].fill(Some(0));
                }
                Step::Restart => {
                    drop(overlay);
                    overlay = store.open();
                }
            }
            let mut sector = 0;
            while sector < SECTORS {
                let (_, run) = overlay.locate(sector, SECTORS - sector);
                prop_assert!(run >= 1 && sector + run <= SECTORS);
                sector += run;
            }
            for (sector, expected) in (0..).zip(&model) {
                prop_assert_eq!(read(&overlay, sector), *expected);
            }
            let used = (0..SECTORS).step_by(BLOCK as usize).filter(|block| {
                (*block..(block + BLOCK).min(SECTORS))
                    .any(|s| matches!(overlay.locate(s, 1).0, Place::Slot(_)))
            });
            prop_assert_eq!(overlay.free() + used.count(), slots as usize);
        }
    }
}
