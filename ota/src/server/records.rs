//! The rows of this room and their keys. All of them lie in one table, so that whatever belongs together
//! changes together.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use store::Stored;

use super::lineage::Lineage;
use super::running::{Ran, Reported};
use crate::job::config::{Ends, JobConfig};
use crate::job::{ExecutionStatus, JobExecutionState, JobExecutionSummary, StatusDetails};
use crate::rollout::{
    BackWave, Deed, Pulse, Rollout, RolloutSpec, RolloutState, Rules, Wave, WaveState,
};
use crate::{
    Components, FirmwareName, FirmwareVersion, HardwareId, JobId, RoleName, RolloutId, Sha256,
};

/// Firmware the server has accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Firmware {
    /// What it is called.
    pub name: FirmwareName,
    /// Which version.
    pub version: FirmwareVersion,
    /// Bytes of the image.
    pub size: u64,
    /// Hash of the image, by which it is kept.
    pub sha256: Sha256,
    /// Hash of the signed manifest, by which it is kept.
    pub manifest_sha256: Sha256,
    /// The hardware it is for.
    pub hardware: Vec<HardwareId>,
    /// The oldest version a device may come from.
    pub requires: Option<FirmwareVersion>,
    /// Other firmware a device must have beside it, each of this version or newer.
    #[serde(default, skip_serializing_if = "Components::is_empty")]
    pub components: Components,
    /// The security counter.
    pub counter: u64,
    /// When its signatures run out, seconds since 1970.
    pub expires: u64,
    /// For people.
    pub notes: Option<String>,
    /// When it was added, seconds since 1970.
    pub added_at: u64,
    /// The delegate that signed it; `None` where the release keys did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delegate: Option<RoleName>,
    /// What makes its image out of earlier ones.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deltas: Vec<Delta>,
}
impl Stored for Firmware {}

/// A delta the server has accepted with its firmware.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delta {
    /// The version it is applied to.
    pub from: FirmwareVersion,
    /// Bytes of the patch.
    pub size: u64,
    /// Hash of the patch, by which it is kept.
    pub sha256: Sha256,
}

impl Firmware {
    /// The image as a file that is kept.
    #[must_use]
    pub fn image(&self) -> Kept {
        Kept {
            size: self.size,
            sha256: self.sha256,
        }
    }
}

/// A file of the firmware repository that devices may fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Bytes.
    pub size: u64,
    /// Its hash, by which it is kept.
    pub sha256: Sha256,
}

/// A trust root, as it was given.
#[derive(Serialize, Deserialize)]
pub(super) struct TrustRow {
    pub(super) json: String,
}
impl Stored for TrustRow {}

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum JobStatus {
    /// It waits for its start.
    Scheduled,
    /// Devices are at it, or will be.
    InProgress,
    /// It was cancelled.
    Canceled,
    /// Every execution is over.
    Completed,
    /// It is being deleted.
    DeletionInProgress,
}

impl JobStatus {
    /// AWS's word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "SCHEDULED",
            Self::InProgress => "IN_PROGRESS",
            Self::Canceled => "CANCELED",
            Self::Completed => "COMPLETED",
            Self::DeletionInProgress => "DELETION_IN_PROGRESS",
        }
    }
}

/// A job. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its id.
    pub id: JobId,
    /// Its targets, as they were given.
    pub targets: Vec<String>,
    /// What devices are told to do: JSON.
    pub document: String,
    /// Where that was read from when the job was made.
    #[serde(default)]
    pub document_source: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// Where it stands.
    pub status: JobStatus,
    /// How long a device may be in progress, in minutes.
    pub timeout_minutes: Option<u32>,
    /// When it was made.
    pub created_at: u64,
    /// When it last changed.
    pub last_updated_at: u64,
    /// When its last execution was over.
    pub completed_at: Option<u64>,
    /// Why it was cancelled, in short.
    pub reason_code: Option<String>,
    /// Why it was cancelled.
    pub comment: Option<String>,
    /// Whether executions in progress were cancelled too.
    pub force_canceled: bool,
    /// Whether things that join its groups later get it too (`CONTINUOUS`).
    #[serde(default)]
    pub continuous: bool,
    /// The namespace whose lists it is in, of each thing, instead of the thing's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What a thing runs that has done it, as ARNs of package versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// How it goes out.
    #[serde(default)]
    pub config: JobConfig,
    /// What stands in its document for `${aws:iot:parameter:NAME}`.
    #[serde(default)]
    pub parameters: BTreeMap<String, String>,
    /// The ARN of the template it was made of, as it was given.
    #[serde(default)]
    pub template: Option<String>,
    /// How its executions ended.
    #[serde(default)]
    pub(super) ends: Ends,
    /// Whether the things of its targets have yet to be made to wait: they are too many for one transaction.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) gathers: bool,
    /// Things that were not told yet.
    #[serde(default)]
    pub(super) waiting: u64,
    /// Things that were told.
    #[serde(default)]
    pub(super) notified: u64,
    /// How many of them at which second of the last minute.
    #[serde(default)]
    pub(super) recent: Vec<(u64, u32)>,
    /// Executions that are not over.
    pub(super) open: u64,
    /// What it installs, where a rollout made it.
    pub(super) install: Option<Install>,
}
impl Stored for Job {}

