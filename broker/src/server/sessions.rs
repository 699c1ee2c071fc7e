//! Who holds which session: live on one connection, or parked without one.
//!
//! A session belongs to an identity and a client id, so the same client id of another thing is
//! another session and disconnects nobody. Taking over is a hand-over: the newcomer asks, the
//! holder is woken, lets go and passes on what it kept, wherever the two run.

mod owned;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ca::CertificateId;
use fleet::ThingName;
use hashbrown::DefaultHashBuilder;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use self::owned::Shard;
use super::mailbox::{Mailbox, Signal};
use super::parked::Parked;
use crate::topic::ClientId;

/// Locks the sessions are spread over. A power of two.
const SHARDS: usize = 16;

/// Whose a session is: the thing, so that it survives a renewed certificate; the certificate where
/// there is no thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Owner {
    Thing(ThingName),
    Certificate(CertificateId),
}

/// What names a session [MQTT-3.1.3-2] [MQTT311-3.1.3-2].
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionKey {
    pub(crate) owner: Owner,
    pub(crate) client_id: ClientId,
}

impl SessionKey {
    fn new(owner: &Owner, client_id: &ClientId) -> Self {
        Self {
            owner: owner.clone(),
            client_id: client_id.clone(),
        }
    }
}

impl Owner {
    pub(crate) fn thing(&self) -> Option<&ThingName> {
        match self {
            Self::Thing(thing) => Some(thing),
            Self::Certificate(_) => None,
        }
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thing(thing) => write!(f, "thing {thing}"),
            Self::Certificate(id) => write!(f, "certificate {id}"),
        }
    }
}

/// All sessions of the broker.
pub(crate) struct Sessions {
    hasher: DefaultHashBuilder,
    // All sessions of an owner are in one. Held for a look-up or an exchange; never across an await, nor two of them.
    shards: Box<[Mutex<Shard>]>,
    parked: AtomicUsize,
    /// Counts those that have been parked: who was parked first goes first.
    turns: AtomicU64,
}

/// How many sessions one owner may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Share {
    /// Connected at once.
    pub(crate) live: usize,
    /// Parked at once.
    pub(crate) parked: usize,
}

enum Slot {
    Live {
        mailbox: Arc<Mailbox>,
        next: Option<Waiter>,
    },
    Parked {
        parked: Box<Parked>,
        turn: u64,
    },
}

/// A newcomer that waits for the holder to let go.
struct Waiter {
    fresh: Arc<Mailbox>,
    clean: bool,
    sender: oneshot::Sender<Option<Box<Parked>>>,
}

/// The answer to [`Sessions::claim`].
pub(crate) enum Claim {
    /// The session is the caller's, with what was kept of it.
    Held(Option<Box<Parked>>),
    /// Somebody holds it and has been asked to let go. An error from the receiver means that a
    /// third came in between: the caller has been taken over itself.
    Wait(oneshot::Receiver<Option<Box<Parked>>>),
    /// The owner has as many sessions connected as it may, and this would be one more.
    Full,
}

/// How a holder lets go of its session.
pub(crate) enum Released {
    /// A newcomer has it now.
    HandedOver,
    /// Nobody waits: it is parked, or it was not worth keeping.
    Free,
    /// Nobody waits and there is no room to park it: it is still held. [`Sessions::push_out`] makes room.
    Full(Box<Parked>, Room),
}

