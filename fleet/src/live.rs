//! The live standings, kept current by the store's watch: one path for every change, whoever made it. A thread of
//! its own follows the watch; operations wait here until their own change has been applied.

use crate::{
    CertificateRecord, CertificateStatus, FleetError, Group, GroupName, Health, Origin,
    PolicyRecord, Standing, StandingNow, Target, Thing, ThingName,
    authorities::{AuthorityRecord, AuthorityStatus},
    keys, networks,
    provisioning::Claim,
};
use ca::{CertificateId, KeyKind, PublicKey};
use parking_lot::{Condvar, Mutex};
use policy::{
    CertificateValues, Field, Holder, NamedPolicy, Networks, Policy, PolicyName, ThingFacts,
};
use std::{
    collections::{BTreeSet, HashMap},
    str::FromStr,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};
use store::{Event, Row, Store, StoreError, Table, Watch};

/// The directory of dead entries is swept when it has grown to this many, then whenever it doubles.
const SWEEP_FLOOR_ITEMS: usize = 1_024;
/// Compiled policies kept for sharing; past it the cache is emptied and fills again with what is in use.
const POLICY_CACHE_LIMIT_ITEMS: usize = 10_000;

pub(crate) struct Live {
    table: Table,
    /// Of the ARNs in a claim's policy.
    account: String,
    directory: Mutex<Directory>,
    /// Compiled default versions, by name, with the revision of the row they were compiled from.
    policies: Mutex<HashMap<PolicyName, (u64, Arc<Policy>)>>,
    /// The named networks; `None` where they must be read (again).
    networks: Mutex<Option<Arc<Networks>>>,
    applied: Mutex<Applied>,
    advanced: Condvar,
    revocation_epoch: AtomicU64,
    /// The same for each last octet of a serial number.
    listed_epochs: Box<[AtomicU64]>,
}

struct Directory {
    standings: HashMap<CertificateId, Weak<Standing>>,
    sweep_at: usize,
}

struct Applied {
    revision: u64,
    /// The watch has ended (the store is closing): nobody needs to wait any more.
    ended: bool,
}

impl Live {
    pub(crate) fn start(
        store: &Store,
        table: &Table,
        account: &str,
    ) -> Result<Arc<Self>, FleetError> {
        let watch = table.watch(store.revision());
        let live = Arc::new(Live {
            table: table.clone(),
            account: account.to_owned(),
            directory: Mutex::new(Directory {
                standings: HashMap::new(),
                sweep_at: SWEEP_FLOOR_ITEMS,
            }),
            policies: Mutex::default(),
            networks: Mutex::default(),
            applied: Mutex::new(Applied {
                revision: 0,
                ended: false,
            }),
            advanced: Condvar::new(),
            revocation_epoch: AtomicU64::new(0),
            listed_epochs: (0..=u8::MAX).map(|_| AtomicU64::new(0)).collect(),
        });
        let follower = Arc::downgrade(&live);
        std::thread::Builder::new()
            .name("fleet-watch".into())
            .spawn(move || follow(watch, &follower))
            .map_err(FleetError::Thread)?;
        Ok(live)
    }

    /// The standing of a certificate, shared with everyone else who holds it.
    pub(crate) fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, StoreError> {
        let standing = {
            let mut directory = self.directory.lock();
            let known = directory.standings.get(id).and_then(Weak::upgrade);
            // Generation 0: another thread has just made it and has not read its rows yet; read them here too.
            if let Some(ready) = known.as_ref().filter(|known| known.generation() > 0) {
                return Ok(Arc::clone(ready));
            }
            let fresh = known.unwrap_or_else(|| Arc::new(Standing::new(*id)));
            directory.standings.insert(*id, Arc::downgrade(&fresh));
            if directory.standings.len() >= directory.sweep_at {
                directory
                    .standings
                    .retain(|_, weak| weak.strong_count() > 0);
                directory.sweep_at = (directory.standings.len() * 2).max(SWEEP_FLOOR_ITEMS);
            }
            fresh
        };
        // Visible to the watch before it is read: a change during the reading is applied after it.
        self.refresh(&standing)?;
        Ok(standing)
    }

