//! What all connections of a broker share.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;

use ca::CertificateId;
use fleet::{Excerpt, Heir, Sampler};
use store::{Behind, Lsn};

use super::bounds::Bounds;
use super::broker::LostSubscription;
use super::clock::Clock;
use super::durable::Durable;
use super::endings::{Ending, Endings};
use super::farewells::Farewells;
use super::groups::Groups;
use super::identity::Identity;
use super::janitor::Deadlines;
use super::limits::Limits;
use super::lobby::Lobby;
use super::mailbox::Mailbox;
use super::message::{Message, Origin};
use super::parked::Parked;
use super::passing::{Passing, Record};
use super::places::Places;
use super::registry::Registry;
use super::remains::Remains;
use super::reserved::ReservedTopics;
use super::retained::{Claim, Full, RetainError, Retained, Walk};
use super::router::Subscriber;
use super::sessions::{Owner, Released, Room, SessionKey, Sessions};
use super::stats::Counters;
use super::tree::TopicTree;
use super::wills::{DueWill, Wills};
use super::work::{REGISTRY, Work};
use crate::codec::SubscriptionOptions;
use crate::session::{Subscriptions, Time};
use crate::topic::TopicFilter;

/// See the module. Nothing in it is locked across an await.
pub(crate) struct Hub {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) durable: Arc<Durable>,
    pub(crate) tree: TopicTree<Subscriber>,
    pub(crate) groups: Groups,
    pub(crate) passing: Passing,
    pub(crate) remains: Remains,
    pub(crate) retained: Retained,
    pub(crate) sessions: Sessions,
    pub(crate) endings: Endings,
    pub(crate) deadlines: Deadlines,
    pub(crate) wills: Arc<Wills>,
    /// For messages that come without a connection.
    pub(crate) posts: Arc<Places>,
    pub(crate) limits: Limits,
    pub(crate) bounds: Bounds,
    /// AWS IoT's deviations from the standards.
    pub(crate) aws: bool,
    pub(crate) lost_subscription: LostSubscription,
    pub(crate) clock: Clock,
    pub(crate) denials: Sampler,
    /// Of connections that ended by what the client did.
    pub(crate) end_lines: Sampler,
    /// Of log lines about what is not retained.
    pub(crate) not_retained: Sampler,
    /// One block per core; the last is everybody else's.
    pub(crate) counters: Vec<Arc<Counters>>,
    pub(crate) next_session: AtomicU64,
    /// Of requests to reserved topics, over all connections: an answer that comes late releases nobody else's.
    pub(crate) next_request: AtomicU64,
    /// Of the newest connection: in milliseconds, and never twice the same.
    pub(crate) newest_version: AtomicU64,
    pub(crate) reserved: std::sync::OnceLock<Arc<dyn ReservedTopics>>,
    pub(crate) draining: AtomicBool,
    /// Places for those that are under way.
    pub(crate) handshakes: Arc<Lobby>,
    pub(crate) farewells: Farewells,
    pub(crate) connections: AtomicUsize,
    /// File descriptors of connections that are none of the broker's.
    pub(crate) elsewhere: AtomicUsize,
}

impl Hub {
    /// Handshakes under way.
    pub(crate) fn shaking(&self) -> usize {
        self.handshakes.taken()
    }

    /// Has a connection that is none of a session closed, for a newcomer from `peer`, where that is known; whether there is
    /// one that has to go.
    pub(crate) fn make_room(&self, peer: Option<SocketAddr>) -> bool {
        self.farewells.cut_short() || self.handshakes.make_room(peer)
    }

    /// The counters of threads that serve no connection.
    pub(crate) fn own_counters(&self) -> &Counters {
        static NONE: std::sync::OnceLock<Counters> = std::sync::OnceLock::new();
        match self.counters.last() {
            Some(last) => last,
            None => NONE.get_or_init(Counters::default),
        }
    }

    /// A number no session had before, in this run or an earlier one.
    pub(crate) fn session_number(&self) -> u64 {
        self.next_session.fetch_add(1, Ordering::Relaxed)
    }

    /// Tells connections apart that have the same client id: a later one has a higher number, over restarts too.
    pub(crate) fn connection_version(&self) -> u64 {
        let now = self.clock.now().as_millis();
        let next = |newest: u64| Some(now.max(newest.saturating_add(1)));
        let order = Ordering::Relaxed;
        let newest = self.newest_version.fetch_update(order, order, next);
        // It always takes the new one.
        newest.map_or(now, |newest| now.max(newest.saturating_add(1)))
    }

