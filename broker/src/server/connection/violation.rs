//! What no sound device does. It is noted of the thing whose certificate did it, for policies that ask when that was last.
//! A denial is none: there the policy is at work.

use crate::codec::{ReasonCode, Version};
use crate::server::clock::Clock;
use crate::server::hub::Hub;
use crate::server::identity::Identity;

/// A publication, or a will, to `$SYS/…` and the like.
pub(crate) const SERVERS_TOPIC: &str =
    "it published to a topic of the server ($SYS/…, $share/…, or $aws itself)";

/// Whether a client that keeps to the standard, and to what CONNACK told it, is never ended with this (MQTT 5 §4.13).
fn is_one(reason: ReasonCode, version: Option<Version>) -> bool {
    match reason {
        ReasonCode::MalformedPacket | ReasonCode::ProtocolError | ReasonCode::TopicAliasInvalid => {
            true
        }
        // MQTT 3.1.1 has no word for how many may wait.
        ReasonCode::ReceiveMaximumExceeded => version == Some(Version::V5),
        _ => false,
    }
}

/// Notes that a client broke the protocol, if it did: `reason` is why its connection ends.
pub(super) fn note_broken(
    hub: &Hub,
    identity: &Identity,
    (reason, version): (ReasonCode, Option<Version>),
    text: &str,
) {
    if is_one(reason, version) {
        note(hub, identity, &format!("it broke the protocol: {text}"));
    }
}

/// Notes what a client did.
pub(super) fn note(hub: &Hub, identity: &Identity, what: &str) {
    let now = Clock::wall(hub.clock.now());
    hub.registry.note_violation(&identity.standing, what, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_to_the_standard_violates_nothing() {
        let (v5, v311) = (Some(Version::V5), Some(Version::V311));
        for (reason, version, expected) in [
            (ReasonCode::MalformedPacket, v311, true),
            (ReasonCode::MalformedPacket, None, true),
            (ReasonCode::ProtocolError, v5, true),
            (ReasonCode::ReceiveMaximumExceeded, v5, true),
            (ReasonCode::ReceiveMaximumExceeded, v311, false),
            (ReasonCode::NotAuthorized, v5, false),
            (ReasonCode::KeepAliveTimeout, v5, false),
            (ReasonCode::PacketTooLarge, v5, false),
            (ReasonCode::QuotaExceeded, v5, false),
            (ReasonCode::UnsupportedProtocolVersion, None, false),
        ] {
            assert_eq!(is_one(reason, version), expected, "{reason:?}");
        }
    }
}
