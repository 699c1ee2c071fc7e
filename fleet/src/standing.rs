//! What a live principal may rely on now, and how it hears that it changed.

use crate::{
    CertificateStatus, GroupName, Origin, ThingName,
    live::{Known, Recent},
};
use arc_swap::ArcSwap;
use ca::CertificateId;
use parking_lot::Mutex;
use policy::{CertificateValues, NamedPolicy, Networks, PolicyName, Posture, ThingFacts};
use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Waker,
    time::SystemTime,
};

/// What the registry says of a certificate at one moment.
#[derive(Debug, Clone)]
pub struct StandingNow {
    /// Its state; `None` when the registry does not know it (any more).
    pub status: Option<CertificateStatus>,
    /// Who signed it.
    pub origin: Origin,
    /// The thing it belongs to.
    pub thing: Option<ThingName>,
    /// What policies can ask of that thing.
    pub thing_facts: Option<Arc<ThingFacts>>,
    /// What policies can ask of the certificate.
    pub certificate: Arc<CertificateValues>,
    /// The groups of that thing, and those above them.
    pub groups: Arc<[GroupName]>,
    /// Every policy that counts: of the certificate and of the groups. One that cannot be read counts for nothing.
    pub policies: Arc<[NamedPolicy]>,
    /// Where the thing counts only for who connects under its name (a non-exclusive attachment): those of the policies
    /// that it has by its groups alone, which then allow nothing either under another name.
    pub by_name: Option<Arc<[PolicyName]>>,
    /// What is known of the thing's health.
    pub posture: Arc<Posture>,
    /// The networks that have a name.
    pub networks: Arc<Networks>,
    /// First moment of the certificate's validity.
    pub not_before: SystemTime,
    /// Last moment of the certificate's validity.
    pub not_after: SystemTime,
}

impl StandingNow {
    /// Whether the certificate may act at `now`: known, active and within its validity.
    pub fn is_active(&self, now: SystemTime) -> bool {
        self.status == Some(CertificateStatus::Active)
            && self.not_before <= now
            && now <= self.not_after
    }

    /// Whether the thing counts for who connects as `client_id`. Whose the connection is does not depend on it: that is
    /// the thing's in any case.
    pub fn speaks_as_thing(&self, client_id: &str) -> bool {
        let is_named = |thing: &ThingName| thing.as_str() == client_id;
        self.by_name.is_none() || self.thing.as_ref().is_some_and(is_named)
    }

    /// What is known of a connection that speaks for this certificate as `client_id`, which is empty where there is
    /// none; the caller adds what only the connection knows.
    pub fn context(&self, client_id: &str, now: SystemTime) -> policy::Context {
        let since = now.duration_since(SystemTime::UNIX_EPOCH);
        let as_thing = self.speaks_as_thing(client_id);
        policy::Context {
            client_id: client_id.into(),
            thing: self.thing_facts.clone().filter(|_| as_thing),
            only_denying: self.by_name.clone().filter(|_| !as_thing),
            certificate: Arc::clone(&self.certificate),
            posture: Arc::clone(&self.posture),
            networks: Arc::clone(&self.networks),
            now: since.ok().and_then(|since| since.as_secs().try_into().ok()),
            ..policy::Context::default()
        }
    }

    pub(crate) fn unknown() -> Self {
        StandingNow {
            status: None,
            origin: Origin::Own,
            thing: None,
            thing_facts: None,
            certificate: Arc::default(),
            groups: Arc::from([]),
            policies: Arc::from([]),
            by_name: None,
            posture: Arc::default(),
            networks: Arc::default(),
            not_before: SystemTime::UNIX_EPOCH,
            not_after: SystemTime::UNIX_EPOCH,
        }
    }
}

/// The standing of one principal, shared by all its connections and kept current while any of them holds it.
pub struct Standing {
    id: CertificateId,
    now: ArcSwap<StandingNow>,
    generation: AtomicU64,
    /// What was read of it. Held while rows are read and the result is stored, so that an older reading never overwrites
    /// a newer one.
    pub(crate) known: Mutex<Option<Known>>,
    watchers: Mutex<Watchers>,
    /// Where it is kept for a while once it is let go.
    recent: Weak<Recent>,
    /// Its number there while it is kept there, else 0.
    pub(crate) kept: AtomicU64,
}

#[derive(Default)]
struct Watchers {
    next: u64,
    /// One, mostly.
    wakers: Vec<(u64, Waker)>,
}

impl Standing {
    pub(crate) fn new(id: CertificateId) -> Self {
        Standing {
            id,
            now: ArcSwap::from_pointee(StandingNow::unknown()),
            generation: AtomicU64::new(0),
            known: Mutex::new(None),
            watchers: Mutex::default(),
            recent: Weak::new(),
            kept: AtomicU64::new(0),
        }
    }

    /// As [`Self::new`], kept in `recent` when a connection lets it go.
    pub(crate) fn kept_in(id: CertificateId, recent: &Arc<Recent>) -> Self {
        Standing {
            recent: Arc::downgrade(recent),
            ..Standing::new(id)
        }
    }

    /// The certificate.
    pub fn id(&self) -> &CertificateId {
        &self.id
    }

    /// What the registry says now.
    pub fn now(&self) -> Arc<StandingNow> {
        self.now.load_full()
    }

    /// Changes whenever [`Self::now`] may answer differently. One atomic load. Read it before [`Self::now`]: then a
    /// change in between is noticed the next time.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// Wakes `waker` at every change until the guard is dropped.
    pub fn watch(self: &Arc<Self>, waker: Waker) -> WatchGuard {
        let mut watchers = self.watchers.lock();
        let key = watchers.next;
        watchers.next += 1;
        watchers.wakers.reserve_exact(1);
        watchers.wakers.push((key, waker));
        WatchGuard {
            standing: Arc::clone(self),
            key,
        }
    }

    pub(crate) fn set(&self, now: StandingNow) {
        self.now.store(Arc::new(now));
        self.generation.fetch_add(1, Ordering::Release);
        for (_, waker) in &self.watchers.lock().wakers {
            waker.wake_by_ref();
        }
    }
}

/// Ends a watch when dropped.
pub struct WatchGuard {
    standing: Arc<Standing>,
    key: u64,
}

impl WatchGuard {
    /// [`Standing::generation`] of what is watched.
    pub fn generation(&self) -> u64 {
        self.standing.generation()
    }
}

impl Drop for WatchGuard {
    fn drop(&mut self) {
        let mut watchers = self.standing.watchers.lock();
        watchers.wakers.retain(|(key, _)| *key != self.key);
        drop(watchers);
        if let Some(recent) = self.standing.recent.upgrade() {
            recent.keep(&self.standing);
        }
    }
}
