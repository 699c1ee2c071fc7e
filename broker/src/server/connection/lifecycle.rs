//! Tells the room above what happens to a session: connected, disconnected, subscribed, unsubscribed.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Connection, End};
use crate::codec::ReasonCode;
use crate::server::clock::Clock;
use crate::server::reserved::{DisconnectReason, Lifecycle, LifecycleChange, Principal};

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub(super) fn tell(&self, change: LifecycleChange) {
        let Some(above) = self.hub.reserved.get() else {
            return;
        };
        above.lifecycle(Lifecycle {
            principal: Principal {
                certificate: self.identity.certificate(),
                thing: self.identity.standing.now().thing.clone(),
            },
            client_id: self.key.client_id.clone(),
            session: self.mailbox.number(),
            version: self.version,
            at: Clock::wall(self.hub.clock.now()),
            source: self.identity.source_ip,
            change,
        });
    }
}

impl End {
    /// Why, for those who watch.
    pub(super) fn cause(&self) -> DisconnectReason {
        match self {
            Self::Left => DisconnectReason::ClientInitiated,
            Self::Lost => DisconnectReason::ConnectionLost,
            Self::Broke(told) if told.reason == ReasonCode::KeepAliveTimeout => {
                DisconnectReason::KeepAliveTimeout
            }
            Self::Broke(_) | Self::Dripped => DisconnectReason::ClientError,
            Self::Denied(..) => DisconnectReason::Forbidden,
            Self::TakenOver => DisconnectReason::DuplicateClientId,
            Self::Revoked(_) | Self::Moved => DisconnectReason::AuthError,
            Self::Removed { .. } => DisconnectReason::ApiInitiated,
            Self::Draining | Self::Stalled => DisconnectReason::ServerInitiated,
        }
    }
}
