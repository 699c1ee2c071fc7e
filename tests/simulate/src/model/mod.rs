//! The reference: what the standards say a client may receive and must receive, told from outside.
//!
//! The model never looks into the broker. It knows what clients wrote, what they were told and
//! when, and keeps two bounds for everything that takes time: when it may have happened, and when
//! it had certainly happened. Whatever lies between the bounds is allowed either way; everything
//! else is checked.

mod due;
mod received;

use std::collections::BTreeMap;

/// A step of the simulation; `NEVER` is after all of them.
pub(crate) type Step = u64;
pub(crate) const NEVER: Step = u64::MAX;

/// When something held: possibly, and certainly.
#[derive(Clone, Copy)]
pub(crate) struct Span {
    pub(crate) possible_from: Step,
    pub(crate) certain_from: Step,
    pub(crate) certain_to: Step,
    pub(crate) possible_to: Step,
}

impl std::fmt::Debug for Span {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let when = |step: Step| {
            if step == NEVER {
                "…".to_owned()
            } else {
                step.to_string()
            }
        };
        write!(
            f,
            "{}-{} to {}-{}",
            when(self.possible_from),
            when(self.certain_from),
            when(self.certain_to),
            when(self.possible_to)
        )
    }
}

impl Span {
    pub(crate) fn beginning(at: Step) -> Self {
        Self {
            possible_from: at,
            certain_from: NEVER,
            certain_to: NEVER,
            possible_to: NEVER,
        }
    }

    fn may_meet(&self, from: Step, to: Step) -> bool {
        self.possible_from <= to && self.possible_to >= from
    }

    fn covers(&self, from: Step, to: Step) -> bool {
        self.certain_from <= from && self.certain_to >= to
    }

    fn doubt(&mut self, at: Step) {
        self.certain_to = self.certain_to.min(at);
    }

    fn end(&mut self, at: Step) {
        self.doubt(at);
        self.possible_to = self.possible_to.min(at);
    }
}

/// A subscription as a client asked for it.
#[derive(Debug, Clone)]
pub(crate) struct Subscription {
    pub(crate) filter: String,
    pub(crate) qos: u8,
    pub(crate) no_local: bool,
    pub(crate) retain_as_published: bool,
    pub(crate) retain_handling: u8,
    pub(crate) id: Option<u32>,
    pub(crate) span: Span,
}

impl Subscription {
    fn share(&self) -> Option<(&str, &str)> {
        self.filter.strip_prefix("$share/")?.split_once('/')
    }

    fn matches(&self, topic: &str) -> bool {
        matches(
            self.share().map_or(&self.filter, |(_, pattern)| pattern),
            topic,
        )
    }
}

/// Whether a filter matches a topic (§4.7).
fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(want), Some(is)) if want == is => {}
            _ => return false,
        }
    }
}

/// What an identity may do. `area` is the second level of a topic.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Rules {
    pub(crate) revoked: bool,
    pub(crate) no_connect: bool,
    pub(crate) no_publish: Option<char>,
    pub(crate) no_receive: Option<char>,
    pub(crate) no_subscribe: Option<char>,
}

pub(crate) fn area(topic: &str) -> Option<char> {
    topic.split('/').nth(1)?.chars().next()
}

impl Rules {
    pub(crate) fn may_publish(&self, topic: &str) -> bool {
        !self.revoked && !self.no_connect && self.no_publish != area(topic)
    }

    pub(crate) fn may_receive(&self, topic: &str) -> bool {
        !self.revoked && !self.no_connect && self.no_receive != area(topic)
    }

    /// Whether a filter must be refused, and whether it may be: how far a denial reaches into
    /// filters that cover more than it names is the policy language's own affair.
    fn denies_filter(&self, filter: &str) -> (bool, bool) {
        let wide = filter.starts_with("$share/") || matches!(area(filter), Some('+' | '#'));
        let must = self.no_subscribe.is_some() && self.no_subscribe == area(filter);
        (must, must || wide && self.no_subscribe.is_some())
    }

