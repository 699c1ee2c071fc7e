//! From a TLS stream to a session: the first packet, the registry, the policy, the claim.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::BytesMut;
use bytes_utils::Str;
use policy::{Action, Explanation, MessageFacts};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::Connection;
use super::explanations::Explanations;
use super::owed::Owed;
use super::routes::{Kind, Routes};
use super::timer::Timer;
use super::violation;
use super::withdrawn::drop_queued;
use crate::codec::{self, Connect, PacketId, ReasonCode};
use crate::server::clock::{Clock, time_of};
use crate::server::delivery::{Judge, Witness};
use crate::server::groups::Shared;
use crate::server::hub::Hub;
use crate::server::identity::{self, Identity};
use crate::server::layout::BodyRef;
use crate::server::lobby::Seat;
use crate::server::mailbox::Mailbox;
use crate::server::message::{Message, Origin, facts, subscription_facts};
use crate::server::parked::{Parked, ParkedFlight, ParkedProgress};
use crate::server::record::SessionRecord;
use crate::server::reserved::LifecycleChange;
use crate::server::sessions::{Claim, Owner, SessionKey};
use crate::server::stats::Counters;
use crate::server::wills::DueWill;
use crate::server::work::Work;
use crate::session::{InFlight, Progress, Proposal, Session, Stored, Token, refuse};
use crate::topic::{ClientId, TopicFilter};

/// Bytes read at once before the client is known.
const FIRST_READ_BYTES: usize = 1024;

/// A client that may not connect, with what it is told.
struct Refusal {
    reason: ReasonCode,
    /// For the client.
    text: String,
    /// For the operator.
    log: String,
    /// Where a policy has refused it.
    explanation: Option<Box<Explanation>>,
}

impl Refusal {
    fn new(reason: ReasonCode, text: impl ToString) -> Self {
        Self {
            reason,
            text: text.to_string(),
            log: text.to_string(),
            explanation: None,
        }
    }
}

/// Reads the CONNECT and makes a connection of it; `None` when the client was refused or left.
pub(crate) async fn connect<S>(
    mut io: S,
    hub: Arc<Hub>,
    counters: Arc<Counters>,
    mut identity: Identity,
    deadline: Instant,
    seat: &mut Seat,
) -> Option<Box<Connection<S>>>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut out = Vec::new();
    let mut buffer = BytesMut::with_capacity(FIRST_READ_BYTES);
    let first = first_packet(&mut io, &mut buffer, &hub, &identity, &mut out);
    let first = timeout_at(deadline, first);
    // Here alone it is waited for the peer: what comes after is not to be broken off half-way.
    let Some(first) = seat.while_seated(first).await else {
        counters.shed.add();
        return None;
    };
    let Ok(Some(connect)) = first else {
        counters.connects_refused.add();
        close(io, &out, deadline, seat).await;
        return None;
    };
    let number = hub.session_number();
    let assign = || assigned(&hub, number);
    let settings = hub.bounds.of(identity.listener, &identity.standing.now());
    let mut proposal = match Proposal::new(connect, &settings, assign, &mut out) {
        Ok(proposal) => proposal,
        Err(error) => {
            counters.connects_refused.add();
            tracing::debug!(certificate = %identity.certificate(), "CONNECT refused: {error}");
            close(io, &out, deadline, seat).await;
            return None;
        }
    };
    identity.asked_for(&*hub.registry, &proposal);
    let admitted = admit(&hub, &identity, &proposal, &counters);
    let opened = match admitted {
        Ok(admitted) => {
            let opening = open(&hub, &identity, number, &proposal, admitted);
            seat.stays(true);
            // The claim of a session has its own bound inside, and none begins that a nearly full disk has no room for.
            let opened = opening.await;
            seat.stays(false);
            opened
        }
        Err(refusal) => Err(refusal),
    };
    let opened = match opened {
        Ok(opened) => opened,
        Err(refusal) => {
            counters.connects_refused.add();
            if hub.denials.take() {
                let denial = refusal.explanation.as_ref().map(|explanation| {
                    let (client_id, now) = (proposal.client_id(), Clock::wall(hub.clock.now()));
                    identity.keep_denial(&*hub.registry, client_id, explanation, now)
                });
                tracing::warn!(denial, certificate = %identity.certificate(),
                    client_id = proposal.client_id().as_str(), "CONNECT refused: {}", refusal.log);
            }
            // [MQTT-3.1.3-8, 3.1.4-2] [MQTT311-3.1.3-9]
            proposal.refuse(refusal.reason, Some(&refusal.text), &mut out);
            close(io, &out, deadline, seat).await;
            return None;
        }
    };
    counters.connected.add();
    let Opened {
        admitted,
        mailbox,
        stored,
        in_flight,
        lent,
        held,
        owed,
        lost,
    } = opened;
    if proposal.asks_for_response_information()
        && let Some(information) = response_information(&admitted)
    {
        proposal.tell_response_information(information);
    }
    let now = hub.clock.now();
    // The first word that is written [MQTT-3.2.0-1, 3.14.0-1] [MQTT311-3.2.0-1].
    let session: Session<Message> = proposal.open(stored, now, &mut out);
    let mut connection = Box::new(Connection {
        version: hub.connection_version(),
        io,
        session,
        key: admitted.key,
        mailbox,
        identity,
        generation: admitted.generation,
        not_after: time_of(admitted.not_after),
        watch: None,
        judge: admitted.judge,
        routes: Routes::new(hub.limits.route_cache_topics),
        undigested: !buffer.is_empty(),
        sieve: None,
        lost: None,
        partial_since: None,
        // An empty one is given back: an idle connection holds no buffer.
        partial: match buffer.is_empty() {
            true => BytesMut::new(),
            false => buffer,
        },
        out,
        written: 0,
        held_back: false,
        heard_out: false,
        readable: None,
        rests_until: None,
        blocked_since: None,
        staged: VecDeque::new(),
        owed,
        in_flight,
        lent,
        held_bytes: held.iter().map(|(_, message)| message.weight_bytes()).sum(),
        held,
        waiting: VecDeque::new(),
        asked: None,
        requests: Vec::new(),
        explanations: Explanations::default(),
        work: Work::unbounded(),
        stalled: None,
        behind: false,
        timer: Timer::default(),
        now,
        hub,
        counters,
    });
    connection.tell(LifecycleChange::Connected);
    connection.has_lost(lost);
    Some(connection)
}

