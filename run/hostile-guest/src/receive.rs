//! What a driver may put into the queue in which it waits for something, and what comes of it.

use virtio_numbers::flag::{INDIRECT, WRITE};

use crate::arch;
use crate::console::say;
use crate::device::{Device, Kind, eventually};
use crate::memory::RAM_END;
use crate::request;
use crate::ring::{BUFFERS, Descriptor, RECEIVE, Ring, SIZE, TABLE};

/// How long is waited for what must not come, in ticks.
const WATCH: u64 = 1 << 27;
/// How often a host is asked.
const TRIES: u32 = 100;

/// What the device does when something comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It uses a chain.
    Used,
    /// It needs a reset.
    Reset,
    /// It uses nothing, and what comes next where there is room for it.
    Waits,
    /// One of these.
    Any,
}

use Outcome::{Any, Reset, Used, Waits};

/// What is put into the queue, and what comes of it.
struct Case {
    name: &'static str,
    fill: fn(&mut Ring),
    net: Outcome,
    console: Outcome,
}

const GOOD: Descriptor = Descriptor::last(BUFFERS + 0x8000, 0x1000, WRITE);

fn one(ring: &mut Ring, descriptor: Descriptor) {
    ring.describe(0, descriptor);
    ring.offer(0);
}

const CASES: &[Case] = &[
    Case { name: "a good buffer", fill: |r| one(r, GOOD), net: Used, console: Used },
    Case {
        name: "a byte of room",
        fill: |r| one(r, Descriptor::last(GOOD.gpa, 1, WRITE)),
        net: Waits,
        console: Used,
    },
    Case {
        name: "bytes of room in a chain of their own each",
        fill: |r| {
            for n in 0..SIZE - 1 {
                r.describe(n, Descriptor::last(GOOD.gpa + u64::from(n), 1, WRITE));
                r.offer(n);
            }
        },
        net: Waits,
        console: Used,
    },
    Case {
        name: "a buffer that cannot be written",
        fill: |r| one(r, Descriptor::last(GOOD.gpa, 0x1000, 0)),
        net: Waits,
        console: Reset,
    },
    Case {
        name: "a buffer behind the end of RAM",
        fill: |r| one(r, Descriptor::last(RAM_END, 0x1000, WRITE)),
        net: Reset,
        console: Reset,
    },
    Case {
        name: "a buffer of nearly all RAM, again and again",
        fill: |r| {
            let most = u32::try_from(RAM_END - GOOD.gpa).unwrap_or(0);
            for n in 0..SIZE {
                Descriptor::then(GOOD.gpa, most, WRITE, n + 1).put(TABLE, n);
            }
            Descriptor::last(GOOD.gpa, most, WRITE).put(TABLE, SIZE - 1);
            one(r, Descriptor::last(TABLE, Descriptor::BYTES * u32::from(SIZE), INDIRECT));
        },
        net: Used,
        console: Used,
    },
    Case {
        name: "one buffer over another",
        fill: |r| {
            r.describe(1, Descriptor::last(GOOD.gpa + 4, 0x1000, WRITE));
            one(r, Descriptor::then(GOOD.gpa, 16, WRITE, 1));
        },
        net: Used,
        console: Used,
    },
    Case {
        name: "the queue itself",
        fill: |r| one(r, Descriptor::last(RECEIVE, 0x3000, WRITE)),
        net: Any,
        console: Any,
    },
    Case {
        name: "the descriptors in an indirect table of themselves",
        fill: |r| {
            Descriptor::last(TABLE, 0x1000, WRITE).put(TABLE, 0);
            one(r, Descriptor::last(TABLE, Descriptor::BYTES, INDIRECT));
        },
        net: Used,
        console: Used,
    },
];

/// Plays all of them with a device that something comes in at; tells the result of each.
pub fn play(device: Device, mut tell: impl FnMut(&str, bool)) {
    for case in CASES {
        let expected = match device.kind {
            Kind::Net => case.net,
            Kind::Console => case.console,
            Kind::Block => return,
        };
        tell(case.name, receives(device, case, expected).is_some());
    }
}

/// Sets the device up and has something come in. None where it did otherwise than it has to.
fn receives(device: Device, case: &Case, expected: Outcome) -> Option<()> {
    let good = device.reset() && device.agree(device.offered());
    let (mut sends, mut ring) = (Ring::new(SIZE), Ring::at(RECEIVE, SIZE));
    let set = device.set_queue(0, ring.setup()) && device.set_queue(1, sends.setup());
    device.start();
    (case.fill)(&mut ring);
    device.notify(0);
    let asked = good && set && ask(device, &mut sends);
    let used = move || ring.used() > 0;
    let holds = match expected {
        Used => answered(device, &mut sends, || used() || device.needs_reset()),
        Reset => answered(device, &mut sends, || device.needs_reset()),
        Any => true,
        Waits => {
            let waited = !within(WATCH, || used() || device.needs_reset());
            ring.describe(SIZE - 1, GOOD);
            ring.offer(SIZE - 1);
            device.notify(0);
            waited && answered(device, &mut sends, used)
        }
    };
    let fine = expected == Reset || expected == Any || !device.needs_reset();
    (asked && holds && fine).then_some(())
}

/// Whether the condition comes. Frames may get lost, so a host is asked again from time to time.
fn answered(device: Device, sends: &mut Ring, condition: impl Fn() -> bool) -> bool {
    if device.kind == Kind::Console {
        return eventually(condition);
    }
    (0..TRIES).any(|_| within(WATCH, &condition) || !ask(device, sends)) && condition()
}

/// Whether the condition comes within so many ticks.
fn within(ticks: u64, condition: impl Fn() -> bool) -> bool {
    let start = arch::ticks();
    while arch::ticks().wrapping_sub(start) < ticks {
        if condition() {
            return true;
        }
        core::hint::spin_loop();
    }
    condition()
}

/// Has something come in: a key, for which the outside is asked, or the answer of a host. Whether
/// the device took the question.
fn ask(device: Device, sends: &mut Ring) -> bool {
    if device.kind == Kind::Console {
        say!("HOSTILE waits for a key");
        return true;
    }
    request::question(*sends, request::address(device));
    sends.offer(0);
    device.notify(1);
    // The buffer with the question is free again; a device that needs a reset takes none.
    eventually(|| sends.is_done() || device.needs_reset())
}
