//! Looks after sessions nobody is connected to: expiry, delayed wills, principals that lost their
//! standing. One task for all of them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Wake, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::Hub;
use super::identity::Identity;
use super::parked::Parked;
use super::sessions::SessionKey;
use super::wills::DueWill;
use crate::session::Time;

/// How often it looks even when nothing is due: a session that could not be judged may be by then.
const ROUND: Duration = Duration::from_secs(5);

/// How long a commit is waited for that makes room for what is passed on.
const PASSING_WAIT: Duration = Duration::from_secs(1);

/// When something is due of which parked session.
pub(crate) struct Deadlines {
    // Held for one insertion or one removal; never across an await.
    due: Mutex<BTreeMap<(Time, u64), SessionKey>>,
    bell: Arc<Bell>,
}

#[derive(Default)]
struct Bell {
    notify: Notify,
    standing_changed: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.standing_changed.store(true, Ordering::Release);
        self.notify.notify_one();
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

    /// To be woken when the standing of a parked session changes.
    pub(crate) fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.bell))
    }

    /// Standings are to be looked at again in the next round, not at once: what was in the way may stay there for a while.
    fn look_again(&self) {
        self.bell.standing_changed.store(true, Ordering::Release);
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
    loop {
        if hub
            .deadlines
            .bell
            .standing_changed
            .swap(false, Ordering::AcqRel)
        {
            check_standings(&hub);
        }
        while let Some((key, number)) = hub.deadlines.pop_due(hub.clock.now()) {
            attend(&hub, &key, number);
        }
        if !hub.passing.is_empty() {
            let next = hub.next_commit();
            hub.pass_on_late().await;
            if !hub.passing.is_empty() {
                // A full disk may never take them, and others are waited for too.
                let _ = tokio::time::timeout(PASSING_WAIT, hub.committed(next)).await;
                continue;
            }
        }
        let round = Instant::now() + ROUND;
        let until = match hub.deadlines.next() {
            Some(at) => round.min(hub.clock.instant(at)),
            None => round,
        };
        // Whichever comes first; which one does not matter.
        let _ = tokio::time::timeout_at(until, hub.deadlines.bell.notify.notified()).await;
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
    let due = hub.sessions.with_parked(key, number, |parked| {
        let due = parked.will.take_if(|(_, at)| *at <= now);
        due.map(|(will, _)| DueWill {
            number,
            key: key.clone(),
            identity: parked.identity.clone(),
            will,
        })
    });
    if let Some(due) = due.flatten() {
        hub.publish_will(due);
    }
}

/// Looks after the parked sessions whose certificates have changed: they go on under the certificate that their device
/// has now, or are dropped with queue, records and will.
fn check_standings(hub: &Arc<Hub>) {
    let changed = hub
        .sessions
        .parked_where(|parked| parked.identity.standing.generation() != parked.generation);
    for (key, number) in changed {
        let look = |parked: &mut Parked| parked.identity.clone();
        let Some(identity) = hub.sessions.with_parked(&key, number, look) else {
            continue;
        };
        // Read before the registry is: what changes in between is looked at again.
        let generation = identity.standing.generation();
        let same = |parked: &Parked| {
            Arc::ptr_eq(&parked.identity.standing, &identity.standing)
                && identity.standing.generation() == generation
        };
        let settled = match identity.heir(&*hub.registry, &key.owner) {
            Ok(Some(heir)) => hub.sessions.with_parked(&key, number, |parked| {
                same(parked) && inherit(hub, &key, parked, heir)
            }),
            Ok(None) => {
                let lost = hub.sessions.take_parked_if(&key, number, |parked| {
                    let lost = same(parked);
                    if lost {
                        hub.ends(&key, &parked.mailbox);
                    }
                    lost
                });
                lost.map(|parked| {
                    tracing::info!(owner = %key.owner, client_id = key.client_id.as_str(),
                        "parked session dropped: its certificate is no longer ACTIVE");
                    let certificate = parked.identity.certificate();
                    hub.discard(&key, *parked);
                    hub.forget_retained_of(certificate);
                    true
                })
            }
            Err(error) => {
                tracing::warn!(owner = %key.owner, %error, "a parked session cannot be judged yet");
                Some(false)
            }
        };
        if settled == Some(false) {
            hub.deadlines.look_again();
        }
    }
}

/// Puts a parked session under the certificate that its device has now. Whether that is done.
fn inherit(hub: &Hub, key: &SessionKey, parked: &mut Parked, heir: Identity) -> bool {
    let generation = heir.standing.generation();
    if !Arc::ptr_eq(&heir.standing, &parked.identity.standing) {
        parked._watch = heir.standing.watch(hub.deadlines.waker());
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
    true
}
