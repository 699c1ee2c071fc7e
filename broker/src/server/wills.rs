//! Wills that are on their way. Nobody waits for one, neither the connection it is of nor whoever comes after it: while a
//! disk is nearly full it may take hours. So what cannot be published at once is a task of its own, and of those there are
//! only so many.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use fleet::Excerpt;
use hashbrown::HashMap;
use parking_lot::Mutex;
use policy::{Action, Grant, MessageFacts};

use super::clock::Clock;
use super::hub::Hub;
use super::identity::{self, Identity};
use super::layout::will_key;
use super::message::{Message, Origin, facts};
use super::places::Places;
use super::retained::{Claim, RetainError, Volume};
use super::router::{Routing, Search, Unfinished};
use super::sessions::{Owner, SessionKey};
use crate::codec::Will;
use crate::session::Publication;

/// Most that may wait of one owner.
const OWN_WILLS: usize = 64;
/// Bytes that may wait of one owner.
const OWN_BYTES: usize = 256 * 1024;
/// Bytes that may wait of all.
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that one is beside what it says: its task and whose it is.
const EACH_BYTES: usize = 2048;

/// The will of a session that has ended, or whose connection has and is not waited for any longer.
pub(crate) struct DueWill {
    /// The session's.
    pub(crate) number: u64,
    pub(crate) key: SessionKey,
    pub(crate) identity: Identity,
    pub(crate) will: Will,
    /// Of a session that goes on: taken before anybody could resume it, so that a will of its next connection is not
    /// settled with this one.
    pub(crate) record: Option<Arc<Record>>,
}

/// See the module.
pub(crate) struct Wills {
    places: Arc<Places>,
    /// Of each session whose will is on its way, the newest one's.
    // Held for a look-up or an insertion; never across an await.
    records: Mutex<HashMap<u64, Arc<Record>>>,
}

impl Default for Wills {
    fn default() -> Self {
        let own = Volume {
            messages: OWN_WILLS,
            bytes: OWN_BYTES,
        };
        Self {
            places: Arc::new(Places::new(own, ALL_BYTES)),
            records: Mutex::default(),
        }
    }
}

/// Whether the record of a will is still that of this one, and not of a connection that came after it. Held while the
/// will is put into queues, never across an await.
pub(crate) type Record = Mutex<bool>;

/// Why a will was not published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unpublished {
    /// Its principal may not any more.
    Denied,
    /// It would have to wait, and as many do as may.
    NoPlace,
}

impl Wills {
    /// How many are on their way.
    pub(crate) fn count(&self) -> usize {
        self.places.count()
    }

    /// The session's record of a will becomes that of a new connection.
    pub(crate) fn supersede(&self, number: u64) {
        let record = self.records.lock().remove(&number);
        if let Some(record) = record {
            *record.lock() = false;
        }
    }

    /// The session's record of a will is that of the one that is about to be published.
    pub(crate) fn record(&self, number: u64) -> Arc<Record> {
        let record = Arc::new(Mutex::new(true));
        self.records.lock().insert(number, Arc::clone(&record));
        record
    }

    fn forget(&self, number: u64, record: &Arc<Record>) {
        let mut records = self.records.lock();
        if let Some(newest) = records.get(&number)
            && Arc::ptr_eq(newest, record)
        {
            records.remove(&number);
        }
    }
}

impl Hub {
    /// What the journal has as the will of a session that is not connected.
    pub(crate) fn kept_will(&self, number: u64) -> Option<Will> {
        let kept = self.durable.will(number);
        kept.unwrap_or_else(|error| {
            tracing::error!(%error, "a will cannot be read and is not published");
            None
        })
    }

    /// Publishes a will, if its principal may still do so at that moment, and deletes its record
    /// [MQTT-3.1.2-8, -10, -14, -15] [MQTT311-3.1.2-8, -10, -12, -16, -17].
    /// Returns at once: what has to wait does so in a task of its own.
    pub(crate) fn publish_will(self: &Arc<Self>, due: DueWill) {
        let hub = Arc::clone(self);
        let mut publishing: Pin<Box<dyn Future<Output = ()> + Send>> =
            Box::pin(async move { hub.publish_due(due).await });
        // Most need not wait, and are there before whatever comes next of their session.
        let mut nobody = Context::from_waker(Waker::noop());
        if publishing.as_mut().poll(&mut nobody).is_pending() {
            tokio::spawn(publishing);
        }
    }

    async fn publish_due(&self, due: DueWill) {
        let DueWill {
            number,
            key,
            identity,
            will,
            record,
        } = due;
        let publication = Publication::of_will(&will, self.clock.now());
        let origin = Origin::Device(identity.certificate());
        let message = Message::new(publication, will.qos, will.retain, origin);
        let bytes = EACH_BYTES + message.weight_bytes();
        let place = self.wills.places.take(Some(&key.owner), bytes);
        let record = record.unwrap_or_else(|| self.wills.record(number));
        let judged = Judged {
            hub: self,
            identity: &identity,
            key: &key,
            message: &message,
        };
        let published = match judged.may() {
            true => {
                self.publish_judged(number, &judged, &record, place.is_some())
                    .await
            }
            false => Err(Unpublished::Denied),
        };
        match published {
            Ok(()) => {}
            Err(Unpublished::Denied) => {
                judged.note_denial();
                let is_own = record.lock();
                if *is_own {
                    self.durable.delete_will(number);
                }
            }
            // Of a session that lasts the record stays: it is published after the next start, as after a crash.
            Err(Unpublished::NoPlace) => self.note_no_place(&key),
        }
        self.wills.forget(number, &record);
        drop(place);
    }

