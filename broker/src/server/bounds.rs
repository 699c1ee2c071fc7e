//! Which bounds a session has: the listener's, unless its thing or a group of it has others.

use std::collections::BTreeMap;
use std::num::{NonZeroU16, NonZeroU32};
use std::time::Duration;

use fleet::{GroupName, StandingNow, ThingName};
use policy::Listener;

use super::limits::Limits;
use super::retained::Volume;
use super::sessions::Share;
use crate::codec::Version;
use crate::session::{Settings, V311_PENDING_MAX_MESSAGES};

/// Connections that one thing leaves to others.
const OTHERS_CONNECTIONS: usize = 64;

/// Bounds that may differ by listener and by principal; what is `None` is as it would be without.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionBounds {
    /// Bytes of one MQTT packet, header included.
    pub packet_bytes: Option<usize>,
    /// Bytes of a topic name or filter.
    pub topic_bytes: Option<usize>,
    /// Levels of a topic name or filter.
    pub topic_levels: Option<usize>,
    /// Subscriptions of one session.
    pub session_subscriptions: Option<usize>,
    /// Bytes of the filters of one session's subscriptions, all together.
    pub session_subscription_bytes: Option<usize>,
    /// Of a session's subscriptions, shared ones.
    pub session_shared_subscriptions: Option<usize>,
    /// Highest topic alias a client may use.
    pub topic_aliases: Option<u16>,
    /// Highest topic alias used towards a client that allows any.
    pub topic_aliases_outgoing: Option<u16>,
    /// Messages of QoS 1 and 2 in flight each way.
    pub session_inflight_messages: Option<u16>,
    /// The longest session expiry granted.
    pub session_expiry: Option<Duration>,
    /// The longest keep alive; 0 asked for is this.
    pub keep_alive: Option<Duration>,
    /// Connections of one thing.
    pub thing_connections: Option<usize>,
    /// Sessions of one thing without a connection.
    pub thing_parked_sessions: Option<usize>,
    /// Retained messages of one thing.
    pub thing_retained_messages: Option<usize>,
    /// Bytes of retained messages of one thing.
    pub thing_retained_bytes: Option<usize>,
}

/// The bounds of those that have bounds of their own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnBounds {
    /// Of who comes by MQTT over TLS.
    pub mqtt: SessionBounds,
    /// Of who comes by WebSocket.
    pub wss: SessionBounds,
    /// Of the things of a group. Of two groups that name the same bound the larger holds.
    pub groups: BTreeMap<GroupName, SessionBounds>,
    /// Of a thing; before its groups'.
    pub things: BTreeMap<ThingName, SessionBounds>,
}

impl SessionBounds {
    /// Where both name a bound, `other`'s.
    fn then(self, other: Self) -> Self {
        self.merge(other, &Choice::Other)
    }

    /// Where both name a bound, the larger.
    fn or_larger(self, other: Self) -> Self {
        self.merge(other, &Choice::Larger)
    }

    fn merge(self, other: Self, choice: &Choice) -> Self {
        Self {
            packet_bytes: choice.of(self.packet_bytes, other.packet_bytes),
            topic_bytes: choice.of(self.topic_bytes, other.topic_bytes),
            topic_levels: choice.of(self.topic_levels, other.topic_levels),
            session_subscriptions: choice
                .of(self.session_subscriptions, other.session_subscriptions),
            session_subscription_bytes: choice.of(
                self.session_subscription_bytes,
                other.session_subscription_bytes,
            ),
            session_shared_subscriptions: choice.of(
                self.session_shared_subscriptions,
                other.session_shared_subscriptions,
            ),
            topic_aliases: choice.of(self.topic_aliases, other.topic_aliases),
            topic_aliases_outgoing: choice
                .of(self.topic_aliases_outgoing, other.topic_aliases_outgoing),
            session_inflight_messages: choice.of(
                self.session_inflight_messages,
                other.session_inflight_messages,
            ),
            session_expiry: choice.of(self.session_expiry, other.session_expiry),
            keep_alive: choice.of(self.keep_alive, other.keep_alive),
            thing_connections: choice.of(self.thing_connections, other.thing_connections),
            thing_parked_sessions: choice
                .of(self.thing_parked_sessions, other.thing_parked_sessions),
            thing_retained_messages: choice
                .of(self.thing_retained_messages, other.thing_retained_messages),
            thing_retained_bytes: choice.of(self.thing_retained_bytes, other.thing_retained_bytes),
        }
    }
}

