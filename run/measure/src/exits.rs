//! Exits of the guest that this runs in, by reason: its VMM lets it read them with CPUID.

use std::arch::x86_64::{__cpuid_count, CpuidResult};

use ipc::event::Exit;
use ipc::guest::{EXITS, LEAF, SIGNATURE};

/// How often the guest has exited.
#[derive(Clone, Debug)]
pub struct Exits(Vec<(Exit, u64)>);

impl Exits {
    /// Up to now; `None` where there is no such VMM. Reading them exits as well: CPUID is left out.
    #[must_use]
    pub fn now() -> Option<Self> {
        let CpuidResult { ebx, ecx, edx, .. } = __cpuid_count(LEAF, 0);
        if [ebx, ecx, edx] != SIGNATURE {
            return None;
        }
        let exits = Exit::ALL.iter().map(|(exit, ..)| *exit).filter(|exit| *exit != Exit::Cpuid);
        let count = |exit: Exit| {
            let words = __cpuid_count(EXITS, u32::from(exit.number()));
            (exit, u64::from(words.ebx) << 32 | u64::from(words.eax))
        };
        Some(Self(exits.map(count).collect()))
    }

    /// Says exits since then for each of `count` units of work, by reason, where there are any.
    pub fn say_since(before: Option<&Self>, name: &str, unit: &str, count: f64) {
        let (Some(before), Some(now)) = (before, Self::now()) else { return };
        let mut total = 0.0;
        for ((exit, now), (_, before)) in now.0.iter().zip(&before.0) {
            let each = crate::float(now - before) / count;
            total += each;
            // Less than one in a hundred is not the work's.
            if each >= 0.01 {
                let reason = exit.name().to_lowercase();
                crate::say(format_args!("{name}/exits/{reason}"), unit, each);
            }
        }
        crate::say(format_args!("{name}/exits/total"), unit, total);
    }
}
