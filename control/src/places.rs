//! The places of peers that have shown who they are: so many for all, few for each certificate.
//!
//! One that is stolen, or at fault, must not keep the others out. Who has more connections than that loses the one it has
//! had longest.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use ca::CertificateId;
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// See the module.
pub(crate) struct Places {
    all: usize,
    each: usize,
    // Held for one change; never across an await.
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    next: u64,
    count: usize,
    /// Of each certificate in the order in which they were taken.
    by_certificate: HashMap<CertificateId, BTreeMap<u64, oneshot::Sender<()>>>,
}

/// One connection's place, given back when dropped.
pub(crate) struct Place {
    places: Arc<Places>,
    certificate: CertificateId,
    number: u64,
    out: oneshot::Receiver<()>,
}

impl Places {
    /// So many for all, and for each certificate.
    pub(crate) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self {
            all,
            each: each.max(1),
            taken: Mutex::default(),
        })
    }

    /// A place for one more connection of a certificate; `None` where others have all. Where it has as many as it may, its
    /// oldest connection is to be closed, which the second value says.
    pub(crate) fn take(self: &Arc<Self>, certificate: CertificateId) -> Option<(Place, bool)> {
        let taken = &mut *self.taken.lock();
        let own = taken.by_certificate.get_mut(&certificate);
        let full = own.filter(|own| own.len() >= self.each);
        let gave_way = full.is_some_and(|own| own.pop_first().is_some());
        if gave_way {
            taken.count -= 1;
        }
        self.enter(taken, certificate)
            .map(|place| (place, gave_way))
    }

    /// A place where there is one without closing anything.
    pub(crate) fn take_free(self: &Arc<Self>, certificate: CertificateId) -> Option<Place> {
        let taken = &mut *self.taken.lock();
        let own = taken.by_certificate.get(&certificate);
        if own.is_some_and(|own| own.len() >= self.each) {
            return None;
        }
        self.enter(taken, certificate)
    }

    fn enter(self: &Arc<Self>, taken: &mut Taken, certificate: CertificateId) -> Option<Place> {
        if taken.count >= self.all {
            return None;
        }
        let number = taken.next;
        taken.next += 1;
        taken.count += 1;
        let (sender, out) = oneshot::channel();
        let own = taken.by_certificate.entry(certificate).or_default();
        own.insert(number, sender);
        Some(Place {
            places: Arc::clone(self),
            certificate,
            number,
            out,
        })
    }
}

impl Place {
    /// What `work` comes to; `None` once the place had to be given up.
    pub(crate) async fn while_held<F: Future>(mut self, work: F) -> Option<F::Output> {
        tokio::select! {
            biased;
            // It ends with its sender: nothing is ever sent.
            _ = &mut self.out => None,
            done = work => Some(done),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let taken = &mut *self.places.taken.lock();
        let Some(own) = taken.by_certificate.get_mut(&self.certificate) else {
            return;
        };
        if own.remove(&self.number).is_some() {
            taken.count -= 1;
        }
        if own.is_empty() {
            taken.by_certificate.remove(&self.certificate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(digit: &str) -> CertificateId {
        digit.repeat(64).parse().unwrap()
    }

    #[tokio::test]
    async fn who_has_too_many_loses_its_oldest_and_nobody_elses() {
        let places = Places::new(4, 2);
        let (greedy, other) = (certificate("a"), certificate("b"));
        let (others, _) = places.take(other).unwrap();
        let (first, gave_way) = places.take(greedy).unwrap();
        assert!(!gave_way);
        let (second, _) = places.take(greedy).unwrap();
        assert!(places.take_free(greedy).is_none());
        let (third, gave_way) = places.take(greedy).unwrap();
        assert!(gave_way);
        assert_eq!(first.while_held(std::future::pending::<()>()).await, None);
        assert_eq!(second.while_held(async { 2 }).await, Some(2));
        assert_eq!(others.while_held(async { 1 }).await, Some(1));
        assert!(places.take_free(greedy).is_some());
        drop(third);
        let taken = places.taken.lock();
        assert!(taken.count == 0 && taken.by_certificate.is_empty());
    }

    #[test]
    fn all_together_are_bounded() {
        let places = Places::new(2, 2);
        let one = places.take(certificate("a")).unwrap();
        let _other = places.take(certificate("b")).unwrap();
        assert!(places.take(certificate("c")).is_none());
        drop(one);
        assert!(places.take(certificate("c")).is_some());
    }
}