impl Job {
    /// Whether nothing more can come of it.
    pub(super) const fn is_used_up(&self) -> bool {
        self.open == 0 && self.waiting == 0 && !self.continuous && !self.gathers
    }
}

/// A rollout's part in a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Install {
    pub(super) rollout: RolloutId,
    /// Whether it is on the way back.
    #[serde(default)]
    pub(super) back: bool,
    pub(super) name: FirmwareName,
    pub(super) version: FirmwareVersion,
}

/// One thing's part of a job. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// The job.
    pub job: JobId,
    /// The thing.
    pub thing: String,
    /// Where it stands.
    pub status: ExecutionStatus,
    /// What the device said last.
    pub details: Option<StatusDetails>,
    /// When it was queued.
    pub queued_at: u64,
    /// When the device began.
    pub started_at: Option<u64>,
    /// When it last changed.
    pub last_updated_at: u64,
    /// Counts the changes, from 1.
    pub version_number: u64,
    /// Whether it was cancelled while in progress.
    pub force_canceled: bool,
    /// When it must be over.
    pub(super) job_deadline: Option<u64>,
    /// When the step the device is at must be over.
    pub(super) step_deadline: Option<u64>,
    /// Orders the executions of a thing: the count of milliseconds at which it was queued.
    pub(super) order: u64,
    /// The version the thing ran when this was queued, for install jobs.
    pub(super) before: Option<FirmwareVersion>,
    /// That of its job.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) namespace: Option<String>,
    /// Which try of the job on this thing it is, from 1.
    #[serde(default = "first")]
    pub number: u64,
    /// The end of its window: while it is queued or no more than downloading, the thing is not told of it from then
    /// on, until it is offered again ([`crate::rollout::HELD`] where its rollout is paused).
    #[serde(default)]
    pub(super) until: Option<u64>,
    /// The jobs of older rollouts that it has taken the thing over from before they were begun.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) over: Vec<JobId>,
}
impl Stored for Execution {}

const fn first() -> u64 {
    1
}

/// `statusDetails.step` of a device that fetches an image.
const DOWNLOADING: &str = "downloading";

impl Execution {
    /// When time alone changes it: the nearest of its deadlines while a device is at it, the end of its
    /// window while nothing is being installed.
    pub(super) fn deadline(&self) -> Option<u64> {
        let window = self.until.filter(|_| self.may_be_shut());
        self.times_out_at().into_iter().chain(window).min()
    }

    /// When its time is up, while a device is at it.
    pub(super) fn times_out_at(&self) -> Option<u64> {
        let in_progress = self.status == ExecutionStatus::InProgress;
        let deadlines = self.job_deadline.into_iter().chain(self.step_deadline);
        deadlines.min().filter(|_| in_progress)
    }

    /// Whether the end of its window ends it: while it is queued, and while its device says that it has got no
    /// further than downloading. One that says more, or nothing of it, may be writing.
    fn may_be_shut(&self) -> bool {
        match self.status {
            ExecutionStatus::Queued => true,
            ExecutionStatus::InProgress => is_downloading(self.details.as_ref()),
            _ => false,
        }
    }

    /// Whether it is outside its window, or queued while its rollout is paused: there, and nothing the thing may know of.
    pub(super) fn is_shut(&self, now: u64) -> bool {
        self.may_be_shut() && self.until.is_some_and(|until| until <= now)
    }