async fn first_packet<S: AsyncRead + Unpin>(
    io: &mut S,
    buffer: &mut BytesMut,
    hub: &Hub,
    identity: &Identity,
    out: &mut Vec<u8>,
) -> Option<Connect> {
    let limits = codec::Limits {
        packet_max_bytes: u32::try_from(hub.limits.connect_packet_bytes).unwrap_or(u32::MAX),
        ..hub.bounds.base().limits()
    };
    loop {
        buffer.reserve(FIRST_READ_BYTES);
        match io.read_buf(buffer).await {
            Ok(0) | Err(_) => return None,
            Ok(_) => {}
        }
        match codec::decode_first(buffer, &limits) {
            Ok(None) => {}
            Ok(Some(connect)) => return Some(connect),
            Err(error) => {
                tracing::debug!("first packet refused: {error}");
                let how = (error.reason, error.version);
                violation::note_broken(hub, identity, how, &error.text);
                refuse(error.version, error.reason, Some(&error.text), out);
                return None;
            }
        }
    }
}

/// An identifier for a client that sent none, used by nobody else [MQTT-3.1.3-6, 3.2.2-16]
/// [MQTT311-3.1.3-6].
fn assigned(hub: &Hub, number: u64) -> ClientId {
    let text = format!("auto-{:x}-{number:x}", hub.clock.now().as_millis());
    #[expect(
        clippy::expect_used,
        reason = "letters, digits and dashes, far below the bound of a client id"
    )]
    text.parse().expect("letters, digits and dashes")
}

/// Under which topic the client can be answered: its thing's own part of the commands, where its
/// policy lets it listen there (§3.2.2.3.15).
fn response_information(admitted: &Admitted) -> Option<Str> {
    let Owner::Thing(thing) = &admitted.key.owner else {
        return None;
    };
    let information = format!("cmd/{thing}/response");
    let all = format!("{information}/#");
    let decision = admitted.judge.grant().decide(Action::Subscribe, &all);
    decision.is_allow().then(|| information.into())
}

/// What the registry and the policy have agreed to.
struct Admitted {
    key: SessionKey,
    judge: Judge,
    generation: u64,
    not_after: std::time::SystemTime,
}

