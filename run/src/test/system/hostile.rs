//! A guest that breaks the rules, and who must not notice.

use super::Say::{Answer, Together, Type};
use super::{Boot, Say, Times};

/// Each back end says what the guest did; the guest finds that its devices work again each time, and
/// the VM beside it works on.
const RULES_BROKEN: &[Say] = &[
    // Something comes in for each thing that it puts into the receive queue of its console.
    Answer(9, "HOSTILE waits for a key", "k"),
    Together(&[
        Times(1, "hostile: device needs a reset (1): queue 0: buffer: 64 bytes"),
        Times(1, "hostile: device needs a reset (2): queue 0: descriptor chain longer"),
        Times(1, "hostile: device needs a reset (3): queue 0: available index jumped to 17"),
        Times(1, "hostile: device needs a reset (4): queue 0: buffer of no bytes"),
        Times(1, "hostile: device needs a reset (5): queue 0: head 16 is no descriptor"),
        Times(1, "hostile: device needs a reset (6): queue 0: indirect descriptor in an indirect"),
        Times(1, "hostile: device needs a reset (7): queue 0: Available ring or table not in RAM"),
        Times(1, "hostile: device needs a reset (3): queue 1: buffer: "),
        Times(1, "hostile: device needs a reset (7): queue 1: head 16 is no descriptor"),
        Times(1, "hostile: device needs a reset (1): queue 0: buffer: 4096 bytes"),
        Times(1, "hostile: device needs a reset (2): queue 1: buffer: "),
        Times(1, "hostile: device needs a reset (6): queue 1: head 16 is no descriptor"),
        Times(1, "HOSTILE ok: block: sectors that are not there"),
        Times(1, "HOSTILE ok: block: resets in the middle"),
        Times(1, "HOSTILE ok: block: random words"),
        Times(1, "HOSTILE ok: net: random words"),
        Times(1, "HOSTILE ok: console: random words"),
        Times(1, "HOSTILE-DONE with 3 devices"),
        Times(1, "component \"hostile\" ended"),
    ]),
    Type("\x1d2"),
    Together(&[Times(1, "DISK-SAME linux"), Times(1, "NET-SAME linux")]),
];

/// The cases.
pub(super) const BOOTS: &[Boot] =
    &[Boot::new("guest-that-breaks-the-rules-harms-nobody", "test/hostile", RULES_BROKEN)];