/// Where there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Room {
    /// Among the owner's own.
    Owner,
    /// Among all.
    Server,
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            parked: AtomicUsize::new(0),
            turns: AtomicU64::new(0),
        }
    }

    /// Claims the session for a new connection. `fresh` is the mailbox it uses when nothing was
    /// kept or `clean` says that nothing is wanted; `most` is how many its owner may have connected.
    pub(crate) fn claim(
        &self,
        key: &SessionKey,
        fresh: &Arc<Mailbox>,
        clean: bool,
        most: usize,
    ) -> Claim {
        let mut shard = self.shard(&key.owner).lock();
        let is_full = shard.live(&key.owner) >= most;
        let mailbox = match shard.get_mut(key) {
            Some(Slot::Live { mailbox, next }) => {
                let (sender, receiver) = oneshot::channel();
                *next = Some(Waiter {
                    fresh: Arc::clone(fresh),
                    clean,
                    sender,
                });
                // [MQTT-3.1.4-3] [MQTT311-3.1.4-2]
                mailbox.signal(Signal::TAKEOVER);
                return Claim::Wait(receiver);
            }
            Some(Slot::Parked { .. }) | None if is_full => return Claim::Full,
            Some(Slot::Parked { parked, .. }) if !clean => Arc::clone(&parked.mailbox),
            Some(Slot::Parked { .. }) | None => Arc::clone(fresh),
        };
        let live = Slot::live(mailbox);
        match shard.put(key, Some(live)) {
            Some(Slot::Parked { parked, .. }) => {
                self.parked.fetch_sub(1, Ordering::Relaxed);
                Claim::Held(Some(parked))
            }
            Some(Slot::Live { .. }) | None => Claim::Held(None),
        }
    }

    /// Lets go of a session held with `mailbox`, keeping `kept` for whoever comes next, where fewer than `most` of its
    /// owner and than `limit` of all are parked.
    pub(crate) fn release(
        &self,
        key: &SessionKey,
        mailbox: &Arc<Mailbox>,
        mut kept: Option<Box<Parked>>,
        most: usize,
        limit: usize,
    ) -> Released {
        let mut shard = self.shard(&key.owner).lock();
        let own = shard.parked(&key.owner);
        let Some(Slot::Live {
            mailbox: held,
            next,
        }) = shard.get_mut(key)
        else {
            return Released::Free;
        };
        if !Arc::ptr_eq(held, mailbox) {
            return Released::Free;
        }
        // That was about the connection which lets go.
        mailbox.clear(Signal::REMOVED.and(Signal::CLEAN).and(Signal::NO_WILL));
        if let Some(waiter) = next.take() {
            // Set under this lock and cleared under it: the next holder must not take the request
            // that brought it here for one against itself.
            mailbox.clear(Signal::TAKEOVER);
            let heir = match &kept {
                Some(kept) if !waiter.clean => Arc::clone(&kept.mailbox),
                _ => waiter.fresh,
            };
            match waiter.sender.send(kept) {
                Ok(()) => {
                    *held = heir;
                    return Released::HandedOver;
                }
                // The newcomer has given up meanwhile.
                Err(returned) => kept = returned,
            }
        }
        match kept {
            Some(kept) if own >= most => Released::Full(kept, Room::Owner),
            Some(kept) if self.parked.load(Ordering::Relaxed) >= limit => {
                Released::Full(kept, Room::Server)
            }
            Some(kept) => {
                shard.put(key, Some(self.slot_of(kept)));
                Released::Free
            }
            None => {
                shard.put(key, None);
                Released::Free
            }
        }
    }

    /// Takes out a parked session to make room for one of `owner`, and says `ends` of it before somebody else can claim
    /// its key: the one that was parked first of the owner's own, or, where `room` is wanted among all, of the owner who
    /// has most. `None` where nobody else has more than one: who has the only one does not lose it for a newcomer.
    pub(crate) fn push_out(
        &self,
        owner: &Owner,
        room: Room,
        ends: impl Fn(&SessionKey, &Mailbox),
    ) -> Option<(SessionKey, Box<Parked>)> {
        loop {
            let own = self.shard(owner).lock().parked(owner);
            let most = match room {
                Room::Owner => None,
                Room::Server => self.with_most(),
            };
            let loser = match most {
                Some((count, loser)) if count > own => loser,
                _ if own > 0 => owner.clone(),
                _ => return None,
            };
            let mut shard = self.shard(&loser).lock();
            // Else it has come back this very moment.
            let Some(client_id) = shard.first_parked(&loser) else {
                continue;
            };
            let key = SessionKey {
                owner: loser,
                client_id,
            };
            if let Some(Slot::Parked { parked, .. }) = shard.put(&key, None) {
                self.parked.fetch_sub(1, Ordering::Relaxed);
                ends(&key, &parked.mailbox);
                return Some((key, parked));
            }
        }
    }

    /// The owner who has most parked, where that is more than one.
    fn with_most(&self) -> Option<(usize, Owner)> {
        let shards = self.shards.iter();
        shards
            .filter_map(|shard| shard.lock().with_most().cloned())
            .max()
    }

    fn slot_of(&self, parked: Box<Parked>) -> Slot {
        self.parked.fetch_add(1, Ordering::Relaxed);
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        Slot::Parked { parked, turn }
    }

    /// Parks a session found in the journal at start.
    pub(crate) fn park_recovered(&self, key: &SessionKey, parked: Box<Parked>) {
        let slot = self.slot_of(parked);
        self.shard(&key.owner).lock().put(key, Some(slot));
    }

    /// Takes a parked session out (never a live one [MQTT-4.1.0-1] [MQTT311-4.1.0-2]) if it is still the one with this number and `wanted` agrees.
    pub(crate) fn take_parked_if(
        &self,
        key: &SessionKey,
        number: u64,
        wanted: impl FnOnce(&Parked) -> bool,
    ) -> Option<Box<Parked>> {
        let mut shard = self.shard(&key.owner).lock();
        match shard.get(key) {
            Some(Slot::Parked { parked, .. })
                if parked.mailbox.number() == number && wanted(parked) => {}
            _ => return None,
        }
        match shard.put(key, None) {
            Some(Slot::Parked { parked, .. }) => {
                self.parked.fetch_sub(1, Ordering::Relaxed);
                Some(parked)
            }
            _ => None,
        }
    }

    /// Lets `change` work on a parked session if it is still the one with this number.
    pub(crate) fn with_parked<R>(
        &self,
        key: &SessionKey,
        number: u64,
        change: impl FnOnce(&mut Parked) -> R,
    ) -> Option<R> {
        match self.shard(&key.owner).lock().get_mut(key) {
            Some(Slot::Parked { parked, .. }) if parked.mailbox.number() == number => {
                Some(change(parked))
            }
            _ => None,
        }
    }

    /// The parked sessions of an owner for which `wanted` says so.
    pub(crate) fn parked_of(
        &self,
        owner: &Owner,
        wanted: impl Fn(&Parked) -> bool,
    ) -> VecDeque<(SessionKey, u64)> {
        let shard = self.shard(owner).lock();
        let parked = shard
            .of_owner(owner)
            .filter_map(|(client_id, slot)| match slot {
                Slot::Parked { parked, .. } if wanted(parked) => {
                    Some((SessionKey::new(owner, client_id), parked.mailbox.number()))
                }
                Slot::Parked { .. } | Slot::Live { .. } => None,
            });
        parked.collect()
    }

    /// Signals every live session, the oldest first.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let mut live = Vec::new();
        for shard in &self.shards {
            live.extend(shard.lock().iter().filter_map(|(.., slot)| match slot {
                Slot::Live { mailbox, .. } => Some(Arc::clone(mailbox)),
                Slot::Parked { .. } => None,
            }));
        }
        live.sort_unstable_by_key(|mailbox| mailbox.number());
        for mailbox in live {
            mailbox.signal(signal);
        }
    }

    /// Signals the live sessions of a client id, whosever they are, and tells the parked ones: each by its key, its number
    /// and whether it is live. Walks all owners, one lock after the other.
    pub(crate) fn signal_clients(
        &self,
        client_id: &ClientId,
        signal: Signal,
    ) -> Vec<(SessionKey, u64, bool)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (owner, slot) in shard.lock().of_client(client_id) {
                let live = matches!(slot, Slot::Live { .. });
                if live {
                    slot.mailbox().signal(signal);
                }
                let key = SessionKey::new(owner, client_id);
                found.push((key, slot.mailbox().number(), live));
            }
        }
        found
    }

    /// Whether the session with this number is under its key, and on a connection.
    pub(crate) fn is_live(&self, key: &SessionKey, number: u64) -> bool {
        let shard = self.shard(&key.owner).lock();
        matches!(shard.get(key), Some(Slot::Live { mailbox, .. }) if mailbox.number() == number)
    }

    /// The sessions whose queues have dropped most, those first. Walks all sessions, one lock after the other.
    pub(crate) fn droppers(&self, most: usize) -> Vec<(SessionKey, Arc<Mailbox>)> {
        let mut found: Vec<(u64, SessionKey, Arc<Mailbox>)> = Vec::new();
        for shard in &self.shards {
            let dropping = |(owner, client_id, slot): (&Owner, &ClientId, &Slot)| {
                let mailbox = slot.mailbox();
                let dropped = mailbox.dropped();
                let key = || SessionKey::new(owner, client_id);
                (dropped > 0).then(|| (dropped, key(), Arc::clone(mailbox)))
            };
            found.extend(shard.lock().iter().filter_map(dropping));
            found.sort_unstable_by_key(|(dropped, ..)| std::cmp::Reverse(*dropped));
            found.truncate(most);
        }
        let kept = found.into_iter();
        kept.map(|(_, key, mailbox)| (key, mailbox)).collect()
    }

    /// The number of the session that is under this key now.
    pub(crate) fn number_of(&self, key: &SessionKey) -> Option<u64> {
        let shard = self.shard(&key.owner).lock();
        shard.get(key).map(|slot| slot.mailbox().number())
    }

    /// Whether the session under this key now is one that is kept.
    pub(crate) fn is_durable(&self, key: &SessionKey) -> bool {
        let shard = self.shard(&key.owner).lock();
        let slot = shard.get(key);
        slot.is_some_and(|slot| slot.mailbox().is_durable())
    }

    fn shard(&self, owner: &Owner) -> &Mutex<Shard> {
        // Truncation is meant: only the low bits choose the shard.
        let at = (self.hasher.hash_one(owner) as usize) & (SHARDS - 1);
        #[expect(
            clippy::indexing_slicing,
            reason = "there are SHARDS shards and the index is masked with SHARDS - 1"
        )]
        &self.shards[at]
    }
}

impl Slot {
    fn mailbox(&self) -> &Arc<Mailbox> {
        match self {
            Self::Live { mailbox, .. } => mailbox,
            Self::Parked { parked, .. } => &parked.mailbox,
        }
    }

    fn live(mailbox: Arc<Mailbox>) -> Self {
        Self::Live {
            mailbox,
            next: None,
        }
    }
}