/// Asks registry and policy, again after the handshake: the certificate may have been revoked
/// between the two.
fn admit(
    hub: &Arc<Hub>,
    identity: &Identity,
    proposal: &Proposal,
    counters: &Counters,
) -> Result<Admitted, Refusal> {
    let generation = identity.standing.generation();
    let standing = identity.standing.now();
    identity::check(&standing, Clock::wall(hub.clock.now()))
        .map_err(|error| Refusal::new(ReasonCode::NotAuthorized, error))?;
    let client_id = proposal.client_id();
    let grant = identity.grant(
        &*hub.registry,
        &standing,
        client_id,
        Clock::wall(hub.clock.now()),
    );
    let key = identity.session_key(&standing, client_id);
    let witness = Witness {
        hub: Arc::clone(hub),
        standing: Arc::clone(&identity.standing),
        client_id: client_id.clone(),
    };
    let allowed = grant.decide(Action::Connect, client_id.as_str()).is_allow();
    witness.note(Action::Connect, client_id.as_str(), allowed);
    if !allowed {
        counters.denied_connect.add();
        let explanation = grant.explain(Action::Connect, client_id.as_str());
        let reason = explanation.reason();
        let log = match &key.owner {
            Owner::Thing(thing) if thing.as_str() != client_id.as_str() => {
                format!(
                    "{reason}; the client id of this device should be its thing's name, {thing}"
                )
            }
            Owner::Thing(_) => reason.clone(),
            Owner::Certificate(_) => format!("{reason}; the certificate is attached to no thing"),
        };
        return Err(Refusal {
            reason: ReasonCode::NotAuthorized,
            text: log.clone(),
            log,
            explanation: Some(Box::new(explanation)),
        });
    }
    if let Some(will) = proposal.will() {
        let topic = will.topic.as_str();
        if Kind::of(topic) == Kind::Foreign {
            violation::note(hub, identity, violation::SERVERS_TOPIC);
        }
        let mut actions = vec![Action::Publish];
        if will.retain {
            actions.push(Action::RetainPublish);
        }
        let facts = facts(will.payload.len(), will.qos, will.retain);
        let mut refused = false;
        for action in &actions {
            let allowed = grant.decide_for(*action, topic, &facts).is_allow();
            // A will is as much of what a device does as a message: a policy must not forget it.
            witness.note(*action, topic, allowed);
            refused |= !allowed;
        }
        if refused {
            counters.denied_will.add();
            let more = actions.iter().skip(1).map(|action| (*action, topic, facts));
            let explanation = grant.explain_each((Action::Publish, topic, facts), more);
            let reason = explanation.reason();
            return Err(Refusal {
                explanation: Some(Box::new(explanation)),
                ..Refusal::new(
                    ReasonCode::NotAuthorized,
                    format!("the will may not be published: {reason}"),
                )
            });
        }
        if Kind::of(topic) != Kind::Ordinary {
            return Err(Refusal::new(
                ReasonCode::TopicNameInvalid,
                "a will cannot be published to a topic of the server ($aws, $SYS, $share)",
            ));
        }
    }
    let not_after = identity::good_until(&standing, &grant);
    Ok(Admitted {
        key,
        judge: Judge::new(grant, witness, hub.limits.route_cache_topics),
        generation,
        not_after,
    })
}

struct Opened {
    admitted: Admitted,
    mailbox: Arc<Mailbox>,
    stored: Option<Stored<Message>>,
    in_flight: Vec<(Token, BodyRef)>,
    lent: Vec<(PacketId, Box<Shared>)>,
    held: Vec<(PacketId, Message)>,
    owed: Option<Box<Owed>>,
    lost: Vec<(TopicFilter, MessageFacts)>,
}

