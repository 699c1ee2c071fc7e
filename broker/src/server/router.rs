//! From a topic to its receivers, and from a message into their mailboxes.

use std::sync::Arc;

use store::{Behind, Lsn};
use triomphe::ThinArc;

use super::durable::{Durable, Entry};
use super::groups::{Group, Shared};
use super::hub::Hub;
use super::layout::BodyRef;
use super::mailbox::{Delivery, Mailbox, NotPut};
use super::message::Message;
use super::passing::Record;
use super::stats::Counters;
use super::tree::{self, Stamp, TopicTree};
use super::work::{self, COPY, Work};
use crate::codec::{Qos, ReasonCode, SubscriptionOptions};
use crate::session::SendOptions;

/// A subscription in the tree.
pub(crate) enum Subscriber {
    Session {
        mailbox: Arc<Mailbox>,
        options: SubscriptionOptions,
    },
    Group(Arc<Group>),
}

/// Who receives a topic: one allocation, most topics have one receiver.
#[derive(Clone)]
pub(crate) struct Receivers(ThinArc<Others, Receiver>);

/// What there is beside the sessions that receive it.
#[derive(Default)]
struct Others {
    groups: Vec<Arc<Group>>,
    /// Subscription identifiers that go with a message, over all sessions.
    identifiers: usize,
}

impl Default for Receivers {
    fn default() -> Self {
        Self::new(Others::default(), Vec::new())
    }
}

impl Receivers {
    fn new(others: Others, sessions: Vec<Receiver>) -> Self {
        Self(ThinArc::from_header_and_iter(others, sessions.into_iter()))
    }

    fn sessions(&self) -> &[Receiver] {
        &self.0.slice
    }

    fn groups(&self) -> &[Arc<Group>] {
        &self.0.header.header.groups
    }

    /// The work of a message to them, beside the mailboxes it is put into.
    pub(crate) fn work(&self) -> usize {
        self.0.header.header.identifiers * work::LOOK
    }

    /// What the publisher is told of an accepted message.
    pub(crate) fn accepted(&self) -> ReasonCode {
        if self.sessions().is_empty() && self.groups().is_empty() {
            ReasonCode::NoMatchingSubscribers // §3.4.2.1
        } else {
            ReasonCode::Success
        }
    }
}

/// One session that receives a topic, its overlapping subscriptions merged into one copy.
struct Receiver {
    mailbox: Arc<Mailbox>,
    qos: Qos,
    retain_as_published: bool,
    subscription_ids: Option<Arc<[u32]>>,
    /// It is the publisher itself, which hears of its message's acknowledgement first.
    own: bool,
}

/// One matching subscription.
struct Found {
    /// The session's number.
    number: u64,
    mailbox: Arc<Mailbox>,
    options: SubscriptionOptions,
}

/// A search for who receives a topic when session `own` publishes it.
#[derive(Default)]
pub(crate) struct Search {
    own: Option<u64>,
    search: tree::Search,
    found: Vec<Found>,
    groups: Vec<Arc<Group>>,
}

impl Search {
    pub(crate) fn new(own: Option<u64>) -> Self {
        Self {
            own,
            ..Self::default()
        }
    }

    /// Goes on, to its end or until the work is spent; whether it is done.
    pub(crate) fn go_on(
        &mut self,
        tree: &TopicTree<Subscriber>,
        topic: &str,
        work: &mut Work,
    ) -> bool {
        let Self {
            own,
            search,
            found,
            groups,
        } = self;
        tree.search(search, topic, work, &mut |entry| match &entry.value {
            Subscriber::Group(group) => groups.push(Arc::clone(group)),
            // [MQTT-3.8.3-3]
            Subscriber::Session { options, .. }
                if options.no_local && *own == Some(entry.owner) => {}
            Subscriber::Session { mailbox, options } => found.push(Found {
                number: entry.owner,
                mailbox: Arc::clone(mailbox),
                options: *options,
            }),
        });
        search.is_done()
    }

    /// What was found, and what that is true of.
    pub(crate) fn finish(self) -> (Stamp, Receivers) {
        let sessions = merge(self.found, self.own);
        let identifiers = sessions.iter().filter_map(|r| r.subscription_ids.as_ref());
        let identifiers = identifiers.map(|ids| ids.len()).sum();
        let others = Others {
            groups: self.groups,
            identifiers,
        };
        (self.search.stamp(), Receivers::new(others, sessions))
    }
}

