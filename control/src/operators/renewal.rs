//! Operators' certificates renew themselves where their files are: those that lie beside the registry with their keys.

use std::time::{Duration, SystemTime};

use ca::{Authority, CertificateFacts, OPERATOR_VALIDITY, Profile, SecretKey, Subject};
use zeroize::Zeroizing;

use super::{IssuedCertificate, Operator, Operators};
use crate::ControlError;

/// A certificate is renewed when this part of its life is left.
const LAST_PART: u32 = 3;

/// A certificate that would last less longer is left for the next issuer to renew.
const WORTH_A_RENEWAL: Duration = Duration::from_secs(86_400);

impl Operator {
    /// The last second of its certificate's life; unknown of operators that an older release has made.
    #[must_use]
    pub fn not_after(&self) -> Option<SystemTime> {
        self.issued.as_ref().map(|issued| issued.not_after)
    }

    /// Whether its certificate is in the last third of its life, past it, or not in it yet.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        self.is_ahead(now)
            || self.not_after().is_some_and(|end| {
                end.duration_since(now)
                    .map_or(true, |left| left < OPERATOR_VALIDITY / LAST_PART)
            })
    }

    /// Whether its certificate was made while the clock stood ahead: its life is longer from now than any is.
    fn is_ahead(&self, now: SystemTime) -> bool {
        let end = self.not_after();
        end.is_some_and(|end| end > now + OPERATOR_VALIDITY + WORTH_A_RENEWAL)
    }
}

impl Operators {
    /// Whether the server renews this operator's certificate by itself.
    #[must_use]
    pub fn renews(&self, operator: &Operator) -> bool {
        self.inner
            .dir
            .join(format!("{}.key", operator.name))
            .exists()
    }

    /// Renews what is due and lies in the directory with its key, over the same key, and returns the operators as they
    /// are now. A file that cannot be used is said and left.
    ///
    /// # Errors
    /// When the authority cannot sign or the disk fails; what was renewed before that is kept.
    pub fn renew(
        &self,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<Vec<Operator>, ControlError> {
        let mut renewed = Vec::new();
        let issuer = CertificateFacts::read(&authority.issuing_der())?;
        // Nothing outlives its issuer: near the issuer's end a renewal would bring next to nothing, each time anew.
        let gains = |operator: &Operator| {
            let own = operator.not_after();
            operator.is_ahead(now)
                || own.is_none_or(|own| own + WORTH_A_RENEWAL <= issuer.not_after)
        };
        for operator in self.list().into_iter().filter(|one| one.is_due(now)) {
            if !self.renews(&operator) || !gains(&operator) {
                continue;
            }
            let path = self.inner.dir.join(format!("{}.key", operator.name));
            let key = std::fs::read(&path).map(Zeroizing::new);
            let key = match key.map(|text| SecretKey::from_pem(&text, None)) {
                Ok(Ok(key)) => key,
                Ok(Err(error)) => {
                    tracing::warn!(operator = %operator.name, %error, "an operator's certificate was not renewed");
                    continue;
                }
                Err(source) => return Err(ControlError::Read { path, source }),
            };
            renewed.extend(self.renew_one(&operator, &key, authority, now)?);
        }
        Ok(renewed)
    }

    fn renew_one(
        &self,
        operator: &Operator,
        key: &SecretKey,
        authority: &Authority,
        now: SystemTime,
    ) -> Result<Option<Operator>, ControlError> {
        let _change = self.inner.change.lock();
        // What was rotated or deleted since it was looked at is not to come back.
        let now_known = self
            .inner
            .snapshot
            .load()
            .by_name
            .get(&operator.name)
            .cloned();
        let is_same = |known: &std::sync::Arc<Operator>| {
            known.certificate == operator.certificate
                && known.key.access_key_id() == operator.key.access_key_id()
        };
        if !now_known.as_ref().is_some_and(is_same) {
            return Ok(None);
        }
        let subject = Subject {
            common_name: operator.name.to_string(),
            names: Vec::new(),
        };
        let issued = authority.issue(Profile::Operator, &subject, key.public(), now)?;
        let next = Operator {
            certificate: issued.id,
            issued: Some(IssuedCertificate::of(&issued)?),
            ..operator.clone()
        };
        // The file first: a crash in between renews again, and the certificate known is one that is there.
        let path = self.inner.dir.join(format!("{}.crt", operator.name));
        store::files::write_public(&path, issued.chain_pem.as_bytes())?;
        self.keep(|all| {
            for one in all.iter_mut().filter(|one| one.name == next.name) {
                *one = std::sync::Arc::new(next.clone());
            }
        })?;
        tracing::info!(operator = %next.name, certificate = %next.certificate, "an operator's certificate was renewed");
        Ok(Some(next))
    }
}
