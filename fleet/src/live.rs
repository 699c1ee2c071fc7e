//! The live standings, kept current by the store's watch: one path for every change, whoever made it. A thread of
//! its own follows the watch; operations wait here until their own change has been applied.
//!
//! What principals share is read and compiled once for a change, whoever it concerns is found by an index, and of a
//! principal only those rows are read that have changed: a change costs what it touches.

mod card;
mod cards;
mod index;
mod packing;
mod profile;
mod reading;
mod recent;
mod touched;

pub(crate) use cards::Cards;
pub(crate) use reading::{Known, certificate_values, thing_facts};
pub(crate) use recent::Recent;

use crate::{FleetError, Health, Standing, StandingNow, authorities::Signer, networks};
use ca::CertificateId;
use index::{Index, Slot};
use parking_lot::{Condvar, Mutex};
use policy::{Networks, Policy, PolicyName, Posture};
use profile::{Profile, Reader};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
};
use store::{Event, Store, StoreError, Table, Watch};
use touched::{Parts, Touched};

/// Changes that are applied together where several wait.
const TOGETHER_ITEMS: usize = 64;
/// Principals that are gone through between two looks at what has come meanwhile.
const LOOK_EVERY_ITEMS: usize = 256;

pub(crate) struct Live {
    table: Table,
    cards: Cards,
    /// Of the ARNs in a claim's policy.
    account: String,
    /// Never held while rows are read.
    index: Mutex<Index>,
    recent: Arc<Recent>,
    /// Compiled default versions, by name, with the revision of the row they were compiled from.
    policies: Mutex<HashMap<PolicyName, (u64, Arc<Policy>)>>,
    /// The named networks; `None` where they must be read (again).
    networks: Mutex<Option<Arc<Networks>>>,
    /// The posture of a thing of which nothing is known.
    healthy: Arc<Posture>,
    /// Counts the changes whose application has begun.
    changes: AtomicU64,
    applied: Mutex<Applied>,
    advanced: Condvar,
    revocation_epoch: AtomicU64,
    /// The same for each last octet of a serial number.
    listed_epochs: Box<[AtomicU64]>,
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
        cards: Cards,
        account: &str,
    ) -> Result<Arc<Self>, FleetError> {
        let watch = table.watch(store.revision());
        let live = Arc::new(Live {
            table: table.clone(),
            cards,
            account: account.to_owned(),
            index: Mutex::default(),
            recent: Arc::default(),
            policies: Mutex::default(),
            networks: Mutex::default(),
            healthy: Arc::new(Health::default().posture(None)),
            changes: AtomicU64::new(0),
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
        let fresh = || Arc::new(Standing::kept_in(*id, &self.recent));
        let standing = self.index.lock().standing(id, fresh);
        if standing.generation() == 0 {
            self.read_first(&standing)?;
            if standing.now().status.is_some() {
                self.recent.keep(&standing);
            }
        }
        Ok(standing)
    }

    pub(crate) fn cards(&self) -> &Cards {
        &self.cards
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

    /// A standing that cannot be read is no standing.
    fn refresh_or_deny(&self, standing: &Arc<Standing>, parts: Parts, reader: &mut Reader) {
        if let Err(error) = self.refresh(standing, parts, reader) {
            tracing::error!(certificate = %standing.id(), %error, "standing unreadable: denied");
            standing.set(StandingNow::unknown());
        }
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

    /// Applies changes. Now and then, where they touch many, calls `look`, which sees to what cannot wait.
    fn apply(&self, revision: u64, changed: &[String], mut look: impl FnMut()) {
        // Before the change counts as begun: who reads later finds the marks.
        self.cards.take(changed);
        self.changes.fetch_add(1, Ordering::AcqRel);
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
        let mut reader = Reader::default();
        let sharing = if touched.is_of_policies() {
            self.renew_profiles(&mut reader, |profile: &Profile| {
                let mut names = profile.names.iter();
                let mut groups = profile.groups.iter();
                names.any(|name| touched.policies.contains(name))
                    || groups.any(|group| touched.groups.contains(group))
            })
        } else {
            Vec::new()
        };
        for (number, (standing, parts)) in self.concerned(&touched, sharing).iter().enumerate() {
            if number % LOOK_EVERY_ITEMS == LOOK_EVERY_ITEMS - 1 {
                look();
            }
            self.refresh_or_deny(standing, *parts, &mut reader);
        }
        self.advance(revision);
    }

    /// Tells those whose certificates have changed at once: what was revoked does not wait for a change before it that
    /// touches everybody. It is applied whole in its turn.
    fn hasten(&self, changed: &[String]) {
        let touched = Touched::of(changed);
        let revoked: Vec<Arc<Standing>> = {
            let index = self.index.lock();
            let slots = touched.certificates.keys();
            slots
                .filter_map(|id| index.of_certificate(id).and_then(|slot| index.get(slot)))
                .collect()
        };
        for standing in revoked {
            self.refresh_or_deny(&standing, Parts::CERTIFICATE, &mut Reader::default());
        }
    }

    /// Reads outdated profiles again; returns the members of those that have become others.
    fn renew_profiles(&self, reader: &mut Reader, touches: impl Fn(&Profile) -> bool) -> Vec<Slot> {
        let outdated = self.index.lock().outdated(touches);
        let mut members = Vec::new();
        for (key, before) in outdated {
            let renewed = match reader.profile(self, &key) {
                Ok(profile) => match before {
                    Some(before) if profile.is_same(&before) => {
                        self.index.lock().renew_profile(&key, before);
                        continue;
                    }
                    _ => Some(Arc::new(profile)),
                },
                // Told of by each who has it.
                Err(_) => None,
            };
            let mut index = self.index.lock();
            if let Some(renewed) = renewed {
                index.renew_profile(&key, renewed);
            }
            members.extend(index.members(&key));
        }
        members
    }

    /// Whose certificates have changed, under each name that they may be found by.
    fn signers(&self, changed: &BTreeSet<CertificateId>) -> Result<Vec<Signer>, StoreError> {
        let mut signers = Vec::with_capacity(changed.len() * 2);
        for id in changed {
            signers.push(Signer::alone(id));
            signers.extend(Signer::read(&self.table, id)?);
        }
        Ok(signers)
    }

    /// Who is to be read again, and what of each. Who is nobody's is forgotten.
    fn concerned(&self, touched: &Touched, sharing: Vec<Slot>) -> Vec<(Arc<Standing>, Parts)> {
        let signers = self.signers(&touched.authorities);
        let mut index = self.index.lock();
        let mut slots: HashMap<Slot, Parts> = HashMap::new();
        let mut add = |slot: Slot, parts: Parts| {
            let known = slots.entry(slot).or_default();
            *known = *known | parts;
        };
        for (id, parts) in &touched.certificates {
            if let Some(slot) = index.of_certificate(id) {
                add(slot, *parts);
            }
        }
        for (name, parts) in &touched.things {
            index.of_thing(name).for_each(|slot| add(slot, *parts));
        }
        match &signers {
            Ok(signers) => {
                let slots = signers.iter().flat_map(|signer| index.of_signer(signer));
                slots.for_each(|slot| add(slot, Parts::NONE));
            }
            Err(error) => {
                tracing::error!(%error, "whose authority has changed cannot be read: all are looked at");
                index
                    .of_any_signer()
                    .for_each(|slot| add(slot, Parts::NONE));
            }
        }
        if touched.networks || touched.is_of_policies() {
            index.unreadable().for_each(|slot| add(slot, Parts::ALL));
        }
        if touched.networks {
            index.all().for_each(|slot| add(slot, Parts::NONE));
        }
        sharing.into_iter().for_each(|slot| add(slot, Parts::NONE));
        let mut recent = self.recent.hold();
        let mut live = Vec::with_capacity(slots.len());
        for (slot, parts) in slots {
            match index.get(slot) {
                Some(standing) if recent.is_idle(&standing) => {
                    recent.forget(&standing);
                    index.lose(slot);
                }
                Some(standing) => live.push((standing, parts)),
                None => {}
            }
        }
        live
    }

    fn apply_all(&self) {
        self.cards.take_all(&self.table);
        self.changes.fetch_add(1, Ordering::AcqRel);
        *self.networks.lock() = None;
        self.revocation_epoch.fetch_add(1, Ordering::Release);
        for epoch in &self.listed_epochs {
            epoch.fetch_add(1, Ordering::Release);
        }
        let mut reader = Reader::default();
        let standings: Vec<Arc<Standing>> = {
            let mut index = self.index.lock();
            index.outdated(|_| true);
            index.all().filter_map(|slot| index.get(slot)).collect()
        };
        for standing in standings {
            self.refresh_or_deny(&standing, Parts::ALL, &mut reader);
        }
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

fn follow(mut watch: Watch, live: &Weak<Live>) {
    // What has come while a change was applied.
    let mut waiting = VecDeque::new();
    loop {
        let next = waiting.pop_front().or_else(|| watch.next());
        let Some(live) = live.upgrade() else { return };
        match next {
            Some(Event::Changed { mut revision, keys }) => {
                while let Some(event) = watch.try_next() {
                    waiting.push_back(event);
                }
                // Changes that wait already are applied together, so that a burst of them does not judge everybody
                // again for each.
                let mut together: Option<Vec<String>> = None;
                for _ in 1..TOGETHER_ITEMS {
                    let Some(Event::Changed { .. }) = waiting.front() else {
                        break;
                    };
                    if let Some(Event::Changed {
                        revision: later,
                        keys: others,
                    }) = waiting.pop_front()
                    {
                        let keys = together.get_or_insert_with(|| keys.to_vec());
                        keys.extend(others.iter().cloned());
                        revision = later;
                    }
                }
                live.apply(revision, together.as_deref().unwrap_or(&keys), || {
                    while let Some(event) = watch.try_next() {
                        if let Event::Changed { keys, .. } = &event {
                            live.hasten(keys);
                        }
                        waiting.push_back(event);
                    }
                });
            }
            Some(Event::Lagged { revision }) => {
                live.apply_all();
                live.advance(revision);
            }
            None => return live.end(),
        }
    }
}

impl crate::Fleet {
    /// The standing of a certificate: one read or a few when it is not live yet, a map lookup when it is or was a moment
    /// ago.
    ///
    /// # Errors
    /// When the registry cannot be read: treat it as a refusal.
    pub fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, crate::FleetError> {
        Ok(self.inner.live.standing(id)?)
    }
}
