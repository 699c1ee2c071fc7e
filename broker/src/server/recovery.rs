//! What the journal held when the broker starts: sessions are parked, their subscriptions go into
//! the tree, retained messages into their index. Payloads of queued messages stay on disk.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ca::CertificateId;
use fleet::FleetError;
use store::Replay;

use super::connection::Owed;
use super::groups::Shared;
use super::hub::Hub;
use super::identity::Identity;
use super::layout::{self, BodyRef, DurableError, QueueEntry, Record};
use super::mailbox::{Delivery, Mailbox};
use super::message::Origin;
use super::parked::{Parked, ParkedFlight, ParkedProgress};
use super::passing;
use super::record::SessionRecord;
use super::sessions::{Owner, SessionKey};
use crate::codec::{PacketId, Qos, SESSION_NEVER_EXPIRES};
use crate::session::{Subscriptions, Time, Token};
use crate::topic::TopicFilter;

/// Seconds a client has to come back after a restart before the will of its lost connection is
/// published.
const WILL_GRACE_S: u32 = 10;

/// Why the broker cannot take up what it had.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    /// The journal.
    #[error(transparent)]
    Durable(#[from] DurableError),
    /// The registry.
    #[error("the registry cannot say whose a session or a retained message is: {0}")]
    Fleet(#[from] FleetError),
}

#[derive(Default)]
struct Found {
    sessions: BTreeMap<u64, SessionRecord>,
    /// Those that nobody can have any more.
    lost: Vec<(u64, SessionRecord)>,
    subscriptions: HashMap<u64, Subscriptions>,
    owed: HashMap<u64, Vec<TopicFilter>>,
    /// After how many seconds each is due.
    wills: HashMap<u64, u32>,
    queues: HashMap<u64, BTreeMap<Token, (QueueEntry, usize)>>,
    received: HashMap<u64, BTreeSet<Token>>,
    held: HashMap<u64, Vec<PacketId>>,
    body_weights: BTreeMap<u64, usize>,
    body_uses: HashMap<u64, usize>,
    owners: HashMap<CertificateId, Owner>,
}

/// A session that is in the tree again, before it is given what waits for it.
struct Back {
    key: SessionKey,
    record: SessionRecord,
    identity: Identity,
    mailbox: Arc<Mailbox>,
    subscriptions: Subscriptions,
}

/// Reads the whole journal and parks what it finds.
///
/// # Errors
/// [`RecoveryError`]: a record that cannot be understood stops the start; nothing is changed.
pub(crate) fn recover(hub: &Hub, replay: Replay) -> Result<(), RecoveryError> {
    let mut found = Found::default();
    for record in replay {
        let (key, value) = record.map_err(DurableError::from)?;
        found.take(hub, layout::decode(&key, value)?)?;
    }
    let highest_session = found.highest_session();
    hub.next_session
        .store(highest_session + 1, Ordering::Relaxed);
    let highest_body = found.body_weights.keys().max().copied().unwrap_or(0);
    let uses = std::mem::take(&mut found.body_uses);
    let unused: Vec<u64> = found
        .body_weights
        .keys()
        .filter(|body| !uses.contains_key(body))
        .copied()
        .collect();
    hub.durable.recovered(uses, highest_body);
    for body in unused {
        hub.durable.delete_body(body);
    }
    let mut back = Vec::new();
    for (number, record) in std::mem::take(&mut found.sessions) {
        back.extend(found.subscribe(hub, number, record)?);
    }
    // All groups have their members now: what waits for one of them is known to be for the others too.
    for session in back {
        found.park(hub, session);
    }
    for (number, record) in std::mem::take(&mut found.lost) {
        found.erase(hub, number, Some(&record));
    }
    // What is left belongs to no session: a crash came between two deletions, or it waits for others of a group.
    for number in found.strays() {
        found.erase(hub, number, None);
    }
    Ok(())
}

impl Found {
    fn take(&mut self, hub: &Hub, record: Record) -> Result<(), RecoveryError> {
        match record {
            Record::Session(number, record) => {
                self.sessions.insert(number, *record);
            }
            Record::Subscription(number, filter, options, owed) => {
                if owed {
                    self.owed.entry(number).or_default().push(filter.clone());
                }
                let filters = self.subscriptions.entry(number).or_default();
                filters.insert(filter, options);
            }
            Record::Will(number, will) => {
                self.wills.insert(number, will.delay_s);
            }
            Record::Queued(number, token, entry, message) => {
                if let BodyRef::Shared(body) = entry.body {
                    *self.body_uses.entry(body).or_default() += 1;
                }
                let weight = message.map_or(0, |message| message.weight_bytes());
                let queue = self.queues.entry(number).or_default();
                queue.insert(token, (entry, weight));
            }
            Record::Received(number, token) => {
                self.received.entry(number).or_default().insert(token);
            }
            Record::Held(number, packet_id) => {
                self.held.entry(number).or_default().push(packet_id);
            }
            Record::Body(number, message) => {
                self.body_weights.insert(number, message.weight_bytes());
            }
            Record::Retained(message, since) => {
                let owner = match message.origin() {
                    Origin::Device(id) => Some(self.owner(hub, id)?),
                    Origin::Service => None,
                };
                hub.retained.restore(message, since, owner);
            }
        }
        Ok(())
    }

    /// On whose account a certificate retains: asked for once.
    fn owner(&mut self, hub: &Hub, id: CertificateId) -> Result<&Owner, RecoveryError> {
        Ok(match self.owners.entry(id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let thing = hub.registry.thing_of(&id)?;
                unknown.insert(thing.map_or(Owner::Certificate(id), Owner::Thing))
            }
        })
    }

    fn highest_session(&self) -> u64 {
        let numbers = self.sessions.keys().chain(self.subscriptions.keys());
        let numbers = numbers.chain(self.wills.keys()).chain(self.queues.keys());
        let numbers = numbers.chain(self.received.keys()).chain(self.held.keys());
        numbers.max().copied().unwrap_or(0)
    }

    fn strays(&self) -> Vec<u64> {
        let numbers = self.subscriptions.keys().chain(self.wills.keys());
        let numbers = numbers.chain(self.queues.keys()).chain(self.held.keys());
        let mut strays: Vec<u64> = numbers.chain(self.received.keys()).copied().collect();
        strays.sort_unstable();
        strays.dedup();
        strays
    }

    /// Puts a session's subscriptions into the tree; `None` where it is lost.
    fn subscribe(
        &mut self,
        hub: &Hub,
        number: u64,
        record: SessionRecord,
    ) -> Result<Option<Back>, RecoveryError> {
        let common_name = record.common_name.as_deref().map(Box::from);
        let identity = Identity::find(&*hub.registry, &record.certificate, common_name)?;
        let owner = match &record.thing {
            Some(thing) => thing.parse().map(Owner::Thing).ok(),
            None => Some(Owner::Certificate(record.certificate)),
        };
        let (Some(owner), Ok(client_id)) = (owner, record.client_id.parse()) else {
            tracing::error!(
                number,
                "a session of an earlier run has no valid owner or client id"
            );
            self.lost.push((number, record));
            return Ok(None);
        };
        let Some(identity) = identity.heir(&*hub.registry, &owner)? else {
            tracing::info!(%owner, "session of an earlier run dropped: its certificate is not ACTIVE");
            self.lost.push((number, record));
            return Ok(None);
        };
        let queued = self
            .queues
            .get(&number)
            .and_then(|queue| queue.keys().max());
        let received = self.received.get(&number).and_then(BTreeSet::last);
        let next_token = queued.max(received).map_or(1, |token| token + 1);
        let next_token = next_token.max(record.next_token);
        let durable = Arc::clone(&hub.durable);
        let mailbox = Arc::new(Mailbox::recovered(number, durable, &hub.limits, next_token));
        let subscriptions = self.subscriptions.remove(&number).unwrap_or_default();
        for (filter, options) in &subscriptions {
            hub.subscribe(&mailbox, filter, *options);
        }
        Ok(Some(Back {
            key: SessionKey { owner, client_id },
            record,
            identity,
            mailbox,
            subscriptions,
        }))
    }

    fn park(&mut self, hub: &Hub, session: Back) {
        let Back {
            key,
            record,
            identity,
            mailbox,
            subscriptions,
        } = session;
        let number = mailbox.number();
        let generation = identity.standing.generation();
        let now = hub.clock.now();
        let mut queue = self.queues.remove(&number).unwrap_or_default();
        let received = self.received.remove(&number).unwrap_or_default();
        let in_flight = in_flight(hub, &record, &mut queue, received);
        let deliveries: VecDeque<Delivery> = queue
            .into_iter()
            .map(|(token, (entry, weight))| Delivery {
                message: None,
                shared: shared(hub, &entry),
                options: entry.options,
                token,
                body: entry.body,
                after: None,
                answer: false,
                weight_bytes: match entry.body {
                    BodyRef::Inline => weight,
                    BodyRef::Shared(body) => self.body_weights.get(&body).copied().unwrap_or(0),
                },
            })
            .collect();
        mailbox.park(deliveries);
        // A connection that was open when the server died counts as lost at this start.
        let expires_at = match record.expires_at_ms {
            Some(at) => Some(Time::from_millis(at)),
            None if record.connected && record.expiry_s != SESSION_NEVER_EXPIRES => {
                Some(now.plus_seconds(record.expiry_s))
            }
            None => None,
        };
        let will_due = self.wills.remove(&number).map(|delay_s| {
            let due = match record.will_at_ms {
                Some(at) => Time::from_millis(at),
                None => now.plus_seconds(delay_s),
            };
            due.max(now.plus_seconds(WILL_GRACE_S))
        });
        for due in [expires_at, will_due].into_iter().flatten() {
            hub.deadlines.add(due, number, &key);
        }
        // All that is retained is there again. From the first topic on: what the client was sent is not known.
        let until = hub.retained.newest();
        let mut owed: Option<Box<Owed>> = None;
        for filter in self.owed.remove(&number).unwrap_or_default() {
            if let Some(options) = subscriptions.get(&filter) {
                let owed = owed.get_or_insert_default();
                owed.add(filter, options, until, true);
            }
        }
        let parked = Parked {
            _watch: identity.standing.watch(hub.deadlines.waker(&key.owner)),
            mailbox,
            identity,
            generation,
            subscriptions,
            in_flight,
            held: self.held.remove(&number).unwrap_or_default(),
            owed,
            next_packet_id: record.next_packet_id,
            expiry_s: record.expiry_s,
            expires_at,
            will_due,
        };
        let standing = Arc::clone(&parked.identity.standing);
        hub.sessions.park_recovered(&key, Box::new(parked));
        if standing.generation() != generation {
            hub.deadlines.has_changed(&key.owner);
        }
    }

    /// Deletes every record of a session, but what others of its groups can have: that goes to them. Of one that has no
    /// record of its own any more, what nobody else may have went before that.
    fn erase(&mut self, hub: &Hub, number: u64, record: Option<&SessionRecord>) {
        for filter in self
            .subscriptions
            .remove(&number)
            .unwrap_or_default()
            .filters()
        {
            hub.durable.delete_subscription(number, filter);
        }
        let mut queue = self.queues.remove(&number).unwrap_or_default();
        let sent = record.map(|record| in_flight(hub, record, &mut queue, BTreeSet::new()));
        let sent = sent.unwrap_or_default().into_iter();
        let sent = sent.map(|flight| (flight.token, flight.body(), flight.shared));
        let waiting = queue.into_iter();
        let waiting = waiting.map(|(token, (entry, _))| (token, entry.body, shared(hub, &entry)));
        for (token, body, shared) in sent.chain(waiting) {
            let record = passing::Record {
                number,
                token,
                body,
            };
            match shared {
                Some(shared) => hub.passing.recover(record, shared),
                None => hub.durable.delete_queued(number, token, body),
            }
        }
        for token in self.received.remove(&number).unwrap_or_default() {
            hub.durable.delete_queued(number, token, BodyRef::Inline);
        }
        for packet_id in self.held.remove(&number).unwrap_or_default() {
            hub.durable.delete_held(number, packet_id);
        }
        if self.wills.remove(&number).is_some() {
            hub.durable.delete_will(number);
        }
        hub.durable.delete_session(number);
    }
}

