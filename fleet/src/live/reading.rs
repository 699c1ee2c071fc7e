//! What is read of one principal, and what it comes to together with what it shares.

use super::{
    Live,
    card::{self, Card},
    index::FoundBy,
    profile::{Key, Profile, Reader, names, same_policies},
    touched::Parts,
};
use crate::{
    CertificateRecord, CertificateStatus, Health, Origin, Standing, StandingNow, Target, Thing,
    ThingName, authorities::Signer, keys, provisioning::Claim,
};
use ca::{CertificateId, KeyKind};
use policy::{CertificateValues, Field, Holder, NamedPolicy, PolicyName, Posture, ThingFacts};
use std::{
    sync::{Arc, atomic::Ordering},
    time::SystemTime,
};
use store::StoreError;

/// What the rows of a principal say, kept so that a change costs only what it changes.
pub(crate) struct Known {
    status: CertificateStatus,
    origin: Origin,
    /// The registered authority that must vouch for it.
    authority: Option<CertificateId>,
    not_before: SystemTime,
    not_after: SystemTime,
    certificate: Arc<CertificateValues>,
    thing: Option<ThingName>,
    /// Whether the thing counts only under its own name.
    by_name: bool,
    facts: Option<Arc<ThingFacts>>,
    /// What a claim may do, as a policy that is attached nowhere.
    claim: Option<NamedPolicy>,
    posture: Arc<Posture>,
    key: Arc<Key>,
}

impl Live {
    /// Reads again what has changed of a principal, and tells who relies on it where it comes to something else.
    pub(super) fn refresh(
        &self,
        standing: &Arc<Standing>,
        parts: Parts,
        reader: &mut Reader,
    ) -> Result<(), StoreError> {
        let mut known = standing.known.lock();
        let now = self.make(standing, &mut known, parts, reader)?;
        if !is_same(&standing.now(), &now) {
            standing.set(now);
        }
        Ok(())
    }

    /// Reads a principal that has just come up.
    pub(super) fn read_first(&self, standing: &Arc<Standing>) -> Result<(), StoreError> {
        let mut known = standing.known.lock();
        // Another thread was faster.
        while standing.generation() == 0 {
            let before = self.changes.load(Ordering::Acquire);
            let now = self.make(standing, &mut known, Parts::ALL, &mut Reader::default())?;
            // A change that began to be applied in between may have looked for it before it could be found, and what was
            // read of it may be of before the change. Later ones find it, and wait for the lock.
            if self.changes.load(Ordering::Acquire) == before {
                standing.set(now);
            }
        }
        Ok(())
    }

    fn make(
        &self,
        standing: &Arc<Standing>,
        slot: &mut Option<Known>,
        parts: Parts,
        reader: &mut Reader,
    ) -> Result<StandingNow, StoreError> {
        let made = match self.read(standing.id(), slot.take(), parts, reader) {
            Ok(None) => {
                self.index.lock().place(standing, FoundBy::default());
                return Ok(StandingNow::unknown());
            }
            Ok(Some(known)) => self.composed(known, reader),
            Err(error) => Err(error),
        };
        match made {
            Ok((known, signer, now)) => {
                let by = FoundBy {
                    thing: known.thing.clone(),
                    signer,
                    profile: Some(Arc::clone(&known.key)),
                    unreadable: false,
                };
                self.index.lock().place(standing, by);
                *slot = Some(known);
                Ok(now)
            }
            Err(error) => {
                self.unreadable(standing);
                Err(error)
            }
        }
    }

    /// With who signed it, where that is a registered authority.
    fn composed(
        &self,
        known: Known,
        reader: &mut Reader,
    ) -> Result<(Known, Option<Signer>, StandingNow), StoreError> {
        let now = self.compose(&known, reader)?;
        let authority = known.authority.as_ref();
        let signer = authority.map(|id| reader.authority(&self.table, id));
        let signer = signer.transpose()?.map(|authority| authority.signer);
        Ok((known, signer, now))
    }

    /// It is tried again when a row it may have failed by has changed.
    fn unreadable(&self, standing: &Arc<Standing>) {
        let by = FoundBy {
            unreadable: true,
            ..FoundBy::default()
        };
        self.index.lock().place(standing, by);
    }

