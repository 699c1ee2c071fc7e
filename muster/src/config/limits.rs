//! The bounds of the broker, as the configuration file names them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::bail;
use broker::{Limits, SessionBounds};
use fleet::{GroupName, ThingName};
use serde::Deserialize;

/// `[limits]`, one key per bound of the broker; units stand in the names.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileLimits {
    pub(super) connections: Option<usize>,
    pub(super) handshakes_in_flight: Option<usize>,
    pub(super) handshake_seconds: Option<u64>,
    pub(super) packet_bytes: Option<usize>,
    pub(super) packet_seconds: Option<u64>,
    pub(super) topic_bytes: Option<usize>,
    pub(super) topic_levels: Option<usize>,
    pub(super) session_subscriptions: Option<usize>,
    pub(super) session_subscription_bytes: Option<usize>,
    pub(super) session_shared_subscriptions: Option<usize>,
    pub(super) topic_aliases: Option<u16>,
    pub(super) topic_aliases_outgoing: Option<u16>,
    pub(super) session_held_bytes: Option<usize>,
    pub(super) session_inflight_messages: Option<u16>,
    pub(super) session_queue_messages: Option<usize>,
    pub(super) session_queue_bytes: Option<usize>,
    pub(super) session_memory_bytes: Option<usize>,
    pub(super) session_expiry_seconds: Option<u64>,
    pub(super) parked_sessions: Option<usize>,
    pub(super) thing_parked_sessions: Option<usize>,
    pub(super) thing_connections: Option<usize>,
    pub(super) keep_alive_seconds: Option<u64>,
    pub(super) retained_messages: Option<usize>,
    pub(super) retained_bytes: Option<usize>,
    pub(super) thing_retained_messages: Option<usize>,
    pub(super) thing_retained_bytes: Option<usize>,
    #[serde(default)]
    pub(super) mqtt: FileBounds,
    #[serde(default)]
    pub(super) wss: FileBounds,
    #[serde(default)]
    pub(super) groups: BTreeMap<GroupName, FileBounds>,
    #[serde(default)]
    pub(super) things: BTreeMap<ThingName, FileBounds>,
}

/// `[limits.mqtt]`, `[limits.wss]`, `[limits.groups.NAME]`, `[limits.things.NAME]`: bounds of sessions that come by this
/// listener, or whose thing this is or is in this group. The thing's go before its groups' (of which the largest
/// holds), these before the listener's, these before `[limits]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FileBounds {
    pub(super) packet_bytes: Option<usize>,
    pub(super) topic_bytes: Option<usize>,
    pub(super) topic_levels: Option<usize>,
    pub(super) session_subscriptions: Option<usize>,
    pub(super) session_subscription_bytes: Option<usize>,
    pub(super) session_shared_subscriptions: Option<usize>,
    pub(super) topic_aliases: Option<u16>,
    pub(super) topic_aliases_outgoing: Option<u16>,
    pub(super) session_inflight_messages: Option<u16>,
    pub(super) session_expiry_seconds: Option<u64>,
    pub(super) keep_alive_seconds: Option<u64>,
    pub(super) thing_connections: Option<usize>,
    pub(super) thing_parked_sessions: Option<usize>,
    pub(super) thing_retained_messages: Option<usize>,
    pub(super) thing_retained_bytes: Option<usize>,
}

impl FileBounds {
    /// `table` is where it stands in the file.
    pub(super) fn read(self, table: &str) -> anyhow::Result<SessionBounds> {
        let numbers = [
            ("packet_bytes", self.packet_bytes),
            ("topic_bytes", self.topic_bytes),
            ("topic_levels", self.topic_levels),
            ("session_subscriptions", self.session_subscriptions),
            (
                "session_subscription_bytes",
                self.session_subscription_bytes,
            ),
            (
                "session_shared_subscriptions",
                self.session_shared_subscriptions,
            ),
            ("topic_aliases", self.topic_aliases.map(usize::from)),
            (
                "topic_aliases_outgoing",
                self.topic_aliases_outgoing.map(usize::from),
            ),
            (
                "session_inflight_messages",
                self.session_inflight_messages.map(usize::from),
            ),
            ("thing_connections", self.thing_connections),
            ("thing_parked_sessions", self.thing_parked_sessions),
            ("thing_retained_messages", self.thing_retained_messages),
            ("thing_retained_bytes", self.thing_retained_bytes),
        ];
        let times = [
            ("session_expiry_seconds", self.session_expiry_seconds),
            ("keep_alive_seconds", self.keep_alive_seconds),
        ];
        let zero = numbers
            .iter()
            .find_map(|(key, value)| (*value == Some(0)).then_some(key))
            .or_else(|| {
                let zero = times.iter().find(|(_, value)| *value == Some(0));
                zero.map(|(key, _)| key)
            });
        if let Some(key) = zero {
            bail!("{table}.{key} = 0: nothing would be let in; leave it out for the default");
        }
        Ok(SessionBounds {
            packet_bytes: self.packet_bytes,
            topic_bytes: self.topic_bytes,
            topic_levels: self.topic_levels,
            session_subscriptions: self.session_subscriptions,
            session_subscription_bytes: self.session_subscription_bytes,
            session_shared_subscriptions: self.session_shared_subscriptions,
            topic_aliases: self.topic_aliases,
            topic_aliases_outgoing: self.topic_aliases_outgoing,
            session_inflight_messages: self.session_inflight_messages,
            session_expiry: self.session_expiry_seconds.map(Duration::from_secs),
            keep_alive: self.keep_alive_seconds.map(Duration::from_secs),
            thing_connections: self.thing_connections,
            thing_parked_sessions: self.thing_parked_sessions,
            thing_retained_messages: self.thing_retained_messages,
            thing_retained_bytes: self.thing_retained_bytes,
        })
    }
}