    /// A share of work, as a connection has it for a turn.
    pub(crate) fn share(&self) -> Work {
        Work::of(self.limits.turn_work)
    }

    /// Keeps or forgets a message that was published with RETAIN. Returns when that is safe.
    ///
    /// # Errors
    /// [`RetainError::Full`] for good, [`RetainError::Behind`] for now.
    pub(crate) fn retain(
        &self,
        message: &Message,
        claim: Claim<'_>,
    ) -> Result<Option<Lsn>, RetainError> {
        // [MQTT-3.3.1-6, -7] [MQTT311-3.3.1-10, -11]
        if message.payload().is_empty() {
            let topic = message.topic();
            // Also where somebody else has removed it just now: that may not be safe yet.
            return Ok(self
                .retained
                .remove(topic, || self.durable.delete_retained(topic)));
        }
        let now = self.clock.now();
        let keep = || self.durable.put_retained(message, now);
        self.retained.insert(message, now, claim, keep).map(Some)
    }

    /// Whether [`Hub::retain`] would find room now.
    pub(crate) fn may_retain(&self, message: &Message, claim: Claim<'_>) -> Result<(), Full> {
        if message.payload().is_empty() {
            return Ok(());
        }
        self.retained.room(message, claim)
    }

    /// Counts a message that was not retained, and says whose it is.
    pub(crate) fn note_not_retained(
        &self,
        counters: &Counters,
        owner: &Owner,
        message: &Message,
        full: Full,
    ) {
        counters.refused_retain.add();
        if let Some(left_out) = self.not_retained.take_counting() {
            tracing::warn!(%owner, topic = ?Excerpt(message.topic()), left_out, "a message is not retained: {full}");
        }
    }

    /// Removes a message that a certificate left retained, because it is no longer good.
    fn forget_retained(&self, certificate: &CertificateId, topic: &str) {
        self.retained
            .remove_of(certificate, topic, || self.durable.delete_retained(topic));
    }

    /// Removes what a certificate left retained, because it is no longer good.
    pub(crate) fn forget_retained_of(&self, certificate: CertificateId) {
        for topic in self.retained.topics_of(&certificate) {
            self.forget_retained(&certificate, &topic);
        }
    }

    /// The next retained messages of a filter whose publishers are still in good standing, under this certificate or a
    /// newer one; of those whose publishers are deactivated nothing is told, and the others are removed.
    pub(crate) fn next_retained(
        &self,
        walk: &mut Walk,
        now: Time,
        work: &mut Work,
    ) -> Vec<Message> {
        let mut messages = self.retained.portion(walk, now, work);
        let asked = self.keep_good(&mut messages, |message| message);
        work.spend(asked * REGISTRY);
        messages
    }

    /// Of retained messages, leaves those whose publishers are still in good standing, as [`Hub::next_retained`] does.
    /// How often the registry was asked.
    pub(crate) fn keep_good<T>(
        &self,
        messages: &mut Vec<T>,
        message: impl Fn(&T) -> &Message,
    ) -> usize {
        let mut known: hashbrown::HashMap<CertificateId, Option<Heir>> = hashbrown::HashMap::new();
        let mut asked = 0;
        messages.retain(|kept| {
            let message = message(kept);
            let Origin::Device(id) = message.origin() else {
                return true;
            };
            let ask = || {
                asked += 1;
                let owner = self.retained.owner_of(&id);
                let thing = owner.as_ref().and_then(Owner::thing);
                self.registry.heir(&id, thing).ok()
            };
            let heir = *known.entry(id).or_insert_with(ask);
            if heir == Some(Heir::Nobody) {
                self.forget_retained(&id, message.topic());
            }
            // Not known for sure is not good.
            matches!(heir, Some(Heir::Certificate(_)))
        });
        asked
    }

    /// What the journal's next commit will reach. Asked for before a write that may find the journal full: there is a
    /// commit to come then, which asked for afterwards may have been the last.
    pub(crate) fn next_commit(&self) -> Lsn {
        Lsn(self.durable.journal().durable().0.saturating_add(1))
    }

    /// Completes when the journal is durable up to `lsn`.
    pub(crate) async fn committed(&self, lsn: Lsn) {
        poll_fn(|cx| {
            if self.durable.is_durable(lsn) {
                return Poll::Ready(());
            }
            self.durable.journal().wake_when_durable(lsn, cx.waker());
            Poll::Pending
        })
        .await;
    }

