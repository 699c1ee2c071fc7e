//! A root's own revocation list: which of the issuing certificates that it signed are withdrawn (RFC 5280 §5). It lies in the
//! root's directory and is the truth of that: nobody withdraws one who has not the root's key. While that is with the server,
//! the list is made anew when it is asked for in the last third of its time; else whoever has the key makes the next one
//! ([`sign_root_list`]) and hands it in.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use x509_parser::extensions::ParsedExtension;
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use super::issuer::{Issuer, IssuerNumber, subject_key_id};
use super::root::{Root, RootNumber};
use super::trust::{Change, State};
use super::{Authority, BACKDATED};
use crate::crl::{self, RevocationReason, RevokedEntry};
use crate::custody::{Custody, FileKey};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::{self, CertificateFacts};
use crate::identifier::{CertificateId, Serial};
use crate::secret_key::SecretKey;
use crate::{pem, times};

const FILE: &str = "revoked.crl";
/// How long a list stands: the longest that the CA/Browser Forum lets pass (Baseline Requirements §4.9.7).
const LIFE: Duration = Duration::from_secs(365 * 86_400);
/// How far another clock may be ahead of this one, and how old a list is that is as good as new.
const A_DAY: Duration = Duration::from_secs(86_400);
/// Octets of a key identifier that is made up for a root without one (RFC 5280 §4.2.1.2 takes as many).
const KEY_ID_BYTES: usize = 20;

/// What a root says of the issuing certificates below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RootList {
    /// Whose it is.
    pub root: RootNumber,
    /// Grows from one list to the next.
    pub number: u64,
    /// When it was made.
    pub this_update: SystemTime,
    /// When the next comes, at the latest.
    pub next_update: SystemTime,
    /// What is revoked.
    pub entries: Vec<RevokedEntry>,
    /// As it was signed.
    pub der: Vec<u8>,
}

fn refused(reason: impl Into<String>) -> CaError {
    CaError::invalid("list of the root", "(as given)", reason)
}

impl RootList {
    /// Whether the next should be made: in the last third of its time, or where the clock was ahead.
    #[must_use]
    pub fn is_due(&self, now: SystemTime) -> bool {
        let life = self.next_update.duration_since(self.this_update);
        let left = self.next_update.duration_since(now);
        now < self.this_update || left.unwrap_or_default() < life.unwrap_or_default() / 3
    }