    fn read(
        &self,
        id: &CertificateId,
        before: Option<Known>,
        parts: Parts,
        reader: &mut Reader,
    ) -> Result<Option<Known>, StoreError> {
        let Some(mut known) = before else {
            return self.read_all(id, None, reader);
        };
        if parts.has(Parts::ALL) {
            return self.read_all(id, Some(known.certificate), reader);
        }
        if parts.has(Parts::CERTIFICATE) {
            let row = self
                .table
                .get_as::<CertificateRecord>(&keys::certificate(id))?;
            let Some(record) = row.map(|row| row.value) else {
                return Ok(None);
            };
            known.status = record.status;
            known.origin = record.origin;
            known.authority = record.vouching_authority();
            (known.not_before, known.not_after) = (record.not_before, record.not_after);
        }
        if let Some(thing) = known.thing.clone() {
            if parts.has(Parts::THING) {
                known.facts = card::facts(&self.table, &thing)?;
            }
            if parts.has(Parts::POSTURE) {
                known.posture = self.posture(&card::health(&self.table, &thing)?, id);
            }
        }
        if parts.has(Parts::GROUPS) || parts.has(Parts::ATTACHED) {
            let key = self.key(id, known.thing.as_ref())?;
            known.key = self.profile(key, reader)?.0;
        }
        Ok(Some(known))
    }

    fn read_all(
        &self,
        id: &CertificateId,
        certificate: Option<Arc<CertificateValues>>,
        reader: &mut Reader,
    ) -> Result<Option<Known>, StoreError> {
        let card = match self.cards.get(id) {
            Some(card) => card,
            None => {
                let comes_up = certificate.is_none();
                let Some(card) = Card::read(&self.table, id, certificate)? else {
                    return Ok(None);
                };
                if comes_up && card.thing.is_some() {
                    self.cards.missed();
                }
                card
            }
        };
        // A claim belongs to no thing, so devices do not pay for the look.
        let claim = match &card.thing {
            None => self.table.get_as::<Claim>(&keys::claim(id))?,
            Some(_) => None,
        };
        let claim = claim.map(|row| self.claim_policy(&row.value)).transpose()?;
        let posture = match &card.thing {
            Some(_) => self.posture(&card.health, id),
            None => Arc::default(),
        };
        let key = Key {
            attached: card.attached.into(),
            groups: card.groups.into(),
        };
        Ok(Some(Known {
            status: card.status,
            origin: card.origin,
            authority: card.authority,
            not_before: card.not_before,
            not_after: card.not_after,
            certificate: card.certificate,
            facts: card.facts,
            claim,
            posture,
            key: self.profile(key, reader)?.0,
            by_name: card.by_name,
            thing: card.thing,
        }))
    }

    fn posture(&self, health: &Health, id: &CertificateId) -> Arc<Posture> {
        if *health == Health::default() {
            // Of most devices nothing is known: they share that.
            return Arc::clone(&self.healthy);
        }
        Arc::new(health.posture(Some(id)))
    }

    fn key(&self, id: &CertificateId, thing: Option<&ThingName>) -> Result<Key, StoreError> {
        let groups = match thing {
            Some(name) => names(&self.table, &keys::groups_of(name))?,
            None => Vec::new(),
        };
        let attached = names(&self.table, &keys::attached(&Target::Certificate(*id)))?;
        Ok(Key {
            attached: attached.into(),
            groups: groups.into(),
        })
    }

    /// What those with this key share, read unless it is known.
    fn profile(
        &self,
        mut key: Key,
        reader: &mut Reader,
    ) -> Result<(Arc<Key>, Arc<Profile>), StoreError> {
        loop {
            let (epoch, known) = self.index.lock().profile(&key);
            if let Some(known) = known {
                return Ok(known);
            }
            let profile = Arc::new(reader.profile(self, &key)?);
            match self.index.lock().keep_profile(epoch, key, &profile) {
                Ok(key) => return Ok((key, profile)),
                // A change in between: what this reader remembers may be of before it.
                Err(again) => (key, *reader) = (again, Reader::default()),
            }
        }
    }

    /// As [`Live::profile`], of a key that is in use.
    fn profile_of(&self, key: &Arc<Key>, reader: &mut Reader) -> Result<Arc<Profile>, StoreError> {
        if let Some((_, profile)) = self.index.lock().profile(key).1 {
            return Ok(profile);
        }
        let key = Key {
            attached: key.attached.clone(),
            groups: key.groups.clone(),
        };
        Ok(self.profile(key, reader)?.1)
    }