enum Choice {
    Other,
    Larger,
}

impl Choice {
    fn of<T: Ord>(&self, one: Option<T>, other: Option<T>) -> Option<T> {
        match self {
            Self::Other => other.or(one),
            Self::Larger => one.max(other),
        }
    }
}

/// The bounds of every session to come.
pub(crate) struct Bounds {
    base: Settings,
    sessions: Share,
    retained: Volume,
    held_bytes: usize,
    own: OwnBounds,
}

impl Bounds {
    pub(crate) fn new(limits: &Limits, aws: bool) -> Self {
        let bounds = SessionBounds {
            packet_bytes: Some(limits.packet_bytes),
            topic_bytes: Some(limits.topic_bytes),
            topic_levels: Some(limits.topic_levels),
            session_subscriptions: Some(limits.session_subscriptions),
            session_subscription_bytes: Some(limits.session_subscription_bytes),
            session_shared_subscriptions: Some(limits.session_shared_subscriptions),
            topic_aliases: Some(limits.topic_aliases),
            topic_aliases_outgoing: Some(limits.topic_aliases_outgoing),
            session_inflight_messages: Some(limits.session_inflight_messages),
            session_expiry: Some(limits.session_expiry),
            keep_alive: Some(limits.keep_alive),
            ..SessionBounds::default()
        };
        let settings = Settings {
            aws,
            ..Settings::default()
        };
        Self {
            base: apply(settings, bounds),
            sessions: Share {
                live: limits
                    .thing_connections
                    .min(limits.connections - OTHERS_CONNECTIONS.min(limits.connections / 2)),
                parked: limits.thing_parked_sessions,
            },
            retained: Volume {
                messages: limits.thing_retained_messages,
                bytes: limits.thing_retained_bytes,
            },
            held_bytes: limits.session_held_bytes,
            own: limits.own.clone(),
        }
    }

    /// The bounds of who comes this way with this standing.
    pub(crate) fn of(&self, listener: Option<Listener>, standing: &StandingNow) -> Settings {
        apply(self.base, self.own_of(listener, standing))
    }

    /// How many sessions who comes this way with this standing may have.
    pub(crate) fn sessions(&self, listener: Option<Listener>, standing: &StandingNow) -> Share {
        let own = self.own_of(listener, standing);
        Share {
            live: own.thing_connections.unwrap_or(self.sessions.live),
            parked: own.thing_parked_sessions.unwrap_or(self.sessions.parked),
        }
    }

    /// What may be retained of who came this way with this standing.
    pub(crate) fn retained(&self, listener: Option<Listener>, standing: &StandingNow) -> Volume {
        let own = self.own_of(listener, standing);
        Volume {
            messages: own
                .thing_retained_messages
                .unwrap_or(self.retained.messages),
            bytes: own.thing_retained_bytes.unwrap_or(self.retained.bytes),
        }
    }

    /// As [`Bounds::retained`], of a message of QoS 2 that is acknowledged already: there was room for it then, and meanwhile
    /// one session can have filled no more of that than it may have unreleased.
    pub(crate) fn retained_of_accepted(
        &self,
        listener: Option<Listener>,
        standing: &StandingNow,
        version: Version,
    ) -> Volume {
        let messages = match version {
            Version::V5 => self
                .of(listener, standing)
                .receive_max_messages
                .get()
                .into(),
            Version::V311 => V311_PENDING_MAX_MESSAGES,
        };
        let bytes = self.held_bytes;
        self.retained(listener, standing)
            .and(Volume { messages, bytes })
    }

    fn own_of(&self, listener: Option<Listener>, standing: &StandingNow) -> SessionBounds {
        let mut bounds = match listener {
            Some(Listener::Mqtt) => self.own.mqtt,
            Some(Listener::Wss) => self.own.wss,
            Some(Listener::Https) | None => SessionBounds::default(),
        };
        if !self.own.groups.is_empty() {
            let groups = standing.groups.iter();
            let groups = groups.filter_map(|group| self.own.groups.get(group));
            bounds = bounds
                .then(groups.fold(SessionBounds::default(), |all, group| all.or_larger(*group)));
        }
        if let Some(thing) = &standing.thing
            && let Some(own) = self.own.things.get(thing)
        {
            bounds = bounds.then(*own);
        }
        bounds
    }

