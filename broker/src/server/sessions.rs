//! Who holds which session: live on one connection, or parked without one.
//!
//! A session belongs to an identity and a client id, so the same client id of another thing is
//! another session and disconnects nobody. Taking over is a hand-over: the newcomer asks, the
//! holder is woken, lets go and passes on what it kept, wherever the two run.

use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use ca::CertificateId;
use fleet::ThingName;
use hashbrown::hash_map::Entry;
use hashbrown::{DefaultHashBuilder, HashMap};
use parking_lot::Mutex;
use tokio::sync::oneshot;

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
    // Held for a look-up or an exchange; never across an await.
    shards: Box<[Mutex<HashMap<SessionKey, Slot>>]>,
    parked: AtomicUsize,
}

enum Slot {
    Live {
        mailbox: Arc<Mailbox>,
        next: Option<Waiter>,
    },
    Parked(Box<Parked>),
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
}

/// How a holder lets go of its session.
pub(crate) enum Released {
    /// A newcomer has it now.
    HandedOver,
    /// Nobody waits: it is parked, or it was not worth keeping.
    Free,
    /// Nobody waits and there is no room to park it; the caller must discard what it kept.
    Full(Box<Parked>),
}

impl Sessions {
    pub(crate) fn new() -> Self {
        Self {
            hasher: DefaultHashBuilder::default(),
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            parked: AtomicUsize::new(0),
        }
    }

    /// Claims the session for a new connection. `fresh` is the mailbox it uses when nothing was
    /// kept or `clean` says that nothing is wanted.
    pub(crate) fn claim(&self, key: &SessionKey, fresh: &Arc<Mailbox>, clean: bool) -> Claim {
        let mut shard = self.shard(key).lock();
        match shard.entry(key.clone()) {
            Entry::Vacant(vacant) => {
                vacant.insert(Slot::live(Arc::clone(fresh)));
                Claim::Held(None)
            }
            Entry::Occupied(mut occupied) => match occupied.get_mut() {
                Slot::Live { mailbox, next } => {
                    let (sender, receiver) = oneshot::channel();
                    *next = Some(Waiter {
                        fresh: Arc::clone(fresh),
                        clean,
                        sender,
                    });
                    // [MQTT-3.1.4-3] [MQTT311-3.1.4-2]
                    mailbox.signal(Signal::TAKEOVER);
                    Claim::Wait(receiver)
                }
                Slot::Parked(parked) => {
                    let mailbox = if clean { fresh } else { &parked.mailbox };
                    let live = Slot::live(Arc::clone(mailbox));
                    self.parked.fetch_sub(1, Ordering::Relaxed);
                    match occupied.insert(live) {
                        Slot::Parked(parked) => Claim::Held(Some(parked)),
                        Slot::Live { .. } => Claim::Held(None),
                    }
                }
            },
        }
    }

    /// Lets go of a session held with `mailbox`, keeping `kept` for whoever comes next.
    pub(crate) fn release(
        &self,
        key: &SessionKey,
        mailbox: &Arc<Mailbox>,
        mut kept: Option<Box<Parked>>,
        parked_limit: usize,
    ) -> Released {
        let mut shard = self.shard(key).lock();
        let Entry::Occupied(mut occupied) = shard.entry(key.clone()) else {
            return Released::Free;
        };
        let Slot::Live {
            mailbox: held,
            next,
        } = occupied.get_mut()
        else {
            return Released::Free;
        };
        if !Arc::ptr_eq(held, mailbox) {
            return Released::Free;
        }
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
            Some(kept) if self.parked.load(Ordering::Relaxed) < parked_limit => {
                self.parked.fetch_add(1, Ordering::Relaxed);
                occupied.insert(Slot::Parked(kept));
                Released::Free
            }
            Some(kept) => {
                occupied.remove();
                Released::Full(kept)
            }
            None => {
                occupied.remove();
                Released::Free
            }
        }
    }

    /// Parks a session found in the journal at start.
    pub(crate) fn park_recovered(&self, key: SessionKey, parked: Box<Parked>) {
        self.parked.fetch_add(1, Ordering::Relaxed);
        self.shard(&key)
            .lock()
            .insert(key.clone(), Slot::Parked(parked));
    }

    /// Takes a parked session out (never a live one [MQTT-4.1.0-1] [MQTT311-4.1.0-2]) if it is still the one with this number and `wanted` agrees.
    pub(crate) fn take_parked_if(
        &self,
        key: &SessionKey,
        number: u64,
        wanted: impl FnOnce(&Parked) -> bool,
    ) -> Option<Box<Parked>> {
        let mut shard = self.shard(key).lock();
        match shard.get(key) {
            Some(Slot::Parked(parked)) if parked.mailbox.number() == number && wanted(parked) => {}
            _ => return None,
        }
        match shard.remove(key) {
            Some(Slot::Parked(parked)) => {
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
        match self.shard(key).lock().get_mut(key) {
            Some(Slot::Parked(parked)) if parked.mailbox.number() == number => Some(change(parked)),
            _ => None,
        }
    }

    /// The parked sessions for which `wanted` says so, the oldest first.
    pub(crate) fn parked_where(
        &self,
        mut wanted: impl FnMut(&Parked) -> bool,
    ) -> Vec<(SessionKey, u64)> {
        let mut found = Vec::new();
        for shard in &self.shards {
            for (key, slot) in shard.lock().iter() {
                if let Slot::Parked(parked) = slot
                    && wanted(parked)
                {
                    found.push((key.clone(), parked.mailbox.number()));
                }
            }
        }
        found.sort_unstable_by_key(|(_, number)| *number);
        found
    }

    /// Signals every live session, the oldest first.
    pub(crate) fn signal_all(&self, signal: Signal) {
        let mut live = Vec::new();
        for shard in &self.shards {
            live.extend(shard.lock().values().filter_map(|slot| match slot {
                Slot::Live { mailbox, .. } => Some(Arc::clone(mailbox)),
                Slot::Parked(_) => None,
            }));
        }
        live.sort_unstable_by_key(|mailbox| mailbox.number());
        for mailbox in live {
            mailbox.signal(signal);
        }
    }

    /// The sessions whose queues have dropped most, those first. Walks all sessions, one lock after the other.
    pub(crate) fn droppers(&self, most: usize) -> Vec<(SessionKey, Arc<Mailbox>)> {
        let mut found: Vec<(u64, SessionKey, Arc<Mailbox>)> = Vec::new();
        for shard in &self.shards {
            let dropping = |(key, slot): (&SessionKey, &Slot)| {
                let mailbox = slot.mailbox();
                let dropped = mailbox.dropped();
                (dropped > 0).then(|| (dropped, key.clone(), Arc::clone(mailbox)))
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
        let shard = self.shard(key).lock();
        shard.get(key).map(|slot| slot.mailbox().number())
    }

    fn shard(&self, key: &SessionKey) -> &Mutex<HashMap<SessionKey, Slot>> {
        // Truncation is meant: only the low bits choose the shard.
        let at = (self.hasher.hash_one(key) as usize) & (SHARDS - 1);
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
            Self::Parked(parked) => &parked.mailbox,
        }
    }

    fn live(mailbox: Arc<Mailbox>) -> Self {
        Self::Live {
            mailbox,
            next: None,
        }
    }
}
