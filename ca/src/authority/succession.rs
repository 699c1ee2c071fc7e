//! The next root: made here, or brought; signed by the one before, so that whoever trusts that one
//! can follow, and with an issuing certificate below it that signs from then on.
//!
//! What is new is filled under another name and renamed when all of it is on disk, the root before
//! its issuing certificate: a crash leaves the authority as it was, whole with both, or with a root
//! that waits for its issuing certificate (`rotate_issuing`).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;

use super::founding::{ROOT, ROOT_CERTIFICATE, ROOT_KEY, make_root, read_root, sign_issuing};
use super::issuer::read_chain;
use super::plan::{ISSUING_VALIDITY, Made, ROOT_VALIDITY};
use super::root::{self, BY_FORMER, OF_FORMER, Root, RootNumber};
use super::root_list::{self, RootList};
use super::rotation::NextKey;
use super::trust::{Change, State};
use super::{Authority, cross, root_key};
use crate::custody::{Custody, FileKey, find};
use crate::durable::{self, Readers};
use crate::error::CaError;
use crate::facts::CertificateFacts;
use crate::public_key::KeyKind;
use crate::secret_key::SecretKey;
use crate::{facts, pem, times};

/// A successor that waits for the former root's signature.
const REQUESTED: &str = "root-request";

/// A successor that was made elsewhere.
#[derive(Debug)]
pub struct Successor {
    /// The certificate, PEM.
    pub certificate: String,
    /// The former root signed by its key, PEM, if that was made.
    pub of_former: Option<String>,
    /// The issuing certificate below it, PEM, and behind it what stands between.
    pub issuing: String,
    /// That one's key; without it the certificate answers [`Authority::issuing_request`].
    pub issuing_key: Option<SecretKey>,
    /// Its revocation list, PEM, if that was made.
    pub list: Option<String>,
}

impl Authority {
    /// A successor to the root, as PEM, that waits for the root's signature. Its key stays here, and
    /// is the same until [`Self::succeed_root`] has come.
    ///
    /// # Errors
    /// [`CaError::File`]; [`CaError::Custody`]; [`CaError::Encode`].
    pub fn root_request(&self, now: SystemTime) -> Result<String, CaError> {
        let _change = self.change.lock();
        let requested = self.requested(&self.state.load(), now)?;
        Ok(pem::certificate(&requested.der))
    }

    /// Makes a root that follows the present one, and an issuing certificate below it. `by_former`
    /// is it with the present root's signature (PEM); without it the root's key that is with the
    /// server signs. From now on both roots are trusted.
    ///
    /// # Errors
    /// [`CaError::RootOffline`]; [`CaError::Invalid`], naming what does not fit;
    /// [`CaError::Custody`]; [`CaError::File`]. Nothing has changed then.
    pub fn succeed_root(
        &self,
        by_former: Option<&str>,
        now: SystemTime,
    ) -> Result<RootNumber, CaError> {
        let mut change = self.change.lock();
        let state = self.state.load_full();
        let former_key = self.former_key(by_former.is_some())?;
        let mut next = self.requested(&state, now)?;
        let key = self.keyring.open(&next.place, ROOT)?;
        check(&next, &state, now)?;
        next.by_former = Some(by_former_of(
            &next,
            &state.root,
            by_former,
            former_key,
            now,
        )?);
        next.of_former = Some(cross::sign(&state.root, &next, key.as_ref(), now)?);
        let place = next.place.clone();
        let list = RootList::next(&next, key.as_ref(), None, now)?;
        list.write(&place)?;
        next.list = Some(Arc::new(list));
        let list_url = self.root_list_url(next.number);
        self.follow(
            &mut change,
            &state,
            next,
            &place,
            NextKey::Made,
            now,
            |state, public| {
                let made = Made {
                    common_name: self.next_name(state)?,
                    key: public.kind(),
                    validity: ISSUING_VALIDITY,
                };
                let signer = (&state.root.der, key.as_ref());
                let permitted = self.permitted_next(&state.signing(now))?;
                let list = Some(list_url.as_str());
                let signed = sign_issuing(signer, &made, &permitted, list, public, now)?;
                Ok(vec![signed])
            },
        )
    }

