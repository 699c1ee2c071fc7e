//! That a device has proven what it runs: the result of a verifier (RFC 9334) that an operator trusts, which the registry
//! keeps for its policies. It appraises nothing itself.
//!
//! A result speaks of the key that signed the evidence. So it counts for one certificate of one thing, and for a renewed
//! one only over the same key: whoever could use a device's key for a moment, and not take it along, could otherwise renew
//! to a key of his own and take the device's good name along with it.

use crate::{
    Binding, CertificateRecord, CertificateStatus, Fleet, FleetError, Health, Kind, ThingName,
    keys, registry::Transaction,
};
use ca::CertificateId;
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};

/// A verifier's word that a device has proven what it runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// The certificates it counts for: the one it was given for, and the one that renewed that over the same key.
    pub certificates: Vec<CertificateId>,
    /// When it was passed on.
    pub since: SystemTime,
    /// When it ends.
    pub until: SystemTime,
    /// Who has verified what, in an operator's words.
    pub by: Option<String>,
}

impl Attestation {
    /// Whether it counts for a certificate, while it lasts.
    pub fn is_for(&self, certificate: &CertificateId) -> bool {
        self.certificates.contains(certificate)
    }
}

/// How long attestations count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttestationTerms {
    /// One whose end nobody has named.
    pub default: Duration,
    /// The longest.
    pub longest: Duration,
}

impl Default for AttestationTerms {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        AttestationTerms {
            default: DAY,
            longest: DAY * 30,
        }
    }
}

/// What a verifier says of a device.
#[derive(Debug, Clone)]
pub struct Verdict {
    /// The certificate whose key signed the evidence; where it is left out, the thing's one active certificate.
    pub certificate: Option<CertificateId>,
    /// When it is no longer to count.
    pub until: SystemTime,
    /// Who has verified what.
    pub by: Option<String>,
}

impl Fleet {
    /// Keeps a verifier's word that a thing has proven what it runs, in place of an earlier one. Its live sessions are
    /// judged again before this returns.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] where there is no such thing, or the certificate is not its;
    /// [`FleetError::CertificateState`] where that is not active; [`FleetError::Invalid`] where none is named and the thing
    /// has not exactly one that is active.
    pub fn attest(
        &self,
        thing: &ThingName,
        verdict: &Verdict,
        now: SystemTime,
    ) -> Result<Attestation, FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let certificate = match verdict.certificate {
                Some(id) => self.require_its(t, thing, id)?,
                None => self.only_active(t, thing)?,
            };
            let attestation = Attestation {
                certificates: vec![certificate],
                since: now,
                until: verdict.until,
                by: verdict.by.clone(),
            };
            let mut health: Health = t.get(&keys::posture(thing))?.unwrap_or_default();
            health.attestation = Some(attestation.clone());
            t.put(keys::posture(thing), &health)?;
            Ok(attestation)
        })
    }

    fn require_its(
        &self,
        t: &mut Transaction<'_>,
        thing: &ThingName,
        id: CertificateId,
    ) -> Result<CertificateId, FleetError> {
        let bound: Option<Binding> = t.get(&keys::bound(&id))?;
        let record: Option<CertificateRecord> = t.get(&keys::certificate(&id))?;
        let record = record.filter(|_| bound.is_some_and(|bound| bound.thing == *thing));
        let record = record.ok_or_else(|| {
            FleetError::not_found(Kind::Certificate, format!("{id} of thing {thing}"))
        })?;
        if record.status != CertificateStatus::Active {
            return Err(FleetError::CertificateState {
                id,
                status: record.status,
                reason: "only a device with an active certificate is attested",
            });
        }
        Ok(id)
    }

    fn only_active(
        &self,
        t: &mut Transaction<'_>,
        thing: &ThingName,
    ) -> Result<CertificateId, FleetError> {
        let mut active = Vec::new();
        for id in self.all_names::<CertificateId>(&keys::principals(thing))? {
            let record: Option<CertificateRecord> = t.get(&keys::certificate(&id))?;
            let is_active = record.is_some_and(|one| one.status == CertificateStatus::Active);
            active.extend(is_active.then_some(id));
        }
        match active.as_slice() {
            [id] => Ok(*id),
            [] => Err(FleetError::Invalid(format!(
                "thing {thing} has no active certificate, so nothing it says can be attested: activate one, or give it one (device replace)"
            ))),
            several => {
                let names: Vec<String> = several.iter().map(CertificateId::to_string).collect();
                Err(FleetError::Invalid(format!(
                    "thing {thing} has {} active certificates: name the one whose key signed the evidence (certificateId; --certificate), one of {}",
                    several.len(),
                    names.join(", ")
                )))
            }
        }
    }
}

/// A certificate has been renewed: an attestation goes along where the key is the same.
pub(crate) fn follow_renewal(
    t: &mut Transaction<'_>,
    thing: &ThingName,
    before: &CertificateRecord,
    after: &CertificateRecord,
) -> Result<(), FleetError> {
    let Some(mut health) = t.get::<Health>(&keys::posture(thing))? else {
        return Ok(());
    };
    let Some(attestation) = &mut health.attestation else {
        return Ok(());
    };
    if !attestation.is_for(&before.id) || ca::key_id(&before.pem)? != ca::key_id(&after.pem)? {
        return Ok(());
    }
    attestation.certificates = vec![before.id, after.id];
    t.put(keys::posture(thing), &health)
}