    async fn publish_judged(
        &self,
        number: u64,
        judged: &Judged<'_>,
        record: &Record,
        waits: bool,
    ) -> Result<(), Unpublished> {
        let message = judged.message;
        // It is the client's own message for No Local too, also where its client has begun another
        // session meanwhile [MQTT-3.8.3-3].
        let now = judged.identity.standing.now();
        let key = judged.identity.session_key(&now, &judged.key.client_id);
        if message.retain() {
            let bound = self.bounds.retained(judged.identity.listener, &now);
            self.retain_late(message, (&key.owner, bound), waits, || judged.may())
                .await?;
        }
        let own = self.sessions.number_of(&key).unwrap_or(number);
        let mut search = Search::new(Some(own));
        while !search.go_on(&self.tree, message.topic(), &mut self.share()) {
            tokio::task::yield_now().await;
        }
        let (_, receivers) = search.finish();
        let mut routing = Routing::new(message.clone(), receivers).settling(will_key(number));
        let mut next = self.next_commit();
        loop {
            let ran = {
                let is_own = record.lock();
                if !*is_own {
                    routing.settle_nothing();
                }
                routing.run(self, self.own_counters(), &mut self.share())
            };
            match ran {
                Ok(_) => return Ok(()),
                Err(Unfinished::Share) => tokio::task::yield_now().await,
                Err(Unfinished::Behind(_)) if !waits => {
                    routing.abandon(self, self.own_counters());
                    return Err(Unpublished::NoPlace);
                }
                Err(Unfinished::Behind(_)) => {
                    self.committed(next).await;
                    next = self.next_commit();
                }
            }
            // It may have been long.
            if !judged.may() {
                routing.abandon(self, self.own_counters());
                return Err(Unpublished::Denied);
            }
        }
    }

    /// Retains a message of a connection that has gone while it `may` still be published; where the journal is behind it
    /// waits if it is one that `waits`.
    async fn retain_late(
        &self,
        message: &Message,
        (owner, bound): (&Owner, Volume),
        waits: bool,
        may: impl Fn() -> bool,
    ) -> Result<(), Unpublished> {
        let mut next = self.next_commit();
        loop {
            match self.retain(message, Claim::Owner(owner, bound)) {
                Ok(_) => return Ok(()),
                Err(RetainError::Full(full)) => {
                    let counters = self.own_counters();
                    self.note_not_retained(counters, owner, message, full);
                    return Ok(());
                }
                Err(RetainError::Behind(_)) if !waits => return Err(Unpublished::NoPlace),
                Err(RetainError::Behind(_)) => {
                    self.committed(next).await;
                    next = self.next_commit();
                }
            }
            if !may() {
                return Err(Unpublished::Denied);
            }
        }
    }

    fn note_no_place(&self, key: &SessionKey) {
        self.own_counters().dropped_will.add();
        if let Some(left_out) = self.end_lines.take_counting() {
            let (owner, client_id) = (&key.owner, key.client_id.as_str());
            tracing::warn!(%owner, client_id, left_out,
                "will not published: the journal takes nothing now, and as many wills wait for it as may");
        }
    }
}

/// A will and whoever says it.
struct Judged<'a> {
    hub: &'a Hub,
    identity: &'a Identity,
    key: &'a SessionKey,
    message: &'a Message,
}

impl Judged<'_> {
    /// Whether it may be published at this moment.
    fn may(&self) -> bool {
        let (now, at) = (
            self.identity.standing.now(),
            Clock::wall(self.hub.clock.now()),
        );
        let facts = self.facts();
        identity::check(&now, at).is_ok() && self.denied(&self.grant(), &facts).is_none()
    }

    fn facts(&self) -> MessageFacts {
        let message = self.message;
        facts(message.payload().len(), message.qos(), message.retain())
    }

    fn grant(&self) -> Grant {
        let at = Clock::wall(self.hub.clock.now());
        let now = self.identity.standing.now();
        self.identity
            .grant(&*self.hub.registry, &now, &self.key.client_id, at)
    }

    /// What the policy does not let it do.
    fn denied(&self, grant: &Grant, facts: &MessageFacts) -> Option<Action> {
        let topic = self.message.topic();
        let actions = [Action::Publish, Action::RetainPublish];
        let wanted = actions
            .into_iter()
            .take(1 + usize::from(self.message.retain()));
        let mut denied =
            wanted.filter(|action| !grant.decide_for(*action, topic, facts).is_allow());
        denied.next()
    }

    fn note_denial(&self) {
        let hub = self.hub;
        hub.own_counters().denied_will.add();
        if !hub.denials.take() {
            return;
        }
        let (grant, facts, topic) = (self.grant(), self.facts(), self.message.topic());
        let denial = self.denied(&grant, &facts).map(|action| {
            let explanation = grant.explain_for(action, topic, &facts);
            let (client, at) = (&self.key.client_id, Clock::wall(hub.clock.now()));
            self.identity
                .keep_denial(&*hub.registry, client, &explanation, at)
        });
        tracing::warn!(
            denial,
            client_id = self.key.client_id.as_str(),
            topic = ?Excerpt(topic),
            "will not published: no longer allowed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_a_wills_own_until_a_later_connection_has_it() {
        let wills = Wills::default();
        let first = wills.record(7);
        wills.supersede(7);
        let second = wills.record(7);
        assert!(!*first.lock() && *second.lock());
        wills.forget(7, &first);
        assert!(wills.records.lock().contains_key(&7));
        wills.forget(7, &second);
        assert!(wills.records.lock().is_empty());
    }
}