/// One copy per session, with the highest QoS of its matching subscriptions [MQTT-3.3.4-2] [MQTT311-3.3.5-1] and all
/// their identifiers [MQTT-3.3.4-4], each as often as it was given (§3.3.4). A session's subscriptions are looked at once
/// each, however many of them overlap.
fn merge(mut found: Vec<Found>, own: Option<u64>) -> Vec<Receiver> {
    if found.len() > 1 {
        // Those of one filter are in this order already, and their mailboxes are far.
        found.sort_by_key(|found| found.number);
    }
    let mut sessions: Vec<Receiver> = Vec::new();
    let mut ids: Vec<u32> = Vec::new();
    let mut last = None;
    for Found {
        number,
        mailbox,
        options,
    } in found
    {
        let before = last.replace(number);
        match sessions.last_mut() {
            Some(same) if before == Some(number) => {
                same.qos = same.qos.max(options.qos);
                same.retain_as_published |= options.retain_as_published;
            }
            before => {
                if let Some(before) = before {
                    before.identify(&mut ids);
                }
                sessions.push(Receiver {
                    own: own == Some(number),
                    mailbox,
                    qos: options.qos,
                    retain_as_published: options.retain_as_published,
                    subscription_ids: None,
                });
            }
        }
        ids.extend(options.id);
    }
    if let Some(last) = sessions.last_mut() {
        last.identify(&mut ids);
    }
    sessions
}

/// How far a message has come on its way into the mailboxes, so that a journal that is behind can
/// stop it and it goes on where it was.
pub(crate) struct Routing {
    message: Message,
    receivers: Receivers,
    /// A record that must go when the message has arrived: where it came from.
    settles: Option<Vec<u8>>,
    next: usize,
    body: Option<BodyRef>,
    together: Option<Together>,
    safe: Option<Lsn>,
    /// Whom the journal has no room for does not hold it up.
    unkept: bool,
}

/// Why a message has not reached everybody yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unfinished {
    /// The journal takes no more just now.
    Behind(Behind),
    /// The share of work is spent.
    Share,
}

impl From<Behind> for Unfinished {
    fn from(behind: Behind) -> Self {
        Self::Behind(behind)
    }
}

/// How far a message of QoS 2 has come, which is written into all queues in one commit.
enum Together {
    /// The sessions that receive it are gathered.
    Gathering(Vec<Target>),
    /// It is written, and goes into these mailboxes.
    Pushing(std::vec::IntoIter<Target>, BodyRef),
}

/// One mailbox the message goes to.
struct Target {
    mailbox: Arc<Mailbox>,
    options: SendOptions,
    group: Option<Arc<Group>>,
    own: bool,
    /// In the session's durable queue; 0 where it is not kept.
    token: u64,
}

impl Routing {
    pub(crate) fn new(message: Message, receivers: Receivers) -> Self {
        Self {
            message,
            receivers,
            settles: None,
            next: 0,
            body: None,
            together: None,
            safe: None,
            unkept: false,
        }
    }

    /// From now on it is not kept for anybody: who is connected gets it, of QoS 1 as well, and who is not does not. Of the
    /// server's own messages, which nobody has been promised.
    pub(crate) fn keep_no_more(&mut self, durable: &Durable) {
        self.unkept = true;
        if let Some(body) = self.body.replace(BodyRef::Inline) {
            durable.release_body(body);
        }
    }

    /// Others receive it than when the search was made.
    pub(crate) fn redirect(&mut self, receivers: Receivers) {
        debug_assert_eq!(self.next, 0);
        self.receivers = receivers;
    }

    /// The record under this key goes with the message's arrival: of QoS 2 in the very same commit,
    /// so that no crash finds it both there and arrived.
    pub(crate) fn settling(mut self, key: Vec<u8>) -> Self {
        self.settles = Some(key);
        self
    }

    /// That record is another's by now, and stays.
    pub(crate) fn settle_nothing(&mut self) {
        self.settles = None;
    }

    /// The message.
    pub(crate) fn message(&self) -> &Message {
        &self.message
    }

    /// The acknowledgement must wait for this too.
    pub(crate) fn wait_for(&mut self, lsn: Lsn) {
        self.safe = self.safe.max(Some(lsn));
    }

