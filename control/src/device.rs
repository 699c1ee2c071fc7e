//! A device that asks over HTTPS, under its own client certificate: the registry is asked anew at every request.

use std::sync::Arc;
use std::time::SystemTime;

use ca::Profile;
use fleet::{Origin, Standing, ThingName};

use crate::api_error::ApiError;
use crate::peer::Peer;
use crate::rooms::Rooms;

/// A device that may act now.
pub(crate) struct Device {
    pub(crate) thing: ThingName,
    pub(crate) standing: Arc<Standing>,
}

impl Device {
    /// Whom the connection's certificate belongs to; `what` is what is asked for, for the refusal. Blocks on the
    /// registry.
    pub(crate) fn identify(rooms: &Rooms, peer: &Peer, what: &str) -> Result<Self, ApiError> {
        let denied = |why: String| Err(ApiError::forbidden("AccessDeniedException", why));
        let Some(certificate) = &peer.certificate else {
            return denied(format!("{what} under a device's client certificate."));
        };
        let standing = rooms.fleet.standing(&certificate.id)?;
        let now = standing.now();
        if now.origin == Origin::Own && certificate.profile != Some(Profile::Device) {
            return denied("The client certificate is not a device's.".into());
        }
        if !now.is_active(SystemTime::now()) {
            return denied("The registry does not know this certificate as active.".into());
        }
        match &now.thing {
            Some(thing) => Ok(Self {
                thing: thing.clone(),
                standing,
            }),
            None => denied("The certificate belongs to no thing.".into()),
        }
    }
}
