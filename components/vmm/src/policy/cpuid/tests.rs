use super::{Policy, Registers, TABLE, View, is_valid_xcr0};

const AMD: [u32; 3] = [0x6874_7541, 0x444d_4163, 0x6974_6e65];
const INTEL: [u32; 3] = [0x756e_6547, 0x6c65_746e, 0x4965_6e69];

/// A host that has every bit set, and plausible sizes.
fn host(vendor: [u32; 3]) -> impl Fn(u32, u32) -> Registers {
    move |leaf, sub| match (leaf, sub) {
        (0, _) => [0x1f, vendor[0], vendor[1], vendor[2]],
        (0x8000_0000, _) => [0x8000_0028, vendor[0], vendor[1], vendor[2]],
        (4, 4..) => [0; 4],
        (4, n) => [1 | (n + 1) << 5 | 7 << 14 | 7 << 26, 0, 0, 0],
        (0xd, 0) => [0x2e7, 2688, 2696, 0],
        (0xd, 2) => [256, 576, 0, 0],
        (0xd, 5) => [64, 1088, 0, 0],
        (0xd, 6) => [512, 1152, 2, 0],
        (0xd, 7) => [1024, 1664, 2, 0],
        (0x8000_0008, _) => [0x3030, !0, !0, !0],
        _ => [!0; 4],
    }
}

fn view(id: u32) -> View {
    View { id, osxsave: true, xcr0: 7, apic: true }
}

#[test]
fn what_is_never_shown() {
    for vendor in [AMD, INTEL] {
        let p = Policy::new(4, &host(vendor));
        let [_, _, c, d] = p.read(1, 0, &view(0));
        assert_eq!(c & (1 << 5 | 1 << 3 | 1 << 6), 0, "VMX, MONITOR, SMX");
        assert_eq!(d & (1 << 7 | 1 << 14), 0, "machine check");
        assert_eq!(c & (1 << 31 | 1 << 21 | 1 << 24), 1 << 31 | 1 << 21 | 1 << 24);
        assert_eq!(p.read(0x8000_0001, 0, &view(0))[2] & (1 << 2 | 1 << 22 | 1 << 23), 0);
        let [a, b, c, d] = p.read(7, 0, &view(0));
        assert_eq!((a, b & 1 << 1, c & (1 << 3 | 1 << 16), d >> 26), (1, 0, 0, 0));
        for leaf in [0x5, 0xa, 0x14, 0x8000_000a, 0x8000_001f, 0x4000_0002, 0x1234_5678] {
            assert_eq!(p.read(leaf, 0, &view(0)), [0; 4], "{leaf:#x}");
        }
    }
}

#[test]
fn maximum_leaves_and_vendor() {
    let p = Policy::new(1, &host(AMD));
    assert_eq!(p.read(0, 0, &view(0)), [0xd, AMD[0], AMD[1], AMD[2]]);
    assert_eq!(p.read(0x8000_0000, 0, &view(0))[0], 0x8000_0021);
    let kvm = p.read(0x4000_0000, 0, &view(0));
    let text: Vec<u8> = kvm[1..].iter().flat_map(|w| w.to_le_bytes()).collect();
    assert_eq!(text, b"KVMKVMKVM\0\0\0");
    assert_eq!(p.read(0x4000_0001, 0, &view(0))[0], 0x100_004a);
    assert_eq!(p.read(0x8000_0007, 0, &view(0))[3], 1 << 8);
}