    pub(super) fn summary(&self) -> JobExecutionSummary {
        JobExecutionSummary {
            job_id: self.job.to_string(),
            queued_at: self.queued_at,
            started_at: self.started_at,
            last_updated_at: self.last_updated_at,
            version_number: self.version_number,
            execution_number: self.number,
        }
    }

    pub(super) fn state(&self) -> JobExecutionState {
        JobExecutionState {
            status: self.status,
            status_details: self.details.clone(),
            version_number: self.version_number,
        }
    }
}

/// Whether a device says that it fetches, and has put nothing anywhere yet.
pub(super) fn is_downloading(details: Option<&StatusDetails>) -> bool {
    let step = details.and_then(|details| details.get("step"));
    step.is_some_and(|step| step == DOWNLOADING)
}

/// What a thing is known to run of a firmware.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Runs {
    /// The version a job brought it to.
    pub(super) version: Option<FirmwareVersion>,
    /// Since when (seconds since 1970).
    pub(super) since: u64,
    /// The rollout whose job that was.
    pub(super) rollout: Option<RolloutId>,
    /// What the device says, where that is another version.
    pub(super) reported: Option<Reported>,
    /// What it ran, the newest last.
    pub(super) history: Vec<Ran>,
    /// What was brought to it and not taken away again.
    #[serde(skip_serializing_if = "Lineage::is_empty")]
    pub(super) lineage: Lineage,
}
impl Stored for Runs {}

/// Points from an index to a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct JobRef {
    pub(super) job: JobId,
}
impl Stored for JobRef {}

/// The newest rollout of a firmware that a thing was told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Newest {
    pub(super) rollout: RolloutId,
}
impl Stored for Newest {}

/// A rollout without its things, which lie in rows of their own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RolloutRow {
    pub(super) id: RolloutId,
    pub(super) spec: RolloutSpec,
    pub(super) group: String,
    pub(super) state: RolloutState,
    pub(super) reason: Option<String>,
    pub(super) waves: Vec<WaveRow>,
    pub(super) created_at: u64,
    #[serde(default)]
    pub(super) undone: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) health: Vec<Pulse>,
    #[serde(default)]
    pub(super) looked_at: u64,
    /// What was done to it, the newest last.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) log: Vec<Deed>,
}
impl Stored for RolloutRow {}

/// Deeds of a rollout that are remembered: its first, and the last.
const MAX_DEEDS: usize = 100;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct WaveRow {
    pub(super) name: String,
    pub(super) state: WaveState,
    #[serde(default)]
    pub(super) start_at: Option<u64>,
    /// Those of the rollout where absent.
    #[serde(default)]
    pub(super) rules: Option<Rules>,
    #[serde(default)]
    pub(super) done_at: Option<u64>,
    #[serde(default)]
    pub(super) approved_by: Vec<String>,
    #[serde(default)]
    pub(super) back: BackWave,
}

impl WaveRow {
    pub(super) fn of(wave: &Wave) -> Self {
        Self {
            name: wave.name.clone(),
            state: wave.state,
            start_at: wave.start_at,
            rules: Some(wave.rules.clone()),
            done_at: wave.done_at,
            approved_by: wave.approved_by.clone(),
            back: wave.back,
        }
    }
}

/// Some of the things of a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MembersRow {
    pub(super) things: Vec<String>,
}
impl Stored for MembersRow {}

/// Things in one [`MembersRow`]: with the longest names well below the largest row.
pub(super) const THINGS_PER_ROW: usize = 1000;

impl RolloutRow {
    /// How often it was turned round. Rows of before it was counted say 0.
    pub(super) fn turn(&self) -> u32 {
        let back = matches!(
            self.state,
            RolloutState::RollingBack | RolloutState::RolledBack
        );
        self.undone.max(u32::from(back))
    }

    /// Writes down what was done to it.
    pub(super) fn note(&mut self, at: u64, what: &str, by: Option<&str>) {
        self.log.push(Deed {
            at,
            what: what.to_owned(),
            by: by.map(str::to_owned),
        });
        if self.log.len() > MAX_DEEDS {
            self.log.remove(1);
        }
    }

    /// The row of `rollout` as it stands now.
    pub(super) fn follow(&mut self, rollout: &Rollout) {
        self.state = rollout.state;
        self.reason.clone_from(&rollout.reason);
        self.undone = rollout.undone;
        self.health.clone_from(&rollout.health);
        self.looked_at = rollout.looked_at;
        self.waves = rollout.waves.iter().map(WaveRow::of).collect();
    }