    /// What holds before anybody is known.
    pub(crate) fn base(&self) -> &Settings {
        &self.base
    }

    fn all(&self) -> impl Iterator<Item = &SessionBounds> {
        let principals = self.own.groups.values().chain(self.own.things.values());
        [&self.own.mqtt, &self.own.wss]
            .into_iter()
            .chain(principals)
    }

    /// The longest packet anybody may send, in bytes.
    pub(crate) fn packet_bytes_max(&self) -> usize {
        let own = self.all().filter_map(|bounds| bounds.packet_bytes).max();
        own.unwrap_or(0)
            .max(self.base.packet_max_bytes.get() as usize)
    }

    /// The most messages anybody may have in flight.
    pub(crate) fn in_flight_max(&self) -> u16 {
        let own = self.all().filter_map(|b| b.session_inflight_messages).max();
        own.unwrap_or(0).max(self.base.in_flight_max_messages.get())
    }
}

fn apply(settings: Settings, bounds: SessionBounds) -> Settings {
    let seconds = |time: Duration| u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
    let messages = bounds
        .session_inflight_messages
        .map(|n| NonZeroU16::new(n).unwrap_or(NonZeroU16::MIN));
    let packet = bounds.packet_bytes.map(|bytes| {
        let bytes = u32::try_from(bytes).ok().and_then(NonZeroU32::new);
        bytes.unwrap_or(NonZeroU32::MAX)
    });
    let keep_alive = bounds
        .keep_alive
        .map(|time| NonZeroU16::new(u16::try_from(time.as_secs()).unwrap_or(u16::MAX)));
    Settings {
        receive_max_messages: messages.unwrap_or(settings.receive_max_messages),
        in_flight_max_messages: messages.unwrap_or(settings.in_flight_max_messages),
        packet_max_bytes: packet.unwrap_or(settings.packet_max_bytes),
        keep_alive_max_s: keep_alive.unwrap_or(settings.keep_alive_max_s),
        session_expiry_max_s: bounds
            .session_expiry
            .map_or(settings.session_expiry_max_s, seconds),
        subscriptions_max: bounds
            .session_subscriptions
            .unwrap_or(settings.subscriptions_max),
        subscription_bytes_max: bounds
            .session_subscription_bytes
            .unwrap_or(settings.subscription_bytes_max),
        shared_subscriptions_max: bounds
            .session_shared_subscriptions
            .unwrap_or(settings.shared_subscriptions_max),
        topic_alias_max: bounds.topic_aliases.unwrap_or(settings.topic_alias_max),
        topic_alias_outgoing_max: bounds
            .topic_aliases_outgoing
            .unwrap_or(settings.topic_alias_outgoing_max),
        topic_max_bytes: bounds.topic_bytes.unwrap_or(settings.topic_max_bytes),
        topic_levels_max: bounds.topic_levels.unwrap_or(settings.topic_levels_max),
        ..settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn standing(thing: &str, groups: &[&str]) -> StandingNow {
        let groups: Vec<GroupName> = groups.iter().map(|name| name.parse().unwrap()).collect();
        StandingNow {
            origin: fleet::Origin::Own,
            status: None,
            thing: Some(thing.parse().unwrap()),
            thing_facts: None,
            certificate: Arc::default(),
            groups: groups.into(),
            policies: Arc::from([]),
            by_name: None,
            networks: Arc::default(),
            posture: Arc::default(),
            not_before: std::time::SystemTime::UNIX_EPOCH,
            not_after: std::time::SystemTime::UNIX_EPOCH,
        }
    }

    fn levels(levels: usize) -> SessionBounds {
        SessionBounds {
            topic_levels: Some(levels),
            ..SessionBounds::default()
        }
    }

    #[test]
    fn the_thing_goes_before_its_groups_and_they_before_the_listener() {
        let limits = Limits {
            topic_levels: 7,
            own: OwnBounds {
                wss: levels(6),
                groups: [("small", 3), ("large", 5)]
                    .map(|(name, n)| (name.parse().unwrap(), levels(n)))
                    .into(),
                things: [("one".parse().unwrap(), levels(2))].into(),
                ..OwnBounds::default()
            },
            ..Limits::default()
        };
        let bounds = Bounds::new(&limits, false);
        for (listener, thing, groups, expected) in [
            (Listener::Mqtt, "other", &[][..], 7),
            (Listener::Wss, "other", &[], 6),
            (Listener::Wss, "other", &["small"], 3),
            (Listener::Mqtt, "other", &["elsewhere", "small"], 3),
            (Listener::Mqtt, "other", &["large", "small"], 5),
            (Listener::Mqtt, "one", &["large", "small"], 2),
        ] {
            let settings = bounds.of(Some(listener), &standing(thing, groups));
            assert_eq!(settings.topic_levels_max, expected, "{thing} {groups:?}");
            assert_eq!(settings.subscriptions_max, limits.session_subscriptions);
            let bytes = limits.session_subscription_bytes;
            assert_eq!(settings.subscription_bytes_max, bytes);
        }
    }

    #[test]
    fn a_thing_has_its_own_connections_and_leaves_some_to_others_unless_it_is_named() {
        let own = SessionBounds {
            thing_connections: Some(30),
            thing_parked_sessions: Some(70),
            ..SessionBounds::default()
        };
        let limits = Limits {
            connections: 20,
            thing_parked_sessions: 7,
            own: OwnBounds {
                things: [("gateway".parse().unwrap(), own)].into(),
                ..OwnBounds::default()
            },
            ..Limits::default()
        };
        let bounds = Bounds::new(&limits, false);
        let of = |thing| {
            let share = bounds.sessions(Some(Listener::Mqtt), &standing(thing, &[]));
            (share.live, share.parked)
        };
        assert_eq!(of("lamp"), (10, 7));
        assert_eq!(of("gateway"), (30, 70));
        let limits = Limits {
            connections: 19_204,
            ..Limits::default()
        };
        let share = Bounds::new(&limits, false).sessions(None, &standing("lamp", &[]));
        assert_eq!(share.live, 19_140);
    }

    #[test]
    fn what_a_thing_may_have_retained_is_its_own_or_that_of_all() {
        let own = SessionBounds {
            thing_retained_messages: Some(70),
            ..SessionBounds::default()
        };
        let limits = Limits {
            thing_retained_messages: 7,
            thing_retained_bytes: 1000,
            session_held_bytes: 100,
            session_inflight_messages: 3,
            own: OwnBounds {
                groups: [("large".parse().unwrap(), own)].into(),
                ..OwnBounds::default()
            },
            ..Limits::default()
        };
        let bounds = Bounds::new(&limits, false);
        let volume = |messages, bytes| Volume { messages, bytes };
        let (mqtt, one) = (Some(Listener::Mqtt), standing("one", &[]));
        assert_eq!(bounds.retained(mqtt, &one), volume(7, 1000));
        let large = standing("one", &["large"]);
        assert_eq!(bounds.retained(mqtt, &large), volume(70, 1000));
        let accepted = |version| bounds.retained_of_accepted(mqtt, &one, version);
        assert_eq!(accepted(Version::V5), volume(10, 1100));
        assert_eq!(accepted(Version::V311), volume(7 + 4096, 1100));
    }

    #[test]
    fn what_must_hold_for_all_is_the_largest_of_all() {
        let own = |packet_bytes, messages| SessionBounds {
            packet_bytes: Some(packet_bytes),
            session_inflight_messages: Some(messages),
            ..SessionBounds::default()
        };
        let mut limits = Limits {
            packet_bytes: 1000,
            session_inflight_messages: 20,
            ..Limits::default()
        };
        let max = |limits: &Limits| {
            let bounds = Bounds::new(limits, false);
            (bounds.packet_bytes_max(), bounds.in_flight_max())
        };
        assert_eq!(max(&limits), (1000, 20));
        limits.own.mqtt = own(500, 10);
        assert_eq!(max(&limits), (1000, 20));
        limits.own.things = [("a".parse().unwrap(), own(5000, 10))].into();
        limits.own.groups = [("g".parse().unwrap(), own(500, 100))].into();
        assert_eq!(max(&limits), (5000, 100));
    }
}