    pub(crate) fn wait_applied(&self, revision: u64) {
        let mut applied = self.applied.lock();
        while applied.revision < revision && !applied.ended {
            self.advanced.wait(&mut applied);
        }
    }

    pub(crate) fn revocation_epoch(&self) -> u64 {
        self.revocation_epoch.load(Ordering::Acquire)
    }

    /// Rises whenever a revocation with one of these last octets has changed.
    pub(crate) fn listed_epoch(&self, octets: impl Iterator<Item = u8>) -> u64 {
        octets
            .filter_map(|octet| self.listed_epochs.get(usize::from(octet)))
            .map(|epoch| epoch.load(Ordering::Acquire))
            .sum()
    }

    fn refresh(&self, standing: &Standing) -> Result<(), StoreError> {
        let _one_reader = standing.refresh.lock();
        standing.set(self.read(standing.id(), &standing.now())?);
        Ok(())
    }

    /// A standing that cannot be read is no standing.
    fn refresh_or_deny(&self, standing: &Standing) {
        if let Err(error) = self.refresh(standing) {
            tracing::error!(certificate = %standing.id(), %error, "standing unreadable: denied");
            standing.set(StandingNow::unknown());
        }
    }

    fn read(&self, id: &CertificateId, before: &StandingNow) -> Result<StandingNow, StoreError> {
        let Some(record) = self
            .table
            .get_as::<CertificateRecord>(&keys::certificate(id))?
            .map(|row| row.value)
        else {
            return Ok(StandingNow::unknown());
        };
        let thing = self
            .table
            .get_as::<ThingName>(&keys::bound(id))?
            .map(|row| row.value);
        let facts = match &thing {
            Some(name) => self.table.get_as::<Thing>(&keys::thing(name))?,
            None => None,
        };
        let facts = facts.map(|row| Arc::new(thing_facts(row.value)));
        // The id is a digest of the certificate: what was read of it once stays true.
        let certificate = match &before.certificate.id {
            Some(_) => Arc::clone(&before.certificate),
            None => Arc::new(certificate_values(id, &record)?),
        };
        let mut groups: Vec<GroupName> = match &thing {
            Some(name) => self.names(&keys::groups_of(name))?,
            None => Vec::new(),
        };
        self.add_groups_above(&mut groups)?;
        let mut names: BTreeSet<PolicyName> = self
            .names(&keys::attached(&Target::Certificate(*id)))?
            .into_iter()
            .collect();
        for group in &groups {
            names.extend(self.names::<PolicyName>(&keys::attached(&Target::Group(group.clone())))?);
        }
        let mut policies = Vec::with_capacity(names.len() + 1);
        for name in names {
            if let Some(policy) = self.policy(&name)? {
                policies.push(NamedPolicy { name, policy });
            }
        }
        // A claim belongs to no thing, so devices do not pay for the look.
        if thing.is_none()
            && let Some(row) = self.table.get_as::<Claim>(&keys::claim(id))?
        {
            policies.push(self.claim_policy(&row.value)?);
        }
        let health = match &thing {
            Some(name) => self.table.get_as::<Health>(&keys::posture(name))?,
            None => None,
        };
        let posture = match &thing {
            Some(_) => health.map(|row| row.value).unwrap_or_default().posture(),
            None => policy::Posture::default(),
        };
        let (mut status, mut not_after) = (record.status, record.not_after);
        if let Origin::Authority(id) = &record.origin {
            let row = self.table.get_as::<AuthorityRecord>(&keys::authority(id))?;
            match row.map(|row| row.value) {
                Some(row) if row.status == AuthorityStatus::Active => {
                    not_after = not_after.min(row.not_after);
                }
                // Switched off or gone: what it signed counts no more.
                _ if status == CertificateStatus::Active => status = CertificateStatus::Inactive,
                _ => {}
            }
        }
        Ok(StandingNow {
            origin: record.origin,
            posture: Arc::new(posture),
            networks: self.networks()?,
            status: Some(status),
            thing,
            thing_facts: facts,
            certificate,
            groups: groups.into(),
            policies: policies.into(),
            not_before: record.not_before,
            not_after,
        })
    }