    /// The rollout without its things.
    pub(super) fn into_bare(self) -> Rollout {
        self.into_rollout(std::iter::repeat_with(Vec::new))
    }

    pub(super) fn into_rollout(self, members: impl IntoIterator<Item = Vec<String>>) -> Rollout {
        let rules = self.spec.rules.clone();
        let undone = self.turn();
        let waves = self
            .waves
            .into_iter()
            .zip(members)
            .map(|(wave, things)| Wave {
                name: wave.name,
                state: wave.state,
                things,
                start_at: wave.start_at,
                rules: wave.rules.unwrap_or_else(|| rules.clone()),
                done_at: wave.done_at,
                approved_by: wave.approved_by,
                back: wave.back,
            })
            .collect();
        Rollout {
            id: self.id,
            spec: self.spec,
            state: self.state,
            waves,
            reason: self.reason,
            undone,
            health: self.health,
            looked_at: self.looked_at,
            barred: BTreeMap::new(),
            withheld: None,
        }
    }
}

/// Keys. Thing names have no `/` (AWS IoT: `[a-zA-Z0-9:_-]+`), nor have ours.
pub(super) mod key {
    use super::{
        Execution, ExecutionStatus, FirmwareName, FirmwareVersion, JobId, RoleName, RolloutId,
    };

    pub(in crate::server) const ROOTS: &str = "root/";
    pub(in crate::server) const TARGETS: &str = "targets/";
    /// What the online key signed last.
    pub(in crate::server) const NEWEST: &str = "newest";
    pub(in crate::server) const FIRMWARE: &str = "firmware/";
    pub(in crate::server) const JOBS: &str = "job/";
    pub(in crate::server) const ROLLOUTS: &str = "rollout/";
    /// The rollout that was started last.
    pub(in crate::server) const NEWEST_ROLLOUT: &str = "newestrollout";
    pub(in crate::server) const DUE: &str = "due/";
    pub(in crate::server) const CANCELLING: &str = "cancelling/";
    pub(in crate::server) const DELETING: &str = "deleting/";
    pub(in crate::server) const STREAMS: &str = "stream/";
    pub(in crate::server) const PACED: &str = "paced/";
    pub(in crate::server) const OTA_UPDATES: &str = "otaupdate/";
    pub(in crate::server) const JOB_TEMPLATES: &str = "jobtemplate/";
    pub(in crate::server) const RUNS: &str = "runs/";
    /// Things of which the registry has yet to be told what they run.
    pub(in crate::server) const TO_TELL: &str = "totell/";

    pub(in crate::server) fn root(version: u64) -> String {
        format!("{ROOTS}{version:020}")
    }
    /// The targets document of a delegate, or of the release team.
    pub(in crate::server) fn targets(role: Option<&RoleName>) -> String {
        format!("{TARGETS}{}", role.map_or("targets", RoleName::as_str))
    }
    pub(in crate::server) fn firmware(name: &FirmwareName, version: &FirmwareVersion) -> String {
        format!("{FIRMWARE}{name}/{version}")
    }
    pub(in crate::server) fn job(job: &JobId) -> String {
        format!("{JOBS}{job}")
    }
    pub(in crate::server) fn ota_update(id: &str) -> String {
        format!("{OTA_UPDATES}{id}")
    }
    pub(in crate::server) fn job_template(id: &JobId) -> String {
        format!("{JOB_TEMPLATES}{id}")
    }
    pub(in crate::server) fn cancelling(job: &JobId) -> String {
        format!("{CANCELLING}{job}")
    }
    pub(in crate::server) fn stream(id: &str) -> String {
        format!("{STREAMS}{id}")
    }
    pub(in crate::server) fn deleting(job: &JobId) -> String {
        format!("{DELETING}{job}")
    }
    /// A job that time or its groups may bring something for.
    pub(in crate::server) fn paced(job: &JobId) -> String {
        format!("{PACED}{job}")
    }
    /// The things of a job that were not told yet.
    pub(in crate::server) fn waiting(job: &JobId) -> String {
        format!("waiting/{job}/")
    }
    /// The things whose execution of a job was deleted: they were told, though there is no row that says so.
    pub(in crate::server) fn had(job: &JobId) -> String {
        format!("had/{job}/")
    }
    pub(in crate::server) fn executions(job: &JobId) -> String {
        format!("execution/{job}/")
    }
    pub(in crate::server) fn execution(job: &JobId, thing: &str) -> String {
        format!("execution/{job}/{thing}")
    }
    /// The earlier tries of a job: their executions, of each thing the oldest first.
    pub(in crate::server) fn tries(job: &JobId) -> String {
        format!("tried/{job}/")
    }
    pub(in crate::server) fn tries_of(job: &JobId, thing: &str) -> String {
        format!("{}{thing}/", tries(job))
    }
    pub(in crate::server) fn tried(job: &JobId, thing: &str, number: u64) -> String {
        format!("{}{number:020}", tries_of(job, thing))
    }
    /// A thing's executions that are not over: its own, or those of a namespace.
    pub(in crate::server) fn pending_of(thing: &str, namespace: Option<&str>) -> String {
        match namespace {
            None => format!("pending/{thing}/"),
            Some(namespace) => format!("{}{namespace}/", pending_in_namespaces(thing)),
        }
    }
    /// Those of all its namespaces. No thing's name has an `@`.
    pub(in crate::server) fn pending_in_namespaces(thing: &str) -> String {
        format!("pending/{thing}@")
    }
    /// In progress before queued, then by the time they were queued: a scan gives the thing's order.
    pub(in crate::server) fn pending(execution: &Execution) -> String {
        let rank = match execution.status {
            ExecutionStatus::InProgress => IN_PROGRESS,
            _ => QUEUED,
        };
        format!(
            "{}{rank}/{:016}/{}",
            pending_of(&execution.thing, execution.namespace.as_deref()),
            execution.order,
            execution.job
        )
    }
    /// The ranks of pending keys.
    pub(in crate::server) const IN_PROGRESS: u8 = 0;
    pub(in crate::server) const QUEUED: u8 = 1;

