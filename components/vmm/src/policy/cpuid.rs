//! What a guest sees of CPUID, and why.
//!
//! The table is an allow-list: a leaf, register or bit that it does not name reads as zero. It is
//! evaluated once when the VM is built; an exit only looks its result up and fills in what depends
//! on the vCPU's state.

use alloc::vec::Vec;

use crate::devices::pvclock::feature;
use crate::num::low32;

/// `eax`, `ebx`, `ecx`, `edx`.
pub type Registers = [u32; 4];

/// Reads leaf and subleaf of the host.
pub type Host<'a> = &'a dyn Fn(u32, u32) -> Registers;

/// What a register of a leaf shows.
#[derive(Clone, Copy, Debug)]
enum Field {
    /// What the host has.
    Host,
    /// This value.
    Fixed(u32),
    /// The host's value under a mask, with bits set.
    Bits { host: u32, on: u32 },
}

/// Which subleaves an entry is for.
#[derive(Clone, Copy, Debug)]
enum Sub {
    /// The leaf has none.
    None,
    /// This one.
    Only(u32),
    /// 0 up to this.
    UpTo(u32),
}

/// An entry of the table.
struct Rule {
    leaf: u32,
    sub: Sub,
    registers: [Field; 4],
    /// Adapts the result to the VM.
    adapt: Option<fn(&Shape, u32, &mut Registers)>,
    /// Why.
    reason: &'static str,
}

/// What of the VM and the host the table depends on.
#[derive(Clone, Copy, Debug)]
struct Shape {
    vcpus: u32,
    amd: bool,
    xcr0: u64,
    max_basic: u32,
    max_extended: u32,
}

const ZERO: Field = Field::Fixed(0);

const fn bits(list: &[u32]) -> u32 {
    let mut mask = 0;
    let mut rest = list;
    while let [bit, tail @ ..] = rest {
        mask |= 1 << *bit;
        rest = tail;
    }
    mask
}

const fn host(list: &[u32]) -> Field {
    Field::Bits { host: bits(list), on: 0 }
}

const fn rule(leaf: u32, registers: [Field; 4], reason: &'static str) -> Rule {
    Rule { leaf, sub: Sub::None, registers, adapt: None, reason }
}

impl Rule {
    const fn sub(self, sub: Sub) -> Self {
        Self { sub, ..self }
    }

    const fn adapt(self, adapt: fn(&Shape, u32, &mut Registers)) -> Self {
        Self { adapt: Some(adapt), ..self }
    }
}

/// Last basic leaf.
const MAX_BASIC: u32 = 0xd;
/// Last extended leaf.
const MAX_EXTENDED: u32 = 0x8000_0021;
/// x87, SSE, AVX, and the three parts of AVX-512. Not: bound registers, protection keys, tiles.
const XCR0_OFFERED: u64 = 0b1110_0111;

/// Basic features in `edx`, which AMD repeats in leaf 0x8000_0001: x87, VME, DE, PSE, TSC, MSR,
/// PAE, CX8, APIC, PGE, CMOV, PAT, PSE36, MMX, FXSR.
const COMMON_EDX: [u32; 15] = [0, 1, 2, 3, 4, 5, 6, 8, 9, 13, 15, 16, 17, 23, 24];
const MTRR: u32 = 1 << 12;
const HTT: u32 = 1 << 28;
const OSXSAVE: u32 = 1 << 27;
const XSAVE: u32 = 1 << 26;
const APIC: u32 = 1 << 9;