    /// Puts the message into every mailbox it has not been put into yet [MQTT-4.5.0-1]
    /// [MQTT311-4.5.0-1]. Returns when it is safe
    /// for all its durable receivers; `None` when it waits for no disk.
    ///
    /// # Errors
    /// [`Unfinished`]: call again when the journal has caught up, or with a new share of work.
    pub(crate) fn run(
        &mut self,
        hub: &Hub,
        counters: &Counters,
        work: &mut Work,
    ) -> Result<Option<Lsn>, Unfinished> {
        let durable = &*hub.durable;
        if self.next == 0 && self.together.is_none() {
            work.spend(self.receivers.work());
        }
        if self.message.qos() == Qos::ExactlyOnce && !self.unkept {
            return self.run_together(hub, counters, work);
        }
        let body = match self.body {
            Some(body) => body,
            None => {
                let body = self.choose_body(durable)?;
                self.body = Some(body);
                body
            }
        };
        let receivers = self.receivers.clone();
        let all = receivers.sessions().len() + receivers.groups().len();
        while let Some(receiver) = receivers.sessions().get(self.next) {
            let options = receiver.send_options(&self.message);
            let mailbox = &receiver.mailbox;
            if self.unkept {
                mailbox.deliver_unkept(&self.message, options);
                self.next += 1;
                continue;
            }
            self.put(
                mailbox.deliver(&self.message, options, None, receiver.own, body, counters),
                counters,
            )?;
            work.spend(COPY);
            if work.is_spent() && self.next < all {
                return Err(Unfinished::Share);
            }
        }
        let groups = self.next - receivers.sessions().len();
        for group in receivers.groups().iter().skip(groups) {
            self.put_shared(group, body, counters)?;
            work.spend(2 * COPY);
            if work.is_spent() && self.next < all {
                return Err(Unfinished::Share);
            }
        }
        durable.release_body(body);
        self.body = Some(BodyRef::Inline);
        if let Some(key) = self.settles.take() {
            self.safe = self.safe.max(durable.settle(key));
        }
        Ok(self.safe)
    }

    fn put(&mut self, put: Result<Option<Lsn>, NotPut>, counters: &Counters) -> Result<(), Behind> {
        match put {
            Ok(lsn) => self.safe = self.safe.max(lsn),
            Err(NotPut::Behind(Behind::TooLarge { .. })) => counters.dropped_too_large.add(),
            Err(NotPut::Behind(behind)) => return Err(behind),
            Err(NotPut::Ended) => {}
        }
        self.next += 1;
        Ok(())
    }

    /// Into the mailbox of one of a group, whose session may end in this very moment: then of another.
    fn put_shared(
        &mut self,
        group: &Arc<Group>,
        body: BodyRef,
        counters: &Counters,
    ) -> Result<(), Behind> {
        let mut ended = Vec::new();
        while let Some((mailbox, options)) = self.choose(group, &ended) {
            if self.unkept {
                mailbox.deliver_unkept(&self.message, options);
                break;
            }
            let shared = Some(Box::new(Shared::new(group)));
            match mailbox.deliver(&self.message, options, shared, false, body, counters) {
                Err(NotPut::Ended) => ended.push(mailbox.number()),
                put => return self.put(put, counters),
            }
        }
        self.next += 1;
        Ok(())
    }

    /// QoS 2: into all durable queues in one commit, or none; before and behind that in portions.
    fn run_together(
        &mut self,
        hub: &Hub,
        counters: &Counters,
        work: &mut Work,
    ) -> Result<Option<Lsn>, Unfinished> {
        let (mut targets, body) = match self.together.take() {
            Some(Together::Pushing(targets, body)) => (targets, body),
            Some(Together::Gathering(targets)) => self.commit(targets, hub, counters, work)?,
            None => self.commit(Vec::new(), hub, counters, work)?,
        };
        while let Some(target) = targets.next() {
            self.push(target, body, hub, counters);
            work.spend(COPY);
            if work.is_spent() && targets.len() > 0 {
                self.together = Some(Together::Pushing(targets, body));
                return Err(Unfinished::Share);
            }
        }
        Ok(self.safe)
    }

    /// Gathers the sessions that are not among the `targets` yet and writes it for all. Whose mailboxes it goes into then.
    fn commit(
        &mut self,
        mut targets: Vec<Target>,
        hub: &Hub,
        counters: &Counters,
        work: &mut Work,
    ) -> Result<(std::vec::IntoIter<Target>, BodyRef), Unfinished> {
        let durable = &*hub.durable;
        let receivers = self.receivers.clone();
        while let Some(receiver) = receivers.sessions().get(targets.len()) {
            let options = receiver.send_options(&self.message);
            let target = Target::new(&receiver.mailbox, options, None, receiver.own);
            targets.push(target);
            work.spend(COPY);
            if work.is_spent() && targets.len() < receivers.sessions().len() {
                self.together = Some(Together::Gathering(targets));
                return Err(Unfinished::Share);
            }
        }
        // Each time anew: a member may have ended since.
        targets.extend(self.of_groups());
        work.spend(receivers.groups().len() * COPY);
        let entries: Vec<Entry<'_>> = targets
            .iter()
            .filter(|target| target.token != 0)
            .map(|target| Entry {
                session: target.mailbox.number(),
                token: target.token,
                options: &target.options,
                group: target.group.as_ref().map(|group| group.filter()),
            })
            .collect();
        let mut body = BodyRef::Inline;
        if !entries.is_empty() || self.settles.is_some() {
            let settles = self.settles.as_deref();
            match durable.put_together(&self.message, &entries, settles) {
                Ok((lsn, shared)) => {
                    self.safe = self.safe.max(Some(lsn));
                    self.settles = None;
                    body = shared;
                }
                Err(behind @ Behind::Full { .. }) => {
                    drop(entries);
                    targets.retain(|target| target.group.is_none());
                    self.together = Some(Together::Gathering(targets));
                    return Err(behind.into());
                }
                Err(Behind::TooLarge { .. }) => {
                    counters.dropped_too_large.add();
                    drop(entries);
                    targets.retain(|target| target.token == 0);
                    if let Some(key) = self.settles.take() {
                        self.safe = self.safe.max(durable.settle(key));
                    }
                    return Ok((targets.into_iter(), body));
                }
            }
        }
        drop(entries);
        Ok((targets.into_iter(), body))
    }