    /// What is attached to a group counts for the things of all groups below it.
    fn add_groups_above(&self, groups: &mut Vec<GroupName>) -> Result<(), StoreError> {
        let mut at = 0;
        while let Some(name) = groups.get(at) {
            let group = self.table.get_as::<Group>(&keys::group(name))?;
            if let Some(parent) = group.and_then(|row| row.value.parent)
                && !groups.contains(&parent)
            {
                groups.push(parent);
            }
            at += 1;
        }
        Ok(())
    }

    fn names<T: FromStr>(&self, prefix: &str) -> Result<Vec<T>, StoreError> {
        // Bounded where they are written: ten groups per thing, ten policies per target.
        let rows = self.table.scan(prefix, None, crate::LIST_LIMIT_ITEMS)?;
        Ok(rows
            .iter()
            .filter_map(|(key, _)| key.strip_prefix(prefix)?.parse().ok())
            .collect())
    }

    fn networks(&self) -> Result<Arc<Networks>, StoreError> {
        let mut known = self.networks.lock();
        if let Some(networks) = &*known {
            return Ok(Arc::clone(networks));
        }
        let read = Arc::new(networks::read(&self.table)?);
        *known = Some(Arc::clone(&read));
        Ok(read)
    }

    pub(crate) fn policy(&self, name: &PolicyName) -> Result<Option<Arc<Policy>>, StoreError> {
        let Some(Row {
            revision,
            value: record,
        }) = self.table.get_as::<PolicyRecord>(&keys::policy(name))?
        else {
            return Ok(None);
        };
        let mut cache = self.policies.lock();
        if let Some((_, policy)) = cache.get(name).filter(|(cached, _)| *cached == revision) {
            return Ok(Some(Arc::clone(policy)));
        }
        match record.default().map(|version| {
            let parsed = Policy::parse(&version.document);
            parsed.map(|policy| policy.numbered(version.number))
        }) {
            Some(Ok(policy)) => {
                let policy = Arc::new(policy);
                if cache.len() >= POLICY_CACHE_LIMIT_ITEMS {
                    cache.clear();
                }
                cache.insert(name.clone(), (revision, Arc::clone(&policy)));
                Ok(Some(policy))
            }
            // Stored by another release, or damaged. An unread policy could hold a Deny: the whole standing goes.
            Some(Err(error)) => Err(StoreError::Decode {
                key: keys::policy(name),
                reason: error.to_string(),
            }),
            None => Err(StoreError::Decode {
                key: keys::policy(name),
                reason: format!("default version {} is missing", record.default_version),
            }),
        }
    }

    /// What a claim may do, as a policy that is attached nowhere.
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

    fn apply(&self, revision: u64, changed: &[String]) {
        let touched = Touched::of(changed);
        if touched.revocations {
            self.revocation_epoch.fetch_add(1, Ordering::Release);
        }
        if touched.networks {
            *self.networks.lock() = None;
        }
        for octet in &touched.listed {
            if let Some(epoch) = self.listed_epochs.get(usize::from(*octet)) {
                epoch.fetch_add(1, Ordering::Release);
            }
        }
        for standing in self.live() {
            let now = standing.now();
            if touched.networks || touched.includes(standing.id(), &now) {
                self.refresh_or_deny(&standing);
            }
        }
        self.advance(revision);
    }

    fn apply_all(&self) {
        *self.networks.lock() = None;
        self.revocation_epoch.fetch_add(1, Ordering::Release);
        for epoch in &self.listed_epochs {
            epoch.fetch_add(1, Ordering::Release);
        }
        for standing in self.live() {
            self.refresh_or_deny(&standing);
        }
    }