    /// Takes a root that was made elsewhere as the one that follows, with its issuing certificate.
    /// Its key is not here: the root is offline from the beginning. `by_former` is as in
    /// [`Self::succeed_root`].
    ///
    /// # Errors
    /// As [`Self::succeed_root`].
    pub fn adopt_root(
        &self,
        successor: Successor,
        by_former: Option<&str>,
        now: SystemTime,
    ) -> Result<RootNumber, CaError> {
        let mut change = self.change.lock();
        let state = self.state.load_full();
        let former_key = self.former_key(by_former.is_some())?;
        let der = read_root(&successor.certificate, None)?;
        let staging = root::staging(&self.dir)?;
        let mut next = Root::new(state.root.number.next(), der, staging.path())?;
        check(&next, &state, now)?;
        next.by_former = Some(by_former_of(
            &next,
            &state.root,
            by_former,
            former_key,
            now,
        )?);
        if let Some(text) = &successor.of_former {
            let der = one_certificate(text)?;
            cross::check(&der, &state.root, &next)?;
            cross::check_names_key(&der, &next)?;
            next.of_former = Some(der);
        }
        if let Some(text) = &successor.list {
            let list = RootList::read(&next, &root_list::read_der(text.as_bytes())?)?;
            root_list::check_newer(&next, &list, now)?;
            list.write(staging.path())?;
            next.list = Some(Arc::new(list));
        }
        let chain = read_chain(successor.issuing.as_bytes())?;
        let key = self.next_key(successor.issuing_key)?;
        write_public(staging.path(), ROOT_CERTIFICATE, &next.der)?;
        root_key::mark_offline(staging.path())?;
        let place = staging.path().to_owned();
        let number = self.follow(&mut change, &state, next, &place, key, now, |_, _| {
            Ok(chain)
        })?;
        let _ = staging.keep();
        self.settle_request()?;
        Ok(number)
    }

    /// Trusts a root no more, on purpose and for good; its key, where it is here, goes. Before its
    /// end that has to be asked for: what was issued below it counts no more, and who trusts it
    /// alone follows nobody.
    ///
    /// # Errors
    /// [`CaError::Invalid`] for the newest, one that is none, one with older ones before it, one
    /// whose issuing certificate signs still, and one that has not ended.
    pub fn retire_root(
        &self,
        number: RootNumber,
        before_its_end: bool,
        now: SystemTime,
    ) -> Result<(), CaError> {
        let change = self.change.lock();
        let state = self.state.load_full();
        let refused = |reason: String| Err(CaError::invalid("root", &number.to_string(), reason));
        let Some(found) = state.roots.iter().find(|root| root.number == number) else {
            return refused("there is no root of that number: see muster ca show".to_owned());
        };
        if found.retired {
            return refused("it is retired already".to_owned());
        }
        if number == state.root.number {
            return refused(
                "it is the newest: muster ca succeed-root makes one to follow it".to_owned(),
            );
        }
        if state.current.root == number {
            return refused(
                "the issuing certificate that signs is below it: muster ca rotate-issuing"
                    .to_owned(),
            );
        }
        let mut before = state.roots.iter().take_while(|root| root.number != number);
        if let Some(older) = before.find(|root| !root.retired) {
            return refused(format!(
                "root {} is before it: retire that first",
                older.number
            ));
        }
        if !before_its_end && now <= found.facts.not_after {
            let end = times::readable(found.facts.not_after);
            return refused(format!(
                "it ends {end}, and devices may know no other until then: say --before-its-end if they are to be cut off"
            ));
        }
        root::mark_retired(&self.dir, number)?;
        let retired = |root: &Arc<Root>| {
            let mut root = root.as_ref().clone();
            root.retired |= root.number == number;
            Arc::new(root)
        };
        let roots: Vec<_> = state.roots.iter().map(retired).collect();
        root::write_trusted(&self.dir, &roots)?;
        let next = State::new(roots, state.issuers.clone(), now)?;
        let next = Arc::new(next);
        let place = found.place.join(ROOT_KEY);
        self.state.store(Arc::clone(&next));
        change.tell(&next);
        root_key::remove(&place)?;
        match find(&found.place, ROOT)? {
            Some(file) => self.keyring.forget(&file),
            None => Ok(()),
        }
    }

