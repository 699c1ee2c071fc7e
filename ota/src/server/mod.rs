//! The server half: firmware, jobs and rollouts on the disk, and the one thread that answers devices,
//! watches deadlines and carries rollouts on.
//!
//! Every change of a job is made by whoever holds the turn, in one atomic batch, and told to the devices
//! only once it is durable.

mod create_job;
mod device;
mod executions;
mod firmware;
mod health;
mod images;
mod job_documents;
mod job_edits;
mod job_events;
mod job_pace;
mod job_packages;
mod job_sources;
mod job_templates;
mod job_windows;
mod jobs;
mod lineage;
mod newest;
mod ota_updates;
mod pictures;
mod queue;
mod records;
mod refusals;
mod repository;
mod rollouts;
mod running;
mod shaper;
mod start_rollout;
mod streams;
mod tags;
mod transaction;
mod tries;
mod uploads;
mod vitals;
mod ways;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fleet::Fleet;
use store::{Blobs, Store, Table};

pub use create_job::{CreateJob, MAX_TARGETS, TimeoutConfig};
pub use firmware::FETCH_GRACE_SECONDS;
pub use job_edits::WhichExecutions;
pub use job_events::{JobChange, JobEvent, JobEventSink};
pub use job_templates::{CreateJobTemplate, JobTemplate};
pub use jobs::{ExecutionPage, JobCounts, MAX_DESCRIPTION_CHARS, MAX_REASON_CODE_CHARS};
pub use newest::{SNAPSHOT_SECONDS, TIMESTAMP_SECONDS};
pub use ota_updates::{OtaUpdate, OtaUpdateBody, OtaUpdateStatus};
pub use records::{Delta, Execution, Firmware, Job, JobStatus, Kept};
pub use refusals::Refusal;
pub use repository::{
    OfflineDocument, RepositoryDelegate, RepositoryImage, RepositoryKey, RepositoryRole,
    RepositoryShown,
};
pub use rollouts::RolloutSummary;
pub use running::{Census, MAX_MOMENTS, Ran, Running, RunningFilter, Share};
pub use shaper::{DEFAULT_DOWNLOAD_BYTES_PER_SECOND, Download, MAX_DOWNLOADS_OF_A_THING, Shaper};
pub use start_rollout::{StartRollout, Started, WaveRequest};
pub use streams::{
    Location, MAX_STREAM_FILES, Stream, StreamBody, StreamDesk, StreamFile, StreamRequest,
};
pub use tags::{MAX_TAGS, Tag, Tagged, read as read_tags};
pub use uploads::{MAX_UPLOADS, UPLOAD_KEPT};
pub use vitals::{Sign, VitalSigns};
pub use worker::{DeviceRequest, MAX_QUEUED_REQUESTS};

use crate::{Error, JobId, ReleaseKey, RolloutId, Sha256};
use executions::Now;

/// A message to a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it goes.
    pub topic: String,
    /// What it says: JSON.
    pub payload: Vec<u8>,
}

/// How notifications leave: to whoever subscribes. Called on this room's threads; it may block a while.
pub type Publish = Arc<dyn Fn(Message) + Send + Sync>;

/// Firmware, jobs and rollouts. Clones share it; its thread ends with the last one. Calls block on the
/// disk: keep them off threads that serve connections (except [`Ota::ask`]).
#[derive(Clone)]
pub struct Ota {
    inner: Arc<Inner>,
}