    fn compose(&self, known: &Known, reader: &mut Reader) -> Result<StandingNow, StoreError> {
        let profile = self.profile_of(&known.key, reader)?;
        let (mut status, mut not_after) = (known.status, known.not_after);
        if let Some(id) = &known.authority {
            match reader.authority(&self.table, id)?.until {
                Some(until) => not_after = not_after.min(until),
                // Switched off or gone, under every certificate it has: what it signed counts no more.
                None if status == CertificateStatus::Active => status = CertificateStatus::Inactive,
                _ => {}
            }
        }
        let policies = match &known.claim {
            None => Arc::clone(&profile.policies),
            Some(claim) => profile.policies.iter().chain([claim]).cloned().collect(),
        };
        Ok(StandingNow {
            origin: known.origin,
            posture: Arc::clone(&known.posture),
            networks: self.networks()?,
            status: Some(status),
            thing: known.thing.clone(),
            thing_facts: known.facts.clone(),
            certificate: Arc::clone(&known.certificate),
            groups: Arc::clone(&profile.groups),
            policies,
            by_name: known.by_name.then(|| Arc::clone(&profile.of_groups)),
            not_before: known.not_before,
            not_after,
        })
    }

    fn claim_policy(&self, claim: &Claim) -> Result<NamedPolicy, StoreError> {
        let unreadable = |reason: String| StoreError::Decode {
            key: keys::claim(&claim.id),
            reason,
        };
        let name = format!("claim-{}", claim.template).parse::<PolicyName>();
        let policy = claim.policy(&self.account);
        Ok(NamedPolicy {
            name: name.map_err(|error| unreadable(error.to_string()))?,
            policy: Arc::new(policy.map_err(|error| unreadable(error.to_string()))?),
        })
    }
}

/// Whether nobody who relies on the one has to hear of the other.
fn is_same(one: &StandingNow, other: &StandingNow) -> bool {
    one.status == other.status
        && one.not_before == other.not_before
        && one.not_after == other.not_after
        && one.origin == other.origin
        && one.thing == other.thing
        && one.thing_facts == other.thing_facts
        && Arc::ptr_eq(&one.certificate, &other.certificate)
        && one.groups == other.groups
        && same_policies(&one.policies, &other.policies)
        && one.by_name == other.by_name
        && one.posture == other.posture
        && Arc::ptr_eq(&one.networks, &other.networks)
}

pub(crate) fn thing_facts(thing: Thing) -> ThingFacts {
    let attributes = thing.attributes.into_iter();
    ThingFacts {
        name: thing.name.as_str().into(),
        type_name: thing.type_name.map(|name| name.as_str().into()),
        attributes: attributes
            .map(|(name, value)| (name.into(), value.into()))
            .collect(),
    }
}

pub(crate) fn certificate_values(
    id: &CertificateId,
    record: &CertificateRecord,
) -> Result<CertificateValues, StoreError> {
    let unreadable = |reason: String| StoreError::Decode {
        key: keys::certificate(id),
        reason,
    };
    let der = pem::parse(&record.pem).map_err(|error| unreadable(error.to_string()))?;
    let (facts, key) = ca::CertificateFacts::read_with_key(der.contents())
        .map_err(|error| unreadable(error.to_string()))?;
    let key_kind = key.map(|key| match key.kind() {
        KeyKind::P256 => "P-256".into(),
        KeyKind::P384 => "P-384".into(),
        KeyKind::Ed25519 => "Ed25519".into(),
        KeyKind::Rsa(bits) => format!("RSA-{bits}").into(),
    });
    let fields = facts.values.into_iter().filter_map(|value| {
        let holder = if value.of_issuer {
            Holder::Issuer
        } else {
            Holder::Subject
        };
        Some((holder, Field::named(value.field)?, value.value.into()))
    });
    Ok(CertificateValues {
        id: Some(id.to_string().into()),
        serial_number: Some(facts.serial.to_decimal().into()),
        fields: fields.collect(),
        not_before: seconds(record.not_before),
        not_after: seconds(record.not_after),
        key_kind,
        enrolled_by: record.way.map(|way| way.as_str().into()),
    })
}

fn seconds(moment: SystemTime) -> Option<i64> {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_secs().try_into().ok()
}
