//! Who gets a frame. Pure logic.
//!
//! Addresses of VMs are given by the configuration; addresses behind uplinks are learned from what
//! comes from there. So a frame for an address that is no VM's leaves through an uplink, and no VM
//! sees frames for others.

use alloc::vec::Vec;

use crate::frame::Mac;

/// Most addresses that are remembered.
pub const TABLE: usize = 1024;
/// Seconds after which an address that was silent is forgotten.
pub const AGE: u64 = 300;

/// A place where frames come in and go out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of its network.
    pub network: usize,
    /// The address of the VM there; `None` for an uplink.
    pub mac: Option<Mac>,
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes to this place.
    To(usize),
    /// It goes to every other place of the network.
    All,
    /// It goes to every other uplink of the network.
    Uplinks,
    /// It is dropped.
    Drop(Reason),
}

/// Why a frame is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Its source is not the sender's address, or none of a single station.
    Spoofed,
    /// It is for the place that it came from, or for the bridge.
    Local,
}

/// An address behind an uplink.
#[derive(Clone, Copy, Debug)]
struct Learned {
    network: usize,
    mac: Mac,
    place: usize,
    /// When it was last heard of, in seconds.
    heard: u64,
}

/// A switch.
#[derive(Clone, Debug, Default)]
pub struct Switch {
    places: Vec<Place>,
    /// Ordered by network and address.
    table: Vec<Learned>,
}

impl Switch {
    /// A switch without places.
    #[must_use]
    pub const fn new() -> Self {
        Self { places: Vec::new(), table: Vec::new() }
    }

    /// Whether there is such a place.
    #[must_use]
    pub fn has(&self, place: Place) -> bool {
        self.places.contains(&place)
    }

    /// Adds a place; its number.
    pub fn add(&mut self, place: Place) -> usize {
        self.places.push(place);
        self.places.len() - 1
    }

    /// A place.
    #[must_use]
    pub fn place(&self, at: usize) -> Option<Place> {
        self.places.get(at).copied()
    }

    /// Whether `to` is another place of the network of `from`, and an uplink where only those are
    /// meant.
    #[must_use]
    pub fn is_other(&self, from: usize, to: usize, uplinks_only: bool) -> bool {
        let (Some(from_place), Some(to_place)) = (self.place(from), self.place(to)) else {
            return false;
        };
        let meant = !uplinks_only || to_place.mac.is_none();
        from != to && from_place.network == to_place.network && meant
    }

    /// The verdict on a frame that came in at `from`; `now` in seconds.
    pub fn forward(&mut self, from: usize, source: Mac, destination: Mac, now: u64) -> Verdict {
        let Some(place) = self.place(from) else { return Verdict::Drop(Reason::Local) };
        if source.is_group() {
            return Verdict::Drop(Reason::Spoofed);
        }
        match place.mac {
            Some(mac) if mac != source => return Verdict::Drop(Reason::Spoofed),
            Some(_) => {}
            None if self.vm(place.network, source).is_some() => {
                return Verdict::Drop(Reason::Spoofed);
            }
            None => self.learn(place.network, source, from, now),
        }
        if destination.is_link_local() {
            return Verdict::Drop(Reason::Local);
        }
        if destination.is_group() {
            return Verdict::All;
        }
        let known = self.vm(place.network, destination);
        match known.or_else(|| self.behind(place.network, destination, now)) {
            Some(to) if to == from => Verdict::Drop(Reason::Local),
            Some(to) => Verdict::To(to),
            None => Verdict::Uplinks,
        }
    }

    /// The place of a VM.
    fn vm(&self, network: usize, mac: Mac) -> Option<usize> {
        self.places.iter().position(|p| p.network == network && p.mac == Some(mac))
    }

    fn find(&self, network: usize, mac: Mac) -> Result<usize, usize> {
        self.table.binary_search_by_key(&(network, mac), |l| (l.network, l.mac))
    }

    fn behind(&self, network: usize, mac: Mac, now: u64) -> Option<usize> {
        let learned = self.table.get(self.find(network, mac).ok()?)?;
        (now.saturating_sub(learned.heard) <= AGE).then_some(learned.place)
    }

    fn learn(&mut self, network: usize, mac: Mac, place: usize, now: u64) {
        let learned = Learned { network, mac, place, heard: now };
        match self.find(network, mac) {
            Ok(at) => {
                if let Some(old) = self.table.get_mut(at) {
                    *old = learned;
                }
            }
            Err(_) => {
                if self.table.len() >= TABLE {
                    self.table.retain(|l| now.saturating_sub(l.heard) <= AGE);
                }
                // A full table learns nothing: what is for others goes to all uplinks.
                if self.table.len() < TABLE {
                    let at = self.find(network, mac).unwrap_or_else(|at| at);
                    self.table.insert(at, learned);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