    /// Whether it was made in the last day, so that another would stand no longer.
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        let age = now.duration_since(self.this_update);
        age.is_ok_and(|age| age < A_DAY)
    }

    /// The list as PEM.
    #[must_use]
    pub fn pem(&self) -> String {
        pem::encode("X509 CRL", &self.der).as_str().to_owned()
    }

    fn of(&self, serial: &Serial) -> Option<&RevokedEntry> {
        self.entries.iter().find(|entry| entry.serial == *serial)
    }

    /// Reads a list that this root signed.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for one that it did not, or that speaks of less than its certificates.
    pub(super) fn read(root: &Root, der: &[u8]) -> Result<Self, CaError> {
        let Ok(([], list)) = CertificateRevocationList::from_der(der) else {
            return Err(refused("it is no whole revocation list"));
        };
        let signer = facts::parse(&root.der)?;
        if list.issuer().as_raw() != signer.subject().as_raw()
            || list.verify_signature(signer.public_key()).is_err()
        {
            return Err(refused(format!("root {} did not sign it", root.number)));
        }
        let mut number = None;
        for extension in list.extensions() {
            match extension.parsed_extension() {
                ParsedExtension::CRLNumber(found) => number = u64::try_from(found).ok(),
                ParsedExtension::IssuingDistributionPoint(point)
                    if !(point.indirect_crl
                        || point.only_contains_user_certs
                        || point.only_contains_attribute_certs
                        || point.only_some_reasons.is_some()) => {}
                _ if !extension.critical => {}
                _ => {
                    return Err(refused(
                        "it speaks of a part of the root's certificates, or of another's: a whole list is asked for",
                    ));
                }
            }
        }
        let mut entries = list.iter_revoked_certificates();
        if entries.any(|entry| entry.extensions().iter().any(|one| one.critical)) {
            return Err(refused("an entry of it has a critical extension"));
        }
        Ok(Self {
            root: root.number,
            number: number.ok_or_else(|| refused("it has no number below 2^64 (cRLNumber)"))?,
            this_update: times::system(list.last_update())?,
            next_update: list
                .next_update()
                .ok_or_else(|| refused("it does not say when the next comes"))
                .and_then(times::system)?,
            entries: crl::entries(&list)?,
            der: der.to_vec(),
        })
    }

    /// The one in a root's directory.
    pub(super) fn open(root: &Root) -> Result<Option<Arc<Self>>, CaError> {
        let path = root.place.join(FILE);
        let Some((der, _)) = durable::read(&path)? else {
            return Ok(None);
        };
        let read = Self::read(root, &der).map_err(|error| CaError::Damaged {
            path,
            problem: format!("cannot be used ({error})"),
        })?;
        Ok(Some(Arc::new(read)))
    }

    /// Puts it into a root's directory; durable on return.
    pub(super) fn write(&self, place: &Path) -> Result<(), CaError> {
        durable::write(&place.join(FILE), &self.der, Readers::Everyone)
    }

    /// The list that follows the root's present one, with one more entry where there is one.
    pub(super) fn next(
        root: &Root,
        key: &dyn Custody,
        more: Option<RevokedEntry>,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let former = root.list.as_deref();
        let mut entries = former.map_or_else(Vec::new, |list| list.entries.clone());
        entries.extend(more);
        let key_id = match subject_key_id(&root.der)? {
            Some(key_id) => key_id,
            None => CertificateId::of(root.public.der())
                .as_bytes()
                .iter()
                .take(KEY_ID_BYTES)
                .copied()
                .collect(),
        };
        let signer = crl::ListSigner {
            der: &root.der,
            key_id: &key_id,
            custody: key,
        };
        let content = crl::Content {
            number: former.map_or(1, |list| list.number.saturating_add(1)),
            entries: &entries,
            this_update: now.checked_sub(BACKDATED).unwrap_or(now),
            next_update: now + LIFE,
            urls: &[],
        };
        let (der, expected) = crl::sign(&signer, &content)?;
        // The second look.
        let slip = |what: String| CaError::Lint {
            rule: format!("the root's list does not read back as it was meant: {what}"),
        };
        let read = Self::read(root, &der).map_err(|error| slip(error.to_string()))?;
        if read.entries.len() != expected || read.number != content.number {
            return Err(slip("its entries or number are others".to_owned()));
        }
        Ok(read)
    }
}

/// Where issuing certificates below a root say that its list is found.
pub(super) fn url(public_url: &str, root: RootNumber) -> String {
    format!("{public_url}/crl/root-{root}.crl")
}

impl State {
    /// What revokes this issuing certificate: an entry of what its root signed, which is itself or what stands between.
    pub(super) fn revoked(&self, issuer: &Issuer) -> Option<&RevokedEntry> {
        let root = self.roots.iter().find(|root| root.number == issuer.root)?;
        let list = root.list.as_deref()?;
        if list.entries.is_empty() {
            return None;
        }
        let top = CertificateFacts::read(issuer.chain().last()?).ok()?;
        list.of(&top.serial)
    }
}

impl Authority {
    /// Where the list of a root is found from outside; its issuing certificates name it.
    #[must_use]
    pub fn root_list_url(&self, root: RootNumber) -> String {
        url(&self.public_url, root)
    }

    /// The same of the newest root, and of the one that will follow it.
    #[must_use]
    pub fn newest_root_list_urls(&self) -> [String; 2] {
        let newest = self.state.load().root.number;
        [newest, newest.next()].map(|number| self.root_list_url(number))
    }

    /// The newest root's list as it is, made by whoever.
    #[must_use]
    pub fn newest_root_list(&self) -> Option<Arc<RootList>> {
        self.state.load().root.list.clone()
    }

