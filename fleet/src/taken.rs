//! Keys that belong to somebody who is no device. What the whole fleet was born with, or what this server or its
//! operators are known by, is no key of one device: whoever else has it would be that device.

use crate::{
    CertificateRecord, Fleet, FleetError, LIST_LIMIT_ITEMS, authorities::AuthorityRecord, keys,
    records::Present, registry::Transaction,
};
use ca::{CertificateId, PublicKey};
use serde::{Deserialize, Serialize};
use store::{Expect, Stored, Write};

/// Whose a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyOwner {
    /// A claim's, and so of every device that was born with it.
    Claim,
    /// An operator's.
    Operator,
    /// This server's, as it shows itself to clients.
    Server,
    /// A registered authority's.
    Authority,
    /// Anybody's: a certificate over it was revoked because someone else may have it.
    Compromised,
}

impl Stored for KeyOwner {}

impl KeyOwner {
    fn refusal(self) -> FleetError {
        FleetError::Key(match self {
            KeyOwner::Claim => {
                "it is the key of a claim certificate, which all devices that were born with it have"
            }
            KeyOwner::Operator => "it is an operator's",
            KeyOwner::Server => "it is this server's own",
            KeyOwner::Authority => "it is the key of a registered authority",
            KeyOwner::Compromised => {
                "a certificate over it was revoked because someone else may have it"
            }
        })
    }
}

/// The id of a key, as [`ca::key_id`] tells it of a certificate.
fn id_of(key: &PublicKey) -> String {
    CertificateId::of(key.der()).to_string()
}

/// Says whose a key is, for good: it was out of hand once.
pub(crate) fn take(t: &mut Transaction<'_>, key: &str, owner: KeyOwner) -> Result<(), FleetError> {
    match t.get::<KeyOwner>(&keys::taken(key))? {
        Some(known) if known == owner => Ok(()),
        _ => t.put(keys::taken(key), &owner),
    }
}

/// Says that a key is out of hand, unless it is somebody's who is no device and no claim, which says as much.
pub(crate) fn compromise(t: &mut Transaction<'_>, key: &str) -> Result<(), FleetError> {
    match t.get::<KeyOwner>(&keys::taken(key))? {
        None | Some(KeyOwner::Claim) => t.put(keys::taken(key), &KeyOwner::Compromised),
        Some(_) => Ok(()),
    }
}

/// Refuses a key that is out of hand, whoever is to have it.
///
/// # Errors
/// [`FleetError::Key`].
pub(crate) fn refuse_compromised(t: &mut Transaction<'_>, key: &str) -> Result<(), FleetError> {
    match t.get::<KeyOwner>(&keys::taken(key))? {
        Some(owner @ KeyOwner::Compromised) => Err(owner.refusal()),
        _ => Ok(()),
    }
}

/// Refuses a key that is somebody's who is no device.
///
/// # Errors
/// [`FleetError::Key`].
pub(crate) fn refuse(t: &mut Transaction<'_>, key: &str) -> Result<(), FleetError> {
    t.get::<KeyOwner>(&keys::taken(key))?
        .map_or(Ok(()), |owner| Err(owner.refusal()))
}

impl Fleet {
    /// Remembers whose a key is, by its id (SHA-256 of its SubjectPublicKeyInfo, hexadecimal): no device gets a
    /// certificate over it from now on. Doing so again changes nothing.
    ///
    /// # Errors
    /// When the store fails.
    pub fn note_key(&self, key: &str, owner: KeyOwner) -> Result<(), FleetError> {
        if self.read::<KeyOwner>(&keys::taken(key))? == Some(owner) {
            return Ok(());
        }
        self.transact(|t| take(t, key, owner))
    }

    /// Refuses to certify a key for a device that is somebody's else.
    ///
    /// # Errors
    /// [`FleetError::Key`].
    pub(crate) fn refuse_taken(&self, key: &PublicKey) -> Result<(), FleetError> {
        self.read::<KeyOwner>(&keys::taken(&id_of(key)))?
            .map_or(Ok(()), |owner| Err(owner.refusal()))
    }

    /// Refuses to certify a key for a claim that is one device's, or somebody's else.
    pub(crate) fn refuse_for_claim(&self, key: &PublicKey) -> Result<(), FleetError> {
        match self.refuse_taken(key) {
            Err(FleetError::Key(_)) if self.is_of_claim(key)? => {}
            other => other?,
        }
        match self.key_is_certified(&id_of(key))? {
            true => Err(FleetError::Key(
                "a device has it, and a claim's key is every device's",
            )),
            false => Ok(()),
        }
    }

    /// Refuses an authority's certificate (PEM, the first where there are several) over a key that is known as something
    /// else: a device's, a claim's, an operator's, this server's. `renewed` is for one that may be registered again over
    /// the key it had.
    ///
    /// # Errors
    /// [`FleetError::Invalid`].
    pub fn refuse_for_authority(&self, pem: &str, renewed: bool) -> Result<(), FleetError> {
        // What is no certificate is refused by who takes it.
        let Ok(key) = ca::key_id(pem) else {
            return Ok(());
        };
        let owner: Option<KeyOwner> = self.read(&keys::taken(&key))?;
        let known = owner.is_some_and(|owner| !(renewed && owner == KeyOwner::Authority));
        if known || self.key_is_certified(&key)? {
            return Err(FleetError::Invalid(
                "the certificate's key is known here as a device's, a claim's, an operator's, this server's or a registered authority's: an authority has a key of its own".into(),
            ));
        }
        Ok(())
    }

    fn is_of_claim(&self, key: &PublicKey) -> Result<bool, FleetError> {
        let owner: Option<KeyOwner> = self.read(&keys::taken(&id_of(key)))?;
        Ok(owner == Some(KeyOwner::Claim))
    }
}

/// Once, for a registry of before such keys were looked up.
pub(crate) fn index(fleet: &Fleet) -> Result<(), FleetError> {
    if fleet.read::<Present>(keys::TAKEN_INDEXED)?.is_some() {
        return Ok(());
    }
    let write = |found: Vec<(String, KeyOwner)>| -> Result<(), FleetError> {
        let rows = found
            .iter()
            .map(|(pem, owner)| {
                let key = keys::taken(&ca::key_id(pem)?);
                Ok(Write::put(key, owner, Expect::Any)?)
            })
            .collect::<Result<Vec<_>, FleetError>>()?;
        if !rows.is_empty() {
            fleet.inner.table.batch(&rows)?;
        }
        Ok(())
    };
    let mut after = None;
    loop {
        let page = fleet.claims(after.as_deref(), LIST_LIMIT_ITEMS)?;
        let mut found = Vec::with_capacity(page.items.len());
        for claim in page.items {
            let record: Option<CertificateRecord> = fleet.read(&keys::certificate(&claim.id))?;
            found.extend(record.map(|record| (record.pem, KeyOwner::Claim)));
        }
        write(found)?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    loop {
        let page = fleet.registered_authorities(after.as_deref(), LIST_LIMIT_ITEMS)?;
        let of = |record: AuthorityRecord| (record.pem, KeyOwner::Authority);
        write(page.items.into_iter().map(of).collect())?;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    fleet.transact(|t| t.put(keys::TAKEN_INDEXED.to_owned(), &Present))
}