const TABLE: &[Rule] = &[
    rule(
        0x0,
        [ZERO, Field::Host, Field::Host, Field::Host],
        "vendor of the host: code paths of the guest must fit its CPU",
    )
    .adapt(|shape, _, r| r[0] = shape.max_basic),
    rule(
        0x1,
        [
            Field::Host,
            // Line size of CLFLUSH; ids and counts are the VM's own.
            Field::Bits { host: 0x0000_ff00, on: 0 },
            // SSE3, PCLMULQDQ, SSSE3, FMA, CX16, PCID, SSE4.1, SSE4.2, MOVBE, POPCNT, AES, XSAVE,
            // AVX, F16C, RDRAND; on: x2APIC, TSC deadline (the model's), hypervisor.
            // Hidden: MONITOR, VMX, SMX, debug store, speed step, thermal: not virtualized.
            Field::Bits {
                host: bits(&[0, 1, 9, 12, 13, 17, 19, 20, 22, 23, 25, 26, 28, 29, 30]),
                on: bits(&[21, 24, 31]),
            },
            // And SEP, CLFLUSH, SSE, SSE2, self snoop. Hidden: machine check (none is delivered),
            // debug store, thermal, serial number.
            Field::Bits { host: bits(&COMMON_EDX) | bits(&[11, 19, 25, 26, 27]), on: MTRR },
        ],
        "features that the processor switches with the guest or that the models have",
    )
    .adapt(|shape, _, r| {
        if shape.vcpus > 1 {
            r[1] |= shape.vcpus.next_power_of_two() << 16;
            r[3] |= HTT;
        }
    }),
    rule(0x2, [Field::Host; 4], "caches and TLBs of the host"),
    rule(0x4, [Field::Host; 4], "caches of the host, shared as the VM's topology says")
        .sub(Sub::UpTo(4))
        .adapt(|shape, _, r| {
            if r[0] & 0x1f == 0 {
                *r = [0; 4];
                return;
            }
            let ids = shape.vcpus.next_power_of_two() - 1;
            let level = r[0] >> 5 & 7;
            let sharing = if level >= 3 { ids } else { 0 };
            r[0] = r[0] & 0x3fff | sharing << 14 | ids << 26;
        }),
    // Always-running APIC timer: the model's does not stop in any sleep state.
    rule(
        0x6,
        [Field::Fixed(1 << 2), ZERO, ZERO, ZERO],
        "no power management; the APIC timer always runs",
    ),
    rule(
        0x7,
        [
            Field::Fixed(1),
            // FSGSBASE, BMI1, AVX2, FDP_EXCPTN, SMEP, BMI2, ERMS, INVPCID, ZERO_FCS, AVX512F,
            // AVX512DQ, RDSEED, ADX, SMAP, AVX512_IFMA, CLFLUSHOPT, CLWB, AVX512PF/ER/CD, SHA,
            // AVX512BW/VL. Hidden: TSC_ADJUST, SGX, TSX, resource control, MPX, processor trace.
            host(&[
                0, 3, 5, 6, 7, 8, 9, 10, 13, 16, 17, 18, 19, 20, 21, 23, 24, 26, 27, 28, 29, 30, 31,
            ]),
            // AVX512_VBMI, UMIP, VBMI2, GFNI, VAES, VPCLMULQDQ, VNNI, BITALG, VPOPCNTDQ, RDPID,
            // CLDEMOTE, MOVDIRI, MOVDIR64B. Hidden: protection keys, WAITPKG, CET, and five-level
            // paging, which costs a small guest a level for nothing.
            host(&[1, 2, 6, 8, 9, 10, 11, 12, 14, 22, 25, 27, 28]),
            // AVX512 4VNNIW, 4FMAPS, FSRM, VP2INTERSECT, SERIALIZE. Hidden: speculation control
            // (the kernel does not switch its register), hybrid, tiles.
            host(&[2, 3, 4, 8, 14]),
        ],
        "features without state of their own",
    )
    .sub(Sub::Only(0)),
    // AVX_VNNI, AVX512_BF16, fast zero-length and short string operations.
    rule(0x7, [host(&[4, 5, 10, 11, 12]), ZERO, ZERO, ZERO], "features without state of their own")
        .sub(Sub::Only(1)),
    rule(0xb, [ZERO; 4], "topology of the VM: one thread per core, one package")
        .sub(Sub::UpTo(2))
        .adapt(|shape, sub, r| {
            let width = shape.vcpus.next_power_of_two().trailing_zeros();
            match sub {
                0 => *r = [0, 1, 1 << 8, 0],
                1 => *r = [width, shape.vcpus, 1 | 2 << 8, 0],
                n => *r = [0, 0, n, 0],
            }
        }),
    rule(
        0xd,
        [Field::Host, Field::Host, Field::Host, Field::Host],
        "XSAVE for the state components that are offered",
    )
    .sub(Sub::UpTo(MAX_COMPONENT))
    .adapt(adapt_xsave),
    rule(
        0x4000_0000,
        [Field::Fixed(0x4000_0001), KVM_SIGNATURE[0], KVM_SIGNATURE[1], KVM_SIGNATURE[2]],
        "the paravirtual interface that Linux knows",
    ),
    rule(
        0x4000_0001,
        [
            Field::Fixed(
                feature::NO_IO_DELAY | feature::CLOCK | feature::EOI | feature::CLOCK_STABLE,
            ),
            ZERO,
            ZERO,
            ZERO,
        ],
        "what of it is offered",
    ),
    rule(0x8000_0000, [ZERO, Field::Host, Field::Host, Field::Host], "vendor of the host")
        .adapt(|shape, _, r| r[0] = shape.max_extended),
    rule(
        0x8000_0001,
        [
            Field::Host,
            ZERO,
            // LAHF, CR8_LEGACY, ABM, SSE4A, MISALIGNSSE, 3DNOWPREFETCH, XOP, FMA4, TBM.
            // Hidden: SVM, extended APIC space, OSVW, IBS, SKINIT, watchdog, LWP, node ids,
            // topology extensions, performance counters, MONITORX.
            host(&[0, 4, 5, 6, 7, 8, 11, 16, 21]),
            // And SYSCALL, NX, MMXEXT, 1 GiB pages, RDTSCP, long mode, 3DNow. Hidden: fast FXSAVE,
            // whose bit in EFER the kernel does not offer.
            Field::Bits {
                host: bits(&COMMON_EDX) | bits(&[11, 20, 22, 26, 27, 29, 30, 31]),
                on: 0,
            },
        ],
        "features that the processor switches with the guest",
    )
    .adapt(|shape, _, r| {
        if shape.amd {
            r[3] |= MTRR;
            // Core count in leaf 0x8000_0008 is for cores, not threads.
            r[2] |= if shape.vcpus > 1 { 1 << 1 } else { 0 };
        } else {
            // Intel has only the extended ones here.
            r[3] &= !bits(&COMMON_EDX);
        }
    }),
    rule(0x8000_0002, [Field::Host; 4], "processor name"),
    rule(0x8000_0003, [Field::Host; 4], "processor name"),
    rule(0x8000_0004, [Field::Host; 4], "processor name"),
    rule(0x8000_0005, [Field::Host; 4], "caches and TLBs of the host"),
    rule(0x8000_0006, [Field::Host; 4], "caches and TLBs of the host"),
    rule(
        0x8000_0007,
        [ZERO, ZERO, ZERO, Field::Fixed(1 << 8)],
        "the TSC is invariant: the kernel depends on it as well",
    ),
    rule(
        0x8000_0008,
        // CLZERO, pointers restored by XRSTOR. Hidden: speculation control, WBNOINVD.
        [Field::Bits { host: 0xff, on: 48 << 8 }, host(&[0, 2]), ZERO, ZERO],
        "address widths of the host, 48 bits virtual; cores of the VM",
    )
    .adapt(|shape, _, r| {
        let width = shape.vcpus.next_power_of_two().trailing_zeros();
        r[2] = if shape.amd { (shape.vcpus - 1) | width << 12 } else { 0 };
    }),
    rule(0x8000_0019, [Field::Host; 4], "TLBs of the host"),
    rule(0x8000_001a, [Field::Host; 4], "widths of execution units"),
    // No nested data breakpoints, LFENCE serializes, null selector clears base.
    rule(0x8000_0021, [host(&[0, 2, 6]), ZERO, ZERO, ZERO], "behaviour without state"),
];