    /// The rank and the job of a pending key.
    pub(in crate::server) fn of_pending(key: &str) -> Option<(bool, JobId)> {
        let mut parts = key.rsplit('/');
        let job = parts.next()?.parse().ok()?;
        let rank = parts.nth(1)?;
        Some((rank == "0", job))
    }
    pub(in crate::server) fn due(deadline: u64, execution: &Execution) -> String {
        format!("{DUE}{deadline:016}/{}/{}", execution.job, execution.thing)
    }
    pub(in crate::server) fn of_due(key: &str) -> Option<(u64, JobId, &str)> {
        let mut parts = key.strip_prefix(DUE)?.split('/');
        Some((
            parts.next()?.parse().ok()?,
            parts.next()?.parse().ok()?,
            parts.next()?,
        ))
    }
    pub(in crate::server) fn to_tell(thing: &str) -> String {
        format!("{TO_TELL}{thing}")
    }
    pub(in crate::server) fn runs_of(thing: &str) -> String {
        format!("{RUNS}{thing}/")
    }
    /// What a thing has refused that nobody here ordered.
    pub(in crate::server) fn refused(thing: &str) -> String {
        format!("refused/{thing}/")
    }
    pub(in crate::server) fn handed_to(thing: &str) -> String {
        format!("handed/{thing}/")
    }
    /// Until when a thing may fetch what a job's document names.
    pub(in crate::server) fn handed(
        thing: &str,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> String {
        format!("handed/{thing}/{name}/{version}")
    }
    pub(in crate::server) fn fetches_of(thing: &str) -> String {
        format!("fetch/{thing}/")
    }
    pub(in crate::server) fn runs(thing: &str, name: &FirmwareName) -> String {
        format!("{RUNS}{thing}/{name}")
    }
    /// The newest rollout of a firmware that a thing was told of.
    pub(in crate::server) fn newest(thing: &str, name: &FirmwareName) -> String {
        format!("newest/{thing}/{name}")
    }
    pub(in crate::server) fn newest_of(thing: &str) -> String {
        format!("newest/{thing}/")
    }
    /// Which job lets a thing fetch an image.
    pub(in crate::server) fn fetch(
        thing: &str,
        name: &FirmwareName,
        version: &FirmwareVersion,
    ) -> String {
        format!("fetch/{thing}/{name}/{version}")
    }
    pub(in crate::server) fn rollout(id: &RolloutId) -> String {
        format!("{ROLLOUTS}{id}")
    }
    pub(in crate::server) fn members(id: &RolloutId, wave: usize) -> String {
        format!("members/{id}/{wave:04}/")
    }
}