    fn push(&self, target: Target, body: BodyRef, hub: &Hub, counters: &Counters) {
        let qos = target.options.qos;
        let weight = self.message.weight_bytes() + target.options.weight_bytes();
        let delivery = Delivery {
            message: Some(self.message.clone()),
            options: target.options,
            token: target.token,
            body: match target.token {
                0 => BodyRef::Inline,
                _ => body,
            },
            shared: target.group.map(|group| Box::new(Shared::new(&group))),
            after: match (target.token, qos) {
                (1.., Qos::ExactlyOnce) => self.safe,
                (1.., _) if target.own => self.safe,
                _ => None,
            },
            answer: false,
            weight_bytes: weight,
        };
        let record = Record {
            number: target.mailbox.number(),
            token: delivery.token,
            body: delivery.body,
        };
        // It ended in this very moment: nothing of the message was sent.
        if let Some(shared) = target.mailbox.push(delivery, counters) {
            hub.pass_on(&self.message, shared, record);
        }
    }

    fn of_groups(&self) -> impl Iterator<Item = Target> {
        self.receivers.groups().iter().filter_map(|group| {
            let (mailbox, options) = self.choose(group, &[])?;
            Some(Target::new(&mailbox, options, Some(group), false))
        })
    }

    fn choose(&self, group: &Group, tried: &[u64]) -> Option<(Arc<Mailbox>, SendOptions)> {
        let member = group.choose(tried, self.message.qos())?;
        let options = member.send_options(&self.message);
        Some((member.mailbox, options))
    }

    /// Gives up on the receivers not reached yet; not on those for whom it is written.
    pub(crate) fn abandon(mut self, hub: &Hub, counters: &Counters) {
        if let Some(Together::Pushing(targets, body)) = self.together.take() {
            for target in targets {
                self.push(target, body, hub, counters);
            }
        }
        hub.durable
            .release_body(self.body.unwrap_or(BodyRef::Inline));
    }

    /// For several durable receivers the body is kept once, also where they are one session in several groups.
    fn choose_body(&self, durable: &Durable) -> Result<BodyRef, Behind> {
        if self.message.qos() == Qos::AtMostOnce {
            return Ok(BodyRef::Inline);
        }
        let sessions = self.receivers.sessions().iter();
        let sessions = sessions
            .filter(|receiver| receiver.qos > Qos::AtMostOnce && receiver.mailbox.is_durable())
            .map(|_| ());
        let groups = self.receivers.groups().iter();
        let groups = groups
            .filter(|group| group.keeps(self.message.qos()))
            .map(|_| ());
        if sessions.chain(groups).take(2).count() < 2 {
            return Ok(BodyRef::Inline);
        }
        match durable.put_body(&self.message) {
            Ok(number) => Ok(BodyRef::Shared(number)),
            Err(Behind::TooLarge { .. }) => Ok(BodyRef::Inline),
            Err(behind) => Err(behind),
        }
    }
}

impl Target {
    fn new(
        mailbox: &Arc<Mailbox>,
        options: SendOptions,
        group: Option<&Arc<Group>>,
        own: bool,
    ) -> Self {
        Self {
            token: mailbox.token_for(options.qos),
            mailbox: Arc::clone(mailbox),
            options,
            group: group.cloned(),
            own,
        }
    }
}

impl Receiver {
    /// Takes the identifiers of its subscriptions.
    fn identify(&mut self, ids: &mut Vec<u32>) {
        if !ids.is_empty() {
            self.subscription_ids = Some(Arc::from(&ids[..]));
            ids.clear();
        }
    }

    /// The smaller QoS [MQTT-3.8.4-8] [MQTT311-3.8.4-6]; RETAIN only if the subscription wants it as published
    /// [MQTT-3.3.1-12, -13] [MQTT311-3.3.1-9].
    fn send_options(&self, message: &Message) -> SendOptions {
        SendOptions {
            qos: message.qos().min(self.qos),
            retain: message.retain() && self.retain_as_published,
            subscription_ids: self.subscription_ids.clone(),
        }
    }
}
