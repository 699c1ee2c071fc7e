//! Who is live, found by what a change may name: certificate, thing, who signed it, or what is shared with others.

use super::profile::{Key, Profile};
use crate::{Standing, ThingName, authorities::Signer};
use ca::CertificateId;
use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    sync::{Arc, Weak},
};

/// The index of dead entries is swept when it has grown to this many, then whenever it doubles.
const SWEEP_FLOOR_ITEMS: usize = 1_024;

/// Where a standing is kept.
pub(super) type Slot = usize;

/// What a live standing is found by, besides its certificate.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct FoundBy {
    pub(super) thing: Option<ThingName>,
    pub(super) signer: Option<Signer>,
    pub(super) profile: Option<Arc<Key>>,
    /// It could not be read: it is looked at again when anything shared has changed.
    pub(super) unreadable: bool,
}

struct Entry {
    id: CertificateId,
    standing: Weak<Standing>,
    by: FoundBy,
}

/// A profile with what settles it.
type Keyed = (Arc<Key>, Arc<Profile>);

/// Members of a profile, with what they share now; nothing where that must be made (again).
#[derive(Default)]
struct Shared {
    current: Option<Arc<Profile>>,
    members: HashSet<Slot>,
}

#[derive(Default)]
pub(super) struct Index {
    entries: Vec<Option<Entry>>,
    free: Vec<Slot>,
    by_certificate: HashMap<CertificateId, Slot>,
    by_thing: HashMap<ThingName, HashSet<Slot>>,
    by_signer: HashMap<Signer, HashSet<Slot>>,
    unreadable: HashSet<Slot>,
    profiles: HashMap<Arc<Key>, Shared>,
    /// Rises whenever rows of policies or groups have changed: what was read of them before is not kept any more.
    epoch: u64,
    sweep_at: usize,
}

impl Index {
    /// The standing of a certificate, as `fresh` makes it where there is none.
    pub(super) fn standing(
        &mut self,
        id: &CertificateId,
        fresh: impl FnOnce() -> Arc<Standing>,
    ) -> Arc<Standing> {
        if let Some(known) = self.find(id) {
            return known;
        }
        let standing = fresh();
        let slot = self.by_certificate.get(id).copied();
        if let Some(slot) = slot
            && let Some(Some(entry)) = self.entries.get_mut(slot)
        {
            // Of one that is gone: what it was found by is what the new one is found by until it is placed.
            entry.standing = Arc::downgrade(&standing);
        } else {
            self.add(*id, Arc::downgrade(&standing));
        }
        if self.by_certificate.len() >= self.sweep_at.max(SWEEP_FLOOR_ITEMS) {
            self.sweep();
            self.sweep_at = self.by_certificate.len() * 2;
        }
        standing
    }