/// "KVMKVMKVM\0\0\0" in `ebx`, `ecx`, `edx`.
const KVM_SIGNATURE: [Field; 3] =
    [Field::Fixed(0x4b4d_564b), Field::Fixed(0x564b_4d56), Field::Fixed(0x0000_004d)];

/// Last state component that [`XCR0_OFFERED`] names.
const MAX_COMPONENT: u32 = 7;
/// Legacy area and header of an XSAVE image.
const XSAVE_BASE: u32 = 576;

fn adapt_xsave(shape: &Shape, sub: u32, r: &mut Registers) {
    match sub {
        // `ebx`, the size for what is enabled, is filled in at the exit.
        0 => (r[0], r[3]) = (low32(shape.xcr0), 0),
        // XSAVEOPT, XSAVEC, XGETBV 1. Hidden: XSAVES, which would need IA32_XSS.
        1 => *r = [r[0] & 0b111, 0, 0, 0],
        n if shape.xcr0 >> n & 1 != 0 => {}
        _ => *r = [0; 4],
    }
}

/// An entry of the evaluated table.
#[derive(Clone, Copy, Debug)]
struct Leaf {
    leaf: u32,
    sub: Option<u32>,
    registers: Registers,
}

/// State of a vCPU that shows in CPUID.
#[derive(Clone, Copy, Debug)]
pub struct View {
    /// APIC id.
    pub id: u32,
    /// `CR4.OSXSAVE`.
    pub osxsave: bool,
    /// `XCR0`.
    pub xcr0: u64,
    /// The local APIC is enabled.
    pub apic: bool,
}