impl FileLimits {
    pub(super) fn apply(self, to: &mut Limits) -> anyhow::Result<()> {
        fn set<T: PartialEq + Default>(
            to: &mut T,
            key: &str,
            value: Option<T>,
        ) -> anyhow::Result<()> {
            match value {
                Some(zero) if zero == T::default() => {
                    bail!("limits.{key} = 0: nothing would be let in; leave it out for the default")
                }
                Some(value) => *to = value,
                None => {}
            }
            Ok(())
        }
        fn seconds(to: &mut Duration, key: &str, value: Option<u64>) -> anyhow::Result<()> {
            set(to, key, value.map(Duration::from_secs))
        }
        set(&mut to.connections, "connections", self.connections)?;
        set(
            &mut to.handshakes_in_flight,
            "handshakes_in_flight",
            self.handshakes_in_flight,
        )?;
        seconds(
            &mut to.handshake_time,
            "handshake_seconds",
            self.handshake_seconds,
        )?;
        set(&mut to.packet_bytes, "packet_bytes", self.packet_bytes)?;
        seconds(&mut to.packet_time, "packet_seconds", self.packet_seconds)?;
        set(&mut to.topic_bytes, "topic_bytes", self.topic_bytes)?;
        set(&mut to.topic_levels, "topic_levels", self.topic_levels)?;
        set(
            &mut to.session_subscriptions,
            "session_subscriptions",
            self.session_subscriptions,
        )?;
        set(
            &mut to.session_subscription_bytes,
            "session_subscription_bytes",
            self.session_subscription_bytes,
        )?;
        set(
            &mut to.session_shared_subscriptions,
            "session_shared_subscriptions",
            self.session_shared_subscriptions,
        )?;
        set(&mut to.topic_aliases, "topic_aliases", self.topic_aliases)?;
        set(
            &mut to.topic_aliases_outgoing,
            "topic_aliases_outgoing",
            self.topic_aliases_outgoing,
        )?;
        set(
            &mut to.session_held_bytes,
            "session_held_bytes",
            self.session_held_bytes,
        )?;
        set(
            &mut to.session_inflight_messages,
            "session_inflight_messages",
            self.session_inflight_messages,
        )?;
        set(
            &mut to.session_queue_messages,
            "session_queue_messages",
            self.session_queue_messages,
        )?;
        set(
            &mut to.session_queue_bytes,
            "session_queue_bytes",
            self.session_queue_bytes,
        )?;
        set(
            &mut to.session_memory_bytes,
            "session_memory_bytes",
            self.session_memory_bytes,
        )?;
        seconds(
            &mut to.session_expiry,
            "session_expiry_seconds",
            self.session_expiry_seconds,
        )?;
        set(
            &mut to.parked_sessions,
            "parked_sessions",
            self.parked_sessions,
        )?;
        set(
            &mut to.thing_parked_sessions,
            "thing_parked_sessions",
            self.thing_parked_sessions,
        )?;
        set(
            &mut to.thing_connections,
            "thing_connections",
            self.thing_connections,
        )?;
        seconds(
            &mut to.keep_alive,
            "keep_alive_seconds",
            self.keep_alive_seconds,
        )?;
        set(
            &mut to.retained_messages,
            "retained_messages",
            self.retained_messages,
        )?;
        set(
            &mut to.retained_bytes,
            "retained_bytes",
            self.retained_bytes,
        )?;
        set(
            &mut to.thing_retained_messages,
            "thing_retained_messages",
            self.thing_retained_messages,
        )?;
        set(
            &mut to.thing_retained_bytes,
            "thing_retained_bytes",
            self.thing_retained_bytes,
        )?;
        to.own.mqtt = self.mqtt.read("limits.mqtt")?;
        to.own.wss = self.wss.read("limits.wss")?;
        for (name, bounds) in self.groups {
            let bounds = bounds.read(&format!("limits.groups.{name}"))?;
            to.own.groups.insert(name, bounds);
        }
        for (name, bounds) in self.things {
            let bounds = bounds.read(&format!("limits.things.{name}"))?;
            to.own.things.insert(name, bounds);
        }
        Ok(())
    }
}
