//! One run of the broker, from its start to its crash: a runtime of one thread with a clock of its
//! own, the broker in it, and a journal on the disk that outlives it.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use broker::Limits;
use broker::session::Time;
use broker::simulate::{Broker, Parts};
use ca::CertificateId;
use fleet::simulated::Standings;
use fleet::{FleetError, Standing};
use policy::Realm;
use store::Journal;
use store::journal::Options;
use store::journal::simulated::{self, Committer, MemoryDisk};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::link::{Link, Moment, connection};

/// The registry of the simulation.
pub(crate) struct Registry {
    pub(crate) standings: Standings,
    pub(crate) realm: Arc<Realm>,
}

impl broker::Registry for Registry {
    fn standing(&self, id: &CertificateId) -> Result<Arc<Standing>, FleetError> {
        Ok(self.standings.get(id))
    }

    fn realm(&self) -> &Arc<Realm> {
        &self.realm
    }
}

pub(crate) struct Server {
    runtime: Runtime,
    broker: Broker,
    committer: Committer,
    journal: Journal,
    moment: Arc<Moment>,
}

impl Server {
    pub(crate) fn start(
        disk: &MemoryDisk,
        options: Options,
        registry: Arc<Registry>,
        limits: Limits,
        now_ms: u64,
        tasks_per_turn: u32,
    ) -> Result<Self, String> {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .event_interval(tasks_per_turn)
            .build()
            .map_err(|error| error.to_string())?;
        let (journal, replay, committer) =
            simulated::open(disk, options).map_err(|error| error.to_string())?;
        let entered = runtime.enter();
        let moment = Arc::new(Moment {
            step: AtomicU64::new(0),
            epoch_ms: now_ms,
            started: Instant::now(),
        });
        let broker = Broker::open(Parts {
            registry,
            journal: journal.clone(),
            replay,
            limits,
            now: Time::from_millis(now_ms),
        })
        .map_err(|error| error.to_string())?;
        drop(entered);
        Ok(Self {
            runtime,
            broker,
            committer,
            journal,
            moment,
        })
    }

    /// A new connection of a peer with this certificate; `None` where the listener closes it.
    pub(crate) fn connect(&self, certificate: &CertificateId, room: usize) -> Option<Link> {
        let _entered = self.runtime.enter();
        let (link, end) = connection(room, Arc::clone(&self.moment));
        self.broker.accept(end, certificate).then_some(link)
    }

    pub(crate) fn set_step(&self, step: u64) {
        self.moment
            .step
            .store(step, std::sync::atomic::Ordering::Relaxed);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        let _entered = self.runtime.enter();
        self.moment.wall_ms(Instant::now())
    }

    /// Lets so many turns pass.
    pub(crate) fn turns(&self, count: usize) {
        self.runtime.block_on(async {
            for _ in 0..count {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Lets time pass; whatever is due in it happens in its order.
    pub(crate) fn pass(&self, time: Duration) {
        self.runtime
            .block_on(async { tokio::time::sleep(time).await });
    }

    /// Makes durable what waits for it.
    pub(crate) fn commit(&mut self) -> bool {
        self.committer.commit()
    }

    pub(crate) fn backlog(&self) -> u64 {
        self.journal.stats().backlog_bytes
    }

    pub(crate) fn drain(&self) {
        self.broker.drain();
    }

    pub(crate) fn connections(&self) -> usize {
        self.broker.connections()
    }

    pub(crate) fn stats(&self) -> broker::Stats {
        self.broker.stats()
    }

    /// Messages dropped because a bound was reached.
    pub(crate) fn dropped(&self) -> u64 {
        let stats = self.broker.stats();
        stats.dropped_queue_full + stats.dropped_qos0_full
    }
}
