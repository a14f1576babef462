//! What typed characters mean, when the component dies at any store.

use proptest::prelude::{ProptestConfig, prop, prop_assert, prop_assert_eq, proptest};

use super::{ESCAPE, Memory, Mux, OUTPUT, Target, Typed};
use crate::keep::tests::with_fuse;

const CONSOLES: usize = 3;

/// A life of the component.
fn life(memory: &Memory) -> Mux {
    let mut mux = Mux::new(memory.open());
    // The port and the sources take no part.
    mux.keep().settled();
    for name in ["a", "b", "c"] {
        mux.add(name);
    }
    mux
}

fn keys(mux: &Mux) -> [Vec<u8>; CONSOLES] {
    core::array::from_fn(|console| {
        let mut keys = [0; 1000];
        let count = mux.keep().typed(console, &mut keys);
        keys[..count].to_vec()
    })
}

fn drain(mux: &Mux) {
    let waiting = mux.keep().pending(&mut [0; OUTPUT]);
    (0..waiting).for_each(|_| mux.keep().sender().took());
}

/// What a key after [`ESCAPE`] attaches to; none for all others.
fn target(key: u8) -> Option<Target> {
    match key {
        b'1'..=b'3' => Some(Target::Console(usize::from(key - b'1'))),
        b'o' | b'd' => Some(Target::Operator),
        _ => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A character goes to what is attached, or where the component dies to nobody: never elsewhere,
    /// never twice. A command takes effect as a whole or not at all, and what was attached or is to
    /// be stays so in the next life, which knows of no escape key that came before it.
    #[test]
    fn a_key_means_what_it_meant_or_nothing(
        steps in prop::collection::vec(
            (
                prop::sample::select(vec![ESCAPE, ESCAPE, b'1', b'2', b'3', b'9', b'o', b'd', b'l', b'x']),
                prop::option::weighted(0.3, 0u32..40),
            ),
            1..200,
        ),
    ) {
        let memory = Memory::new(6, 4096);
        let mut mux = life(&memory);
        let mut escaped = false;
        for (key, fuse) in steps {
            let (attached, before) = (mux.attached(), keys(&mux));
            let mut outcome = Typed::Done;
            let mut work = || outcome = mux.typed(key);
            let lived = match fuse {
                None => { work(); true }
                Some(fuse) => with_fuse(fuse, work),
            };
            if !lived {
                mux = life(&memory);
            }
            let command = escaped && key != ESCAPE;
            let goes_on = match (escaped, key) {
                (false, ESCAPE) => None,
                (true, key) if key != ESCAPE => None,
                _ => Some(attached),
            };
            let wanted = if command { target(key).unwrap_or(attached) } else { attached };
            if lived {
                prop_assert_eq!(mux.attached(), wanted);
            } else {
                prop_assert!([attached, wanted].contains(&mux.attached()));
            }
            let mut with = before.clone();
            if let Some(Target::Console(console)) = goes_on {
                with[console].push(key);
            }
            let after = keys(&mux);
            prop_assert!(after == with || !lived && after == before, "{key} {before:?} {after:?}");
            let operator = goes_on == Some(Target::Operator);
            prop_assert!(!lived || !operator || outcome == Typed::Operator(key));
            escaped = lived && !escaped && key == ESCAPE;
            drain(&mux);
        }
    }
}
