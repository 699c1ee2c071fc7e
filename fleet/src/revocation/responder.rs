//! OCSP answers out of the registry, by a responder that is replaced before its certificate ends.

use super::RevocationFaces;
use crate::FleetError;
use ca::{CaError, IssuerNumber, OcspRefusal, OcspRequest, OcspResponder, Serial};
use parking_lot::Mutex;
use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// How long an answer is good for.
const ANSWER_LIFE: Duration = Duration::from_secs(60 * 60);
/// A stapled answer is replaced when it is this old.
const STAPLE_RENEWAL: Duration = Duration::from_secs(20 * 60);

/// The responder of now for each issuer; made when the first question comes.
#[derive(Default)]
pub(super) struct Responder {
    current: Mutex<HashMap<IssuerNumber, Arc<OcspResponder>>>,
}

/// An answer about a server's own certificate, to be shown in its handshakes.
#[derive(Debug, Clone)]
pub struct Staple {
    /// As DER.
    pub der: Vec<u8>,
    /// When it was made: before that, on a clock that was ahead then, it is good for nobody.
    pub made_at: SystemTime,
    /// From when on there should be another.
    pub renew_at: SystemTime,
}

impl RevocationFaces {
    /// Answers an OCSP request in DER, whatever it is; a refusal is an answer too.
    pub fn ocsp(&self, request: &[u8], now: SystemTime) -> Vec<u8> {
        OcspRequest::parse(request)
            .and_then(|request| self.answer(&request, now, now + ANSWER_LIFE))
            .unwrap_or_else(OcspRefusal::to_der)
    }

    /// An answer about one certificate, to be stapled.
    ///
    /// # Errors
    /// When the store fails or the issuing key cannot be used.
    pub fn staple(
        &self,
        issuer: IssuerNumber,
        serial: &Serial,
        now: SystemTime,
    ) -> Result<Staple, FleetError> {
        let responder = self.responder(issuer, now)?;
        let request = responder.request(std::slice::from_ref(serial))?;
        let der = self
            .answer(&request, now, now + ANSWER_LIFE)
            .map_err(|refusal| FleetError::Invalid(refusal.to_string()))?;
        Ok(Staple {
            der,
            made_at: now,
            renew_at: now + STAPLE_RENEWAL,
        })
    }

    /// A request about certificates of one issuer of ours, as DER.
    ///
    /// # Errors
    /// For none or more than 64; when the issuing key cannot be used.
    pub fn ocsp_request(
        &self,
        issuer: IssuerNumber,
        serials: &[Serial],
        now: SystemTime,
    ) -> Result<Vec<u8>, FleetError> {
        Ok(self.responder(issuer, now)?.request(serials)?.to_der())
    }

    fn answer(
        &self,
        request: &OcspRequest,
        now: SystemTime,
        next_update: SystemTime,
    ) -> Result<Vec<u8>, OcspRefusal> {
        let responder = self.responder_asked(request, now)?;
        responder.answer(request, now, next_update, |serial| {
            match self.inner.fleet.state_by(Some(responder.issuer()), serial) {
                Ok(state) => Some(state),
                Err(error) => {
                    tracing::error!(%serial, %error, "the registry cannot say what became of a certificate");
                    None
                }
            }
        })
    }

    /// The responder for the issuer that a request names.
    fn responder_asked(
        &self,
        request: &OcspRequest,
        now: SystemTime,
    ) -> Result<Arc<OcspResponder>, OcspRefusal> {
        for issuer in self.authority().issuers().into_iter().rev() {
            match self.responder(issuer, now) {
                Ok(responder) if responder.is_asked(request) => return Ok(responder),
                Ok(_) => {}
                // One whose certificate is over has nothing left to say; those beside it have.
                Err(FleetError::Authority(CaError::OutsideIssuer { .. })) => {}
                Err(error) => {
                    tracing::error!(%issuer, %error, "there is no OCSP responder");
                    return Err(OcspRefusal::Internal);
                }
            }
        }
        Err(OcspRefusal::Unauthorized)
    }

    fn responder(
        &self,
        issuer: IssuerNumber,
        now: SystemTime,
    ) -> Result<Arc<OcspResponder>, FleetError> {
        let mut current = self.inner.responder.current.lock();
        let known = current.get(&issuer).cloned();
        if let Some(responder) = &known
            && (responder.not_before()..responder.renew_at()).contains(&now)
        {
            return Ok(Arc::clone(responder));
        }
        match (self.authority().ocsp_responder(issuer, now), known) {
            (Ok(made), _) => {
                let made = Arc::new(made);
                current.insert(issuer, Arc::clone(&made));
                Ok(made)
            }
            // Half a life is left to mend what failed.
            (Err(error), Some(old)) if (old.not_before()..old.not_after()).contains(&now) => {
                tracing::warn!(%issuer, %error, "the OCSP responder's certificate could not be renewed");
                Ok(old)
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}
