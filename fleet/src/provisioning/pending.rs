//! Certificates that wait to be claimed: made for whoever asked, and gone an hour later if nobody proves to have. A claim
//! has room for so many; who asks on and never registers loses the oldest of his own address, and keeps nobody behind another
//! from asking.

use super::place::Place;
use crate::issued::put_issued;
use crate::{
    CertificateRecord, CertificateStatus, EnrolmentWay, Fleet, FleetError, certificates::record_of,
    keys, registry::Transaction,
};
use aws_lc_rs::{digest, rand};
use ca::{CertificateId, Csr, Issued, KeyPair};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, SystemTime},
};
use store::Stored;

/// How long an ownership token is good (AWS IoT: one hour).
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(60 * 60);
/// Most unclaimed certificates of one claim at a time.
pub const PENDING_PER_CLAIM_LIMIT_ITEMS: usize = 1_000;
/// Most certificates that one place may ask for by one claim at once and not register: each stands on a revocation list
/// until it would have ended. Whoever is behind a place's address may be many, so what was in vain is forgotten again, one
/// a minute.
pub const WASTED_PER_PLACE_LIMIT_ITEMS: u32 = 1_000;
/// How long until one more may be asked for where as many were in vain as may be.
const WASTED_FORGOTTEN_EVERY: Duration = Duration::from_secs(60);
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
    /// Where the one that had to make room for it was asked for from.
    pub in_place_of: Option<String>,
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

/// The value of the index by claim.
#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    place: Place,
    expires: SystemTime,
    digest: String,
}

impl Stored for Waiting {}

/// How many of a claim's certificates a place has asked for in vain.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Wasted {
    count: u32,
    /// Until when it has been forgotten; what an earlier release has counted says nothing of it.
    #[serde(default = "long_ago")]
    at: SystemTime,
}

impl Stored for Wasted {}

fn long_ago() -> SystemTime {
    SystemTime::UNIX_EPOCH
}

impl Wasted {
    /// What of it is not forgotten yet.
    fn left(self, now: SystemTime) -> Self {
        // A clock that stood ahead when it was counted forgets from now on.
        let at = self.at.min(now);
        let since = now.duration_since(at).unwrap_or_default();
        let forgotten = since.as_secs() / WASTED_FORGOTTEN_EVERY.as_secs();
        let forgotten = u32::try_from(forgotten).unwrap_or(u32::MAX);
        match self.count.checked_sub(forgotten) {
            Some(count) => Self {
                count,
                at: at + WASTED_FORGOTTEN_EVERY * forgotten,
            },
            None => Self { count: 0, at: now },
        }
    }
}

/// The value of the index by time.
#[derive(Debug, Serialize, Deserialize)]
struct TokenDigest(String);

impl Stored for TokenDigest {}