    pub(crate) fn may_connect(&self) -> bool {
        !self.revoked && !self.no_connect
    }
}

/// An identity and the rules it has had, each from a step on.
#[derive(Debug, Clone, Default)]
pub(crate) struct Principal {
    pub(crate) rules: Vec<(Step, Rules)>,
}

impl Principal {
    pub(crate) fn at(&self, step: Step) -> Rules {
        let mut before = self.rules.iter().rev();
        let found = before.find(|(from, _)| *from <= step);
        found.map(|(_, rules)| rules.clone()).unwrap_or_default()
    }

    /// Whether `holds` was so at any moment from `from` on.
    pub(crate) fn ever_since(&self, from: Step, holds: impl Fn(&Rules) -> bool) -> bool {
        let mut rules = self.rules.iter().rev();
        loop {
            match rules.next() {
                Some((_, rules)) if holds(rules) => return true,
                Some((begun, _)) if *begun > from => {}
                _ => return false,
            }
        }
    }

    pub(crate) fn always_since(&self, from: Step, holds: impl Fn(&Rules) -> bool) -> bool {
        !self.ever_since(from, |rules| !holds(rules))
    }
}

/// A message, from the moment its publisher wrote it.
#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) topic: String,
    pub(crate) payload: Vec<u8>,
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) user: Vec<(String, String)>,
    pub(crate) publisher: usize,
    pub(crate) principal: usize,
    /// The session it was published in: order holds within one.
    pub(crate) life: u64,
    pub(crate) is_will: bool,
    pub(crate) sent: Step,
    pub(crate) transmissions: u32,
    /// When it had certainly reached all queues, as far as known.
    pub(crate) routed: Step,
    /// The wall clock by which it had certainly arrived, in milliseconds; `NEVER` while unknown.
    pub(crate) arrived_ms: u64,
    pub(crate) refused: bool,
    /// A will: from when it may be published (wall clock in milliseconds), and until which step.
    pub(crate) due_ms: u64,
    pub(crate) cancelled: Step,
    /// It may be published or not, for all the model knows.
    pub(crate) disturbed: bool,
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            topic,
            qos,
            retain,
            publisher,
            is_will,
            sent,
            routed,
            ..
        } = self;
        let what = if *is_will { "will" } else { "message" };
        write!(
            f,
            "{what} to {topic}, QoS {qos}, retain {retain}, of client {publisher}, sent at {sent}, routed at "
        )?;
        match *routed {
            NEVER => f.write_str("no certain step"),
            routed => write!(f, "{routed}"),
        }
    }
}

/// What one client has of one message.
#[derive(Debug, Clone, Default)]
pub(crate) struct Got {
    pub(crate) fresh: u32,
    pub(crate) all: u32,
    /// With QoS 2, as the client counts them.
    pub(crate) exactly: u32,
    pub(crate) last: Step,
    /// The client's acknowledgement is on the broker's disk.
    pub(crate) settled: bool,
}

/// One client's session as the model sees it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    pub(crate) principal: usize,
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) got: BTreeMap<usize, Got>,
    /// Highest number first delivered of each publisher, life, topic and QoS.
    pub(crate) order: BTreeMap<(usize, u64, String, u8, u8), usize>,
    /// A message may have been dropped because this client takes no packet as long.
    pub(crate) picky: bool,
    /// When its session last ended or began, possibly.
    pub(crate) unsettled: Step,
}

/// A PUBLISH as a client received it.
#[derive(Debug)]
pub(crate) struct Delivery<'a> {
    pub(crate) topic: &'a str,
    pub(crate) payload: &'a [u8],
    pub(crate) qos: u8,
    pub(crate) retain: bool,
    pub(crate) dup: bool,
    /// The client had this packet identifier of QoS 2 already.
    pub(crate) again: bool,
    pub(crate) expiry_s: Option<u32>,
    pub(crate) ids: Vec<u32>,
    pub(crate) user: &'a [(String, String)],
    pub(crate) v5: bool,
    /// When the broker wrote it, and whether it may have made it up earlier.
    pub(crate) written: Step,
    pub(crate) written_ms: u64,
    pub(crate) late: bool,
}