    /// The key that signs the successor, unless it was signed elsewhere.
    fn former_key(&self, signed: bool) -> Result<Option<Box<dyn Custody>>, CaError> {
        if signed {
            return Ok(None);
        }
        self.root_key().map(Some)
    }

    /// The successor that waits, made now where there is none or it has ended.
    fn requested(&self, state: &State, now: SystemTime) -> Result<Root, CaError> {
        let place = self.dir.join(REQUESTED);
        let number = state.root.number.next();
        if let Some((text, _)) = durable::read(&place.join(ROOT_CERTIFICATE))? {
            let found = Root::new(number, one_certificate_of(&text)?, &place)?;
            if found.facts.is_valid_at(now) && check(&found, state, now).is_ok() {
                return Ok(found);
            }
        }
        self.settle_request()?;
        let staging = root::staging(&self.dir)?;
        let der = self
            .make_successor(state, staging.path(), now)
            .map_err(|failed| {
                let names = [ROOT];
                self.keyring
                    .abandon(staging.path(), &names, Path::new(""), failed)
            })?;
        fs::rename(staging.path(), &place)
            .map_err(durable::failed("put the successor into", &place))?;
        let _ = staging.keep();
        durable::sync_dir(&self.dir)?;
        Root::new(number, der, &place)
    }

    /// A successor of the kind that the root is of, where such keys are made.
    fn make_successor(
        &self,
        state: &State,
        place: &Path,
        now: SystemTime,
    ) -> Result<CertificateDer<'static>, CaError> {
        let kind = match state.root.public.kind() {
            kind if self.keyring.makes(kind) => kind,
            _ => KeyKind::P256,
        };
        let key = self.keyring.make(place, ROOT, kind)?;
        let made = Made {
            common_name: successor_name(state)?,
            key: kind,
            validity: ROOT_VALIDITY,
        };
        let der = make_root(&made, key.as_ref(), now)?;
        write_public(place, ROOT_CERTIFICATE, &der)?;
        durable::sync_dir(place)?;
        Ok(der)
    }

    /// Removes a successor that waits, and its key.
    fn settle_request(&self) -> Result<(), CaError> {
        let place = self.dir.join(REQUESTED);
        if !place.exists() {
            return Ok(());
        }
        if let Some(file) = find(&place, ROOT)? {
            self.keyring.forget(&file)?;
        }
        fs::remove_dir_all(&place).map_err(durable::failed("remove", &place))?;
        durable::sync_dir(&self.dir)
    }

    /// Puts the next root, whose files but the cross-certificates lie in `place`, and the next
    /// issuing certificate where they belong, and goes over to them.
    #[expect(
        clippy::too_many_arguments,
        reason = "what a root and an issuing certificate are put together of, in one step"
    )]
    fn follow(
        &self,
        change: &mut Change,
        state: &State,
        mut next: Root,
        place: &Path,
        key: NextKey,
        now: SystemTime,
        chain: impl FnOnce(
            &State,
            &crate::public_key::PublicKey,
        ) -> Result<Vec<CertificateDer<'static>>, CaError>,
    ) -> Result<RootNumber, CaError> {
        let number = next.number;
        let target = root::place_of(&self.dir, number);
        next.place.clone_from(&target);
        for (file, der) in [(BY_FORMER, &next.by_former), (OF_FORMER, &next.of_former)] {
            if let Some(der) = der {
                write_public(place, file, der)?;
            }
        }
        let mut roots = state.roots.clone();
        roots.push(Arc::new(next));
        let both = State::new(roots, state.issuers.clone(), now)?;
        // All that can be refused is, before anything has its place.
        let prepared = self.prepare(&both, key, now, chain)?;
        if let Some(first) = state.roots.first() {
            root::keep_first(&self.dir, first)?;
        }
        durable::sync_dir(place)?;
        fs::rename(place, &target).map_err(durable::failed("put the root into", &target))?;
        durable::sync_dir(&self.dir)?;
        self.put(change, &both, prepared, now)?;
        root::write_trusted(&self.dir, &both.roots)?;
        // Who makes something of the state, the server's certificate, looks once more now that it is there.
        change.tell(&self.state.load());
        self.settle_answered()?;
        Ok(number)
    }
}

