//! The authority as it runs: an issuing key in custody, and what it signs.

mod constraints;
mod cross;
mod fitness;
mod founding;
mod issuer;
mod plan;
mod root;
mod root_key;
mod root_list;
mod rotation;
mod succession;
mod trust;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rcgen::{
    CertificateParams, CrlDistributionPoint, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use crate::blocked::BlockedKeys;
use crate::custody::{FileKey, Keyring, Signer};
use crate::error::CaError;
use crate::facts::CertificateName;
use crate::identifier::{CertificateId, Serial};
use crate::lint::{self, Meant};
use crate::pointers::{self, CrlShards, Pointers};
use crate::profile::{Profile, Rules, Subject, Usage};
use crate::public_key::PublicKey;
use crate::{pem, profile, times};

pub use issuer::IssuerNumber;
pub(crate) use issuer::{Issuer, subject_key_id};
pub use plan::{IssuingPlan, Made, Plan, RootPlan};
pub use root::RootNumber;
pub use root_list::{RootList, sign_root_list};
pub use rotation::sign_issuing_request;
pub use succession::{Successor, cross_sign};
pub use trust::RootState;
use trust::{Change, State};

/// How far a certificate's life reaches back, for devices whose clock is late, where nothing else is said.
const BACKDATED: Duration = Duration::from_secs(60);

/// Characters of the longest public URL; it stands in every device certificate.
const MAX_PUBLIC_URL_CHARS: usize = 512;

/// What the authority is called and where its lists are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityConfig {
    /// Stands in the common names of a new root and issuing certificate (`<name> Root CA`); an
    /// authority that is there already keeps its own.
    pub name: String,
    /// Where devices and their servers find lists and issuers, e.g. `http://ca.example:8880`.
    pub public_url: String,
}

/// What an authority can be told without being made anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Life of a device's certificate.
    pub device_validity: Duration,
    /// Life of the server's certificate.
    pub server_validity: Duration,
    /// Over how many lists the revocations of new certificates are spread.
    pub crl_shards: CrlShards,
    /// How far the lives of certificates and revocation lists reach back, for devices whose clock is late; of a short life a
    /// tenth at most.
    pub backdated: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            device_validity: profile::DEVICE_VALIDITY,
            server_validity: profile::SERVER_VALIDITY,
            crl_shards: CrlShards::default(),
            backdated: BACKDATED,
        }
    }
}

/// A signed certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// The certificate as DER.
    pub der: Vec<u8>,
    /// The certificate as PEM.
    pub pem: String,
    /// The certificate and the issuing one, as PEM, in the order TLS wants.
    pub chain_pem: String,
    /// Which issuing certificate signed it.
    pub issuer: IssuerNumber,
    /// The certificate's id.
    pub id: CertificateId,
    /// Its serial number.
    pub serial: Serial,
    /// First second of its life.
    pub not_before: SystemTime,
    /// Last second of its life; before the profile's term where the issuer ends earlier.
    pub not_after: SystemTime,
}

impl Issued {
    /// The certificate in the shape rustls takes.
    #[must_use]
    pub fn certificate(&self) -> CertificateDer<'static> {
        CertificateDer::from(self.der.clone())
    }
}

/// A root, the issuing certificates below it, and the custodians of their keys.
pub struct Authority {
    dir: PathBuf,
    keyring: Keyring,
    state: ArcSwap<State>,
    /// Held by whoever changes the state.
    change: Mutex<Change>,
    /// Without a slash at its end.
    public_url: String,
    terms: Terms,
    blocked: BlockedKeys,
    /// No issuing certificate that follows has this number or one before it.
    numbers_used: IssuerNumber,
    /// The root's key while an authority is founded that does not keep it.
    leaving: Mutex<Option<Arc<FileKey>>>,
    /// What the server is called by its clients, once its own certificate was asked for.
    pub(crate) server_names: ArcSwap<Vec<CertificateName>>,
}

impl Authority {
    /// The same authority with other terms for what it signs from now on.
    #[must_use]
    pub fn with_terms(mut self, terms: Terms) -> Self {
        self.terms = terms;
        self
    }

    /// The same authority, which certifies no key of these lists.
    #[must_use]
    pub fn with_blocked_keys(mut self, blocked: BlockedKeys) -> Self {
        self.blocked = blocked;
        self
    }

    /// The same authority, which gives no issuing certificate a number up to this one: certificates name theirs by it.
    #[must_use]
    pub fn with_numbers_used(mut self, up_to: IssuerNumber) -> Self {
        self.numbers_used = up_to;
        self
    }

    /// The lists of keys that it does not certify.
    #[must_use]
    pub const fn blocked_keys(&self) -> &BlockedKeys {
        &self.blocked
    }

