//! What a handshake asks of a certificate that our own authority did not sign: may it come as far as the registry?

use super::AuthorityRecord;
use crate::{CertificateRecord, CertificateStatus, Fleet, FleetError, Origin, keys};
use ca::{CertificateId, ForeignAuthority, ForeignCertificate};
use std::time::SystemTime;

/// What becomes of a certificate that our own authority did not sign. What is let in here is asked for in the registry
/// like any other afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Admission {
    /// It goes on if its chain ends in this authority's certificate (DER), and in no other.
    Under(Vec<u8>),
    /// It is registered as it is, and believed by itself.
    Alone,
    /// It does not go on, for this reason.
    Refused(NotAdmitted),
}

/// Why a certificate does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.as_str())]
pub enum NotAdmitted {
    /// Nobody here knows who signed it.
    Stranger,
    /// Whoever signed it is switched off or past its life.
    AuthorityInactive,
    /// It is new, and the authority does not register by itself.
    NotRegistered,
    /// The registry does not let it in now.
    NotActive,
    /// It cannot be a device's.
    Unfit,
    /// The registry could not be read.
    Unreadable,
}

impl NotAdmitted {
    /// The reason and the mend, for the operator.
    pub fn as_str(self) -> &'static str {
        match self {
            NotAdmitted::Stranger => {
                "the client's certificate was issued by another authority, which is not registered here: give the \
                 device one of this server's (muster device create), or register the authority (RegisterCACertificate)"
            }
            NotAdmitted::AuthorityInactive => {
                "the registered authority that issued the client's certificate is INACTIVE or not valid now: activate \
                 it (UpdateCACertificate newStatus=ACTIVE), or register its renewal over the same name and key"
            }
            NotAdmitted::NotRegistered => {
                "the client's certificate is not registered, and its authority does not register by itself: register \
                 it (RegisterCertificate), or let the authority do so (UpdateCACertificate \
                 newAutoRegistrationStatus=ENABLE)"
            }
            NotAdmitted::NotActive => {
                "the client's certificate is registered and not ACTIVE: activate it (UpdateCertificate), or give the \
                 device another"
            }
            NotAdmitted::Unfit => {
                "the client's certificate is not one that a device may show: X.509 version 3, no authority's, for TLS \
                 clients where it says what it is for"
            }
            NotAdmitted::Unreadable => "the registry could not be read: the log says why",
        }
    }
}

impl Fleet {
    /// What becomes of a certificate (DER) that our own authority did not sign. `newcomers` says whether one that is
    /// new may come through to be registered.
    pub fn admit(&self, leaf: &[u8], newcomers: bool, now: SystemTime) -> Admission {
        match self.admission(leaf, newcomers, now) {
            Ok(admission) => admission,
            Err(error) => {
                tracing::error!(%error, "a certificate of another authority could not be looked up: refused");
                Admission::Refused(NotAdmitted::Unreadable)
            }
        }
    }

    fn admission(
        &self,
        leaf: &[u8],
        newcomers: bool,
        now: SystemTime,
    ) -> Result<Admission, FleetError> {
        let refused = |why| Ok(Admission::Refused(why));
        let id = CertificateId::of(leaf);
        let under = |authority: &AuthorityRecord| {
            let read = ForeignAuthority::parse(&authority.pem)?;
            Ok(Admission::Under(read.der().to_vec()))
        };
        if let Some(record) = self.read::<CertificateRecord>(&keys::certificate(&id))? {
            let authority = match record.origin {
                // Its chain was looked at already, and was not good.
                Origin::Own => return refused(NotAdmitted::Stranger),
                Origin::Alone => None,
                Origin::Authority(id) => match self.voucher(&id, now)? {
                    Some(authority) => Some(authority),
                    None => return refused(NotAdmitted::AuthorityInactive),
                },
            };
            if record.status != CertificateStatus::Active {
                return refused(NotAdmitted::NotActive);
            }
            return authority.map_or(Ok(Admission::Alone), |authority| under(&authority));
        }
        let Ok(certificate) = ForeignCertificate::read(leaf) else {
            return refused(NotAdmitted::Unfit);
        };
        match self.signer_of(&certificate, None, now)? {
            None => refused(NotAdmitted::Stranger),
            Some(authority) if !authority.is_good(now) => refused(NotAdmitted::AuthorityInactive),
            Some(authority) if newcomers && authority.auto_registration => under(&authority),
            Some(_) => refused(NotAdmitted::NotRegistered),
        }
    }
}
