//! Sessions by their owners, so that how many one has is known, and which of them was parked first.

use std::collections::BTreeSet;

use hashbrown::HashMap;

use super::{Owner, SessionKey, Slot};
use crate::topic::ClientId;

/// Some of the owners.
#[derive(Default)]
pub(super) struct Shard {
    owners: HashMap<Owner, Owned>,
    /// How many are parked of an owner, where that is more than one.
    several: BTreeSet<(usize, Owner)>,
}

/// The sessions of one owner.
#[derive(Default)]
struct Owned {
    /// In the order of client identifiers. Most owners have one, and a node of a tree would cost more than it.
    sessions: Vec<(ClientId, Slot)>,
    parked: usize,
}

impl Owned {
    fn place(&self, client_id: &ClientId) -> Result<usize, usize> {
        self.sessions
            .binary_search_by(|(one, _)| one.cmp(client_id))
    }
}

impl Slot {
    fn is_parked(&self) -> bool {
        matches!(self, Self::Parked { .. })
    }
}

impl Shard {
    pub(super) fn get(&self, key: &SessionKey) -> Option<&Slot> {
        let owned = self.owners.get(&key.owner)?;
        let at = owned.place(&key.client_id).ok()?;
        owned.sessions.get(at).map(|(_, slot)| slot)
    }

    /// Not to be made another kind of by this; that is for [`Shard::put`], which counts.
    pub(super) fn get_mut(&mut self, key: &SessionKey) -> Option<&mut Slot> {
        let owned = self.owners.get_mut(&key.owner)?;
        let at = owned.place(&key.client_id).ok()?;
        owned.sessions.get_mut(at).map(|(_, slot)| slot)
    }

    /// Puts a session in, or with `None` takes it out. What was there.
    pub(super) fn put(&mut self, key: &SessionKey, slot: Option<Slot>) -> Option<Slot> {
        let owned = match self.owners.get_mut(&key.owner) {
            Some(owned) => owned,
            None => self.owners.entry(key.owner.clone()).or_default(),
        };
        let now_parked = slot.as_ref().is_some_and(Slot::is_parked);
        let sessions = &mut owned.sessions;
        let before = match (
            sessions.binary_search_by(|(one, _)| one.cmp(&key.client_id)),
            slot,
        ) {
            (Ok(at), Some(slot)) => {
                let there = sessions.get_mut(at);
                there.map(|(_, there)| std::mem::replace(there, slot))
            }
            (Ok(at), None) => {
                let (_, removed) = sessions.remove(at);
                if sessions.len() < sessions.capacity() / 4 {
                    sessions.shrink_to(sessions.len() * 2);
                }
                Some(removed)
            }
            (Err(at), Some(slot)) => {
                if sessions.is_empty() {
                    sessions.reserve_exact(1);
                }
                sessions.insert(at, (key.client_id.clone(), slot));
                None
            }
            (Err(_), None) => None,
        };
        let was_parked = before.as_ref().is_some_and(Slot::is_parked);
        let was = owned.parked;
        owned.parked = was + usize::from(now_parked) - usize::from(was_parked);
        let is = owned.parked;
        if owned.sessions.is_empty() {
            self.owners.remove(&key.owner);
        }
        if was != is {
            if was > 1 {
                self.several.remove(&(was, key.owner.clone()));
            }
            if is > 1 {
                self.several.insert((is, key.owner.clone()));
            }
        }
        before
    }

    /// The sessions of an owner, in the order of client identifiers.
    pub(super) fn of_owner(&self, owner: &Owner) -> impl Iterator<Item = (&ClientId, &Slot)> {
        let owned = self.owners.get(owner).into_iter();
        owned.flat_map(|owned| {
            owned
                .sessions
                .iter()
                .map(|(client_id, slot)| (client_id, slot))
        })
    }

    /// The sessions of a client id, one at most of each owner.
    pub(super) fn of_client<'s>(
        &'s self,
        client_id: &'s ClientId,
    ) -> impl Iterator<Item = (&'s Owner, &'s Slot)> {
        self.owners.iter().filter_map(|(owner, owned)| {
            let at = owned.place(client_id).ok()?;
            owned.sessions.get(at).map(|(_, slot)| (owner, slot))
        })
    }

    /// How many of an owner are parked.
    pub(super) fn parked(&self, owner: &Owner) -> usize {
        self.owners.get(owner).map_or(0, |owned| owned.parked)
    }

    /// How many of an owner are not parked.
    pub(super) fn live(&self, owner: &Owner) -> usize {
        let owned = self.owners.get(owner);
        owned.map_or(0, |owned| owned.sessions.len() - owned.parked)
    }

    /// Of an owner's parked sessions the one that was parked first.
    pub(super) fn first_parked(&self, owner: &Owner) -> Option<ClientId> {
        let sessions = self.owners.get(owner)?.sessions.iter();
        let parked = sessions.filter_map(|(client_id, slot)| match slot {
            Slot::Parked { turn, .. } => Some((turn, client_id)),
            Slot::Live { .. } => None,
        });
        parked.min().map(|(_, client_id)| client_id.clone())
    }

    /// Who has most parked, where that is more than one.
    pub(super) fn with_most(&self) -> Option<&(usize, Owner)> {
        self.several.last()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Owner, &ClientId, &Slot)> {
        self.owners.iter().flat_map(|(owner, owned)| {
            let sessions = owned.sessions.iter();
            sessions.map(move |(client_id, slot)| (owner, client_id, slot))
        })
    }
}
