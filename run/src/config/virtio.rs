//! Virtio devices of VMs: `disks`, `nets` and `consoles` of a `[[vm]]`.

use toml::Spanned;
use toml::de::DeValue;

use super::model::{Domain, Model, Use};
use super::source::{Diagnostic, Located};
use super::table::{self, Table, unknown};
use super::{graph, units};

/// Name of the service.
pub const SERVICE: &str = "virtio";

const DISK: &[&str] = &["from", "disk", "read-only", "copy-on-write", "partition", "serial"];
const NET: &[&str] = &["from", "network", "mac", "rate"];
const CONSOLE: &[&str] = &["from"];

/// Bytes of a disk's serial number (virtio 1.2, 5.2.6).
const SERIAL: usize = 20;
/// Most entries of a partition table.
const PARTITIONS: u16 = 128;

/// A virtio device of a VM.
#[derive(Clone, Debug)]
pub enum Device {
    /// A console.
    Console,
    /// A disk.
    Disk(Disk),
    /// A network card.
    Net(Net),
}

/// A disk.
#[derive(Clone, Debug)]
pub struct Disk {
    /// The provider's store or PCI function.
    pub disk: Option<Located<String>>,
    /// Nothing may be written.
    pub read_only: bool,
    /// The store where changes go.
    pub overlay: Option<Located<String>>,
    /// A partition of the disk.
    pub partition: Option<Located<u16>>,
    /// Serial number.
    pub serial: Option<Located<String>>,
}

/// A network card.
#[derive(Clone, Debug)]
pub struct Net {
    /// The network that it is plugged into.
    pub network: Option<Located<String>>,
    /// Its address; or the tool's choice.
    pub mac: Option<Located<[u8; 6]>>,
    /// Bytes in a second that it may send at most.
    pub rate: Option<Located<u64>>,
}

/// The sessions that the devices of a VM make: consoles, disks, network cards.
pub fn parse(t: &Table<'_, '_>, errors: &mut Vec<Diagnostic>) -> Vec<Use> {
    type Read = fn(&Table<'_, '_>, &mut Vec<Diagnostic>) -> Device;
    let kinds: [(&str, &'static str, &[&str], Read); 3] = [
        ("consoles", "an entry of `consoles`", CONSOLE, |_, _| Device::Console),
        ("disks", "an entry of `disks`", DISK, |t, e| Device::Disk(disk(t, e))),
        ("nets", "an entry of `nets`", NET, |t, e| Device::Net(net(t, e))),
    ];
    let mut uses = Vec::new();
    for (key, what, keys, read) in kinds {
        let list = t.optional(key, errors, |v, e| table::list(v, e, table::table));
        for entry in list.map(|l| l.value).unwrap_or_default() {
            let t = Table::new(what, entry.value, entry.span.clone(), keys, errors);
            let device = read(&t, errors);
            if let Some(provider) = t.required("from", errors, table::string) {
                let service = Located::new(SERVICE.to_owned(), provider.span.clone());
                uses.push(Use { service, provider, device: Some(device) });
            }
        }
    }
    uses
}

fn disk(t: &Table<'_, '_>, errors: &mut Vec<Diagnostic>) -> Disk {
    let disk = Disk {
        disk: t.required("disk", errors, name),
        read_only: t.optional("read-only", errors, table::boolean).is_some_and(|l| l.value),
        overlay: t.optional("copy-on-write", errors, name),
        partition: t.optional("partition", errors, |v, e| table::number(v, 1..=PARTITIONS, e)),
        serial: t.optional("serial", errors, serial),
    };
    if let Some(overlay) = disk.overlay.as_ref().filter(|_| disk.read_only) {
        let message = "`copy-on-write` has no meaning on a disk that is read-only";
        errors.push(Diagnostic::new(&overlay.span, message));
    }
    disk
}

fn net(t: &Table<'_, '_>, errors: &mut Vec<Diagnostic>) -> Net {
    Net {
        network: t.required("network", errors, name),
        mac: t.optional("mac", errors, |v, e| understood(v, e, mac)),
        rate: t.optional("rate", errors, |v, e| understood(v, e, units::size)),
    }
}

/// A string that a function understands.
fn understood<T>(
    value: &Spanned<DeValue<'_>>,
    errors: &mut Vec<Diagnostic>,
    read: impl FnOnce(&str) -> Result<T, String>,
) -> Option<T> {
    let text = table::string(value, errors)?;
    read(&text).map_err(|m| errors.push(Diagnostic::new(&value.span(), m))).ok()
}

fn name(value: &Spanned<DeValue<'_>>, errors: &mut Vec<Diagnostic>) -> Option<String> {
    understood(value, errors, |text| units::name(text).map(|()| text.to_owned()))
}

fn serial(value: &Spanned<DeValue<'_>>, errors: &mut Vec<Diagnostic>) -> Option<String> {
    understood(value, errors, |text| {
        if (1..=SERIAL).contains(&text.len()) && text.chars().all(|c| c.is_ascii_graphic()) {
            Ok(text.to_owned())
        } else {
            Err(format!("`{text}` is not a serial number: 1 to {SERIAL} characters without spaces"))
        }
    })
}

/// Reads "52:54:00:00:00:01".
///
/// # Errors
/// Says what is wrong.
pub fn mac(text: &str) -> Result<[u8; 6], String> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = parts
            .next()
            .filter(|p| p.len() == 2 && p.chars().all(|c| c.is_ascii_hexdigit()))
            .and_then(|p| u8::from_str_radix(p, 16).ok())
            .ok_or_else(|| format!("`{text}` is not an address such as \"52:54:00:00:00:01\""))?;
    }
    if parts.next().is_some() {
        return Err(format!("`{text}` is longer than an address"));
    }
    if mac.first().is_some_and(|b| b & 1 != 0) || mac == [0; 6] {
        return Err(format!("`{text}` is not the address of one card"));
    }
    Ok(mac)
}