/// Claims the session and brings back what was kept of it.
async fn open(
    hub: &Arc<Hub>,
    identity: &Identity,
    number: u64,
    proposal: &Proposal,
    admitted: Admitted,
) -> Result<Opened, Refusal> {
    let key = &admitted.key;
    let clean = proposal.clean_start();
    let expiry_s = proposal.expiry_s();
    // Before it is claimed, so that nobody loses a session or a connection by it.
    if (expiry_s > 0 || (!clean && hub.sessions.is_durable(key)))
        && !hub.durable.has_room_for_session(proposal.will())
    {
        return Err(no_room());
    }
    let durable = (expiry_s > 0).then(|| Arc::clone(&hub.durable));
    let fresh = Arc::new(Mailbox::new(number, durable, &hub.limits));
    let standing = identity.standing.now();
    let share = hub.bounds.sessions(identity.listener, &standing);
    let kept = match hub.sessions.claim(key, &fresh, clean, share.live) {
        Claim::Held(kept) => kept,
        Claim::Full => {
            let text = format!(
                "{} has {} connections, as many as it may have: close one first",
                key.owner, share.live
            );
            return Err(Refusal::new(ReasonCode::QuotaExceeded, text));
        }
        Claim::Wait(mut receiver) => {
            let limit = hub.limits.takeover_time;
            let handed = match tokio::time::timeout(limit, &mut receiver).await {
                Ok(handed) => handed.map_err(|_| "a newer connection has taken its turn"),
                // It may have come in this very moment, and must not get lost.
                Err(_) => {
                    receiver.close();
                    let held = "the connection that holds this session does not let go of it";
                    receiver.try_recv().map_err(|_| held)
                }
            };
            handed.map_err(|text| Refusal::new(ReasonCode::ServerBusy, text))?
        }
    };
    if let Some(kept) = &kept {
        for due in [kept.expires_at, kept.will_due].into_iter().flatten() {
            // A will that waits is taken back with it [MQTT-3.1.3-9].
            hub.deadlines.remove(due, kept.mailbox.number());
        }
    }
    let resumed = match kept {
        Some(mut kept) if clean => {
            // The old session ends here, so its will does not wait any longer [MQTT-3.1.2-8].
            if kept.will_due.take().is_some()
                && let Some(will) = hub.kept_will(kept.mailbox.number())
            {
                hub.publish_will(DueWill {
                    number: kept.mailbox.number(),
                    key: key.clone(),
                    identity: kept.identity.clone(),
                    will,
                    record: None,
                });
            }
            hub.discard(key, *kept);
            Resumed::fresh(fresh)
        }
        Some(kept) => {
            let is_kept = write_record(hub, identity, proposal, key, &kept.mailbox).await;
            if !is_kept {
                // It waits on as it has waited.
                hub.park(key, kept).await;
                return Err(no_room());
            }
            resume(hub, *kept, &admitted.judge).await
        }
        None => Resumed::fresh(fresh),
    };
    if resumed.stored.is_none() {
        // What the client is told is gone must not be back after a crash.
        hub.ended(key).await;
        let mailbox = &resumed.mailbox;
        if mailbox.is_durable() && !write_record(hub, identity, proposal, key, mailbox).await {
            hub.sessions.release(key, mailbox, None, 0, 0);
            return Err(no_room());
        }
    }
    Ok(Opened {
        admitted,
        mailbox: resumed.mailbox,
        stored: resumed.stored,
        in_flight: resumed.in_flight,
        lent: resumed.lent,
        held: resumed.held,
        owed: resumed.owed,
        lost: resumed.lost,
    })
}

fn no_room() -> Refusal {
    let text = "the server's disk is nearly full: it keeps no more sessions until there is room";
    Refusal::new(ReasonCode::ServerBusy, text)
}

/// The session is durable before the client hears of it. Whether it is: for room on a disk that is nearly full nobody is to
/// wait, for hours, nor whoever comes after it; then nothing is written.
async fn write_record(
    hub: &Hub,
    identity: &Identity,
    proposal: &Proposal,
    key: &SessionKey,
    mailbox: &Mailbox,
) -> bool {
    if !hub.durable.has_room_for_session(proposal.will()) {
        return false;
    }
    let thing = match &key.owner {
        Owner::Thing(thing) => Some(thing.to_string()),
        Owner::Certificate(_) => None,
    };
    let mut record = SessionRecord::new(
        thing,
        identity.certificate(),
        key.client_id.as_str().to_owned(),
        proposal.expiry_s(),
    );
    record.common_name = identity.common_name.as_deref().map(str::to_owned);
    record.next_token = mailbox.next_token();
    let number = mailbox.number();
    hub.wills.supersede(number);
    // [MQTT-3.1.2-7] [MQTT311-3.1.2-8]
    let origin = Origin::Device(identity.certificate());
    let written = hub.written_soon(|durable| match proposal.will() {
        Some(will) => durable.put_session_with_will(number, &record, will, origin),
        None => durable.put_session_without_will(number, &record),
    });
    let Some(lsn) = written.await else {
        return false;
    };
    hub.committed(lsn).await;
    true
}

/// What a connection begins with.
struct Resumed {
    mailbox: Arc<Mailbox>,
    stored: Option<Stored<Message>>,
    /// Deliveries in flight with where their bodies are.
    in_flight: Vec<(Token, BodyRef)>,
    lent: Vec<(PacketId, Box<Shared>)>,
    held: Vec<(PacketId, Message)>,
    owed: Option<Box<Owed>>,
    /// Subscriptions that the policy no longer grants.
    lost: Vec<(TopicFilter, MessageFacts)>,
}

impl Resumed {
    fn fresh(mailbox: Arc<Mailbox>) -> Self {
        Self {
            mailbox,
            stored: None,
            in_flight: Vec::new(),
            lent: Vec::new(),
            held: Vec::new(),
            owed: None,
            lost: Vec::new(),
        }
    }
}

