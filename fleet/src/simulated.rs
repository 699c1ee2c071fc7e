//! Standings set by hand, without a table, an authority and a thread: for the simulator.

use crate::{Standing, StandingNow};
use ca::CertificateId;
use parking_lot::Mutex;
use std::{collections::BTreeMap, sync::Arc};

/// Who certificates are, as the simulator says.
#[derive(Default)]
pub struct Standings {
    known: Mutex<BTreeMap<CertificateId, Arc<Standing>>>,
}

impl Standings {
    /// The standing of a certificate; one nobody has set is unknown.
    pub fn get(&self, id: &CertificateId) -> Arc<Standing> {
        let mut known = self.known.lock();
        let standing = known.entry(*id).or_insert_with(|| {
            let standing = Standing::new(*id);
            standing.set(StandingNow::unknown());
            Arc::new(standing)
        });
        Arc::clone(standing)
    }

    /// What is known of a certificate nobody knows, to be filled in.
    pub fn unknown() -> StandingNow {
        StandingNow::unknown()
    }

    /// Changes a standing and wakes all who watch it, as the registry does after a commit.
    pub fn set(&self, id: &CertificateId, now: StandingNow) {
        self.get(id).set(now);
    }
}