impl Fleet {
    /// Makes a certificate for a device that asks under `claim` from an address: PENDING_ACTIVATION, with the token that
    /// claims it. Where as many wait as may, the oldest of the address with most of them is given up for it.
    ///
    /// # Errors
    /// [`FleetError::Csr`], [`FleetError::Authority`]; [`FleetError::Limit`] for an address that has asked so often and never
    /// registered.
    pub fn create_pending_certificate(
        &self,
        claim: &CertificateId,
        source: Option<IpAddr>,
        csr: Option<&[u8]>,
        now: SystemTime,
    ) -> Result<PendingCertificate, FleetError> {
        let place = Place::of(source);
        let wasted: Option<Wasted> = self.read(&keys::wasted(claim, &place))?;
        if wasted.is_some_and(|wasted| wasted.left(now).count >= WASTED_PER_PLACE_LIMIT_ITEMS) {
            return Err(FleetError::Limit {
                what: format!(
                    "certificates that {place} asked for by this claim and did not register: one is forgotten each minute, and another claim has none"
                ),
                limit: usize::try_from(WASTED_PER_PLACE_LIMIT_ITEMS).unwrap_or(usize::MAX),
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
        let waiting = Waiting {
            place,
            expires: pending.expires,
            digest: digest.clone(),
        };
        let in_place_of = self.make_room_to_ask(claim, now)?;
        self.transact(|t| {
            t.get::<CertificateRecord>(&keys::certificate(&record.id))?;
            put_issued(t, &record)?;
            t.put(token_key.clone(), &pending)?;
            t.put(time_key.clone(), &TokenDigest(digest.clone()))?;
            t.put(claim_key.clone(), &waiting)
        })?;
        Ok(PendingCertificate {
            issued,
            key,
            token,
            in_place_of: in_place_of.map(|place| place.to_string()),
        })
    }

    /// Gives up the oldest certificate of the place that has most of a claim's, where no more may wait.
    fn make_room_to_ask(
        &self,
        claim: &CertificateId,
        now: SystemTime,
    ) -> Result<Option<Place>, FleetError> {
        let prefix = keys::pending_of(claim);
        let most = PENDING_PER_CLAIM_LIMIT_ITEMS;
        let waiting = self.inner.table.scan_as::<Waiting>(&prefix, None, most)?;
        if waiting.len() < most {
            return Ok(None);
        }
        let mut places: BTreeMap<Place, usize> = BTreeMap::new();
        for (_, row) in &waiting {
            *places.entry(row.value.place).or_default() += 1;
        }
        let crowd = places.iter().max_by_key(|(_, count)| **count);
        let crowd = crowd.map(|(place, _)| *place);
        let of_crowd = waiting
            .iter()
            .filter(|(_, row)| Some(row.value.place) == crowd);
        let Some((key, row)) = of_crowd.min_by_key(|(_, row)| row.value.expires) else {
            return Ok(None);
        };
        let id = key.strip_prefix(&prefix).and_then(|id| id.parse().ok());
        self.transact_alone(|t| {
            t.delete(key.clone());
            t.delete(keys::token(&row.value.digest));
            match &id {
                Some(id) => {
                    t.delete(keys::pending(row.value.expires, id));
                    waste(t, claim, &row.value.place, now)?;
                    self.give_up(t, id, now)
                }
                None => Ok(()),
            }
        })?;
        Ok(crowd)
    }

    /// Deletes a certificate that nobody has claimed. One that an operator has activated by hand is not forgotten.
    fn give_up(
        &self,
        t: &mut Transaction<'_>,
        id: &CertificateId,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        let record: Option<CertificateRecord> = t.get(&keys::certificate(id))?;
        if record.is_some_and(|r| r.status == CertificateStatus::PendingActivation) {
            let target = crate::Target::Certificate(*id);
            let (thing, policies) = (self.thing_of(id)?, self.attached_policies(&target)?);
            if thing.is_none() && policies.is_empty() {
                self.remove_certificate(t, id, None, &[], now)?;
            }
        }
        Ok(())
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
                        let [_, _, of_claim] = &rows;
                        if let Some(waiting) = self.read::<Waiting>(of_claim)? {
                            waste(t, &pending.claim, &waiting.place, now)?;
                        }
                        rows.into_iter().for_each(|key| t.delete(key));
                    }
                    t.delete(key.clone());
                    self.give_up(t, id, now)?;
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

/// Counts one that a place has asked for in vain.
fn waste(
    t: &mut Transaction<'_>,
    claim: &CertificateId,
    place: &Place,
    now: SystemTime,
) -> Result<(), FleetError> {
    // A claim is a certificate of Muster's own kind or any other that policies let provision. One that is gone counts nothing.
    if !t.exists(&keys::certificate(claim))? {
        return Ok(());
    }
    let key = keys::wasted(claim, place);
    let mut wasted = match t.current::<Wasted>(&key)? {
        Some(wasted) => wasted.left(now),
        None => Wasted { count: 0, at: now },
    };
    wasted.count = wasted.count.saturating_add(1);
    t.put(key, &wasted)
}