/// The words that tell the provider what a session is for. `chosen` is the address of a card that
/// names none.
#[must_use]
pub fn args(device: &Device, chosen: [u8; 6]) -> String {
    let mut words: Vec<String> = Vec::new();
    match device {
        Device::Console => words.push("console".to_owned()),
        Device::Disk(disk) => {
            words.extend(disk.disk.iter().map(|n| format!("disk={}", n.value)));
            words.extend(disk.read_only.then(|| "ro".to_owned()));
            words.extend(disk.overlay.iter().map(|n| format!("cow={}", n.value)));
            words.extend(disk.partition.iter().map(|n| format!("partition={}", n.value)));
            words.extend(disk.serial.iter().map(|n| format!("serial={}", n.value)));
        }
        Device::Net(net) => {
            words.extend(net.network.iter().map(|n| format!("network={}", n.value)));
            let [a, b, c, d, e, f] = net.mac.as_ref().map_or(chosen, |m| m.value);
            words.push(format!("mac={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"));
            words.extend(net.rate.iter().map(|n| format!("rate={}", n.value)));
        }
    }
    words.join(" ")
}

/// Hands out addresses that the file does not name.
#[derive(Debug)]
pub struct Addresses {
    taken: Vec<[u8; 6]>,
}

impl Addresses {
    /// All but those that the file names.
    #[must_use]
    pub fn of(model: &Model) -> Self {
        Self { taken: cards(model).filter_map(|(_, n)| n.mac.as_ref().map(|m| m.value)).collect() }
    }

    /// Another one.
    pub fn choose(&mut self) -> [u8; 6] {
        let mac = (1u32..)
            .map(|n| {
                let [_, d, e, f] = n.to_be_bytes();
                [0x52, 0x54, 0, d, e, f]
            })
            .find(|m| !self.taken.contains(m))
            .unwrap_or_default();
        self.taken.push(mac);
        mac
    }
}

fn devices(model: &Model) -> impl Iterator<Item = (&Use, &Device)> {
    let uses = model.domains.iter().flat_map(|d| &d.uses);
    uses.filter_map(|u| u.device.as_ref().map(|d| (u, d)))
}

fn cards(model: &Model) -> impl Iterator<Item = (&Use, &Net)> {
    devices(model).filter_map(|(u, d)| match d {
        Device::Net(net) => Some((u, net)),
        _ => None,
    })
}

