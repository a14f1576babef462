//! What is played, in which order.

use crate::cases::CASES;
use crate::console::say;
use crate::device::{Device, Kind};
use crate::race::{self, Random};
use crate::{arch, memory, receive, registers};

/// Random operations of each device, where nothing else is said.
const ROUNDS: u64 = 1000;
/// Resets while requests are under way.
const RESETS: u64 = 20;

/// Called on the stack of the program, with what the boot protocol passes.
pub extern "C" fn main(zero_page: u64) -> ! {
    // SAFETY: the boot protocol passes the zero page.
    let words = unsafe { memory::command_line(zero_page) };
    let number = |key: &str, otherwise| {
        let mut words = words.split(' ').filter_map(|word| word.split_once('='));
        words.find(|(name, _)| *name == key).and_then(|(_, n)| n.parse().ok()).unwrap_or(otherwise)
    };
    let (seed, rounds) = (number("seed", arch::ticks()), number("rounds", ROUNDS));
    say!("HOSTILE begins: seed={seed} rounds={rounds}");
    let mut good = true;
    let mut devices = 0;
    for device in Device::all() {
        devices += 1;
        good &= play(device, seed, rounds);
    }
    if good && devices > 0 {
        say!("HOSTILE-DONE with {devices} devices");
    }
    arch::off()
}

/// Everything with one device.
fn play(device: Device, seed: u64, rounds: u64) -> bool {
    let name = device.kind.name();
    let mut good = true;
    let mut tell = |what: &str, ok: bool| {
        say!("HOSTILE {}: {name}: {what}", if ok { "ok" } else { "BAD" });
        good &= ok;
    };
    tell("works", race::works(device));
    receive::play(device, |what, ok| tell(what, ok && race::works(device)));
    for case in CASES.iter().filter(|case| case.suits(device.kind)) {
        let played = device.reset() && case.play(device) && race::gives_up(device);
        tell(case.name, played && race::works(device));
    }
    for (what, holds) in [
        ("features are bounded", registers::features_are_bounded as fn(Device) -> bool),
        ("sizes are bounded", registers::sizes_are_bounded),
        ("read-only registers stay", registers::read_only_registers_stay),
        ("queues stay in use", registers::queues_stay_in_use),
    ] {
        tell(what, device.reset() && holds(device) && race::works(device));
    }
    if device.kind == Kind::Block {
        tell("sectors that are not there", race::refuses(device));
        tell("resets in the middle", race::resets_in_the_middle(device, RESETS));
    }
    let mut random = Random::new(seed);
    let changed = race::changes(device, &mut random, rounds);
    tell("changes while it reads", changed.is_some() && race::works(device));
    let fuzzed = race::fuzz(device, &mut random, rounds);
    tell("random words", fuzzed.is_some() && race::works(device));
    let (changed, fuzzed) = (changed.unwrap_or(0), fuzzed.unwrap_or(0));
    say!("HOSTILE {name}: {changed} and {fuzzed} resets were needed");
    good
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    say!("HOSTILE BAD: {info}");
    arch::off()
}