/// A retained message that a subscription must bring.
#[derive(Debug, Clone)]
pub(crate) struct OwedRetained {
    pub(crate) peer: usize,
    pub(crate) message: usize,
    pub(crate) filter: String,
    pub(crate) since: Step,
    /// The connection that must still be open, where the message is not kept.
    pub(crate) connection: Option<u64>,
}

/// Everything the model knows.
#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) step: Step,
    pub(crate) now_ms: u64,
    pub(crate) principals: Vec<Principal>,
    pub(crate) peers: Vec<Peer>,
    pub(crate) messages: Vec<Message>,
    pub(crate) owed_retained: Vec<OwedRetained>,
    pub(crate) crashes: Vec<Step>,
    /// What was deleted may come back after a crash: the journal was full at some time.
    pub(crate) deletes_may_be_lost: bool,
    /// By how much the clock was set back, all in all: what is left of an expiry may grow by it.
    pub(crate) set_back_ms: u64,
    /// Messages delivered to members of a shared subscription.
    pub(crate) shared: BTreeMap<(String, usize), u32>,
    pub(crate) deliveries: u64,
}

type Verdict = Result<(), String>;

impl Model {
    fn crashed_since(&self, step: Step) -> u32 {
        self.crashes.iter().filter(|crash| **crash >= step).count() as u32
    }

    pub(crate) fn subscribing(&mut self, peer: usize, mut subscription: Subscription) -> usize {
        let step = self.step;
        let peer = &mut self.peers[peer];
        subscription.span = Span::beginning(step);
        for old in &mut peer.subscriptions {
            if old.filter == subscription.filter {
                old.span.doubt(step);
            }
        }
        peer.subscriptions.push(subscription);
        peer.subscriptions.len() - 1
    }

    /// The SUBACK has come.
    pub(crate) fn subscribed(
        &mut self,
        peer: usize,
        at: usize,
        code: u8,
        connection: u64,
        durable: bool,
    ) -> Verdict {
        let step = self.step;
        let principal = self.peers[peer].principal;
        let subscription = self.peers[peer].subscriptions[at].clone();
        let sent = subscription.span.possible_from;
        let rules = &self.principals[principal];
        let plain = subscription.share().is_none();
        let must = |rules: &Rules| rules.denies_filter(&subscription.filter).0;
        let may = |rules: &Rules| rules.denies_filter(&subscription.filter).1;
        if plain && code < 0x80 && rules.always_since(sent, must) {
            return Err(format!("{} was granted and is denied", subscription.filter));
        }
        if code >= 0x80 {
            if plain && code == 0x87 && !rules.ever_since(sent, may) {
                return Err(format!("{} was denied and is granted", subscription.filter));
            }
            self.peers[peer].subscriptions[at].span.end(step);
            return Ok(());
        }
        if code != subscription.qos {
            return Err(format!(
                "{} was granted with QoS {code}",
                subscription.filter
            ));
        }
        let existed = self.peers[peer]
            .subscriptions
            .iter()
            .take(at)
            .any(|old| old.filter == subscription.filter && old.span.possible_to >= sent);
        for old in self.peers[peer].subscriptions.iter_mut().take(at) {
            if old.filter == subscription.filter && !may_come_back(rules, old) {
                old.span.end(step);
            }
        }
        // Lost again meanwhile, by a policy that came between.
        if !rules.ever_since(sent, may) {
            self.peers[peer].subscriptions[at].span.certain_from = step;
        }
        let wanted = match subscription.retain_handling {
            0 => true,
            1 => !existed,
            _ => false,
        };
        if wanted && plain {
            self.owe_retained(peer, &subscription, connection, durable);
        }
        Ok(())
    }