/// The evaluated table of a VM.
#[derive(Clone, Debug)]
pub struct Policy {
    leaves: Vec<Leaf>,
    xcr0: u64,
    /// Offset and size in the standard format, and whether it is aligned in the compacted one.
    components: [(u32, u32, bool); MAX_COMPONENT as usize + 1],
}

impl Policy {
    /// Evaluates the table for a VM of `vcpus` vCPUs.
    #[must_use]
    pub fn new(vcpus: u32, host: Host<'_>) -> Self {
        let [host_basic, ebx, ecx, edx] = host(0, 0);
        let xsave = host_basic >= 0xd && host(1, 0)[2] & XSAVE != 0;
        let [low, _, _, high] = if xsave { host(0xd, 0) } else { [0; 4] };
        let mut xcr0 = (u64::from(high) << 32 | u64::from(low)) & XCR0_OFFERED;
        // AVX-512 comes whole or not at all.
        if xcr0 & 0b1110_0000 != 0b1110_0000 {
            xcr0 &= 0b111;
        }
        let host_extended = host(0x8000_0000, 0)[0];
        let shape = Shape {
            vcpus: vcpus.max(1),
            // "AuthenticAMD", and Hygon, whose processors are alike.
            amd: [ebx, edx, ecx] == [0x6874_7541, 0x6974_6e65, 0x444d_4163]
                || [ebx, edx, ecx] == [0x6f67_7948, 0x6e65_476e, 0x656e_6975],
            xcr0,
            // Topology and XSAVE leaves are there whatever the host has.
            max_basic: MAX_BASIC,
            max_extended: host_extended.clamp(0x8000_0008, MAX_EXTENDED),
        };
        let mut policy = Self { leaves: Vec::new(), xcr0, components: Default::default() };
        for rule in TABLE {
            // A host lacks the leaf: it reads as zero there, not as some other one.
            let ours = matches!(rule.leaf, 0xb | 0x4000_0000..=0x4000_0001);
            let known = match rule.leaf {
                leaf if leaf >= 0x8000_0000 => leaf <= host_extended,
                leaf => leaf <= host_basic,
            };
            let (subs, indexed) = match rule.sub {
                Sub::None => (0..=0, false),
                Sub::Only(n) => (n..=n, true),
                Sub::UpTo(n) => (0..=n, true),
            };
            for sub in subs {
                let source = if known && !ours { host(rule.leaf, sub) } else { [0; 4] };
                let mut registers = rule.evaluate(source);
                if let Some(adapt) = rule.adapt {
                    adapt(&shape, sub, &mut registers);
                }
                let sub = indexed.then_some(sub);
                policy.leaves.push(Leaf { leaf: rule.leaf, sub, registers });
            }
        }
        policy.measure_components();
        policy
    }

