//! Issuing certificates: the one that signs now, and those before it, which still sign revocation
//! lists and delegate OCSP answers for what they issued.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};
use x509_parser::extensions::ParsedExtension;

use super::fitness;
use super::root::{Root, RootNumber};
use crate::custody::Custody;
use crate::durable;
use crate::error::CaError;
use crate::facts::{self, CertificateFacts};
use crate::pem;
use crate::public_key::PublicKey;
use crate::times;

/// Certificates of the longest chain below a root.
const MAX_CHAIN: usize = 8;

/// Which of an authority's issuing certificates: 1 is the one it was founded with, each that
/// follows has the next number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IssuerNumber(u32);

impl IssuerNumber {
    /// The one an authority was founded with.
    pub const FIRST: Self = Self(1);

    /// The number `number`; `None` for 0.
    #[must_use]
    pub const fn new(number: u32) -> Option<Self> {
        match number {
            0 => None,
            number => Some(Self(number)),
        }
    }

    pub(crate) const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl Default for IssuerNumber {
    /// The first: rows and files of before there could be others name none.
    fn default() -> Self {
        Self::FIRST
    }
}

impl fmt::Display for IssuerNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An issuing certificate with its key's custodian.
pub(crate) struct Issuer {
    pub(crate) number: IssuerNumber,
    /// The root that it leads to.
    pub(crate) root: RootNumber,
    pub(crate) der: CertificateDer<'static>,
    /// What stands between it and the root, nearest first; empty where the root signed it.
    pub(crate) above: Vec<CertificateDer<'static>>,
    pub(crate) facts: CertificateFacts,
    pub(crate) key_id: Vec<u8>,
    pub(crate) custody: Box<dyn Custody>,
}

impl Issuer {
    /// Puts a chain and its key's custodian together, after both were held against the newest root
    /// that the chain leads to.
    ///
    /// # Errors
    /// [`CaError::Invalid`], naming what does not fit.
    pub(crate) fn new(
        number: IssuerNumber,
        chain: Vec<CertificateDer<'static>>,
        roots: &[Arc<Root>],
        custody: Box<dyn Custody>,
    ) -> Result<Self, CaError> {
        let (root, chain) = below(chain, roots)?;
        let mut chain = chain.into_iter();
        let der = chain
            .next()
            .ok_or_else(|| refused("there is no certificate"))?;
        let certificate = facts::parse(&der)?;
        if certificate.public_key().raw != custody.public_key().der() {
            return Err(refused("its key is another than the private key beside it"));
        }
        let key_id =
            subject_key_id(&der)?.ok_or_else(|| refused("it has no subject key identifier"))?;
        Ok(Self {
            number,
            root,
            facts: CertificateFacts::read(&der)?,
            key_id,
            above: chain.collect(),
            der,
            custody,
        })
    }

    pub(crate) fn public_key(&self) -> &PublicKey {
        self.custody.public_key()
    }

    /// The certificate and what stands above it, as PEM, without the root.
    pub(crate) fn chain_pem(&self) -> String {
        let above = self.above.iter().map(|der| pem::certificate(der));
        std::iter::once(pem::certificate(&self.der))
            .chain(above)
            .collect()
    }

    /// The same as DER.
    pub(crate) fn chain(&self) -> impl Iterator<Item = &CertificateDer<'static>> {
        std::iter::once(&self.der).chain(&self.above)
    }

    /// Whether it is named as the issuer of a certificate and its key signed that.
    pub(crate) fn signed(&self, der: &[u8]) -> bool {
        let (Ok(certificate), Ok(issuing)) = (facts::parse(der), facts::parse(&self.der)) else {
            return false;
        };
        certificate.issuer().as_raw() == issuing.subject().as_raw()
            && certificate
                .verify_signature(Some(issuing.public_key()))
                .is_ok()
    }