    /// Refuses a key that is one of the authority's own, or that a list has.
    ///
    /// # Errors
    /// [`CaError::AuthorityKey`]; [`CaError::BlockedKey`]; [`CaError::BlockedKeys`] where a list cannot be asked.
    pub fn refuse_key(&self, key: &PublicKey) -> Result<(), CaError> {
        self.refuse_own_key(key)?;
        match self.blocked.find(key)? {
            Some(list) => Err(CaError::BlockedKey { list }),
            None => Ok(()),
        }
    }

    /// The terms of what it signs now.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Opens the authority in `dir`, or founds one where `dir` is missing or empty.
    ///
    /// The directory holds `root.crt`, `root.key`, `issuing.crt` and `issuing.key`, and for each
    /// issuing certificate that followed a directory `issuing-N`; it appears whole or not at all. `now`
    /// dates a new authority, and says which issuing certificate signs.
    ///
    /// # Errors
    /// A missing, truncated, exposed or foreign file is an error that names it and its mend; a new
    /// authority never takes the place of an old one.
    pub fn open_or_create(
        dir: &Path,
        config: AuthorityConfig,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        Self::open_or_create_with(dir, config, Keyring::default(), now)
    }

    /// As [`Self::open_or_create`], with keys that are kept otherwise than in the clear.
    ///
    /// # Errors
    /// As [`Self::open_or_create`]; [`CaError::Locked`] for a key that the keyring does not open;
    /// [`CaError::Custody`] when a new authority's keys cannot be made.
    pub fn open_or_create_with(
        dir: &Path,
        config: AuthorityConfig,
        keyring: Keyring,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let public_url = check_public_url(&config.public_url)?;
        if founding::is_vacant(dir)? {
            let plan = Plan {
                public_url: Some(public_url.clone()),
                ..Plan::usual(&config.name)?
            };
            founding::found(dir, plan, &keyring, now)?;
        }
        Self::open(dir, public_url, keyring, now)
    }

    /// Founds an authority by a plan, in a directory that is missing or empty. What `finish` does with it is done before
    /// it is in its place, which is the last step: where that fails there is no authority, and its keys are gone. Where it is
    /// in its place and only could not be flushed, that comes beside what `finish` answers.
    ///
    /// # Errors
    /// [`CaError::AlreadyFounded`]; [`CaError::Occupied`]; [`CaError::Invalid`] for a plan whose parts do not fit; those of
    /// [`Self::open_or_create_with`]; and what `finish` says.
    pub fn found<T, E: From<CaError>>(
        dir: &Path,
        plan: Plan,
        public_url: &str,
        keyring: Keyring,
        now: SystemTime,
        finish: impl FnOnce(&Self) -> Result<T, E>,
    ) -> Result<(T, Option<CaError>), E> {
        let public_url = check_public_url(public_url)?;
        if !founding::is_vacant(dir)? {
            return Err(CaError::AlreadyFounded {
                path: dir.to_owned(),
            }
            .into());
        }
        let mut staging = founding::stage(dir, plan, &keyring, now)?;
        let state = match founding::open(staging.path(), &keyring, now) {
            Ok(state) => state,
            Err(failed) => {
                founding::withdraw(staging, &keyring);
                return Err(failed.into());
            }
        };
        let authority = Self::of(staging.path(), state, public_url, keyring);
        *authority.leaving.lock() = staging.root_key.take().map(Arc::new);
        match finish(&authority) {
            Ok(done) => Ok((done, founding::put(staging, dir)?)),
            Err(failed) => {
                founding::withdraw(staging, &authority.keyring);
                Err(failed)
            }
        }
    }

    fn open(
        dir: &Path,
        public_url: String,
        keyring: Keyring,
        now: SystemTime,
    ) -> Result<Self, CaError> {
        let state = founding::open(dir, &keyring, now)?;
        Ok(Self::of(dir, state, public_url, keyring))
    }

    fn of(dir: &Path, state: State, public_url: String, keyring: Keyring) -> Self {
        Self {
            dir: dir.to_owned(),
            keyring,
            state: ArcSwap::from_pointee(state),
            change: Mutex::default(),
            public_url,
            terms: Terms::default(),
            blocked: BlockedKeys::default(),
            numbers_used: IssuerNumber::FIRST,
            leaving: Mutex::default(),
            server_names: ArcSwap::default(),
        }
    }

    /// Whether the issuing key could sign now.
    ///
    /// # Errors
    /// [`CaError::Custody`], with the custodian's reason.
    pub fn ready(&self) -> Result<(), CaError> {
        Ok(self.state.load().current.custody.ready()?)
    }

    /// Where lists, OCSP and issuers are found from outside; without a slash at its end.
    #[must_use]
    pub fn public_url(&self) -> &str {
        &self.public_url
    }