    fn live(&self) -> Vec<Arc<Standing>> {
        self.directory
            .lock()
            .standings
            .values()
            .filter_map(Weak::upgrade)
            .collect()
    }

    fn advance(&self, revision: u64) {
        let mut applied = self.applied.lock();
        applied.revision = applied.revision.max(revision);
        self.advanced.notify_all();
    }

    fn end(&self) {
        self.applied.lock().ended = true;
        self.advanced.notify_all();
    }
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
    let facts = ca::CertificateFacts::read(der.contents())
        .map_err(|error| unreadable(error.to_string()))?;
    let key_kind = PublicKey::of_certificate(der.contents()).ok();
    let key_kind = key_kind.map(|key| match key.kind() {
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
        enrolled_by: None,
    })
}

fn seconds(moment: SystemTime) -> Option<i64> {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    since.as_secs().try_into().ok()
}

fn follow(mut watch: Watch, live: &Weak<Live>) {
    loop {
        let next = watch.next();
        let Some(live) = live.upgrade() else { return };
        match next {
            Some(Event::Changed { revision, keys }) => live.apply(revision, &keys),
            Some(Event::Lagged { revision }) => {
                live.apply_all();
                live.advance(revision);
            }
            None => return live.end(),
        }
    }
}

/// Whom a batch of changed rows concerns.
#[derive(Default)]
struct Touched {
    certificates: BTreeSet<CertificateId>,
    authorities: BTreeSet<CertificateId>,
    things: BTreeSet<ThingName>,
    groups: BTreeSet<GroupName>,
    policies: BTreeSet<PolicyName>,
    revocations: bool,
    /// Last octets of the serial numbers of what was revoked.
    listed: BTreeSet<u8>,
    networks: bool,
}

impl Touched {
    fn of(changed: &[String]) -> Self {
        let mut touched = Touched::default();
        for key in changed {
            let mut parts = key.splitn(3, '/');
            let (kind, first, second) = (
                parts.next(),
                parts.next().unwrap_or(""),
                parts.next().unwrap_or(""),
            );
            match kind {
                Some("cert" | "bound" | "claim") => touched
                    .certificates
                    .extend(first.parse::<CertificateId>().ok()),
                Some("ca") => touched
                    .authorities
                    .extend(first.parse::<CertificateId>().ok()),
                Some("network") => touched.networks = true,
                Some("thing" | "memberof" | "principal" | "posture") => {
                    touched.things.extend(first.parse().ok())
                }
                Some("policy") => touched.policies.extend(first.parse().ok()),
                Some("attached") => match first.split_once(':') {
                    Some(("cert", id)) => touched
                        .certificates
                        .extend(id.parse::<CertificateId>().ok()),
                    Some(("group", name)) => touched.groups.extend(name.parse().ok()),
                    _ => tracing::error!(key, second, "registry row of an unknown target"),
                },
                Some("revoked") => touched.revocations = true,
                Some("crl") => touched.listed.extend(u8::from_str_radix(first, 16).ok()),
                // The other half of a pair whose first half is above, or a fact no standing holds.
                _ => {}
            }
        }
        touched
    }

    fn includes(&self, id: &CertificateId, now: &StandingNow) -> bool {
        self.certificates.contains(id)
            || now.thing.as_ref().is_some_and(|thing| self.things.contains(thing))
            || matches!(&now.origin, Origin::Authority(id) if self.authorities.contains(id))
            || now.groups.iter().any(|group| self.groups.contains(group))
            || now.policies.iter().any(|named| self.policies.contains(&named.name))
            // One that lost its policies to an unreadable row hears of the row's mending.
            || (now.status.is_none() && !self.policies.is_empty())
    }
}

impl crate::Fleet {
    /// The standing of a certificate: a few point reads when it is not live yet, a map lookup when it is.
    ///
    /// # Errors
    /// When the registry cannot be read: treat it as a refusal.
    pub fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, crate::FleetError> {
        Ok(self.inner.live.standing(id)?)
    }
}
