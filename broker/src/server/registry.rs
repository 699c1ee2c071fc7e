//! Where the broker asks who a certificate is: the fleet, or a simulated one.

use std::sync::Arc;
use std::time::SystemTime;

use ca::CertificateId;
use fleet::{CertificateStatus, Denial, Fleet, FleetError, Heir, Standing, ThingName};
use policy::{Action, Realm};

/// Who certificates are, and the realm their policies are written for.
pub trait Registry: Send + Sync {
    /// The standing of a certificate, shared with everybody else who holds it.
    ///
    /// # Errors
    /// When the registry cannot be read: it is a refusal.
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError>;

    /// Who holds now what belonged to a certificate's device, which was this thing as far as that is known.
    ///
    /// # Errors
    /// When the registry cannot be read: it is not known.
    fn heir(&self, id: &CertificateId, _thing: Option<&ThingName>) -> Result<Heir, FleetError> {
        Ok(match self.standing(id)?.now().status {
            Some(CertificateStatus::Active) => Heir::Certificate(*id),
            Some(CertificateStatus::Inactive | CertificateStatus::PendingActivation) => {
                Heir::Withheld
            }
            Some(CertificateStatus::Revoked) | None => Heir::Nobody,
        })
    }

    /// The thing a certificate belongs to, whatever its state.
    ///
    /// # Errors
    /// When the registry cannot be read: it is not known.
    fn thing_of(&self, id: &CertificateId) -> Result<Option<ThingName>, FleetError> {
        Ok(self.standing(id)?.now().thing.clone())
    }

    /// The account that ARNs in policies must carry.
    fn realm(&self) -> &Arc<Realm>;

    /// Notes a decision that was made anew, at `now` in seconds since 1970.
    fn note_decision(&self, _: &Standing, _: Action, _name: &str, _allowed: bool, _now: u64) {}

    /// Notes how often a decision was gone by since, and when last in seconds since 1970.
    fn note_uses(&self, _: &Standing, _: Action, _name: &str, _allowed: bool, _uses: (u64, u64)) {}

    /// Notes that a principal did what no sound device does, in words. Does not block.
    fn note_violation(&self, _: &Standing, _reason: &str, _now: SystemTime) {}

    /// Keeps a denial that goes into the log; the id that explains it later. Does not block.
    fn keep_denial(&self, _denial: Denial) -> Option<String> {
        None
    }
}

impl Registry for Fleet {
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError> {
        Fleet::standing(self, id)
    }

    fn heir(&self, id: &CertificateId, thing: Option<&ThingName>) -> Result<Heir, FleetError> {
        Fleet::heir(self, id, thing)
    }

    fn thing_of(&self, id: &CertificateId) -> Result<Option<ThingName>, FleetError> {
        Fleet::thing_of(self, id)
    }

    fn realm(&self) -> &Arc<Realm> {
        Fleet::realm(self)
    }

    fn note_decision(
        &self,
        standing: &Standing,
        action: Action,
        name: &str,
        allowed: bool,
        now: u64,
    ) {
        Fleet::note_decision(self, standing, action, name, allowed, now);
    }

    fn note_uses(
        &self,
        standing: &Standing,
        action: Action,
        name: &str,
        allowed: bool,
        uses: (u64, u64),
    ) {
        Fleet::note_uses(self, standing, action, name, allowed, uses);
    }

    fn note_violation(&self, standing: &Standing, reason: &str, now: SystemTime) {
        Fleet::note_violation(self, standing, reason, now);
    }

    fn keep_denial(&self, denial: Denial) -> Option<String> {
        Fleet::keep_denial(self, denial)
    }
}
