//! Certificates that wait to be claimed: made for whoever asked, and gone an hour later if nobody proves to have.

use crate::issued::put_issued;
use crate::{
    CertificateRecord, CertificateStatus, EnrolmentWay, Fleet, FleetError, certificates::record_of,
    keys, records::Present,
};
use aws_lc_rs::{digest, rand};
use ca::{CertificateId, Csr, Issued, KeyPair};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use std::time::{Duration, SystemTime};
use store::Stored;

/// How long an ownership token is good (AWS IoT: one hour).
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Most unclaimed certificates of one claim at a time.
pub const PENDING_PER_CLAIM_LIMIT_ITEMS: usize = 1_000;
/// Longest token that is looked up.
const TOKEN_LIMIT_BYTES: usize = 128;
const TOKEN_SECRET_BYTES: usize = 32;
/// Most certificates deleted in one batch.
const SWEEP_LIMIT_ITEMS: usize = 250;

/// A certificate that was made and not claimed yet.
#[derive(Debug)]
pub struct PendingCertificate {
    /// The certificate with its chain.
    pub issued: Issued,
    /// The key, where it was made here.
    pub key: Option<KeyPair>,
    /// Proves who asked; its digest only is kept.
    pub token: String,
}

/// What a token stands for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) certificate: CertificateId,
    /// The claim that asked: the only one that may register it.
    pub(super) claim: CertificateId,
    pub(super) expires: SystemTime,
}

impl Stored for Pending {}

impl Pending {
    /// The rows that go when it is claimed or forgotten.
    pub(super) fn keys(&self, token: &str) -> [String; 3] {
        [
            keys::token(token),
            keys::pending(self.expires, &self.certificate),
            format!("{}{}", keys::pending_of(&self.claim), self.certificate),
        ]
    }
}

/// What a token is kept as; `None` for what cannot be one.
pub(super) fn digest_of(token: &str) -> Option<String> {
    let fits = !token.is_empty() && token.len() <= TOKEN_LIMIT_BYTES;
    fits.then(|| HEXLOWER.encode(digest::digest(&digest::SHA256, token.as_bytes()).as_ref()))
}

/// The value of the index by time.
#[derive(Debug, Serialize, Deserialize)]
struct TokenDigest(String);

impl Stored for TokenDigest {}

impl Fleet {
    /// Makes a certificate for a device that asks under `claim`: PENDING_ACTIVATION, with the token that claims it.
    ///
    /// # Errors
    /// [`FleetError::Csr`], [`FleetError::Authority`]; [`FleetError::Limit`] while too many wait.
    pub fn create_pending_certificate(
        &self,
        claim: &CertificateId,
        csr: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<PendingCertificate, FleetError> {
        let waiting = self.inner.table.scan(
            &keys::pending_of(claim),
            None,
            PENDING_PER_CLAIM_LIMIT_ITEMS,
        )?;
        if waiting.len() >= PENDING_PER_CLAIM_LIMIT_ITEMS {
            return Err(FleetError::Limit {
                what: "certificates this claim has asked for and not registered".into(),
                limit: PENDING_PER_CLAIM_LIMIT_ITEMS,
            });
        }
        let (issued, key) = match csr {
            Some(csr) => (self.mint_unbound(Csr::parse(csr)?.public_key(), now)?, None),
            None => {
                let pair = KeyPair::generate()?;
                (self.mint_unbound(pair.public(), now)?, Some(pair))
            }
        };
        let mut secret = [0; TOKEN_SECRET_BYTES];
        rand::fill(&mut secret)
            .map_err(|_| FleetError::Invalid("the system gives no random numbers".into()))?;
        let token = BASE64URL_NOPAD.encode(&secret);
        let digest = digest_of(&token).unwrap_or_default();
        let record = record_of(
            &issued,
            CertificateStatus::PendingActivation,
            EnrolmentWay::Claim,
            now,
        );
        let pending = Pending {
            certificate: record.id,
            claim: *claim,
            expires: now + TOKEN_LIFETIME,
        };
        let [token_key, time_key, claim_key] = pending.keys(&digest);
        self.transact(|t| {
            t.get::<CertificateRecord>(&keys::certificate(&record.id))?;
            put_issued(t, &record)?;
            t.put(token_key.clone(), &pending)?;
            t.put(time_key.clone(), &TokenDigest(digest.clone()))?;
            t.put(claim_key.clone(), &Present)
        })?;
        Ok(PendingCertificate { issued, key, token })
    }

    /// Deletes the certificates nobody has claimed in time, and lists them as revoked; how many there were.
    ///
    /// # Errors
    /// When the store fails.
    pub fn sweep_pending_certificates(&self, now: SystemTime) -> Result<usize, FleetError> {
        let mut swept = 0;
        loop {
            let due = self.due::<CertificateId>(keys::PENDING, now, SWEEP_LIMIT_ITEMS)?;
            if due.is_empty() {
                return Ok(swept);
            }
            self.transact_alone(|t| {
                for (key, id) in &due {
                    if let Some(TokenDigest(digest)) = self.read(key)?
                        && let Some(pending) = self.read::<Pending>(&keys::token(&digest))?
                    {
                        let rows = pending.keys(&digest);
                        rows.into_iter().for_each(|key| t.delete(key));
                    }
                    t.delete(key.clone());
                    let record: Option<CertificateRecord> = t.get(&keys::certificate(id))?;
                    // One that an operator has activated by hand is not forgotten.
                    if record.is_some_and(|r| r.status == CertificateStatus::PendingActivation) {
                        let target = crate::Target::Certificate(*id);
                        let (thing, policies) =
                            (self.thing_of(id)?, self.attached_policies(&target)?);
                        if thing.is_none() && policies.is_empty() {
                            self.remove_certificate(t, id, None, &[], now)?;
                        }
                    }
                }
                Ok(())
            })?;
            swept += due.len();
        }
    }

    pub(super) fn pending(&self, digest: &str) -> Result<Option<Pending>, FleetError> {
        self.read(&keys::token(digest))
    }
}