    fn measure_components(&mut self) {
        for (n, slot) in (0u32..).zip(&mut self.components).skip(2) {
            let found = self.leaves.iter().find(|l| l.leaf == 0xd && l.sub == Some(n));
            if let Some(Leaf { registers: [size, offset, flags, _], .. }) = found {
                *slot = (*offset, *size, flags & 2 != 0);
            }
        }
    }

    /// State components that a guest may enable in `XCR0`.
    #[must_use]
    pub fn xcr0(&self) -> u64 {
        self.xcr0
    }

    /// What the guest reads.
    #[must_use]
    pub fn read(&self, leaf: u32, sub: u32, view: &View) -> Registers {
        // The table is sorted by leaf.
        let start = self.leaves.partition_point(|l| l.leaf < leaf);
        let found = self
            .leaves
            .iter()
            .skip(start)
            .take_while(|l| l.leaf == leaf)
            .find(|l| l.sub.is_none_or(|n| n == sub));
        let mut r = found.map_or([0; 4], |l| l.registers);
        match (leaf, sub) {
            (0x1, _) => {
                r[1] |= view.id << 24;
                r[2] |= if view.osxsave && r[2] & XSAVE != 0 { OSXSAVE } else { 0 };
                r[3] &= if view.apic { !0 } else { !APIC };
            }
            (0x8000_0001, _) if !view.apic => r[3] &= !APIC,
            (0xb, sub) => {
                // Subleaves that do not exist still name their number and the id.
                r[2] = if found.is_some() { r[2] } else { sub & 0xff };
                r[3] = view.id;
            }
            (0xd, 0) if self.xcr0 != 0 => {
                r[1] = self.standard_size(view.xcr0);
                r[2] = self.standard_size(self.xcr0);
            }
            (0xd, 1) if self.xcr0 != 0 => r[1] = self.compacted_size(view.xcr0),
            _ => {}
        }
        r
    }

    fn enabled(&self, xcr0: u64) -> impl Iterator<Item = &(u32, u32, bool)> {
        self.components
            .iter()
            .enumerate()
            .skip(2)
            .filter(move |(n, _)| xcr0 >> n & 1 != 0)
            .map(|(_, component)| component)
    }

    fn standard_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).map(|(offset, size, _)| offset + size).fold(XSAVE_BASE, u32::max)
    }

    fn compacted_size(&self, xcr0: u64) -> u32 {
        self.enabled(xcr0).fold(XSAVE_BASE, |end, (_, size, aligned)| {
            size + if *aligned { end.next_multiple_of(64) } else { end }
        })
    }

    /// The reason for a leaf, for reports.
    #[must_use]
    pub fn reason(leaf: u32) -> Option<&'static str> {
        TABLE.iter().find(|rule| rule.leaf == leaf).map(|rule| rule.reason)
    }
}

impl Rule {
    fn evaluate(&self, host: Registers) -> Registers {
        let mut result = [0; 4];
        for ((result, field), host) in result.iter_mut().zip(self.registers).zip(host) {
            *result = match field {
                Field::Host => host,
                Field::Fixed(value) => value,
                Field::Bits { host: mask, on } => host & mask | on,
            };
        }
        result
    }
}

/// Checks a value for `XCR0` (Intel SDM vol. 1, 13.3): x87 always, AVX with SSE, AVX-512 whole and
/// with AVX.
#[must_use]
pub const fn is_valid_xcr0(value: u64, offered: u64) -> bool {
    const X87: u64 = 1;
    const SSE: u64 = 1 << 1;
    const AVX: u64 = 1 << 2;
    const AVX512: u64 = 0b1110_0000;
    let avx_ok = value & AVX == 0 || value & SSE != 0;
    let avx512 = value & AVX512;
    let avx512_ok = avx512 == 0 || (avx512 == AVX512 && value & AVX != 0);
    value & X87 != 0 && value & !offered == 0 && avx_ok && avx512_ok
}

#[cfg(test)]
mod tests;