    fn add(&mut self, id: CertificateId, standing: Weak<Standing>) {
        let entry = Some(Entry {
            id,
            standing,
            by: FoundBy::default(),
        });
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                self.entries.push(None);
                self.entries.len() - 1
            }
        };
        if let Some(place) = self.entries.get_mut(slot) {
            *place = entry;
        }
        self.by_certificate.insert(id, slot);
    }

    fn find(&self, id: &CertificateId) -> Option<Arc<Standing>> {
        self.by_certificate.get(id).and_then(|slot| self.get(*slot))
    }

    /// One that is still live.
    pub(super) fn get(&self, slot: Slot) -> Option<Arc<Standing>> {
        self.entries.get(slot)?.as_ref()?.standing.upgrade()
    }

    /// Whoever asks for this one next reads it.
    pub(super) fn lose(&mut self, slot: Slot) {
        if let Some(Some(entry)) = self.entries.get_mut(slot) {
            entry.standing = Weak::new();
        }
    }

    /// Says what a standing is found by from now on.
    pub(super) fn place(&mut self, standing: &Arc<Standing>, by: FoundBy) {
        let Some(slot) = self.by_certificate.get(standing.id()).copied() else {
            return;
        };
        let Some(Some(entry)) = self.entries.get_mut(slot) else {
            return;
        };
        // Another one has taken its place, and knows better.
        if !std::ptr::eq(entry.standing.as_ptr(), Arc::as_ptr(standing)) || entry.by == by {
            return;
        }
        let before = std::mem::replace(&mut entry.by, by.clone());
        self.unlink(slot, &before);
        if let Some(thing) = by.thing {
            self.by_thing.entry(thing).or_default().insert(slot);
        }
        if let Some(signer) = by.signer {
            self.by_signer.entry(signer).or_default().insert(slot);
        }
        if let Some(profile) = by.profile {
            self.profiles
                .entry(profile)
                .or_default()
                .members
                .insert(slot);
        }
        if by.unreadable {
            self.unreadable.insert(slot);
        }
    }

    fn unlink(&mut self, slot: Slot, by: &FoundBy) {
        fn remove<K: Hash + Eq>(from: &mut HashMap<K, HashSet<Slot>>, key: &K, slot: Slot) {
            if let Some(slots) = from.get_mut(key) {
                slots.remove(&slot);
                if slots.is_empty() {
                    from.remove(key);
                }
            }
        }
        if let Some(thing) = &by.thing {
            remove(&mut self.by_thing, thing, slot);
        }
        if let Some(signer) = &by.signer {
            remove(&mut self.by_signer, signer, slot);
        }
        if let Some(profile) = &by.profile
            && let Some(shared) = self.profiles.get_mut(profile)
        {
            // The profile stays for who comes next, until the next sweep.
            shared.members.remove(&slot);
        }
        self.unreadable.remove(&slot);
    }

    fn sweep(&mut self) {
        for slot in 0..self.entries.len() {
            let gone = |entry: &mut Entry| entry.standing.strong_count() == 0;
            let Some(entry) = self.entries.get_mut(slot).and_then(|e| e.take_if(gone)) else {
                continue;
            };
            self.by_certificate.remove(&entry.id);
            self.unlink(slot, &entry.by);
            self.free.push(slot);
        }
        self.profiles.retain(|_, shared| !shared.members.is_empty());
    }

    /// What the principals of a profile share, where it is known, and by which epoch it is not.
    pub(super) fn profile(&self, key: &Key) -> (u64, Option<Keyed>) {
        let known = self.profiles.get_key_value(key);
        let known =
            known.and_then(|(key, shared)| Some((Arc::clone(key), shared.current.clone()?)));
        (self.epoch, known)
    }

    /// Keeps what was read, unless rows have changed since `epoch`: then the key comes back.
    pub(super) fn keep_profile(
        &mut self,
        epoch: u64,
        key: Key,
        profile: &Arc<Profile>,
    ) -> Result<Arc<Key>, Key> {
        if epoch != self.epoch {
            return Err(key);
        }
        let key = match self.profiles.get_key_value(&key) {
            Some((key, _)) => Arc::clone(key),
            None => Arc::new(key),
        };
        let shared = self.profiles.entry(Arc::clone(&key)).or_default();
        shared.current = Some(Arc::clone(profile));
        Ok(key)
    }

    /// Puts what a change of rows has made of a profile.
    pub(super) fn renew_profile(&mut self, key: &Key, profile: Arc<Profile>) {
        if let Some(shared) = self.profiles.get_mut(key) {
            shared.current = Some(profile);
        }
    }

    /// The profiles that a change of policies or groups concerns, as they were. What was read of them counts no more.
    pub(super) fn outdated(
        &mut self,
        touches: impl Fn(&Profile) -> bool,
    ) -> Vec<(Arc<Key>, Option<Arc<Profile>>)> {
        self.epoch += 1;
        let mut outdated = Vec::new();
        for (key, shared) in &mut self.profiles {
            // One that could not be read may be readable now.
            if shared.current.as_deref().is_none_or(&touches) {
                outdated.push((Arc::clone(key), shared.current.take()));
            }
        }
        outdated
    }

    pub(super) fn members(&self, key: &Key) -> Vec<Slot> {
        let shared = self.profiles.get(key);
        let members = shared.map(|shared| shared.members.iter().copied());
        members.into_iter().flatten().collect()
    }

    pub(super) fn of_certificate(&self, id: &CertificateId) -> Option<Slot> {
        self.by_certificate.get(id).copied()
    }

    pub(super) fn of_thing(&self, name: &ThingName) -> impl Iterator<Item = Slot> + '_ {
        self.by_thing.get(name).into_iter().flatten().copied()
    }

    pub(super) fn of_signer(&self, signer: &Signer) -> impl Iterator<Item = Slot> + '_ {
        self.by_signer.get(signer).into_iter().flatten().copied()
    }

    /// Those that depend on some registered authority.
    pub(super) fn of_any_signer(&self) -> impl Iterator<Item = Slot> + '_ {
        self.by_signer.values().flatten().copied()
    }

    pub(super) fn unreadable(&self) -> impl Iterator<Item = Slot> + '_ {
        self.unreadable.iter().copied()
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Slot> + '_ {
        let there = |(slot, entry): (Slot, &Option<Entry>)| entry.as_ref().map(|_| slot);
        self.entries.iter().enumerate().filter_map(there)
    }
}
