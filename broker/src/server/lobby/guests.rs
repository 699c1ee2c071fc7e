//! Who sits in a lobby, and whose seat a newcomer gets. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{SILENT, SPEAKING};

/// Whoever has more than this part of all seats is a crowd: it makes room before anybody else does.
pub(super) const CROWD_PART: usize = 4;

/// Where a connection comes from: an address of IPv4, or a network of IPv6 (/64), all of whose addresses are had by
/// whoever has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Source {
    Address(Ipv4Addr),
    Network([u16; 4]),
}

impl Source {
    pub(super) fn of(peer: SocketAddr) -> Self {
        match peer.ip().to_canonical() {
            IpAddr::V4(address) => Self::Address(address),
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                Self::Network([a, b, c, d])
            }
        }
    }
}

/// See the module. What one newcomer costs grows with the logarithm of the seats, whatever sits on them, and so does nothing
/// else: sources are known only while something of theirs sits here.
pub(super) struct Guests {
    seats: usize,
    next: u64,
    /// By when they came.
    silent: BTreeMap<u64, Guest>,
    speaking: BTreeMap<u64, Guest>,
    sources: HashMap<Source, Own>,
    /// Sources that are crowds: fewer than [`CROWD_PART`].
    crowds: Vec<Source>,
}

pub(super) struct Guest {
    since: Instant,
    pub(super) peer: SocketAddr,
    /// Would not go now if it were told to.
    stays: bool,
    _out: oneshot::Sender<()>,
}

/// The guests of one source.
#[derive(Default)]
struct Own {
    silent: BTreeSet<u64>,
    speaking: BTreeSet<u64>,
}

impl Own {
    fn len(&self) -> usize {
        self.silent.len() + self.speaking.len()
    }
}

/// There is no seat yet: nobody has to give one up for this newcomer before that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full(pub(super) Instant);

/// A newcomer has a seat.
pub(super) struct Seated {
    pub(super) number: u64,
    /// Ends when the seat has to be given up.
    pub(super) out: oneshot::Receiver<()>,
    /// Who had to give up theirs for it.
    pub(super) gone: Option<Guest>,
}

impl Guests {
    pub(super) fn new(seats: usize) -> Self {
        Self {
            seats,
            next: 0,
            silent: BTreeMap::new(),
            speaking: BTreeMap::new(),
            sources: HashMap::new(),
            crowds: Vec::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.silent.len() + self.speaking.len()
    }

    /// Who has to go for a newcomer of this source; nobody while there is a seat.
    ///
    /// # Errors
    /// [`Full`].
    pub(super) fn room_for(&self, source: Source, now: Instant) -> Result<Option<u64>, Full> {
        match self.len() < self.seats {
            true => Ok(None),
            false => self.who_goes(Some(source), now, |_| true),
        }
    }

    /// Who has to leave altogether for a newcomer of this source, of those who would at once; nobody where all have
    /// something to sit there for. Where the newcomer is from is not always known.
    pub(super) fn give_up(&mut self, source: Option<Source>, now: Instant) -> Option<Guest> {
        let goes = self.who_goes(source, now, |guest| !guest.stays).ok()??;
        self.remove(goes)
    }

    /// Whether it would go if it were told to.
    pub(super) fn stays(&mut self, number: u64, stays: bool) {
        let all = [&mut self.silent, &mut self.speaking];
        if let Some(guest) = all.into_iter().find_map(|some| some.get_mut(&number)) {
            guest.stays = stays;
        }
    }

    /// A seat for a newcomer for whom that one `goes`.
    pub(super) fn sit(&mut self, peer: SocketAddr, goes: Option<u64>, now: Instant) -> Seated {
        let source = Source::of(peer);
        let gone = goes.and_then(|number| self.remove(number));
        let number = self.next;
        self.next += 1;
        let (sender, out) = oneshot::channel();
        let guest = Guest {
            since: now,
            peer,
            stays: false,
            _out: sender,
        };
        self.silent.insert(number, guest);
        let own = self.sources.entry(source).or_default();
        own.silent.insert(number);
        if own.len() == self.seats / CROWD_PART + 1 {
            self.crowds.push(source);
        }
        Seated { number, out, gone }
    }

    /// It has begun to speak.
    pub(super) fn speaks(&mut self, number: u64) {
        let Some(guest) = self.silent.remove(&number) else {
            return;
        };
        if let Some(own) = self.sources.get_mut(&Source::of(guest.peer)) {
            own.silent.remove(&number);
            own.speaking.insert(number);
        }
        self.speaking.insert(number, guest);
    }

    pub(super) fn remove(&mut self, number: u64) -> Option<Guest> {
        let silent = self.silent.remove(&number);
        let guest = silent.or_else(|| self.speaking.remove(&number))?;
        let source = Source::of(guest.peer);
        if let Some(own) = self.sources.get_mut(&source) {
            own.silent.remove(&number);
            own.speaking.remove(&number);
            if own.len() == self.seats / CROWD_PART {
                self.crowds.retain(|crowd| *crowd != source);
            }
            if own.len() == 0 {
                self.sources.remove(&source);
            }
        }
        Some(guest)
    }

    /// Who makes room for a newcomer, of those who `may`; nobody where none of them is there.
    fn who_goes(
        &self,
        source: Option<Source>,
        now: Instant,
        may: impl Fn(&Guest) -> bool,
    ) -> Result<Option<u64>, Full> {
        fn first<'n>(
            mut numbers: impl Iterator<Item = &'n u64>,
            guests: &BTreeMap<u64, Guest>,
            may: impl Fn(&Guest) -> bool,
        ) -> Option<&'n u64> {
            numbers.find(|number| guests.get(number).is_some_and(&may))
        }
        let silent_of = |own: &'_ Own| first(own.silent.iter(), &self.silent, &may).copied();
        let speaking_of = |own: &'_ Own| first(own.speaking.iter(), &self.speaking, &may).copied();
        let of = |source: &Source| self.sources.get(source);
        let crowds = self.crowds.iter().filter_map(of);
        let Some(largest) = crowds.max_by_key(|own| own.len()) else {
            let silent = first(self.silent.keys(), &self.silent, &may).copied();
            let speaking = first(self.speaking.keys(), &self.speaking, &may).copied();
            return self.oldest(silent, speaking, now).map_err(Full);
        };
        let own = source.filter(|source| self.crowds.contains(source));
        if let Some(own) = own.as_ref().and_then(of) {
            let oldest = self.oldest(silent_of(own), speaking_of(own), now);
            return oldest.map_err(Full);
        }
        // Others do not wait for a crowd's patience.
        Ok(silent_of(largest).or_else(|| speaking_of(largest)))
    }

    /// Whichever of two has to give up its seat first, or when it will.
    fn oldest(
        &self,
        silent: Option<u64>,
        speaking: Option<u64>,
        now: Instant,
    ) -> Result<Option<u64>, Instant> {
        let silent = silent.and_then(|number| Some((self.silent.get(&number)?, SILENT, number)));
        let speaking =
            speaking.and_then(|number| Some((self.speaking.get(&number)?, SPEAKING, number)));
        let both = [silent, speaking].into_iter().flatten();
        let until = both.map(|(guest, patience, number)| (guest.since + patience, number));
        match until.min() {
            Some((until, _)) if now < until => Err(until),
            Some((_, number)) => Ok(Some(number)),
            None => Ok(None),
        }
    }

    /// Whether nothing is remembered.
    #[cfg(test)]
    pub(super) fn is_forgotten(&self) -> bool {
        self.len() == 0 && self.sources.is_empty() && self.crowds.is_empty()
    }
}