/// A root, signed here or elsewhere by the one before.
fn by_former_of(
    next: &Root,
    former: &Root,
    signed: Option<&str>,
    key: Option<Box<dyn Custody>>,
    now: SystemTime,
) -> Result<CertificateDer<'static>, CaError> {
    match (signed, key) {
        (Some(text), _) => {
            let der = one_certificate(text)?;
            cross::check(&der, next, former)?;
            cross::check_names_key(&der, former)?;
            if !CertificateFacts::read(&der)?.is_valid_at(now) {
                let reason = "it is not good at this time";
                return Err(CaError::invalid("cross-certificate", "(as given)", reason));
            }
            Ok(der)
        }
        (None, Some(key)) => cross::sign(next, former, key.as_ref(), now),
        (None, None) => Err(CaError::RootOffline),
    }
}

/// A successor is good now, ends no earlier than the root before it, and has a name and key that nothing of
/// the authority has.
fn check(next: &Root, state: &State, now: SystemTime) -> Result<(), CaError> {
    let refused = |reason: &str| Err(CaError::invalid("successor", "(as given)", reason));
    if !next.facts.is_valid_at(now) {
        return Err(CaError::OutsideIssuer {
            now: times::readable(now),
            not_before: times::readable(next.facts.not_before),
            not_after: times::readable(next.facts.not_after),
        });
    }
    if next.facts.not_after < state.root.facts.not_after {
        return refused("it ends before the root that it follows");
    }
    let roots = state.roots.iter().map(|root| (&root.der, &root.public));
    let issuers = state.issuers.iter();
    let issuers = issuers.map(|issuer| (&issuer.der, issuer.public_key()));
    let own = facts::parse(&next.der)?;
    for (der, key) in roots.chain(issuers) {
        if *key == next.public {
            return refused(
                "its key is one that the authority has had before: a successor has a key of its own",
            );
        }
        if facts::parse(der)?.subject().as_raw() == own.subject().as_raw() {
            return refused(
                "its subject is that of another certificate of the authority: clients could not tell them apart",
            );
        }
    }
    Ok(())
}

/// The common name of the next root: that of the first with its number behind.
fn successor_name(state: &State) -> Result<String, CaError> {
    let first = state.roots.first().unwrap_or(&state.root);
    let names = &first.facts.subject_common_names;
    let name = names.first().map_or("Root CA", String::as_str);
    Ok(format!("{name} {}", state.root.number.next()))
}

fn write_public(dir: &Path, file: &str, der: &[u8]) -> Result<(), CaError> {
    let text = pem::certificate(&CertificateDer::from(der));
    durable::write(&dir.join(file), text.as_bytes(), Readers::Everyone)
}

fn one_certificate(text: &str) -> Result<CertificateDer<'static>, CaError> {
    one_certificate_of(text.as_bytes())
}

fn one_certificate_of(text: &[u8]) -> Result<CertificateDer<'static>, CaError> {
    CertificateDer::from_pem_slice(text)
        .map_err(|_| CaError::invalid("certificate", "(as given)", "it is not whole PEM"))
}

/// Signs one root's name and key with another's key, where that is: on a machine that has no
/// server. All are PEM; so is the cross-certificate.
///
/// # Errors
/// [`CaError::Invalid`] for a root or key that is none or does not fit the others;
/// [`CaError::OutsideIssuer`] where their lives have nothing in common.
pub fn cross_sign(
    signer_pem: &str,
    signer_key: SecretKey,
    subject_pem: &str,
    now: SystemTime,
) -> Result<String, CaError> {
    let root = |text: &str| {
        let der = one_certificate(text)?;
        Root::new(RootNumber::FIRST, der, Path::new(""))
    };
    let (signer, subject) = (root(signer_pem)?, root(subject_pem)?);
    if signer.public != *signer_key.public() {
        let reason = "it is not the key of the root that is to sign";
        return Err(CaError::invalid("root key", "(not shown)", reason));
    }
    let key = FileKey::from(signer_key);
    let der = cross::sign(&subject, &signer, &key, now)?;
    Ok(pem::certificate(&der))
}

#[cfg(test)]
mod tests;
