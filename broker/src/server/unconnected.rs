//! What is done without an MQTT connection, for those who come by HTTPS: a message is published as if it had come in a
//! PUBLISH, what is retained is read, a connection is ended. Whether they may is for the caller to have judged.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use fleet::Standing;
use policy::{Listener, MessageFacts};
use store::Lsn;

use super::broker::Broker;
use super::clock::Clock;
use super::connection::{Kind, SERVERS_TOPIC};
use super::hub::Hub;
use super::mailbox::Signal;
use super::message::{Message, Origin, facts};
use super::places::Places;
use super::reserved::excess;
use super::retained::{Claim, Full, RetainError, Volume};
use super::router::{Routing, Search, Unfinished};
use super::sessions::{Owner, SessionKey};
use crate::codec::{MessageProperties, Qos};
use crate::session::{Publication, Published, Time};
use crate::topic::{ClientId, TopicName};

/// Retained messages that are looked at for one page, at most: those of publishers that are not good any more are not shown.
const LOOKED_AT: usize = 2_000;

/// Messages of one owner that may be on their way, and their bytes; and the bytes of all.
const OWN_POSTS: Volume = Volume {
    messages: 64,
    bytes: 4 * 1024 * 1024,
};
const ALL_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that one is beside what it says: the request and its task.
const EACH_BYTES: usize = 8 * 1024;

/// How long to wait between two looks at whether a connection has gone.
const GONE_LOOK: Duration = Duration::from_millis(5);

/// Looks at most: its last words take a second or two.
const GONE_LOOKS: usize = 1_000;

/// A message as it is given without a connection.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// The topic.
    pub topic: TopicName,
    /// The payload.
    pub payload: Bytes,
    /// The QoS: 0 or 1.
    pub qos: Qos,
    /// Whether it is kept for later subscribers.
    pub retain: bool,
    /// What MQTT 5 receivers get beside it.
    pub properties: MessageProperties,
    /// For how many seconds from now it may be delivered.
    pub expiry_s: Option<u32>,
}

impl Post {
    /// What policies can ask of it.
    #[must_use]
    pub fn facts(&self) -> MessageFacts {
        facts(self.payload.len(), self.qos, self.retain)
    }
}

/// Who gives it.
#[derive(Clone)]
pub enum Poster {
    /// A device, by its certificate.
    Device(Arc<Standing>),
    /// The server, for an operator.
    Service,
}

/// Why a message that was given is not published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PostError {
    /// Nobody may publish it, whatever policies say.
    #[error("{0}")]
    Refused(String),
    /// There is no room for what it would retain.
    #[error("{0}")]
    Full(String),
    /// The disk is nearly full.
    #[error(
        "the server's disk is nearly full: the message may not have reached everybody; publish it again later"
    )]
    Behind,
    /// As many are on their way as may.
    #[error(
        "too many messages are on their way for the server's disk to take them: publish it again later"
    )]
    TooMany,
    /// While it waited for the disk its publisher has lost the right.
    #[error("the policies changed while the message was on its way: ask again")]
    NoLonger,
}

/// A retained message.
#[derive(Debug, Clone, PartialEq)]
pub struct RetainedMessage {
    /// The topic.
    pub topic: TopicName,
    /// The payload.
    pub payload: Bytes,
    /// The QoS it was published with.
    pub qos: Qos,
    /// What came with it.
    pub properties: Option<Box<MessageProperties>>,
    /// When it came; `None` where an earlier release has kept it.
    pub since: Option<SystemTime>,
}

/// That there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedSummary {
    /// The topic.
    pub topic: TopicName,
    /// Bytes of its payload.
    pub payload_bytes: usize,
    /// The QoS it was published with.
    pub qos: Qos,
    /// When it came; `None` where an earlier release has kept it.
    pub since: Option<SystemTime>,
}

impl Broker {
    /// Whether a message may be published without a connection at all, whoever it is that policies allow to.
    ///
    /// # Errors
    /// [`PostError::Refused`]: its topic or its length is beyond what this publisher may send, or the topic is the
    /// server's own.
    pub fn check_post(&self, post: &Post, poster: &Poster) -> Result<(), PostError> {
        let hub = &*self.hub;
        let refused = |text: String| Err(PostError::Refused(text));
        let settings = match poster {
            Poster::Device(standing) => hub.bounds.of(Some(Listener::Https), &standing.now()),
            Poster::Service => *hub.bounds.base(),
        };
        let topic = post.topic.as_str();
        if !settings.takes_topic(topic) {
            return refused(settings.topic_bounds().to_owned());
        }
        let bytes = topic.len() + post.payload.len();
        let most = settings.packet_max_bytes.get() as usize;
        if bytes > most {
            return refused(format!(
                "topic and payload have {bytes} bytes; a message has at most {most}"
            ));
        }
        let publication = Publication::new(post.topic.clone(), Bytes::new());
        if let Some((_, text)) = excess(&publication) {
            return refused(text);
        }
        match Kind::of(topic) {
            Kind::Ordinary => Ok(()),
            Kind::Reserved => refused(
                "a request to a reserved topic ($aws/…) is answered over MQTT: publish it there, or use the operation that asks the same over HTTPS"
                    .to_owned(),
            ),
            Kind::Foreign => {
                if let Poster::Device(standing) = poster {
                    let now = Clock::wall(hub.clock.now());
                    hub.registry.note_violation(standing, SERVERS_TOPIC, now);
                }
                refused("topics below $SYS, $share and $aws are the server's".to_owned())
            }
        }
    }

