//! What we aim at, and what others reach, measured in the same way: same emulator, one tick per
//! instruction, user to user, warm.

use std::fmt;

/// Where a figure should be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Bound {
    /// At most this: costs and sizes.
    Most(u32),
    /// At least so many tenths: what part of the direct performance a guest has.
    Tenths(u32),
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Most(n) => n.fmt(f),
            Self::Tenths(n) => write!(f, ">={}.{}", n / 10, n % 10),
        }
    }
}

/// An aim and the figures of others for one name; `None` where there is none.
pub(super) struct Aim {
    pub(super) name: &'static str,
    pub(super) bound: Option<Bound>,
    pub(super) nova: Option<u32>,
    pub(super) hedron: Option<u32>,
    pub(super) sel4: Option<u32>,
}

const fn aim(
    name: &'static str,
    most: Option<u32>,
    nova: Option<u32>,
    hedron: Option<u32>,
    sel4: Option<u32>,
) -> Aim {
    let bound = match most {
        Some(most) => Some(Bound::Most(most)),
        None => None,
    };
    Aim { name, bound, nova, hedron, sel4 }
}

const fn tenths(name: &'static str, tenths: u32) -> Aim {
    Aim { name, bound: Some(Bound::Tenths(tenths)), nova: None, hedron: None, sel4: None }
}

/// All of them. seL4's figure for a signal stands beside `sm_up`; Hedron's exit is on VT-x.
pub(super) const AIMS: &[Aim] = &[
    aim("null_call", Some(55), Some(59), Some(111), Some(286)),
    aim("call_same_pd_0w", Some(220), Some(265), Some(515), Some(461)),
    aim("call_same_pd_64w", None, Some(896), Some(1157), None),
    aim("call_cross_pd_0w", Some(240), Some(285), Some(585), Some(465)),
    aim("call_cross_pd_4w", Some(265), Some(315), Some(626), Some(500)),
    aim("sm_up", Some(120), Some(142), Some(173), Some(372)),
    aim("sm_up_down", Some(240), Some(287), Some(334), Some(638)),
    aim("vm_exit_cpuid", Some(600), None, Some(944), None),
    aim("vm_exit_cpuid_intel", Some(600), None, Some(944), None),
    aim("kernel_code_lines", Some(10_000), None, None, None),
    aim("kernel_text_bytes", Some(256 * 1024), None, None, None),
    tenths("disk/seq-read-1m/ratio", 7),
    tenths("disk/seq-write-1m/ratio", 7),
    tenths("disk/seq-read-4k/ratio", 7),
    tenths("disk/seq-write-4k/ratio", 7),
    tenths("outside/tcp-send/ratio", 5),
    tenths("outside/tcp-receive/ratio", 5),
    tenths("peer/tcp-send/ratio", 5),
    tenths("peer/tcp-receive/ratio", 5),
];

/// The aim of a figure.
pub(super) fn of(name: &str) -> Option<&'static Aim> {
    AIMS.iter().find(|a| a.name == name)
}
