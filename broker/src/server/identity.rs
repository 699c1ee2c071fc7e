//! Who a connection or a kept session is, and what that identity may do now.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use ca::CertificateId;
use fleet::{CertificateStatus, Denial, FleetError, Heir, Standing, StandingNow};
use policy::{ConnectAttributes, Context, Explanation, Grant, Listener, TlsVersion};

use super::registry::Registry;
use super::sessions::{Owner, SessionKey};
use crate::codec::Will;
use crate::session::Proposal;
use crate::topic::ClientId;

/// A certificate with its standing.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) standing: Arc<Standing>,
    /// Where the peer is, while there is one.
    pub(crate) source_ip: Option<IpAddr>,
    /// Where it came in.
    pub(crate) listener: Option<Listener>,
    /// What its handshake agreed on.
    pub(crate) tls_version: Option<TlsVersion>,
    /// The server name it asked for.
    pub(crate) domain_name: Option<Arc<str>>,
    /// What its CONNECT asked for.
    pub(crate) connect: ConnectAttributes,
    pub(crate) common_name: Option<Box<str>>,
}

/// Why a certificate may not connect, in words for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotInGoodStanding {
    #[error("the registry does not know this certificate")]
    Unknown,
    #[error("the certificate is {}, not ACTIVE", name(*.0))]
    NotActive(CertificateStatus),
    #[error("the certificate is not valid yet: check the clocks of device and server")]
    NotYetValid,
    #[error("the certificate has expired: renew it, or check the clocks of device and server")]
    Expired,
}

fn name(status: CertificateStatus) -> &'static str {
    match status {
        CertificateStatus::Active => "ACTIVE",
        CertificateStatus::Inactive => "INACTIVE",
        CertificateStatus::Revoked => "REVOKED",
        CertificateStatus::PendingActivation => "PENDING_ACTIVATION",
    }
}

/// When the registry's word must be heard again although nothing changed: at the certificate's
/// end, or when a condition on time turns.
pub(crate) fn good_until(now: &StandingNow, grant: &Grant) -> SystemTime {
    let turn = grant
        .turns_at()
        .and_then(|second| u64::try_from(second).ok());
    let turn = turn.and_then(|second| {
        // The connection looks again after this moment, not at it.
        let before = Duration::from_secs(second).saturating_sub(Duration::from_millis(1));
        SystemTime::UNIX_EPOCH.checked_add(before)
    });
    turn.map_or(now.not_after, |turn| turn.min(now.not_after))
}

/// Whether a certificate may act at `at`.
pub(crate) fn check(now: &StandingNow, at: SystemTime) -> Result<(), NotInGoodStanding> {
    match now.status {
        None => Err(NotInGoodStanding::Unknown),
        Some(CertificateStatus::Active) if at < now.not_before => {
            Err(NotInGoodStanding::NotYetValid)
        }
        Some(CertificateStatus::Active) if at > now.not_after => Err(NotInGoodStanding::Expired),
        Some(CertificateStatus::Active) => Ok(()),
        Some(other) => Err(NotInGoodStanding::NotActive(other)),
    }
}

impl Identity {
    /// Asks the registry who a certificate is.
    pub(crate) fn find(
        registry: &dyn Registry,
        id: &CertificateId,
        common_name: Option<Box<str>>,
    ) -> Result<Self, FleetError> {
        Ok(Self {
            standing: registry.standing(id)?,
            source_ip: None,
            listener: None,
            tls_version: None,
            domain_name: None,
            connect: ConnectAttributes::default(),
            common_name,
        })
    }

    pub(crate) fn certificate(&self) -> CertificateId {
        *self.standing.id()
    }

    /// Who holds a session that this one kept on the server: the device under the certificate that is good now, which is
    /// another one once it was renewed; itself, which may do nothing, while it is deactivated. `None` where nobody may
    /// have it any more.
    pub(crate) fn heir(
        &self,
        registry: &dyn Registry,
        owner: &Owner,
    ) -> Result<Option<Self>, FleetError> {
        let id = match registry.heir(&self.certificate(), owner.thing())? {
            Heir::Certificate(id) => id,
            Heir::Withheld => self.certificate(),
            Heir::Nobody => return Ok(None),
        };
        let mut heir = self.clone();
        if id != self.certificate() {
            heir.standing = registry.standing(&id)?;
        }
        Ok(Some(heir))
    }

    /// What it may do when it is connected as `client_id`.
    pub(crate) fn grant(
        &self,
        registry: &dyn Registry,
        now: &StandingNow,
        client_id: &ClientId,
        at: SystemTime,
    ) -> Grant {
        Grant::new(
            Arc::clone(registry.realm()),
            Arc::clone(&now.policies),
            Context {
                source_ip: self.source_ip,
                listener: self.listener,
                tls_version: self.tls_version,
                domain_name: self.domain_name.clone(),
                connect: self.connect.clone(),
                ..now.context(client_id.as_str(), at)
            },
        )
    }

    /// Notes what the client asked for, for conditions on it. The region in the will's ARN is
    /// left out: a server takes any for its own.
    pub(crate) fn asked_for(&mut self, registry: &dyn Registry, proposal: &Proposal) {
        let arn = |will: &Will| {
            let account = &registry.realm().account;
            format!("arn:aws:iot::{account}:topic/{}", will.topic.as_str()).into()
        };
        self.connect = ConnectAttributes {
            persistent: proposal.expiry_s() > 0,
            last_will: proposal.will().map(arn),
        };
    }

    /// Keeps a denial that goes into the log. What stands there leads back to it.
    pub(crate) fn keep_denial(
        &self,
        registry: &dyn Registry,
        client_id: &ClientId,
        explanation: &Explanation,
        at: SystemTime,
    ) -> String {
        keep_denial(registry, &self.standing, client_id, explanation, at)
    }

    /// Whose sessions its connections are.
    pub(crate) fn session_key(&self, now: &StandingNow, client_id: &ClientId) -> SessionKey {
        SessionKey {
            owner: match &now.thing {
                Some(thing) => Owner::Thing(thing.clone()),
                None => Owner::Certificate(self.certificate()),
            },
            client_id: client_id.clone(),
        }
    }
}

/// Keeps a denial of a principal's under an id.
pub(crate) fn keep_denial(
    registry: &dyn Registry,
    standing: &Standing,
    client_id: &ClientId,
    explanation: &Explanation,
    at: SystemTime,
) -> String {
    let kept = registry.keep_denial(Denial {
        at,
        certificate: *standing.id(),
        thing: standing.now().thing.clone(),
        client_id: client_id.as_str().to_owned(),
        explanation: explanation.to_json(),
    });
    kept.unwrap_or_else(|| "none".to_owned())
}
