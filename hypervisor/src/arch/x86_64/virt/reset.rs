//! The state of a processor after RESET (APM volume 2, 14.1.3).

use ipc::state::{Mtd, Segment, State};

/// The groups that [`state`] fills.
pub(super) const GROUPS: Mtd = Mtd::all().difference(Mtd::INJECT);

/// The state; `signature` is family, model and stepping.
pub(super) fn state(signature: u64) -> State {
    const fn segment(selector: u16, attributes: u16, base: u64) -> Segment {
        Segment { selector, attributes, limit: 0xffff, base }
    }
    let data = segment(0, 0x93, 0);
    let mut state = State::new();
    state.rdx = signature;
    state.rip = 0xfff0;
    state.rflags = 2;
    state.cs = segment(0xf000, 0x9b, 0xffff_0000);
    state.ss = data;
    state.ds = data;
    state.es = data;
    state.fs = data;
    state.gs = data;
    state.tr = segment(0, 0x8b, 0);
    state.ldtr = segment(0, 0x82, 0);
    state.gdtr = segment(0, 0, 0);
    state.idtr = segment(0, 0, 0);
    state.dr6 = 0xffff_0ff0;
    state.dr7 = 0x400;
    state.pat = 0x0007_0406_0007_0406;
    state.xcr0 = 1;
    state
}