    /// Publishes a message that [`Broker::check_post`] lets pass, while it `may` still be published, which is asked at first
    /// and again whenever it had to wait. Returns when it is as safe as one that is answered with PUBACK. To be run to its end.
    ///
    /// # Errors
    /// [`PostError`]. Who is told of one may publish it again.
    pub async fn post(
        &self,
        post: Post,
        poster: Poster,
        may: impl Fn() -> bool,
    ) -> Result<(), PostError> {
        let hub = &*self.hub;
        let counters = hub.own_counters();
        counters.messages_in.add();
        if !may() {
            return Err(PostError::NoLonger);
        }
        let now = hub.clock.now();
        let publication = Publication {
            topic: post.topic,
            payload: post.payload,
            properties: (post.properties != MessageProperties::default())
                .then(|| Box::new(post.properties)),
            expires_at: post.expiry_s.map(|seconds| now.plus_seconds(seconds)),
        };
        let origin = match &poster {
            Poster::Device(standing) => Origin::Device(*standing.id()),
            Poster::Service => Origin::Service,
        };
        let message = Message::new(publication, post.qos, post.retain, origin);
        // Whoever hangs up meanwhile has it until the end.
        let bytes = EACH_BYTES + message.weight_bytes();
        let owner = owner_of(&poster);
        let place = hub.posts.take(owner.as_ref(), bytes);
        let _place = place.ok_or(PostError::TooMany)?;
        let mut safe = None;
        if post.retain {
            safe = self.retain_post(&message, &poster, &may).await?;
        }
        let mut search = Search::new(None);
        while !search.go_on(&hub.tree, message.topic(), &mut hub.share()) {
            tokio::task::yield_now().await;
        }
        let (_, receivers) = search.finish();
        let mut routing = Routing::new(message, receivers);
        loop {
            let next = hub.next_commit();
            match routing.run(hub, counters, &mut hub.share()) {
                Ok(lsn) => {
                    safe = safe.max(lsn);
                    break;
                }
                Err(Unfinished::Share) => tokio::task::yield_now().await,
                Err(Unfinished::Behind(_)) if hub.durable.journal().is_nearly_full() => {
                    routing.abandon(hub, counters);
                    return Err(PostError::Behind);
                }
                Err(Unfinished::Behind(_)) => hub.committed(next).await,
            }
            if !may() {
                routing.abandon(hub, counters);
                return Err(PostError::NoLonger);
            }
        }
        if let Some(lsn) = safe {
            hub.committed(lsn).await;
        }
        Ok(())
    }

    async fn retain_post(
        &self,
        message: &Message,
        poster: &Poster,
        may: &impl Fn() -> bool,
    ) -> Result<Option<Lsn>, PostError> {
        let hub = &*self.hub;
        let account = match poster {
            Poster::Device(standing) => {
                let bound = hub.bounds.retained(Some(Listener::Https), &standing.now());
                owner_of(poster).map(|owner| (owner, bound))
            }
            Poster::Service => None,
        };
        let claim = match &account {
            Some((owner, bound)) => Claim::Owner(owner, *bound),
            None => Claim::Service,
        };
        loop {
            let next = hub.next_commit();
            match hub.retain(message, claim) {
                Ok(lsn) => return Ok(lsn),
                Err(RetainError::Full(full)) => {
                    if let Some((owner, _)) = &account {
                        hub.note_not_retained(hub.own_counters(), owner, message, full);
                    }
                    return Err(match full {
                        Full::TooLarge => PostError::Refused(full.to_string()),
                        Full::Server | Full::Owner => PostError::Full(full.to_string()),
                    });
                }
                Err(RetainError::Behind(_)) if hub.durable.journal().is_nearly_full() => {
                    return Err(PostError::Behind);
                }
                Err(RetainError::Behind(_)) => hub.committed(next).await,
            }
            if !may() {
                return Err(PostError::NoLonger);
            }
        }
    }

    /// Counts a message that a policy did not allow to be published without a connection.
    pub fn count_denied_post(&self, retain: bool) {
        let counters = self.hub.own_counters();
        counters.messages_in.add();
        match retain {
            true => counters.denied_retain.add(),
            false => counters.denied_publish.add(),
        }
    }

