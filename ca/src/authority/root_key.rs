//! The root's key: with the server, or taken away from it.
//!
//! Taking it away has two steps, so that it is nowhere lost: the key is handed out under a
//! passphrase, and goes for good once whoever asked has it and says so. That it was taken is
//! written down first; a crash after that is made good at the next start.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::Authority;
use super::founding::{ROOT, ROOT_KEY};
use super::root::{Root, RootNumber};
use super::root_list::RootList;
use crate::custody::Custody;
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::identifier::CertificateId;
use crate::sealed::Passphrase;

/// Says that the root's key was taken away on purpose.
const OFFLINE: &str = "root.offline";
const OFFLINE_TEXT: &str = "The key of root.crt is kept elsewhere, on purpose.\n";

/// Says in a directory that the root's key is not with it.
pub(super) fn mark_offline(dir: &Path) -> Result<(), CaError> {
    durable::write(
        &dir.join(OFFLINE),
        OFFLINE_TEXT.as_bytes(),
        Readers::Everyone,
    )
}

/// Whether the key was taken away; if a crash left it behind, it goes now.
pub(super) fn settle(dir: &Path) -> Result<bool, CaError> {
    if durable::read(&dir.join(OFFLINE))?.is_none() {
        return Ok(false);
    }
    remove(&dir.join(ROOT_KEY))?;
    Ok(true)
}

/// Removes a file for good; one that is not there is gone already.
pub(super) fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Ok(()) => durable::sync_dir(&durable::parent(path)),
        Err(gone) if gone.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(other) => Err(durable::failed("remove", path)(other)),
    }
}

impl Authority {
    /// Whether the newest root's key is with the server.
    ///
    /// # Errors
    /// [`CaError::File`].
    pub fn has_root_key(&self) -> Result<bool, CaError> {
        Ok(self.leaving.lock().is_some() || Self::key_is_here(&self.state.load().root)?)
    }

    pub(super) fn key_is_here(root: &Root) -> Result<bool, CaError> {
        let offline = durable::read(&root.place.join(OFFLINE))?.is_some();
        Ok(!offline && !root.retired)
    }

    /// A root's key (the newest's where no number is given) under a passphrase, as PEM that `openssl pkcs8` reads, for keeping it
    /// elsewhere. It stays here until [`Self::take_root_offline`] is told of this text.
    ///
    /// # Errors
    /// [`CaError::RootOffline`]; [`CaError::Invalid`] for a passphrase that is too short.
    pub fn export_root_key(
        &self,
        number: Option<RootNumber>,
        passphrase: &Passphrase,
    ) -> Result<String, CaError> {
        let mut change = self.change.lock();
        let root = self.root_numbered(number)?;
        let key = self.key_of(&root)?;
        let Some(secret) = key.secret() else {
            let reason = "it is in a token, which does not give it out: keep the token elsewhere, and set ca.pkcs11_token to another for what follows";
            return Err(CaError::invalid("root key", "(not shown)", reason));
        };
        let text = secret.to_sealed_pem(passphrase)?;
        change.exported = Some((root.number, digest(&text)));
        Ok(text)
    }

    /// Removes the root's key from the server. `kept` is the SHA-256 (64 lower-case hexadecimal
    /// digits) of what [`Self::export_root_key`] gave out last, computed of what was kept of it. The root's list is made anew
    /// before.
    ///
    /// # Errors
    /// [`CaError::RootOffline`]; [`CaError::Invalid`] when `kept` is of something else; then the
    /// key is where it was.
    pub fn take_root_offline(&self, kept: &str, now: SystemTime) -> Result<(), CaError> {
        let mut change = self.change.lock();
        let given_out = change.exported.take_if(|(_, digest)| digest == kept);
        let Some((number, _)) = given_out else {
            let reason = "it is the SHA-256 of the key as it was given out last, while this server has been running: take it out again";
            return Err(CaError::invalid("digest", kept, reason));
        };
        let root = self.root_numbered(Some(number))?;
        let key = self.key_of(&root)?;
        // The last that the server makes: it stands as long as one may.
        if root.list.as_ref().is_none_or(|list| !list.is_fresh(now)) {
            let list = RootList::next(&root, key.as_ref(), None, now)?;
            self.put_list(&change, &self.state.load_full(), &root, list, now)?;
        }
        mark_offline(&root.place)?;
        *self.leaving.lock() = None;
        remove(&root.place.join(ROOT_KEY))
    }

    /// Signs a statement for people with the root's key, or with the issuing one where the root is
    /// offline; says which. The text begins with a word, so that it is never a certificate or a
    /// list.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for a text that does not begin with a letter; [`CaError::Custody`].
    pub fn attest(&self, statement: &str) -> Result<(Vec<u8>, &'static str), CaError> {
        if !statement.starts_with(|first: char| first.is_ascii_alphabetic()) {
            let reason = "what is signed for people begins with a letter";
            return Err(CaError::invalid("statement", statement, reason));
        }
        if self.has_root_key()? {
            return Ok((self.root_key()?.sign(statement.as_bytes())?, "root"));
        }
        let issuer = self.state.load_full();
        let signature = issuer.current.custody.sign(statement.as_bytes())?;
        Ok((signature, "issuing"))
    }

    /// The newest root's key, for one act.
    pub(super) fn root_key(&self) -> Result<Box<dyn Custody>, CaError> {
        self.key_of(&self.state.load().root)
    }

    pub(super) fn key_of(&self, root: &Root) -> Result<Box<dyn Custody>, CaError> {
        if let Some(key) = &*self.leaving.lock() {
            return Ok(Box::new(Arc::clone(key)));
        }
        if !Self::key_is_here(root)? {
            return Err(CaError::RootOffline);
        }
        let key = self.keyring.open(&root.place, ROOT)?;
        if *key.public_key() != root.public {
            return Err(CaError::Damaged {
                path: root.place.join(ROOT_KEY),
                problem: "is not the root's key".to_owned(),
            });
        }
        Ok(key)
    }

    fn root_numbered(&self, number: Option<RootNumber>) -> Result<Arc<Root>, CaError> {
        let state = self.state.load();
        let number = number.unwrap_or(state.root.number);
        let found = state.roots.iter().find(|root| root.number == number);
        found.cloned().ok_or_else(|| {
            let reason = "there is no root of that number: see muster ca show";
            CaError::invalid("root", &number.to_string(), reason)
        })
    }
}

/// SHA-256 as 64 lower-case hexadecimal digits.
fn digest(text: &str) -> String {
    CertificateId::of(text.as_bytes()).to_string()
}