#[test]
fn topology() {
    let p = Policy::new(3, &host(AMD));
    let one = p.read(1, 9, &view(2));
    assert_eq!((one[1] >> 24, one[1] >> 16 & 0xff, one[3] >> 28 & 1), (2, 4, 1));
    assert_eq!(p.read(0xb, 0, &view(2)), [0, 1, 0x100, 2]);
    assert_eq!(p.read(0xb, 1, &view(2)), [2, 3, 0x201, 2]);
    assert_eq!(p.read(0xb, 2, &view(2)), [0, 0, 2, 2]);
    assert_eq!(p.read(0xb, 7, &view(2)), [0, 0, 7, 2]);
    assert_eq!(p.read(0x8000_0008, 0, &view(0))[2], 2 | 2 << 12);
    assert_eq!(p.read(0x8000_0001, 0, &view(0))[2] & 2, 2);
    let p = Policy::new(1, &host(INTEL));
    assert_eq!(p.read(1, 0, &view(0))[3] >> 28 & 1, 0);
    assert_eq!(p.read(0xb, 1, &view(0)), [0, 1, 0x201, 0]);
    assert_eq!(p.read(0x8000_0008, 0, &view(0))[2], 0);
    assert_eq!(p.read(4, 0, &view(0))[0] >> 14, 0);
    let p = Policy::new(8, &host(INTEL));
    assert_eq!(p.read(4, 0, &view(0))[0] >> 14, 7 << 12);
    assert_eq!(p.read(4, 3, &view(0))[0] >> 14, 7 | 7 << 12);
    assert_eq!(p.read(4, 5, &view(0)), [0; 4]);
}

#[test]
fn xsave_sizes_follow_xcr0() {
    let p = Policy::new(1, &host(INTEL));
    assert_eq!(p.xcr0(), 0xe7);
    let at = |xcr0| p.read(0xd, 0, &View { xcr0, ..view(0) });
    assert_eq!(at(1), [0xe7, 576, 2688, 0]);
    assert_eq!(at(7)[1], 832);
    assert_eq!(at(0xe7)[1], 2688);
    let one = p.read(0xd, 1, &View { xcr0: 0xe7, ..view(0) });
    assert_eq!(one, [7, 576 + 256 + 64 + 512 + 1024, 0, 0]);
    assert_eq!(p.read(0xd, 3, &view(0)), [0; 4]);
    assert_eq!(p.read(0xd, 9, &view(0)), [0; 4]);
    // A host without AVX-512's upper registers has none of it.
    let part =
        |leaf, sub| if (leaf, sub) == (0xd, 0) { [0x27, 0, 0, 0] } else { host(INTEL)(leaf, sub) };
    assert_eq!(Policy::new(1, &part).xcr0(), 7);
}

#[test]
fn dynamic_bits() {
    let p = Policy::new(1, &host(AMD));
    let off = View { osxsave: false, apic: false, ..view(0) };
    assert_eq!(p.read(1, 0, &view(0))[2] >> 27 & 1, 1);
    assert_eq!(p.read(1, 0, &off)[2] >> 27 & 1, 0);
    assert_eq!(p.read(1, 0, &off)[3] >> 9 & 1, 0);
    assert_eq!(p.read(0x8000_0001, 0, &off)[3] >> 9 & 1, 0);
}

#[test]
fn a_host_with_little_gives_little() {
    let old = |leaf, _| match leaf {
        0 => [1, AMD[0], AMD[1], AMD[2]],
        1 => [0x600, 0, 0, 0x0183_fbff],
        0x8000_0000 => [0x8000_0001, 0, 0, 0],
        0x8000_0001 => [0, 0, 1, 1 << 29],
        _ => [!0; 4],
    };
    let p = Policy::new(1, &old);
    assert_eq!(p.xcr0(), 0);
    assert_eq!(p.read(7, 0, &view(0)), [1, 0, 0, 0]);
    assert_eq!(p.read(0xd, 0, &view(0)), [0; 4]);
    assert_eq!(p.read(1, 0, &view(0))[2] >> 26 & 3, 0);
}

#[test]
fn every_entry_has_a_reason() {
    assert!(TABLE.is_sorted_by_key(|rule| rule.leaf));
    for rule in TABLE {
        assert!(!rule.reason.is_empty());
        assert!(Policy::reason(rule.leaf).is_some());
    }
}

#[test]
fn xcr0_rules() {
    for (value, ok) in [
        (0, false),
        (1, true),
        (3, true),
        (5, false),
        (7, true),
        (0xe7, true),
        (0xe3, false),
        (0x27, false),
        (0x207, false),
    ] {
        assert_eq!(is_valid_xcr0(value, 0xe7), ok, "{value:#x}");
    }
    assert!(!is_valid_xcr0(7, 3));
}
