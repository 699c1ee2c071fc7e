//! Who a connection or a kept session is, and what that identity may do now.

use std::sync::Arc;
use std::time::SystemTime;

use ca::CertificateId;
use fleet::{CertificateStatus, Fleet, FleetError, Standing, StandingNow};
use policy::{Grant, Variables};

use super::sessions::{Owner, SessionKey};
use crate::topic::ClientId;

/// A certificate with its standing.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) standing: Arc<Standing>,
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
        fleet: &Fleet,
        id: &CertificateId,
        common_name: Option<Box<str>>,
    ) -> Result<Self, FleetError> {
        Ok(Self {
            standing: fleet.standing(id)?,
            common_name,
        })
    }

    pub(crate) fn certificate(&self) -> CertificateId {
        *self.standing.id()
    }

    /// Whether the registry still counts the certificate as ACTIVE; its validity is another matter.
    pub(crate) fn is_active(&self) -> bool {
        self.standing.now().status == Some(CertificateStatus::Active)
    }

    /// What it may do when it is connected as `client_id`.
    pub(crate) fn grant(&self, fleet: &Fleet, now: &StandingNow, client_id: &ClientId) -> Grant {
        Grant::new(
            Arc::clone(fleet.realm()),
            Arc::clone(&now.policies),
            Variables {
                client_id: client_id.as_str().into(),
                thing_name: now.thing.as_ref().map(|thing| thing.as_str().into()),
                certificate_common_name: self.common_name.clone(),
            },
        )
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
