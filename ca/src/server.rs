//! The server's own certificate and key.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use zeroize::Zeroizing;

use crate::authority::{Authority, Issuer, IssuerNumber};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::{self, CertificateFacts, CertificateName};
use crate::key_pair::KeyPair;
use crate::profile::{self, Profile, Subject};

/// Key and chain in one file, so that they are never of two minds.
const FILE: &str = "server.pem";

/// A certificate with its chain and key, for TLS.
pub struct ServerIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: KeyPair,
    facts: CertificateFacts,
    issuer: IssuerNumber,
}

impl ServerIdentity {
    /// The server's certificate, then what leads from it to the root.
    #[must_use]
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        self.chain.clone()
    }

    /// The private key.
    #[must_use]
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        self.key.private_key_der()
    }

    /// Which issuing certificate signed it.
    #[must_use]
    pub const fn issuer(&self) -> IssuerNumber {
        self.issuer
    }

    /// What the certificate says.
    #[must_use]
    pub const fn facts(&self) -> &CertificateFacts {
        &self.facts
    }
}

impl fmt::Debug for ServerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerIdentity")
            .field("facts", &self.facts)
            .finish_non_exhaustive()
    }
}

impl Authority {
    /// Says what the server is called, before its certificate is asked for: an issuing certificate that does not permit
    /// these names is not taken.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for names that no certificate carries.
    pub fn expect_names(&self, names: &[String]) -> Result<(), CaError> {
        self.server_names
            .store(Arc::new(profile::server_names(names)?));
        Ok(())
    }

    /// The server's certificate from `dir/server.pem` (mode 0600) while it was signed by this
    /// authority below its newest root that has an issuing certificate, covers exactly `names` and has more than a third of its life before it; a new
    /// one, saved there, otherwise. The first name is the subject's common name.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for names that no certificate carries, [`CaError::File`] where `dir`
    /// cannot be read or written, and those of [`Authority::issue`].
    pub fn server_identity(
        &self,
        dir: &Path,
        names: &[String],
        now: SystemTime,
    ) -> Result<ServerIdentity, CaError> {
        let wanted = profile::server_names(names)?;
        self.server_names.store(Arc::new(wanted.clone()));
        durable::create_dir(dir)?;
        let path = dir.join(FILE);
        if let Some((text, mode)) = durable::read(&path)?
            // A key that others could read is not used again.
            && mode & 0o077 == 0
            && let Some(kept) = self.usable(&text, &wanted, now)
        {
            return Ok(kept);
        }
        self.new_identity(&path, names, &wanted, now)
    }

    fn usable(
        &self,
        text: &[u8],
        wanted: &[CertificateName],
        now: SystemTime,
    ) -> Option<ServerIdentity> {
        let key = KeyPair::from_pem(text)?;
        let leaf = CertificateDer::from_pem_slice(text).ok()?;
        let certificate = facts::parse(&leaf).ok()?;
        let facts = CertificateFacts::of(&certificate, &leaf).ok()?;
        let mut covered: Vec<_> = facts.names.iter().collect();
        let mut wanted: Vec<_> = wanted.iter().collect();
        covered.sort();
        wanted.sort();
        let issuer = self.issuer(self.issuer_of(&leaf)?).ok()?;
        let life = facts.not_after.duration_since(facts.not_before).ok()?;
        let remaining = facts.not_after.duration_since(now).ok()?;
        let usable = facts.profile() == Some(Profile::Server)
            && self.root_of(issuer.number) == self.root_of_issuing()
            // Where the one that signs is revoked too there is no better.
            && (self.issuing_revoked(issuer.number).is_none()
                || self.issuing_revoked(self.signing()).is_some())
            && certificate.public_key().raw == key.public().der()
            && covered == wanted
            && facts.not_before <= now
            && remaining > life / 3;
        usable.then(|| ServerIdentity {
            chain: self.chain(leaf.clone(), &issuer, now),
            key,
            facts,
            issuer: issuer.number,
        })
    }

    /// What a client with any root that is trusted and has not ended can follow.
    fn chain(
        &self,
        leaf: CertificateDer<'static>,
        issuer: &Issuer,
        now: SystemTime,
    ) -> Vec<CertificateDer<'static>> {
        std::iter::once(leaf)
            .chain(issuer.chain().cloned())
            .chain(self.crosses(issuer.root, now))
            .collect()
    }

    fn new_identity(
        &self,
        path: &Path,
        names: &[String],
        wanted: &[CertificateName],
        now: SystemTime,
    ) -> Result<ServerIdentity, CaError> {
        let key = KeyPair::generate()?;
        let subject = Subject {
            common_name: common_name(wanted),
            names: names.to_vec(),
        };
        let issued = self.issue(Profile::Server, &subject, key.public(), now)?;
        let secret = key.to_pem();
        let mut text = Zeroizing::new(String::with_capacity(secret.len() + issued.chain_pem.len()));
        text.push_str(&secret);
        text.push_str(&issued.chain_pem);
        durable::write(path, text.as_bytes(), Readers::Owner)?;
        Ok(ServerIdentity {
            facts: CertificateFacts::read(&issued.der)?,
            chain: self.chain(issued.certificate(), &*self.issuer(issued.issuer)?, now),
            key,
            issuer: issued.issuer,
        })
    }
}

/// The first name that fits; clients look at the names, not at this.
fn common_name(names: &[CertificateName]) -> String {
    names
        .iter()
        .map(CertificateName::to_string)
        .find(|name| name.len() <= profile::MAX_COMMON_NAME_CHARS)
        .unwrap_or_else(|| "muster".to_owned())
}

#[cfg(test)]
mod tests;