    /// Whether a certificate names it as its issuer; nothing is verified.
    pub(crate) fn is_named_by(&self, der: &[u8]) -> bool {
        match (facts::parse(der), facts::parse(&self.der)) {
            (Ok(certificate), Ok(issuing)) => {
                certificate.issuer().as_raw() == issuing.subject().as_raw()
            }
            _ => false,
        }
    }
}

fn refused(reason: &str) -> CaError {
    CaError::invalid("issuing certificate", "(as given)", reason)
}

/// A chain without the root it leads to, and which that is. What does not fit is said of the newest.
fn below(
    mut chain: Vec<CertificateDer<'static>>,
    roots: &[Arc<Root>],
) -> Result<(RootNumber, Vec<CertificateDer<'static>>), CaError> {
    // The root itself may have come along.
    if chain.len() > 1 && roots.iter().any(|root| chain.last() == Some(&root.der)) {
        chain.pop();
    }
    let mut first = None;
    for root in roots.iter().rev() {
        match check_chain(&chain, &root.der) {
            Ok(()) => return Ok((root.number, chain)),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| refused("there is no root")))
}

/// Each certificate may sign others, is signed by the next, the last by the root, and none ends
/// after its signer.
pub(super) fn check_chain(
    chain: &[CertificateDer<'static>],
    root: &CertificateDer<'static>,
) -> Result<(), CaError> {
    if chain.len() > MAX_CHAIN {
        return Err(refused("its chain is longer than 8 certificates"));
    }
    for (depth, der) in chain.iter().enumerate() {
        let signer = chain.get(depth + 1).unwrap_or(root);
        let certificate = facts::parse(der)?;
        let signer_read = facts::parse(signer)?;
        let constraints = certificate
            .basic_constraints()
            .map_err(|_| refused("its basicConstraints cannot be read"))?;
        let own = CertificateFacts::read(der)?;
        let (usages, above) = (own.key_usages, CertificateFacts::read(signer)?);
        let long_enough = constraints.as_ref().is_some_and(|one| {
            let allowed = one.value.path_len_constraint;
            allowed.is_none_or(|allowed| usize::try_from(allowed).is_ok_and(|len| len >= depth))
        });
        let rules = [
            (
                own.is_ca && usages.key_cert_sign && usages.crl_sign,
                "a certificate in the chain is not an authority's (CA:TRUE, keyCertSign and cRLSign)",
            ),
            (
                long_enough,
                "the chain is longer than a certificate in it allows (pathlen)",
            ),
            (
                certificate.issuer().as_raw() == signer_read.subject().as_raw()
                    && certificate
                        .verify_signature(Some(signer_read.public_key()))
                        .is_ok(),
                "it does not lead to this authority's root: give the certificates between them too, issuing first",
            ),
            (
                own.not_after <= above.not_after && above.not_before <= own.not_after,
                "a certificate in the chain ends after the one that signed it",
            ),
        ];
        if let Some((_, rule)) = rules.into_iter().find(|(kept, _)| !kept) {
            return Err(refused(rule));
        }
    }
    Ok(())
}

/// Whether a certificate's own key signed it.
pub(crate) fn is_self_signed(der: &[u8]) -> Result<bool, CaError> {
    let certificate = facts::parse(der)?;
    let signed = certificate.verify_signature(Some(certificate.public_key()));
    Ok(signed.is_ok() && certificate.issuer().as_raw() == certificate.subject().as_raw())
}

/// The subject key identifier of a certificate.
pub(crate) fn subject_key_id(der: &[u8]) -> Result<Option<Vec<u8>>, CaError> {
    let certificate = facts::parse(der)?;
    Ok(certificate
        .iter_extensions()
        .find_map(|extension| match extension.parsed_extension() {
            ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_owned()),
            _ => None,
        }))
}