    /// Writes with `write` until the journal takes it; does not wait for room on a disk that is nearly full.
    pub(crate) async fn written_soon(
        &self,
        write: impl Fn(&Durable) -> Result<Lsn, Behind>,
    ) -> Option<Lsn> {
        loop {
            let next = self.next_commit();
            match write(&self.durable) {
                Ok(lsn) => return Some(lsn),
                Err(Behind::TooLarge { .. }) => return None,
                Err(Behind::Full { .. }) if self.durable.journal().is_nearly_full() => return None,
                Err(Behind::Full { .. }) => self.committed(next).await,
            }
        }
    }

    /// Adds a session's subscription to the tree.
    pub(crate) fn subscribe(
        &self,
        mailbox: &Arc<Mailbox>,
        filter: &TopicFilter,
        options: SubscriptionOptions,
    ) {
        if filter.shared().is_some() {
            let number = || self.session_number();
            if let Some((number, group)) = self.groups.join(filter, mailbox, options, number) {
                let subscriber = Subscriber::Group(group);
                self.tree.insert(filter.pattern(), number, subscriber);
            }
            return;
        }
        let subscriber = Subscriber::Session {
            mailbox: Arc::clone(mailbox),
            options,
        };
        self.tree
            .insert(filter.pattern(), mailbox.number(), subscriber);
    }

    /// Takes a session's subscription out of the tree.
    pub(crate) fn unsubscribe(&self, number: u64, filter: &TopicFilter) {
        if filter.shared().is_none() {
            self.tree.remove(filter.pattern(), number);
        } else if let Some(group) = self.groups.leave(filter, number) {
            self.tree.remove(filter.pattern(), group);
        }
    }

    /// Lets a session wait for its client, or passes it to the connection that waits for it.
    pub(crate) async fn park(self: &Arc<Self>, key: &SessionKey, parked: Box<Parked>) {
        let number = parked.mailbox.number();
        let mailbox = Arc::clone(&parked.mailbox);
        let record = parked.record(key);
        // Where the disk is nearly full that is later: until then it is as after a crash, and nobody waits.
        let put = self.written_soon(|durable| durable.put_session(number, &record));
        let is_kept = put.await.is_some();
        let deadlines = [parked.expires_at, parked.will_due];
        let (most, limit) = self.parked_most(&parked.identity);
        let (standing, generation) = (Arc::clone(&parked.identity.standing), parked.generation);
        let mut kept = parked;
        loop {
            let (full, room) = match self
                .sessions
                .release(key, &mailbox, Some(kept), most, limit)
            {
                Released::HandedOver => return,
                Released::Free => {
                    for due in deadlines.into_iter().flatten() {
                        self.deadlines.add(due, number, key);
                    }
                    // What has changed before it was parked, nobody has looked at.
                    if standing.generation() != generation {
                        self.deadlines.has_changed(&key.owner);
                    }
                    if !is_kept {
                        tokio::spawn(keep_late(Arc::clone(self), key.clone(), number));
                    }
                    return self.deadlines.wake();
                }
                Released::Full(kept, room) => (kept, room),
            };
            kept = full;
            let ends = |key: &SessionKey, mailbox: &Mailbox| self.ends(key, mailbox);
            match self.sessions.push_out(&key.owner, room, ends) {
                Some((pushed_out, other)) => {
                    self.note_pushed_out(&pushed_out, room, most);
                    self.end_parked(&pushed_out, *other);
                }
                None if room == Room::Owner => {}
                None => {
                    self.note_pushed_out(key, room, most);
                    self.end_parked(key, *kept);
                    self.sessions.release(key, &mailbox, None, most, limit);
                    return;
                }
            }
        }
    }

    /// How many sessions an owner may have parked, and how many there may be of all. What all leave at once, at a shutdown,
    /// takes nobody's session.
    fn parked_most(&self, identity: &Identity) -> (usize, usize) {
        if self.draining.load(Ordering::Relaxed) {
            return (usize::MAX, usize::MAX);
        }
        let standing = identity.standing.now();
        let share = self.bounds.sessions(identity.listener, &standing);
        (share.parked.max(1), self.limits.parked_sessions)
    }

