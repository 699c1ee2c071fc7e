//! Looks after sessions nobody is connected to: expiry, delayed wills, principals that lost their
//! standing. One task for all of them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::Hub;
use super::identity::Identity;
use super::parked::Parked;
use super::sessions::{Owner, SessionKey};
use super::wills::DueWill;
use crate::session::Time;

/// How often it looks even when nothing is due: a session that could not be judged may be by then.
const ROUND: Duration = Duration::from_secs(5);

/// How long a commit is waited for that makes room for what is passed on.
const PASSING_WAIT: Duration = Duration::from_secs(1);

/// Sessions looked after before others have their turn: each may have to be read, judged and ended.
const PORTION_SESSIONS: usize = 8;

/// When something is due of which parked session, and whose certificates have changed.
pub(crate) struct Deadlines {
    // Held for one insertion or one removal; never across an await.
    due: Mutex<BTreeMap<(Time, u64), SessionKey>>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    notify: Notify,
    // Held for one insertion, or until it is emptied.
    changed: Mutex<BTreeSet<Owner>>,
}

impl Bell {
    fn ring(&self, owner: &Owner) {
        self.changed.lock().insert(owner.clone());
        self.notify.notify_one();
    }
}

/// Rung when the standing of a certificate changes, for the sessions of an owner.
struct Rope {
    bell: Arc<Bell>,
    owner: Owner,
}

impl Wake for Rope {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.bell.ring(&self.owner);
    }
}

impl Deadlines {
    pub(crate) fn new() -> Self {
        Self {
            due: Mutex::default(),
            bell: Arc::default(),
        }
    }

    pub(crate) fn add(&self, at: Time, number: u64, key: &SessionKey) {
        self.due.lock().insert((at, number), key.clone());
    }

    pub(crate) fn remove(&self, at: Time, number: u64) {
        self.due.lock().remove(&(at, number));
    }

    /// A new deadline may be the earliest.
    pub(crate) fn wake(&self) {
        self.bell.notify.notify_one();
    }

    /// To be woken when the standing of a parked session of this owner changes.
    pub(crate) fn waker(&self, owner: &Owner) -> Waker {
        let (bell, owner) = (Arc::clone(&self.bell), owner.clone());
        Waker::from(Arc::new(Rope { bell, owner }))
    }

    /// The parked sessions of this owner have to be looked at.
    pub(crate) fn has_changed(&self, owner: &Owner) {
        self.bell.ring(owner);
    }

    fn pop_due(&self, now: Time) -> Option<(SessionKey, u64)> {
        let mut due = self.due.lock();
        let first = due.first_entry()?;
        if first.key().0 > now {
            return None;
        }
        let ((_, number), key) = first.remove_entry();
        Some((key, number))
    }

    fn next(&self) -> Option<Time> {
        self.due.lock().keys().next().map(|(at, _)| *at)
    }
}

/// Runs until the task is dropped.
pub(crate) async fn run(hub: Arc<Hub>) {
    let mut standings = Standings::default();
    loop {
        standings.look(&hub);
        let mut attended = 0;
        while attended < PORTION_SESSIONS
            && let Some((key, number)) = hub.deadlines.pop_due(hub.clock.now())
        {
            attend(&hub, &key, number);
            attended += 1;
        }
        let goes_on = attended == PORTION_SESSIONS || !standings.are_settled(&hub);
        if !hub.passing.is_empty() {
            let next = hub.next_commit();
            hub.pass_on_late().await;
            if !hub.passing.is_empty() && !goes_on {
                // A full disk may never take them, and others are waited for too.
                let _ = tokio::time::timeout(PASSING_WAIT, hub.committed(next)).await;
                standings.look_again();
                continue;
            }
        }
        if goes_on {
            tokio::task::yield_now().await;
            continue;
        }
        let round = Instant::now() + ROUND;
        let until = match hub.deadlines.next() {
            Some(at) => round.min(hub.clock.instant(at)),
            None => round,
        };
        // Whichever comes first; which one does not matter.
        let _ = tokio::time::timeout_at(until, hub.deadlines.bell.notify.notified()).await;
        standings.look_again();
    }
}

/// The parked sessions whose certificates have changed, and how far they have been looked at.
#[derive(Default)]
struct Standings {
    owners: VecDeque<Owner>,
    sessions: VecDeque<(SessionKey, u64)>,
    /// Whose sessions could not be judged, or not be written. What is in the way may stay there for a while, so they are
    /// looked at again in the next round, not at once.
    again: BTreeSet<Owner>,
}

impl Standings {
    /// Whether there is nothing more to look at now.
    fn are_settled(&self, hub: &Hub) -> bool {
        let known = self.owners.is_empty() && self.sessions.is_empty();
        known && hub.deadlines.bell.changed.lock().is_empty()
    }