    /// Where a certificate of this issuer with this serial number says that its status is told.
    #[must_use]
    pub fn pointers(&self, issuer: IssuerNumber, serial: &Serial) -> Pointers {
        Pointers::at(&self.public_url, issuer, self.terms.crl_shards, serial)
    }

    /// Whether an issuing key signed this certificate (its validity and revocation are not
    /// looked at).
    #[must_use]
    pub fn signed(&self, der: &[u8]) -> bool {
        self.issuer_of(der).is_some()
    }

    /// Which issuing key signed this certificate.
    #[must_use]
    pub fn issuer_of(&self, der: &[u8]) -> Option<IssuerNumber> {
        let state = self.state.load();
        let signer = state.issuers.iter().rev().find(|one| one.signed(der))?;
        Some(signer.number)
    }

    /// Which issuing certificate a certificate in PEM names as its issuer, for what this authority
    /// is known to have signed: nothing is verified.
    #[must_use]
    pub fn issuer_named_by_pem(&self, pem: &str) -> Option<IssuerNumber> {
        let state = self.state.load();
        if let [only] = &state.issuers[..] {
            return Some(only.number);
        }
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        let named = state.issuers.iter().rev();
        Some(named.into_iter().find(|one| one.is_named_by(&der))?.number)
    }

    /// As [`Self::issuer_of`], of PEM.
    #[must_use]
    pub fn issuer_of_pem(&self, pem: &str) -> Option<IssuerNumber> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
        self.issuer_of(&der)
    }

    /// Signs a certificate for `key` by the rules of `profile`.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for a subject that the profile does not have,
    /// [`CaError::AuthorityKey`] for one of the authority's own keys,
    /// [`CaError::BlockedKey`] for one that a list has,
    /// [`CaError::OutsideIssuer`] when `now` is not in the issuing certificate's life,
    /// [`CaError::IssuerRevoked`] when its root has withdrawn it,
    /// [`CaError::Custody`] when the key cannot be used, [`CaError::Lint`] when the result is not
    /// what was meant.
    pub fn issue(
        &self,
        profile: Profile,
        subject: &Subject,
        key: &PublicKey,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        self.issue_for(profile, subject, key, Duration::MAX, now)
    }

    /// As [`Self::issue`], with a life that ends `lifetime` after `now` at the latest.
    ///
    /// # Errors
    /// As [`Self::issue`].
    pub fn issue_for(
        &self,
        profile: Profile,
        subject: &Subject,
        key: &PublicKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let issuer = self.issuer_now(now);
        self.refuse_revoked(&issuer)?;
        self.issue_under(&issuer, profile, subject, key, lifetime, now)
    }

    /// As [`Self::issue_for`], by a given issuing certificate.
    pub(crate) fn issue_under(
        &self,
        issuer: &Issuer,
        profile: Profile,
        subject: &Subject,
        key: &PublicKey,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<Issued, CaError> {
        let rules = profile.rules();
        let names = subject.check(rules)?;
        constraints::check_names(&issuer.der, &names)?;
        self.refuse_key(key)?;
        let (not_before, not_after) = self.life(issuer, rules, lifetime, now)?;
        let serial = Serial::random()?;
        let pointers = rules
            .points_to_authority
            .then(|| self.pointers(issuer.number, &serial));
        let life = (not_before, not_after);
        let params = params(rules, subject, &names, &serial, life, pointers.as_ref())?;

        let meant = Meant {
            rules,
            common_name: &subject.common_name,
            names: &names,
            key,
            serial: &serial,
            not_before,
            not_after,
            pointers: pointers.as_ref(),
            issuer: &issuer.der,
        };
        let look = |content: &[u8]| lint::check_unsigned(content, &meant);
        let signer = Signer::looking(issuer.custody.as_ref(), &look);
        let signed = rcgen::Issuer::from_ca_cert_der(&issuer.der, &signer)
            .and_then(|issuer| params.signed_by(key, &issuer));
        let der = signed
            .map_err(|error| signer.explain(error))?
            .der()
            .to_vec();

        let facts = lint::check(&der, &meant)?;
        let pem = pem::certificate(&der);
        Ok(Issued {
            chain_pem: format!("{pem}{}", issuer.chain_pem()),
            issuer: issuer.number,
            pem,
            der,
            id: facts.id,
            serial,
            not_before,
            not_after,
        })
    }

    /// The issuing certificate with this number.
    ///
    /// # Errors
    /// [`CaError::Invalid`] where there is none.
    pub(crate) fn issuer(&self, number: IssuerNumber) -> Result<Arc<Issuer>, CaError> {
        let state = self.state.load();
        state.issuer(number).cloned().ok_or_else(|| {
            let reason = "there is no issuing certificate of that number";
            CaError::invalid("issuer", &number.to_string(), reason)
        })
    }

    /// Every issuing certificate, the newest first.
    pub(crate) fn every_issuer(&self) -> Vec<Arc<Issuer>> {
        self.state.load().issuers.iter().rev().cloned().collect()
    }

    fn refuse_own_key(&self, key: &PublicKey) -> Result<(), CaError> {
        let state = self.state.load();
        let which = if state.issuers.iter().any(|one| key == one.public_key()) {
            "issuing"
        } else if state.roots.iter().any(|one| *key == one.public) {
            "root"
        } else {
            return Ok(());
        };
        Err(CaError::AuthorityKey { which })
    }

    fn validity(&self, rules: &Rules) -> Duration {
        match rules.profile {
            Profile::Device => self.terms.device_validity,
            Profile::Server => self.terms.server_validity,
            Profile::Operator | Profile::OcspResponder => rules.validity,
        }
    }

    /// A certificate's first and last second: the profile's term from a minute ago (or as configured), and nothing
    /// that its issuer does not live through.
    fn life(
        &self,
        issuer: &Issuer,
        rules: &Rules,
        lifetime: Duration,
        now: SystemTime,
    ) -> Result<(SystemTime, SystemTime), CaError> {
        let issuer = &issuer.facts;
        if !issuer.is_valid_at(now) {
            return Err(CaError::OutsideIssuer {
                now: times::readable(now),
                not_before: times::readable(issuer.not_before),
                not_after: times::readable(issuer.not_after),
            });
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(times::seconds(now)?.unsigned_abs());
        let validity = self.validity(rules);
        // Of a short life the minute would be most: who renews by the part of it that is over would renew at once.
        // In whole seconds, as certificates have them: it is held against what was signed.
        let backdated = Duration::from_secs(self.terms.backdated.min(validity / 10).as_secs());
        let not_before = (now - backdated).max(issuer.not_before);
        let term = (now + validity).min(issuer.not_after);
        let not_after = now.checked_add(lifetime).map_or(term, |end| end.min(term));
        Ok((not_before, not_after))
    }
}

fn params(
    rules: &Rules,
    subject: &Subject,
    names: &[CertificateName],
    serial: &Serial,
    (not_before, not_after): (SystemTime, SystemTime),
    pointers: Option<&Pointers>,
) -> Result<CertificateParams, CaError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(serial.as_bytes()));
    params.not_before = times::encodable(times::seconds(not_before)?)?;
    params.not_after = times::encodable(times::seconds(not_after)?)?;
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = rules.organization {
        params
            .distinguished_name
            .push(DnType::OrganizationName, organization);
    }
    params
        .distinguished_name
        .push(DnType::CommonName, subject.common_name.as_str());
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![match rules.usage {
        Usage::Client => ExtendedKeyUsagePurpose::ClientAuth,
        Usage::Server => ExtendedKeyUsagePurpose::ServerAuth,
        Usage::OcspSigning => ExtendedKeyUsagePurpose::OcspSigning,
    }];
    params.subject_alt_names = names
        .iter()
        .map(|name| {
            Ok(match name {
                CertificateName::Address(address) => SanType::IpAddress(*address),
                CertificateName::Dns(name) | CertificateName::Other(name) => {
                    SanType::DnsName(name.as_str().try_into()?)
                }
            })
        })
        .collect::<Result<_, rcgen::Error>>()?;
    params.use_authority_key_identifier_extension = true;
    if let Some(pointers) = pointers {
        params.crl_distribution_points = vec![CrlDistributionPoint {
            uris: vec![pointers.crl.clone()],
        }];
        params
            .custom_extensions
            .push(pointers::authority_information_access(pointers));
    }
    if rules.usage == Usage::OcspSigning {
        params.custom_extensions.push(pointers::ocsp_no_check());
    }
    Ok(params)
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority")
            .field("issuing", &self.state.load().current.facts.id)
            .field("public_url", &self.public_url)
            .finish_non_exhaustive()
    }
}

/// A URL as it may stand in a certificate: an IA5String, of a scheme that clients fetch. Without a slash at its end.
///
/// # Errors
/// [`CaError::Invalid`], with the reason.
pub fn check_public_url(url: &str) -> Result<String, CaError> {
    let refused = |reason: &str| CaError::invalid("public URL", url, reason);
    let host = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"))
        .ok_or_else(|| {
            refused("it begins with http:// (or https://), e.g. http://ca.example:8880")
        })?;
    if host.trim_matches('/').is_empty() || !url.bytes().all(|octet| octet.is_ascii_graphic()) {
        return Err(refused("it names a host, in ASCII and without spaces"));
    }
    if url.contains(['?', '#']) {
        return Err(refused(
            "it has no query and no fragment, because a path is put behind it",
        ));
    }
    if url.len() > MAX_PUBLIC_URL_CHARS {
        return Err(refused("it is longer than 512 characters"));
    }
    Ok(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
pub(crate) mod tests;