struct Inner {
    table: Table,
    blobs: Blobs,
    fleet: Fleet,
    publish: Publish,
    /// Where files that jobs take their documents from are looked for.
    documents: PathBuf,
    /// Says what is newest, and can sign nothing else that anybody believes.
    online: ReleaseKey,
    /// Held by whoever changes rows, so that two changes never work from the same picture.
    turn: Mutex<()>,
    /// Rollouts to look at again.
    dirty: Mutex<BTreeSet<RolloutId>>,
    /// When to look at rollouts again though nothing happened (seconds since 1970); only the room's thread
    /// takes it.
    timers: Mutex<BTreeMap<RolloutId, u64>>,
    /// When to look at jobs that go out little by little (seconds since 1970).
    jobs_due: Mutex<BTreeMap<JobId, u64>>,
    /// Things that are to wait for jobs and do not yet.
    gathering: Mutex<BTreeMap<JobId, job_pace::Gathered>>,
    /// Things that jobs with maintenance windows tell next.
    ready: Mutex<BTreeMap<JobId, job_windows::Ready>>,
    /// Whether a job was given up whose executions have yet to follow.
    unfinished: AtomicBool,
    /// What the room's thread has not taken into its pictures yet.
    news: Mutex<Vec<pictures::News>>,
    /// Only the room's thread takes it.
    pictures: Mutex<pictures::Pictures>,
    /// How devices fare.
    vitals: VitalSigns,
    /// How fast images leave.
    shaper: Shaper,
    /// Packages that come in parts.
    uploads: uploads::Uploads,
    /// Kept files that are not what they were.
    damaged: Mutex<BTreeSet<Sha256>>,
    /// Where devices reach this server's HTTPS.
    address: OnceLock<String>,
    /// Where events of jobs go.
    events: OnceLock<JobEventSink>,
    /// What the registry has yet to be told of what devices run.
    telling: Mutex<health::Telling>,
    inbox: worker::Inbox,
}

impl Ota {
    /// Opens the room, keeping its rows in the table `ota` of `store` and the online key in
    /// `dir/firmware`, and goes on with whatever was under way.
    ///
    /// # Errors
    /// Where the store or the key cannot be read or written.
    pub fn open(store: &Store, fleet: Fleet, publish: Publish, dir: &Path) -> Result<Self, Error> {
        firmware::online_key(&dir.join("firmware"))?;
        let online = newest::online(&dir.join("firmware"))?;
        let (inbox, work) = worker::inbox();
        let ota = Self {
            inner: Arc::new(Inner {
                table: store.table("ota")?,
                blobs: store.blobs()?,
                fleet,
                publish,
                online,
                documents: dir.join("documents"),
                turn: Mutex::new(()),
                dirty: Mutex::new(BTreeSet::new()),
                timers: Mutex::new(BTreeMap::new()),
                jobs_due: Mutex::default(),
                gathering: Mutex::default(),
                ready: Mutex::default(),
                unfinished: AtomicBool::new(false),
                news: Mutex::default(),
                pictures: Mutex::default(),
                vitals: VitalSigns::since(SystemTime::now()),
                shaper: Shaper::default(),
                damaged: Mutex::default(),
                uploads: uploads::Uploads::at(dir.join("firmware/uploads"))?,
                address: OnceLock::new(),
                events: OnceLock::new(),
                telling: Mutex::default(),
                inbox,
            }),
        };
        ota.finish_telling()?;
        ota.finish_cancelling(SystemTime::now())?;
        ota.finish_deleting(SystemTime::now())?;
        let paced = ota.paced()?;
        ota.inner
            .jobs_due
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(paced.into_iter().map(|id| (id, 0)));
        ota.inner
            .dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(ota.unfinished()?);
        worker::start(&ota, work)?;
        images::start(&ota)?;
        Ok(ota)
    }

    /// The bound that all downloads of images share; there is none before one is set.
    #[must_use]
    pub fn shaper(&self) -> &Shaper {
        &self.inner.shaper
    }

    /// The right to change rows, until dropped. What a panicking holder left is on the disk whole or not
    /// at all, so poison means nothing here.
    fn turn(&self) -> MutexGuard<'_, ()> {
        self.inner
            .turn
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the planner look at these rollouts.
    fn wake(&self, rollouts: BTreeSet<RolloutId>) {
        if rollouts.is_empty() {
            return;
        }
        self.inner
            .dirty
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(rollouts);
        self.inner.inbox.wake();
    }
}

/// Seconds since 1970; a clock before that counts as 1970.
fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

fn now(at: SystemTime) -> Now {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        seconds: since.as_secs(),
        millis: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests;