    /// What is retained under a topic, if its publisher is still in good standing. May read the registry.
    #[must_use]
    pub fn retained(&self, topic: &str) -> Option<RetainedMessage> {
        let hub = &*self.hub;
        let mut found = Vec::from_iter(hub.retained.get(topic, hub.clock.now()));
        hub.keep_good(&mut found, |(message, _)| message);
        let (message, since) = found.pop()?;
        let publication = message.to_publication();
        Some(RetainedMessage {
            topic: publication.topic,
            payload: publication.payload,
            qos: message.qos(),
            properties: publication.properties,
            since: moment(since),
        })
    }

    /// The retained messages behind a topic in the order of topics, at most `most` of those whose publishers are still in
    /// good standing; and where to go on, if there may be more: a page may be short. May read the registry.
    #[must_use]
    pub fn retained_behind(
        &self,
        topic: Option<&str>,
        most: usize,
    ) -> (Vec<RetainedSummary>, Option<String>) {
        let hub = &*self.hub;
        let now = hub.clock.now();
        let mut summaries = Vec::new();
        let mut from = topic.map(str::to_owned);
        let mut looked_at = 0;
        while summaries.len() < most {
            if looked_at >= LOOKED_AT {
                return (summaries, from);
            }
            let mut portion = hub.retained.behind(from.as_deref(), most);
            let whole = portion.len() == most;
            looked_at += portion.len();
            let last = portion
                .last()
                .map(|(message, _)| message.topic().to_owned());
            portion.retain(|(message, _)| !message.publication().is_expired(now));
            hub.keep_good(&mut portion, |(message, _)| message);
            let room = most - summaries.len();
            let fits = portion.len() <= room;
            portion.truncate(room);
            from = match portion.last() {
                Some((message, _)) if !fits => Some(message.topic().to_owned()),
                _ => last,
            };
            summaries.extend(portion.iter().map(|(message, since)| RetainedSummary {
                topic: message.publication().topic.clone(),
                payload_bytes: message.payload().len(),
                qos: message.qos(),
                since: moment(*since),
            }));
            if fits && !whole {
                return (summaries, None);
            }
        }
        (summaries, from)
    }

    /// Ends the connections of a client id, of every thing that has one; with `clean` their sessions too, also where they
    /// have no connection now, and `without_will` the wills are not published. How many there were; what is to be
    /// forgotten of them no crash brings back. Nothing keeps a client from connecting again.
    pub async fn disconnect(&self, client_id: &ClientId, clean: bool, without_will: bool) -> usize {
        let hub = &self.hub;
        let mut signal = Signal::REMOVED;
        if clean {
            signal = signal.and(Signal::CLEAN);
        }
        if without_will {
            signal = signal.and(Signal::NO_WILL);
        }
        let mut ended = 0;
        for (key, number, live) in hub.sessions.signal_clients(client_id, signal) {
            if live {
                ended += 1;
                await_gone(hub, &key, number).await;
            } else if clean && end_parked(hub, &key, number, without_will) {
                ended += 1;
            } else {
                continue;
            }
            if clean {
                hub.ended(&key).await;
            }
        }
        ended
    }
}

/// Places for messages on their way.
pub(crate) fn places() -> Arc<Places> {
    Arc::new(Places::new(OWN_POSTS, ALL_BYTES))
}

/// On whose account it is published; `None`: the server's.
fn owner_of(poster: &Poster) -> Option<Owner> {
    let Poster::Device(standing) = poster else {
        return None;
    };
    Some(match &standing.now().thing {
        Some(thing) => Owner::Thing(thing.clone()),
        None => Owner::Certificate(*standing.id()),
    })
}

/// Waits for a connection to let go of its session, as long as that may take.
async fn await_gone(hub: &Hub, key: &SessionKey, number: u64) {
    for _ in 0..GONE_LOOKS {
        if !hub.sessions.is_live(key, number) {
            return;
        }
        tokio::time::sleep(GONE_LOOK).await;
    }
}

/// Ends a session without a connection, if it still is one.
fn end_parked(hub: &Arc<Hub>, key: &SessionKey, number: u64, without_will: bool) -> bool {
    let taken = hub.sessions.take_parked_if(key, number, |parked| {
        hub.ends(key, &parked.mailbox);
        true
    });
    let Some(mut parked) = taken else {
        return false;
    };
    if without_will && let Some(due) = parked.will_due.take() {
        hub.deadlines.remove(due, number);
    }
    hub.end_parked(key, *parked);
    true
}

/// `None` at the epoch, which stands for what was not written down.
fn moment(time: Time) -> Option<SystemTime> {
    let wall = Clock::wall(time);
    (wall > UNIX_EPOCH).then_some(wall)
}
