//! What the operating system lets the server have, and who gets what of it.

use broker::{Limits, tls::LOBBY_PER_SEAT};
use control::{Control, ControlDescriptors};

/// File descriptors for what is none of a connection's: store, listeners, runtimes, files that are written anew. They are
/// kept back from connections, which strangers open as they like: a revocation must find one.
const OF_ITS_OWN: usize = 160;
/// The least that strangers get on HTTPS and HTTP, however many devices may be connected.
const WEB_MIN: usize = 256;
/// Of what connections may have, the part that they get at least.
const WEB_PART: usize = 38;
/// The part that operators get of their own, however many devices may be connected.
const OPERATORS_PART: usize = 512;
/// The part that devices that are merely connected leave to those that download firmware or renew their certificate.
const DOWNLOADS_PART: usize = 256;
/// The least of either, where a sixteenth is as many.
const KNOWN_MIN: usize = 16;

/// How the descriptors are shared out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Descriptors {
    /// For connections of MQTT and WebSocket, handshakes among them, and of devices on HTTPS.
    shared: usize,
    /// Of them, connections of MQTT and WebSocket.
    connections: usize,
    /// What connections of the HTTPS and the HTTP listener may hold; those of devices are among the shared ones.
    pub(super) control: ControlDescriptors,
}

impl Descriptors {
    /// Raises the soft limit on open files to the hard one and shares it out; says so where it is less than is wanted.
    pub(super) fn raise(connections: usize) -> Self {
        let limit = match rlimit::increase_nofile_limit(u64::MAX) {
            Ok(limit) => limit,
            Err(error) => {
                tracing::warn!(%error, "the limit on open files could not be raised");
                // What it is; the least that a system has where even that cannot be told.
                rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(1024, |(soft, _)| soft)
            }
        };
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let shared = Self::shared(limit, connections, Control::descriptors_wanted());
        if shared.connections < connections {
            tracing::info!(
                limit,
                "open files allow {} connections, and {} of strangers on HTTPS and HTTP; raise the hard limit for more (LimitNOFILE)",
                shared.connections,
                shared.control.strangers
            );
        }
        shared
    }

    fn shared(limit: usize, connections: usize, wanted: ControlDescriptors) -> Self {
        let room = limit - OF_ITS_OWN.min(limit / 4);
        let part = |of: usize| (room / of).max(KNOWN_MIN).min(room / 16).max(1);
        let operators = wanted.operators.min(part(OPERATORS_PART));
        let downloads = wanted.devices.min(part(DOWNLOADS_PART));
        let room = room.saturating_sub(operators);
        let least = WEB_MIN.max(room / WEB_PART).min(room / 3);
        let strangers = room
            .saturating_sub(connections.saturating_add(downloads))
            .clamp(least, wanted.strangers.max(least));
        let shared = room - strangers;
        Self {
            shared,
            connections: connections.min(shared - downloads.min(shared / 2)).max(1),
            control: ControlDescriptors {
                strangers,
                operators,
                // Nor do those leave no place to be connected.
                devices: wanted.devices.min(shared / 2),
            },
        }
    }

    /// The limits of a broker that has its part: no more connections, and few of them in a handshake, so that they do not take
    /// the places of devices. Who stands in line for one makes room for devices from elsewhere.
    pub(super) fn hold(self, mut limits: Limits) -> Limits {
        let seats = self.connections / (2 * LOBBY_PER_SEAT);
        limits.handshakes_in_flight = limits.handshakes_in_flight.min(seats.max(1));
        limits.connections = self.connections;
        limits.descriptors = self.shared;
        limits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WANTED: ControlDescriptors = ControlDescriptors {
        strangers: 40_000,
        operators: 256,
        devices: 16_384,
    };

    #[test]
    fn connections_never_get_what_the_server_needs_for_itself() {
        for limit in [16, 64, 1024, 4096, 20_000, 1_048_576, usize::MAX] {
            for connections in [1, 100, 19_000, 100_000, 1_000_000] {
                let got = Descriptors::shared(limit, connections, WANTED);
                let own = limit - got.shared - got.control.strangers - got.control.operators;
                assert!(own >= OF_ITS_OWN.min(limit / 4), "{limit} {connections}");
                assert!(got.connections >= 1 && got.control.strangers >= 1);
                assert!(got.connections <= connections.min(got.shared));
            }
        }
    }

    #[test]
    fn devices_that_are_merely_connected_keep_out_no_operator_and_no_download() {
        for limit in [160, 1024, 4096, 20_000, 1_048_576] {
            for connections in [10, 100, 1_000, 100_000, 1_000_000] {
                let got = Descriptors::shared(limit, connections, WANTED);
                let known = ((limit - OF_ITS_OWN.min(limit / 4)) / 16).min(KNOWN_MIN);
                let operators = got.control.operators;
                assert!(operators >= known.min(WANTED.operators), "{limit}");
                let left = got.shared - got.connections;
                let downloads = known.min(WANTED.devices).min(got.control.devices);
                assert!(left >= downloads, "{limit} {connections}: {left}");
                // Nor the other way round.
                assert!(got.control.devices <= got.shared / 2);
            }
        }
    }

    #[test]
    fn who_has_room_gets_all_that_is_wanted_and_a_small_limit_is_for_devices_mostly() {
        let shared = |limit, connections| Descriptors::shared(limit, connections, WANTED);
        let whole = shared(1_048_576, 100_000);
        assert_eq!((whole.connections, whole.control), (100_000, WANTED));
        let parts = |limit| {
            let shared = shared(limit, 100_000);
            let ControlDescriptors {
                strangers,
                operators,
                ..
            } = shared.control;
            (shared.connections, strangers, operators)
        };
        // 19,000 of one certificate among them, see `Limits::thing_connections`.
        assert_eq!(parts(20_000), (19_204, 521, 38));
        assert_eq!(parts(1_024), (576, 256, 16));
        // Where few connections are wanted the others get more.
        assert_eq!(shared(4_096, 1_000).connections, 1_000);
    }

    #[test]
    fn those_who_shake_hands_leave_half_of_the_places() {
        let limits = Descriptors::shared(1_024, 100_000, WANTED).hold(Limits::default());
        assert_eq!(limits.connections, 576);
        assert!(limits.handshakes_in_flight * LOBBY_PER_SEAT <= 288);
    }
}
