//! A device under `device-default` whose connection remembers what it has decided.

#![allow(clippy::unwrap_used, reason = "the set-up of a test is part of it")]

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use broker::Limits;
use broker::session::Time;
use broker::simulate::{Broker, Parts, Warm};
use ca::CertificateId;
use fleet::simulated::Standings;
use fleet::{CertificateStatus, FleetError, Standing, StandingNow};
use policy::{NamedPolicy, Realm, ThingFacts};
use store::journal::Options;
use store::journal::simulated::{self, MemoryDisk};
use tokio::runtime::{Builder, Runtime};

const ACCOUNT: &str = "000000000000";
const NAME: &str = "lamp-1";
/// What it publishes to.
pub(crate) const PUBLISHED: &str = "dt/lamp-1/light";

struct Registry {
    standings: Standings,
    realm: Arc<Realm>,
}

impl broker::Registry for Registry {
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError> {
        Ok(self.standings.get(id))
    }

    fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }
}

/// The device after its first messages, and what drives its broker.
pub(crate) fn warm() -> (Runtime, Warm) {
    let certificate = CertificateId::of(b"a certificate");
    let registry = Registry {
        standings: Standings::default(),
        realm: Arc::new(Realm::live(ACCOUNT)),
    };
    let thing = ThingFacts {
        name: NAME.into(),
        ..ThingFacts::default()
    };
    registry.standings.set(
        &certificate,
        StandingNow {
            status: Some(CertificateStatus::Active),
            thing: Some(NAME.parse().unwrap()),
            thing_facts: Some(Arc::new(thing)),
            policies: Arc::from([NamedPolicy {
                name: policy::DEVICE_DEFAULT.parse().unwrap(),
                policy: Arc::new(policy::device_default(ACCOUNT).unwrap()),
            }]),
            not_before: UNIX_EPOCH,
            not_after: UNIX_EPOCH + Duration::from_secs(4_000_000_000),
            ..Standings::unknown()
        },
    );
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let (journal, replay, _) = simulated::open(&MemoryDisk::default(), Options::default()).unwrap();
    let broker = {
        let _entered = runtime.enter();
        Broker::open(Parts {
            registry: Arc::new(registry),
            journal,
            replay,
            limits: Limits::default(),
            now: Time::from_millis(1_767_225_600_000),
        })
        .unwrap()
    };
    let (published, received) = (PUBLISHED.parse(), "cmd/lamp-1/light".parse());
    let mut warm = broker
        .warm(
            &certificate,
            NAME.parse().unwrap(),
            published.unwrap(),
            received.unwrap(),
        )
        .unwrap();
    assert!(warm.may_publish() && warm.may_receive());
    (runtime, warm)
}