    /// A root's list: the one that is there, or where that is due and the root's key with the server, the next. `None` where
    /// there is none and no key to make it.
    ///
    /// # Errors
    /// [`CaError::Custody`] and [`CaError::File`] where none is there and none can be made.
    pub fn root_list(
        &self,
        number: RootNumber,
        now: SystemTime,
    ) -> Result<Option<Arc<RootList>>, CaError> {
        let found = |state: &State| {
            let mut roots = state.roots.iter();
            roots.find(|root| root.number == number).cloned()
        };
        let Some(root) = found(&self.state.load()) else {
            return Ok(None);
        };
        if root.list.as_ref().is_some_and(|list| !list.is_due(now)) {
            return Ok(root.list.clone());
        }
        // Whoever asks waits for no key that may be slow, where there is a list that stands.
        let change = match &root.list {
            Some(list) => match self.change.try_lock() {
                Some(change) => change,
                None => return Ok(Some(Arc::clone(list))),
            },
            None => self.change.lock(),
        };
        let state = self.state.load_full();
        let Some(root) = found(&state) else {
            return Ok(None);
        };
        let current = root.list.as_ref().filter(|list| !list.is_due(now));
        if current.is_some() || !Self::key_is_here(&root)? {
            return Ok(root.list.clone());
        }
        let made = self
            .key_of(&root)
            .and_then(|key| RootList::next(&root, key.as_ref(), None, now))
            .and_then(|list| self.put_list(&change, &state, &root, list, now));
        match (made, &root.list) {
            (Ok(list), _) => Ok(Some(list)),
            // It stands until its end.
            (Err(_), Some(former)) => Ok(Some(Arc::clone(former))),
            (Err(failed), None) => Err(failed),
        }
    }

    /// Withdraws an issuing certificate that signs no more, with the key of its root. What it signed is what the registry says;
    /// the server gives itself another certificate where its own was below it.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for one that there is not, that signs still, that another than the root signed, or that is revoked
    /// already; [`CaError::RootOffline`]; [`CaError::Custody`]; [`CaError::File`]. Nothing has changed then.
    pub fn revoke_issuing(
        &self,
        number: IssuerNumber,
        reason: RevocationReason,
        now: SystemTime,
    ) -> Result<Arc<RootList>, CaError> {
        let change = self.change.lock();
        let state = self.state.load_full();
        let refused = |reason: &str| Err(CaError::invalid("issuer", &number.to_string(), reason));
        let Some(issuer) = state.issuer(number) else {
            return refused("there is no issuing certificate of that number: see muster ca show");
        };
        if state.revoked(issuer).is_some() {
            return refused("it is revoked already");
        }
        if state.signing(now).number == number {
            return refused("it signs: muster ca rotate-issuing makes the next one first");
        }
        if !issuer.above.is_empty() {
            return refused(
                "the root did not sign it: it is on the list of the authority that did, which is not here",
            );
        }
        if reason == RevocationReason::CertificateHold {
            return refused("certificateHold is no reason to revoke for: it is for good");
        }
        let mut roots = state.roots.iter();
        let Some(root) = roots.find(|root| root.number == issuer.root) else {
            return refused("its root is not here");
        };
        let entry = RevokedEntry {
            serial: issuer.facts.serial.clone(),
            revoked_at: now,
            reason,
        };
        let list = RootList::next(root, self.key_of(root)?.as_ref(), Some(entry), now)?;
        self.put_list(&change, &state, root, list, now)
    }

    /// Takes a root's list that was signed elsewhere, PEM or DER.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for one that no root here signed, that is not newer than what is there or has ended, or that leaves
    /// out what is revoked; [`CaError::File`].
    pub fn take_root_list(&self, given: &[u8], now: SystemTime) -> Result<Arc<RootList>, CaError> {
        let der = read_der(given)?;
        let change = self.change.lock();
        let state = self.state.load_full();
        let mut first = None;
        for root in state.roots.iter().rev() {
            match RootList::read(root, &der) {
                Ok(list) => {
                    check_newer(root, &list, now)?;
                    return self.put_list(&change, &state, root, list, now);
                }
                Err(error) => first = first.or(Some(error)),
            }
        }
        Err(first.unwrap_or_else(|| refused("there is no root")))
    }

    /// What revokes an issuing certificate, if anything does.
    #[must_use]
    pub fn issuing_revoked(&self, number: IssuerNumber) -> Option<RevokedEntry> {
        let state = self.state.load();
        state.revoked(state.issuer(number)?).cloned()
    }

    /// Nothing is signed by an issuing certificate that is revoked.
    pub(super) fn refuse_revoked(&self, issuer: &Issuer) -> Result<(), CaError> {
        match self.state.load().revoked(issuer) {
            None => Ok(()),
            Some(entry) => Err(CaError::IssuerRevoked {
                number: issuer.number,
                reason: entry.reason,
            }),
        }
    }