/// Brings back a kept session. Subscriptions the policy no longer grants do not come back, nor does what waits of them.
async fn resume(hub: &Hub, kept: Parked, judge: &Judge) -> Resumed {
    let mailbox = kept.mailbox;
    let mut subscriptions = kept.subscriptions;
    let grant = judge.grant();
    let refused: Vec<(TopicFilter, MessageFacts)> = subscriptions
        .iter()
        .map(|(filter, options)| (filter, subscription_facts(options)))
        .filter(|(filter, facts)| {
            let decision = grant.decide_for(Action::Subscribe, filter.as_str(), facts);
            !decision.is_allow()
        })
        .map(|(filter, facts)| (filter.clone(), facts))
        .collect();
    let lost: Vec<TopicFilter> = refused.iter().map(|(filter, _)| filter.clone()).collect();
    for filter in &lost {
        subscriptions.remove(filter);
    }
    let number = mailbox.number();
    let mut owed = kept.owed;
    if !lost.is_empty() {
        tracing::info!(
            session = number,
            lost = lost.len(),
            filter = lost.first().map(TopicFilter::as_str),
            "subscriptions of a resumed session removed: the policy no longer grants them"
        );
        for filter in &lost {
            hub.unsubscribe(number, filter);
            if let Some(owed) = &mut owed {
                owed.forget(filter);
            }
        }
        drop_queued(hub, &mailbox, &lost, &subscriptions).await;
        // Only now: a crash before it finds them, and judges them again.
        hub.unsubscribe_all(number, lost.iter());
    }
    let mut in_flight = Vec::new();
    let mut lent = Vec::new();
    let mut flights: Vec<InFlight<Message>> = Vec::new();
    for flight in kept.in_flight {
        let ParkedFlight {
            token,
            progress,
            shared,
        } = flight;
        let body = match &progress {
            ParkedProgress::Sent { body, .. } => *body,
            ParkedProgress::Received => BodyRef::Inline,
        };
        let progress = match progress {
            ParkedProgress::Received => Progress::Received { released: false },
            ParkedProgress::Sent { options, body } => match hub.durable.queued(number, token, body)
            {
                Ok(Some(message)) => Progress::Sent { options, message },
                Ok(None) => continue,
                Err(error) => {
                    tracing::error!(%error, "a message in flight cannot be read");
                    continue;
                }
            },
        };
        let Some(flight) = InFlight::numbered(token, progress) else {
            continue;
        };
        in_flight.push((token, body));
        lent.extend(shared.map(|shared| (flight.packet_id, shared)));
        flights.push(flight);
    }
    let mut held = Vec::new();
    for packet_id in kept.held {
        match hub.durable.held(number, packet_id) {
            Ok(Some(message)) => held.push((packet_id, message)),
            Ok(None) => {}
            Err(error) => {
                tracing::error!(%error, "a message that waits for its PUBREL cannot be read")
            }
        }
    }
    let stored = Stored {
        subscriptions,
        in_flight: flights,
        next_packet_id: kept.next_packet_id,
        held: held.iter().map(|(packet_id, _)| *packet_id).collect(),
    };
    Resumed {
        mailbox,
        stored: Some(stored),
        in_flight,
        lent,
        held,
        owed,
        lost: refused,
    }
}

/// Says the last words and closes [MQTT-3.1.2-2, 3.2.2-7, 4.13.2-1] [MQTT311-3.1.2-2, 3.2.2-5]. What the client sent
/// behind its CONNECT is thrown away [MQTT-3.1.2-30, 3.1.4-6] [MQTT311-3.1.4-5]. Whoever needs its seat or its place has
/// them sooner.
async fn close<S: AsyncRead + AsyncWrite + Unpin>(
    mut io: S,
    out: &[u8],
    deadline: Instant,
    seat: &mut Seat,
) {
    let words = async {
        io.write_all(out).await?;
        io.flush().await?;
        io.shutdown().await?;
        // Unread input would make the close a reset that takes the CONNACK with it.
        let mut rest = [0_u8; 512];
        while io.read(&mut rest).await? > 0 {}
        std::io::Result::Ok(())
    };
    let soon = deadline.min(Instant::now() + std::time::Duration::from_secs(1));
    // However it ends, the socket is closed next.
    tokio::select! {
        biased;
        // First: most are said at once, and are worth that much.
        _ = timeout_at(soon, words) => {}
        () = seat.lost() => {}
    }
}