    fn owe_retained(
        &mut self,
        peer: usize,
        subscription: &Subscription,
        connection: u64,
        durable: bool,
    ) {
        let sent = subscription.span.possible_from;
        let mut newest: BTreeMap<&str, (usize, bool)> = BTreeMap::new();
        for (number, message) in self.messages.iter().enumerate() {
            if !message.retain || !subscription.matches(&message.topic) {
                continue;
            }
            // The newest of a topic counts if all before it were there before it was sent, and it
            // was there before it was asked for.
            let others = newest.get(message.topic.as_str());
            let apart = others
                .is_none_or(|(other, apart)| *apart && self.messages[*other].routed < message.sent);
            let certain = apart && message.routed < sent && !message.is_will;
            newest.insert(&message.topic, (number, certain));
        }
        for (number, certain) in newest.into_values() {
            let message = &self.messages[number];
            if !certain || message.payload.is_empty() || message.expiry_s.is_some() {
                continue;
            }
            let kept =
                durable && !self.deletes_may_be_lost && message.qos.min(subscription.qos) > 0;
            self.owed_retained.push(OwedRetained {
                peer,
                message: number,
                filter: subscription.filter.clone(),
                since: sent,
                connection: (!kept).then_some(connection),
            });
        }
    }

    pub(crate) fn unsubscribing(&mut self, peer: usize, filter: &str) {
        let step = self.step;
        for old in &mut self.peers[peer].subscriptions {
            if old.filter == filter {
                old.span.doubt(step);
            }
        }
    }

    /// The UNSUBACK has come for what was asked at `sent`.
    pub(crate) fn unsubscribed(&mut self, peer: usize, filter: &str, sent: Step) {
        let step = self.step;
        if self.deletes_may_be_lost {
            return;
        }
        let rules = &self.principals[self.peers[peer].principal];
        for old in &mut self.peers[peer].subscriptions {
            // One that a policy took before is gone, and nobody waits for the disk to know it.
            let taken = rules.ever_since(old.span.possible_from, |r| r.denies_filter(filter).1);
            let taken = taken || may_come_back(rules, old);
            if old.filter == filter && old.span.possible_from <= sent && !taken {
                old.span.end(step);
            }
        }
    }

    /// The session may have ended, or come to an end it will not come back from.
    pub(crate) fn session_in_doubt(&mut self, peer: usize) {
        let step = self.step;
        let peer = &mut self.peers[peer];
        peer.unsettled = step;
        for subscription in &mut peer.subscriptions {
            subscription.span.doubt(step);
        }
    }

    /// A new session has certainly begun.
    pub(crate) fn session_begun(&mut self, peer: usize) {
        let step = self.step;
        self.session_in_doubt(peer);
        let principal = &self.principals[self.peers[peer].principal];
        for subscription in &mut self.peers[peer].subscriptions {
            if !self.deletes_may_be_lost && !may_come_back(principal, subscription) {
                subscription.span.end(step);
            }
        }
        // What the old session had counts no more against the new one.
        self.peers[peer].order.clear();
        for got in self.peers[peer].got.values_mut() {
            *got = Got {
                last: got.last,
                ..Got::default()
            };
        }
    }

    /// Rules have changed: subscriptions they deny may go now.
    pub(crate) fn rules_changed(&mut self, principal: usize, rules: Rules) {
        let step = self.step;
        for at in 0..self.peers.len() {
            if self.peers[at].principal != principal {
                continue;
            }
            if rules.revoked {
                self.session_in_doubt(at);
            }
            for subscription in &mut self.peers[at].subscriptions {
                if rules.denies_filter(&subscription.filter).1 {
                    subscription.span.doubt(step);
                }
            }
        }
        self.principals[principal].rules.push((step, rules));
    }
}

/// Whether a crash may bring back the session that a subscription was made in: one that ended because its principal
/// was revoked is not waited for when the next one begins.
fn may_come_back(principal: &Principal, subscription: &Subscription) -> bool {
    principal.ever_since(subscription.span.possible_from, |rules| rules.revoked)
}

/// The number in a payload.
fn number_of(payload: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(payload).ok()?;
    text.split(' ').next()?.parse().ok()
}