fn disks(model: &Model) -> impl Iterator<Item = (&Use, &Disk)> {
    devices(model).filter_map(|(u, d)| match d {
        Device::Disk(disk) => Some((u, disk)),
        _ => None,
    })
}

/// Reports disks that do not exist or that two would change, and addresses that are used twice.
pub fn check(model: &Model, errors: &mut Vec<Diagnostic>) {
    for (used, disk) in disks(model) {
        let provider = graph::find(model, &used.provider.value);
        // An unknown provider is reported elsewhere.
        let Some(provider) = provider.and_then(|i| model.domains.get(i)) else { continue };
        exists(model, provider, disk, errors);
    }
    let all: Vec<_> = disks(model).collect();
    for (index, (used, disk)) in all.iter().enumerate() {
        let earlier = all.iter().take(index);
        for (other, theirs) in earlier.filter(|(o, _)| o.provider.value == used.provider.value) {
            conflict(disk, theirs, other, errors);
        }
    }
    let all: Vec<_> = cards(model).collect();
    for (index, (used, net)) in all.iter().enumerate() {
        let Some(mac) = &net.mac else { continue };
        let mut earlier = all.iter().take(index);
        let twin = earlier.find_map(|(o, n)| {
            let same = o.provider.value == used.provider.value;
            n.mac.as_ref().filter(|m| same && m.value == mac.value)
        });
        if let Some(twin) = twin {
            let error = Diagnostic::new(&mac.span, "another card has this address");
            errors.push(error.also(&twin.span, "there"));
        }
    }
}

/// Reports names that the provider of a disk does not know.
fn exists(model: &Model, provider: &Domain, disk: &Disk, errors: &mut Vec<Diagnostic>) {
    let owner = provider.name.as_ref().map_or("?", |n| n.value.as_str());
    let stores: Vec<&str> = provider.stores.iter().map(|s| s.name.value.as_str()).collect();
    let functions = provider
        .devices
        .iter()
        .map(|d| d.value.as_str())
        .filter(|name| model.devices.iter().any(|d| d.name.value == *name && d.pci.is_some()));
    let media: Vec<&str> = stores.iter().copied().chain(functions).collect();
    let mut known = |name: &Option<Located<String>>, kind: &str, list: &[&str]| {
        if let Some(name) = name
            && !list.contains(&name.value.as_str())
        {
            let place = format!("component `{owner}`");
            let list = list.iter().copied();
            errors.push(unknown(&name.span, kind, &name.value, list, &place));
        }
    };
    known(&disk.disk, "store or PCI device", &media);
    known(&disk.overlay, "store", &stores);
}

/// Reports what two disks of one provider cannot both have.
fn conflict(disk: &Disk, theirs: &Disk, other: &Use, errors: &mut Vec<Diagnostic>) {
    let (Some(name), Some(other_name)) = (&disk.disk, &theirs.disk) else { return };
    let number = |d: &Disk| d.partition.as_ref().map(|p| p.value);
    let overlap = match (number(disk), number(theirs)) {
        (Some(mine), Some(other)) => mine == other,
        _ => true,
    };
    let writes = |d: &Disk| !d.read_only && d.overlay.is_none();
    if name.value == other_name.value && overlap && (writes(disk) || writes(theirs)) {
        let message = format!("`{}` would be written while another disk shows it", name.value);
        let error = Diagnostic::new(&name.span, message).also(&other.provider.span, "that one");
        errors.push(error.help("make them read-only or copy-on-write, or give them partitions"));
    }
    let own = |d: &Disk| [d.overlay.clone(), None];
    let all = |d: &Disk| [d.overlay.clone(), d.disk.clone()];
    let clashes = [(own(disk), all(theirs)), (all(disk), own(theirs))];
    let clash = clashes.iter().find_map(|(mine, theirs)| {
        let mut mine = mine.iter().flatten();
        mine.find_map(|m| theirs.iter().flatten().find(|t| t.value == m.value).map(|t| (m, t)))
    });
    if let Some((mine, theirs)) = clash {
        let message = format!("store `{}` holds the changes of one disk only", mine.value);
        errors.push(Diagnostic::new(&mine.span, message).also(&theirs.span, "used there"));
    }
}