    fn note_pushed_out(&self, key: &SessionKey, room: Room, most: usize) {
        let Some(left_out) = self.end_lines.take_counting() else {
            return;
        };
        let (why, limit) = match room {
            Room::Owner => (
                "its device has as many without a connection as it may",
                most,
            ),
            Room::Server => (
                "as many are kept without a connection as may be",
                self.limits.parked_sessions,
            ),
        };
        let (owner, client_id) = (&key.owner, key.client_id.as_str());
        tracing::warn!(%owner, client_id, limit, left_out, "session ended with what waits for it: {why}");
    }

    /// Ends a session that was taken out of those that are parked. Its will does not wait any longer [MQTT-3.1.2-8].
    pub(crate) fn end_parked(self: &Arc<Self>, key: &SessionKey, mut parked: Parked) {
        let number = parked.mailbox.number();
        for due in [parked.expires_at, parked.will_due].into_iter().flatten() {
            self.deadlines.remove(due, number);
        }
        if parked.will_due.take().is_some()
            && let Some(will) = self.kept_will(number)
        {
            let (key, identity) = (key.clone(), parked.identity.clone());
            self.publish_will(DueWill {
                number,
                key,
                identity,
                will,
                record: None,
            });
        }
        self.discard(key, parked);
    }

    /// Ends a kept session: nothing of it comes back once [`Hub::ended`] has completed.
    pub(crate) fn discard(self: &Arc<Self>, key: &SessionKey, parked: Parked) {
        let mailbox = &parked.mailbox;
        for flight in &parked.in_flight {
            // §4.8.2: what was sent with QoS 1 and not acknowledged may go to another; QoS 2 may not.
            let record = Record {
                number: mailbox.number(),
                token: flight.token,
                body: flight.body(),
            };
            self.drop_kept(record, flight.shared.clone());
        }
        for packet_id in &parked.held {
            self.durable.delete_held(mailbox.number(), *packet_id);
        }
        self.erase(key, mailbox, parked.subscriptions);
    }

    /// Removes subscriptions of a session from the tree and the journal.
    pub(crate) fn unsubscribe_all<'a>(
        &self,
        number: u64,
        filters: impl Iterator<Item = &'a TopicFilter>,
    ) {
        for filter in filters {
            self.unsubscribe(number, filter);
            self.durable.delete_subscription(number, filter);
        }
    }

    /// Closes a mailbox and deletes the session's records, those of its subscriptions and of what waits last.
    pub(crate) fn erase(
        self: &Arc<Self>,
        key: &SessionKey,
        mailbox: &Arc<Mailbox>,
        mut subscriptions: Subscriptions,
    ) {
        let number = mailbox.number();
        // While it is closed nobody may choose it: what it is given goes to nobody else.
        self.unsubscribe_all(number, subscriptions.take_shared().iter());
        let queue = mailbox.close();
        if mailbox.is_durable() {
            self.durable.delete_will(number);
            let deleted = self.durable.delete_session(number);
            self.note_ending(key, Ending { number, deleted });
        }
        self.clear_away(mailbox, subscriptions, queue);
    }

    /// Notes that a session is about to be erased, before somebody else can claim its key.
    pub(crate) fn ends(&self, key: &SessionKey, mailbox: &Mailbox) {
        if mailbox.is_durable() {
            let (number, deleted) = (mailbox.number(), None);
            self.note_ending(key, Ending { number, deleted });
        }
    }

    fn note_ending(&self, key: &SessionKey, ending: Ending) {
        self.endings
            .note(key, ending, self.durable.journal().durable());
    }

    /// Completes when no session that has ended under this key can come back after a crash.
    pub(crate) async fn ended(&self, key: &SessionKey) {
        while let Some(ending) = self.endings.of(key) {
            match ending.deleted {
                Some(deleted) => {
                    self.committed(deleted).await;
                    self.endings.settle(key, ending);
                }
                None => {
                    let next = self.next_commit();
                    match self.durable.delete_session(ending.number) {
                        None => self.committed(next).await,
                        deleted => self.note_ending(key, Ending { deleted, ..ending }),
                    }
                }
            }
        }
    }
}

/// Writes the record of a parked session once the journal takes it, while it is parked.
async fn keep_late(hub: Arc<Hub>, key: SessionKey, number: u64) {
    loop {
        let next = hub.next_commit();
        let put = hub.sessions.with_parked(&key, number, |parked| {
            hub.durable.put_session(number, &parked.record(&key))
        });
        match put {
            Some(Err(Behind::Full { .. })) => hub.committed(next).await,
            _ => return,
        }
    }
}