    /// A round has begun.
    fn look_again(&mut self) {
        self.owners.extend(std::mem::take(&mut self.again));
    }

    /// Looks at a portion.
    fn look(&mut self, hub: &Arc<Hub>) {
        let changed = std::mem::take(&mut *hub.deadlines.bell.changed.lock());
        self.owners.extend(changed);
        for _ in 0..PORTION_SESSIONS {
            let Some((key, number)) = self.sessions.pop_front() else {
                let Some(owner) = self.owners.pop_front() else {
                    return;
                };
                let stale =
                    |parked: &Parked| parked.identity.standing.generation() != parked.generation;
                self.sessions = hub.sessions.parked_of(&owner, stale);
                continue;
            };
            if !settle(hub, &key, number) {
                self.again.insert(key.owner);
            }
        }
    }
}

/// Ends a session [MQTT-4.1.0-2] or publishes its will, whichever is due.
fn attend(hub: &Arc<Hub>, key: &SessionKey, number: u64) {
    let now = hub.clock.now();
    let expired = hub.sessions.take_parked_if(key, number, |parked| {
        let expired = parked.expires_at.is_some_and(|at| at <= now);
        if expired {
            hub.ends(key, &parked.mailbox);
        }
        expired
    });
    if let Some(parked) = expired {
        return hub.end_parked(key, *parked);
    }
    if hub.draining.load(Ordering::Acquire) {
        // The journal has it: it is published after the next start, unless its client is back by then.
        return;
    }
    let due = |parked: &mut Parked| parked.will_due.filter(|at| *at <= now);
    let Some(at) = hub.sessions.with_parked(key, number, due).flatten() else {
        return;
    };
    // Not under the lock. Who comes back meanwhile may have another; then this one is not due any more.
    let Some(will) = hub.kept_will(number) else {
        return;
    };
    let identity = hub.sessions.with_parked(key, number, |parked| {
        let due = parked.will_due.take_if(|due| *due == at);
        due.map(|_| (parked.identity.clone(), hub.wills.record(number)))
    });
    if let Some((identity, record)) = identity.flatten() {
        hub.publish_will(DueWill {
            number,
            key: key.clone(),
            identity,
            will,
            record: Some(record),
        });
    }
}

/// Looks after a parked session whose certificate has changed: it goes on under the certificate that its device has now,
/// or is dropped with queue, records and will. Whether that is done, or there is nothing to do any more.
fn settle(hub: &Arc<Hub>, key: &SessionKey, number: u64) -> bool {
    let look = |parked: &mut Parked| parked.identity.clone();
    let Some(identity) = hub.sessions.with_parked(key, number, look) else {
        return true;
    };
    // Read before the registry is: what changes in between is looked at again.
    let generation = identity.standing.generation();
    let same = |parked: &Parked| {
        Arc::ptr_eq(&parked.identity.standing, &identity.standing)
            && identity.standing.generation() == generation
    };
    let settled = match identity.heir(&*hub.registry, &key.owner) {
        Ok(Some(heir)) => hub.sessions.with_parked(key, number, |parked| {
            same(parked) && inherit(hub, key, parked, heir)
        }),
        Ok(None) => {
            let lost = hub.sessions.take_parked_if(key, number, |parked| {
                let lost = same(parked);
                if lost {
                    hub.ends(key, &parked.mailbox);
                }
                lost
            });
            lost.map(|parked| {
                tracing::info!(owner = %key.owner, client_id = key.client_id.as_str(),
                    "parked session dropped: its certificate is no longer ACTIVE");
                let certificate = parked.identity.certificate();
                hub.discard(key, *parked);
                hub.forget_retained_of(certificate);
                true
            })
        }
        Err(error) => {
            tracing::warn!(owner = %key.owner, %error, "a parked session cannot be judged yet");
            Some(false)
        }
    };
    settled != Some(false)
}

/// Puts a parked session under the certificate that its device has now. Whether that is done.
fn inherit(hub: &Hub, key: &SessionKey, parked: &mut Parked, heir: Identity) -> bool {
    let generation = heir.standing.generation();
    if !Arc::ptr_eq(&heir.standing, &parked.identity.standing) {
        parked._watch = heir.standing.watch(hub.deadlines.waker(&key.owner));
        parked.identity = heir;
        let record = parked.record(key);
        // A start before it is written finds the heir by the old certificate.
        if hub
            .durable
            .put_session(parked.mailbox.number(), &record)
            .is_err()
        {
            return false;
        }
    }
    parked.generation = generation;
    // It may have changed before it was watched.
    parked.identity.standing.generation() == generation
}