/// Who else can have what waits, as long as there is somebody.
fn shared(hub: &Hub, entry: &QueueEntry) -> Option<Box<Shared>> {
    let group = hub.groups.of(entry.group.as_deref()?)?;
    Some(Box::new(Shared::new(&group)))
}

/// Takes out of the queue what was, or after a crash may have been, sent and not acknowledged. It
/// goes out again with DUP, under the same packet identifiers.
fn in_flight(
    hub: &Hub,
    record: &SessionRecord,
    queue: &mut BTreeMap<Token, (QueueEntry, usize)>,
    received: BTreeSet<Token>,
) -> Vec<ParkedFlight> {
    let mut sent: BTreeSet<Token> = record.in_flight.iter().copied().collect();
    if record.connected {
        let most = usize::from(hub.bounds.in_flight_max());
        let most = most.saturating_sub(received.len());
        sent.extend(queue.keys().take(most));
    }
    let sent = sent.into_iter().filter_map(|token| {
        let (entry, _) = queue.remove(&token)?;
        // Of QoS 2 nobody else may have it any more [MQTT-4.8.2-4, -5].
        let shared = shared(hub, &entry).filter(|_| entry.options.qos == Qos::AtLeastOnce);
        Some(ParkedFlight {
            token,
            progress: ParkedProgress::Sent {
                options: entry.options,
                body: entry.body,
            },
            shared,
        })
    });
    let mut flights: Vec<ParkedFlight> = sent.collect();
    flights.extend(received.into_iter().map(|token| ParkedFlight {
        token,
        progress: ParkedProgress::Received,
        shared: None,
    }));
    flights.sort_by_key(|flight| flight.token);
    flights
}
