//! A device that asks over HTTPS, under its own client certificate: the registry is asked anew at every request.

use std::sync::Arc;
use std::time::SystemTime;

use ca::Profile;
use fleet::{Denial, Origin, Standing, ThingName};
use policy::{Action, Context, Grant, Listener, MessageFacts};

use crate::api_error::ApiError;
use crate::peer::Peer;
use crate::rooms::Rooms;

/// A device that may act now.
#[derive(Clone)]
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
            return Err(not_active());
        }
        match &now.thing {
            Some(thing) => Ok(Self {
                thing: thing.clone(),
                standing,
            }),
            None => denied("The certificate belongs to no thing.".into()),
        }
    }

    /// What its policies let it do over this connection now.
    pub(crate) fn grant(&self, rooms: &Rooms, peer: &Peer, at: SystemTime) -> Grant {
        let now = self.standing.now();
        // Over HTTPS there is no client id: a policy that asks for one allows nothing here.
        let context = Context {
            source_ip: Some(peer.address.ip()),
            listener: Some(Listener::Https),
            tls_version: peer.tls_version,
            domain_name: peer.domain_name.clone(),
            ..now.context("", at)
        };
        let realm = rooms.fleet.realm().clone();
        Grant::new(realm, Arc::clone(&now.policies), context)
    }

    /// Asks whether the certificate still stands, and the device's policies for an action on a resource, by its name, and
    /// of a message by what is known of it. What they say is recorded as on the other listeners; a refusal is kept to be
    /// explained, under the id in the log. Blocks on the registry.
    ///
    /// To be asked when the whole request is there: until its body has come, half a minute may have gone by.
    pub(crate) fn require(
        &self,
        rooms: &Rooms,
        peer: &Peer,
        (action, name): (Action, &str),
        message: &MessageFacts,
        at: SystemTime,
    ) -> Result<(), ApiError> {
        if !self.standing.now().is_active(at) {
            return Err(not_active());
        }
        let grant = self.grant(rooms, peer, at);
        let allowed = grant.decide_for(action, name, message).is_allow();
        let since = at.duration_since(SystemTime::UNIX_EPOCH);
        let second = since.map_or(0, |since| since.as_secs());
        rooms
            .fleet
            .note_request(&self.standing, action, name, allowed, second);
        if allowed {
            return Ok(());
        }
        let explanation = grant.explain_for(action, name, message);
        let reason = explanation.reason();
        if rooms.refusals.take() {
            let denial = rooms.fleet.keep_denial(Denial {
                at,
                certificate: *self.standing.id(),
                thing: Some(self.thing.clone()),
                client_id: String::new(),
                explanation: explanation.to_json(),
            });
            let denial = denial.as_deref().unwrap_or("none");
            tracing::warn!(denial, thing = %self.thing, peer = %peer.address, %action, resource = name,
                "denied over HTTPS: {reason}");
        }
        Err(ApiError::forbidden("ForbiddenException", reason))
    }
}

fn not_active() -> ApiError {
    ApiError::forbidden(
        "AccessDeniedException",
        "The registry does not know this certificate as active.",
    )
}