/// Certificates of a PEM text, in order.
///
/// # Errors
/// [`CaError::Invalid`] for none, more than a chain has, or anything that is not whole.
pub(crate) fn read_chain(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, CaError> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(text)
        .collect::<Result<_, _>>()
        .map_err(|_| refused("it is not whole PEM"))?;
    if chain.is_empty() || chain.len() > MAX_CHAIN + 1 {
        return Err(refused("it is 1 to 8 certificates in PEM, issuing first"));
    }
    Ok(chain)
}

/// An issuing certificate must be good at the time it is taken, one that clients follow, and of names and key that no
/// other has.
pub(crate) fn check_fresh(
    fresh: &Issuer,
    others: &[Arc<Issuer>],
    roots: &[Arc<Root>],
    now: SystemTime,
) -> Result<(), CaError> {
    if !fresh.facts.is_valid_at(now) {
        return Err(CaError::OutsideIssuer {
            now: times::readable(now),
            not_before: times::readable(fresh.facts.not_before),
            not_after: times::readable(fresh.facts.not_after),
        });
    }
    if let Some(root) = roots.iter().find(|root| root.number == fresh.root) {
        fitness::check(fresh, root, now)?;
    }
    let certificate = facts::parse(&fresh.der)?;
    let constraints = certificate.basic_constraints().ok().flatten();
    if constraints.is_none_or(|one| one.value.path_len_constraint.is_none()) {
        return Err(refused(
            "its basicConstraints have no pathlen: without one whoever has its key could make a root of it that devices follow",
        ));
    }
    let subject = |der: &CertificateDer<'static>| {
        facts::parse(der).map(|certificate| certificate.subject().as_raw().to_owned())
    };
    let own = subject(&fresh.der)?;
    let known = others
        .iter()
        .map(|other| (&other.der, other.public_key()))
        .chain(roots.iter().map(|root| (&root.der, &root.public)));
    for (der, key) in known {
        if key == fresh.public_key() {
            return Err(refused(
                "its key is one that the authority has had before: the next has a key of its own",
            ));
        }
        if subject(der)? == own {
            return Err(refused(
                "its subject is that of another certificate of the authority: clients could not tell them apart",
            ));
        }
    }
    Ok(())
}

/// A certificate file of the authority.
pub(crate) struct CertificateFile {
    pub(crate) path: PathBuf,
    /// The first certificate, then what stands above it.
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl CertificateFile {
    pub(crate) fn read(path: PathBuf) -> Result<Self, CaError> {
        let Some((text, _)) = durable::read(&path)? else {
            return Err(CaError::Missing { path });
        };
        let damaged = |problem: &str| CaError::Damaged {
            path: path.clone(),
            problem: problem.to_owned(),
        };
        let chain = read_chain(&text).map_err(|_| damaged("holds no whole certificate in PEM"))?;
        let facts = chain
            .first()
            .and_then(|der| CertificateFacts::read(der).ok())
            .ok_or_else(|| damaged("holds a certificate that cannot be read"))?;
        let usages = facts.key_usages;
        if !(facts.is_ca && usages.key_cert_sign && usages.crl_sign) {
            return Err(damaged("is not a certificate of an authority"));
        }
        Ok(Self { path, chain })
    }

    /// The certificate itself.
    pub(crate) fn der(&self) -> Result<&CertificateDer<'static>, CaError> {
        self.chain
            .first()
            .ok_or_else(|| self.damaged("holds no certificate"))
    }

    pub(crate) fn damaged(&self, problem: impl Into<String>) -> CaError {
        CaError::Damaged {
            path: self.path.clone(),
            problem: problem.into(),
        }
    }

    pub(crate) fn require_key(&self, path: &Path, key: &dyn Custody) -> Result<(), CaError> {
        if facts::parse(self.der()?)?.public_key().raw == key.public_key().der() {
            return Ok(());
        }
        Err(CaError::Damaged {
            path: path.to_owned(),
            problem: format!("is not the key of {}", self.path.display()),
        })
    }
}