    pub(super) fn put_list(
        &self,
        change: &Change,
        state: &State,
        root: &Root,
        list: RootList,
        now: SystemTime,
    ) -> Result<Arc<RootList>, CaError> {
        list.write(&root.place)?;
        let list = Arc::new(list);
        let mut roots = state.roots.clone();
        for one in &mut roots {
            if one.number == root.number {
                Arc::make_mut(one).list = Some(Arc::clone(&list));
            }
        }
        let next = State::new(roots, state.issuers.clone(), now)?;
        self.state.store(Arc::new(next));
        change.tell(&self.state.load());
        Ok(list)
    }
}

/// A newer list says all that the former said, and more at most: what is revoked stays so.
pub(super) fn check_newer(root: &Root, list: &RootList, now: SystemTime) -> Result<(), CaError> {
    if list.next_update <= now || list.this_update > now + A_DAY {
        return Err(refused(format!(
            "it is good from {} until {}, and it is {} now",
            times::readable(list.this_update),
            times::readable(list.next_update),
            times::readable(now)
        )));
    }
    let Some(former) = root.list.as_deref() else {
        return Ok(());
    };
    if list.number <= former.number {
        return Err(refused(format!(
            "its number is {}, and one of number {} is there already: begin with that (muster ca root-list prints it)",
            list.number, former.number
        )));
    }
    match former
        .entries
        .iter()
        .find(|entry| list.of(&entry.serial).is_none())
    {
        None => Ok(()),
        Some(entry) => Err(refused(format!(
            "it leaves out the certificate with the serial number {}, which is revoked",
            entry.serial
        ))),
    }
}

pub(super) fn read_der(given: &[u8]) -> Result<Vec<u8>, CaError> {
    if given.len() as u64 > durable::MAX_FILE_BYTES {
        return Err(refused(format!(
            "it is longer than {} octets",
            durable::MAX_FILE_BYTES
        )));
    }
    pem::crl_der(given)
}

/// Signs the next list of a root where its key is: on a machine that has no server. `former` is the list before (PEM or DER),
/// `revoke` an issuing certificate (PEM) that is withdrawn from now on. The list as PEM.
///
/// # Errors
/// [`CaError::Invalid`] for a root, key, list or certificate that is none or does not fit the others.
pub fn sign_root_list(
    root_pem: &str,
    root_key: SecretKey,
    former: Option<&[u8]>,
    revoke: Option<(&str, RevocationReason)>,
    now: SystemTime,
) -> Result<String, CaError> {
    let not_pem = |field| move |_| CaError::invalid(field, "(as given)", "it is not whole PEM");
    let der =
        CertificateDer::from_pem_slice(root_pem.as_bytes()).map_err(not_pem("root certificate"))?;
    let mut root = Root::new(RootNumber::FIRST, der, Path::new(""))?;
    if root.public != *root_key.public() {
        return Err(CaError::invalid(
            "root key",
            "(as given)",
            "it is not the key of this root",
        ));
    }
    if let Some(former) = former {
        root.list = Some(Arc::new(RootList::read(&root, &read_der(former)?)?));
    }
    let entry = match revoke {
        None => None,
        Some((certificate, reason)) => {
            let field = "issuing certificate";
            let der =
                CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(not_pem(field))?;
            let (own, signer) = (facts::parse(&der)?, facts::parse(&root.der)?);
            if own.verify_signature(Some(signer.public_key())).is_err() {
                return Err(CaError::invalid(
                    field,
                    "(as given)",
                    "this root did not sign it",
                ));
            }
            let serial = CertificateFacts::read(&der)?.serial;
            let known = root
                .list
                .as_ref()
                .is_some_and(|list| list.of(&serial).is_some());
            if known {
                return Err(CaError::invalid(
                    field,
                    "(as given)",
                    "it is revoked already",
                ));
            }
            Some(RevokedEntry {
                serial,
                revoked_at: now,
                reason,
            })
        }
    };
    let list = RootList::next(&root, &FileKey::from(root_key), entry, now)?;
    Ok(list.pem())
}

#[cfg(test)]
mod tests;
