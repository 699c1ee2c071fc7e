//! Places for what may have to wait for the disk: while that is nearly full, or fails, it may be hours. So many wait of one
//! owner, and so many bytes of all, whoever has hung up meanwhile.

use std::sync::Arc;

use hashbrown::HashMap;
use parking_lot::Mutex;

use super::retained::Volume;
use super::sessions::Owner;

/// See the module.
pub(crate) struct Places {
    own: Volume,
    all_bytes: usize,
    // Held for a look-up or an insertion; never across an await.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    owners: HashMap<Owner, Volume>,
    bytes: usize,
    count: usize,
}

/// One that is taken. It is free when this is dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    owner: Option<Owner>,
    bytes: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = &mut *self.places.taken.lock();
        taken.bytes -= self.bytes;
        taken.count -= 1;
        if let Some(owner) = &self.owner
            && let Some(own) = taken.owners.get_mut(owner)
        {
            own.messages -= 1;
            own.bytes -= self.bytes;
            if own.messages == 0 {
                taken.owners.remove(owner);
            }
        }
    }
}

impl Places {
    /// `own`: most of one owner. `all_bytes`: most of all together.
    pub(crate) fn new(own: Volume, all_bytes: usize) -> Self {
        Self {
            own,
            all_bytes,
            taken: Mutex::default(),
        }
    }

    /// A place for so many bytes; `None` where as many wait of the owner, or of all, as may. One that nothing waits beside
    /// has its place however large it is. Who is no owner has a share of what all have only.
    pub(crate) fn take(self: &Arc<Self>, owner: Option<&Owner>, bytes: usize) -> Option<Place> {
        let taken = &mut *self.taken.lock();
        let all = taken.bytes.saturating_add(bytes);
        if all > self.all_bytes && taken.count > 0 {
            return None;
        }
        if let Some(owner) = owner {
            let own = taken.owners.get(owner).copied().unwrap_or(Volume {
                messages: 0,
                bytes: 0,
            });
            let new = Volume {
                messages: own.messages + 1,
                bytes: own.bytes.saturating_add(bytes),
            };
            let too_long = new.bytes > self.own.bytes && own.messages > 0;
            if new.messages > self.own.messages || too_long {
                return None;
            }
            taken.owners.insert(owner.clone(), new);
        }
        taken.bytes = all;
        taken.count += 1;
        Some(Place {
            places: Arc::clone(self),
            owner: owner.cloned(),
            bytes,
        })
    }

    /// How many are taken.
    pub(crate) fn count(&self) -> usize {
        self.taken.lock().count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: Volume = Volume {
        messages: 4,
        bytes: 1_000,
    };
    const ALL_BYTES: usize = 10_000;

    fn owner(name: &str) -> Owner {
        Owner::Thing(name.parse().unwrap())
    }

    #[test]
    fn so_many_wait_of_one_owner_and_others_have_their_places() {
        let places = Arc::new(Places::new(OWN, ALL_BYTES));
        let (one, other) = (owner("one"), owner("other"));
        let mut taken = Vec::new();
        while let Some(place) = places.take(Some(&one), 10) {
            taken.push(place);
        }
        assert_eq!(taken.len(), OWN.messages);
        assert!(places.take(Some(&other), 10).is_some());
        assert!(places.take(None, 10).is_some());
        taken.pop();
        let most = places.take(Some(&one), OWN.bytes);
        assert!(most.is_none(), "too many bytes beside others");
        assert!(places.take(Some(&one), 10).is_some());
        taken.clear();
        assert_eq!(places.count(), 0);
        assert!(places.taken.lock().owners.is_empty());
    }

    #[test]
    fn so_many_bytes_wait_of_all() {
        let places = Arc::new(Places::new(OWN, ALL_BYTES));
        let mut taken = Vec::new();
        for n in 0.. {
            match places.take(Some(&owner(&format!("t{n}"))), OWN.bytes) {
                Some(place) => taken.push(place),
                None => break,
            }
        }
        assert_eq!(taken.len(), ALL_BYTES / OWN.bytes);
        assert!(places.take(None, 1).is_none());
    }

    #[test]
    fn what_is_alone_has_its_place_however_large_it_is() {
        let places = Arc::new(Places::new(OWN, ALL_BYTES));
        let large = places.take(Some(&owner("one")), 2 * ALL_BYTES);
        assert!(large.is_some() && places.take(None, 1).is_none());
        drop(large);
        assert!(places.take(None, 1).is_some());
    }
}
