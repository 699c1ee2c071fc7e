//! CreateJob as AWS IoT's API has it, as far as this release goes: what it does not do is refused by name.

use std::collections::{BTreeMap, BTreeSet};
use std::time::SystemTime;

use fleet::{GroupName, ThingName};
use serde::Deserialize;
use serde_json::Value;

use super::jobs::{MAX_DESCRIPTION_CHARS, invalid};
use super::records::{Job, JobStatus};
use super::tags::{self, Tag, Tagged};
use super::{Ota, seconds};
use super::{job_documents, ota_updates};
use crate::job::MAX_TIMEOUT_MINUTES;
use crate::job::config::{
    AbortConfig, Ends, JobConfig, PresignedUrlConfig, RetryConfig, RolloutConfig, SchedulingConfig,
};
use crate::rollout::{self, MAX_THINGS};
use crate::{Error, JobId};

/// Things that a job tells at once; those of a larger one wait, and are told one after the other.
const TOLD_AT_ONCE: usize = if cfg!(test) { 200 } else { 10_000 };
/// Rows of one thing that are read in one go.
pub(super) const MANY: usize = 10_000;
/// Most targets a request may name (AWS IoT: 100).
pub const MAX_TARGETS: usize = 100;
/// `targetSelection` of a job that goes on.
const CONTINUOUS: &str = "CONTINUOUS";

/// The body of AWS IoT's CreateJob.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateJob {
    /// ARNs (or names) of things and thing groups.
    pub targets: Vec<String>,
    /// What devices are told: a JSON text.
    pub document: Option<String>,
    /// Where that is instead: `https://s3.amazonaws.com/BUCKET/KEY`, a file of this server.
    pub document_source: Option<String>,
    /// For people.
    pub description: Option<String>,
    /// `SNAPSHOT`, the usual one, or `CONTINUOUS`.
    pub target_selection: Option<String>,
    /// How fast it goes out.
    pub job_executions_rollout_config: Option<RolloutConfig>,
    /// When it is given up.
    pub abort_config: Option<AbortConfig>,
    /// What is tried again.
    pub job_executions_retry_config: Option<RetryConfig>,
    /// When it goes out.
    pub scheduling_config: Option<SchedulingConfig>,
    /// How long a device may be at it.
    pub timeout_config: Option<TimeoutConfig>,
    /// How long devices may fetch the files that the document names.
    pub presigned_url_config: Option<PresignedUrlConfig>,
    /// What stands in the document for `${aws:iot:parameter:NAME}`.
    #[serde(default)]
    pub document_parameters: BTreeMap<String, String>,
    /// The template that says what is not said here.
    pub job_template_arn: Option<String>,
    /// The namespace whose lists it goes into, instead of the things' own.
    pub namespace_id: Option<String>,
    /// What a thing runs that has done it, as ARNs of package versions.
    pub destination_package_versions: Option<Vec<String>>,
    /// What the operator calls it by.
    pub tags: Option<Vec<Tag>>,
    /// Everything else: refused by name.
    #[serde(flatten)]
    pub unsupported: BTreeMap<String, Value>,
}

/// AWS IoT's `timeoutConfig`.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TimeoutConfig {
    /// 1 to 10,080.
    pub in_progress_timeout_in_minutes: Option<i64>,
}

impl TimeoutConfig {
    pub(super) fn minutes(&self) -> Result<Option<u32>, Error> {
        match self.in_progress_timeout_in_minutes {
            None => Ok(None),
            Some(minutes) if (1..=MAX_TIMEOUT_MINUTES).contains(&minutes) => {
                Ok(u32::try_from(minutes).ok())
            }
            Some(_) => invalid(
                "inProgressTimeoutInMinutes",
                format!("1 to {MAX_TIMEOUT_MINUTES} are possible"),
            ),
        }
    }
}

/// Longest namespace (AWS IoT: 64 of these characters).
const MAX_NAMESPACE_BYTES: usize = 64;

fn check_namespace(namespace: &str) -> Result<(), Error> {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if (1..=MAX_NAMESPACE_BYTES).contains(&namespace.len()) && namespace.bytes().all(fits) {
        return Ok(());
    }
    invalid(
        "namespaceId",
        format!("1 to {MAX_NAMESPACE_BYTES} letters, digits, `_` and `-` are possible"),
    )
}

impl CreateJob {
    /// The fields of a job, checked.
    fn check(&self) -> Result<(String, Option<u32>), Error> {
        if let Some(field) = self.unsupported.keys().next() {
            return invalid(field, "this release does not support it");
        }
        if self
            .target_selection
            .as_deref()
            .is_some_and(|selection| !["SNAPSHOT", CONTINUOUS].contains(&selection))
        {
            return invalid("targetSelection", "it is SNAPSHOT or CONTINUOUS");
        }
        if self.targets.is_empty() || self.targets.len() > MAX_TARGETS {
            return invalid("targets", format!("1 to {MAX_TARGETS} are possible"));
        }
        if self
            .description
            .as_ref()
            .is_some_and(|text| text.chars().count() > MAX_DESCRIPTION_CHARS)
        {
            return invalid(
                "description",
                format!("at most {MAX_DESCRIPTION_CHARS} characters are possible"),
            );
        }
        let Some(document) = &self.document else {
            return invalid(
                "document",
                "a job needs one, or a documentSource or jobTemplateArn",
            );
        };
        job_documents::check(document)?;
        job_documents::check_parameters(&self.document_parameters)?;
        if let Some(namespace) = &self.namespace_id {
            check_namespace(namespace)?;
        }
        let timeout = self.timeout_config.as_ref().map(TimeoutConfig::minutes);
        Ok((document.clone(), timeout.transpose()?.flatten()))
    }

    fn config(&self) -> JobConfig {
        JobConfig {
            job_executions_rollout_config: self.job_executions_rollout_config.clone(),
            abort_config: self.abort_config.clone(),
            job_executions_retry_config: self.job_executions_retry_config.clone(),
            scheduling_config: self.scheduling_config.clone(),
            presigned_url_config: self.presigned_url_config.clone(),
        }
    }
}

impl Ota {
    /// Makes a job and queues it for its targets, all of it or nothing. Where they are more than ten thousand things, these
    /// are told afterwards, through restarts too.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, [`Error::NotFound`] for a target, [`Error::AlreadyExists`].
    pub fn create_job(
        &self,
        id: &JobId,
        request: &CreateJob,
        at: SystemTime,
    ) -> Result<Job, Error> {
        let kept_for = if rollout::is_kept(id) {
            Some("rollouts (`r-…-…-`)")
        } else if id.as_str().starts_with(ota_updates::PREFIX) {
            Some("OTA updates (CreateOTAUpdate makes them)")
        } else {
            None
        };
        if let Some(whom) = kept_for {
            let why = format!("`{id}` is kept for the jobs of {whom}; take another id");
            return invalid("jobId", why);
        }
        self.make_job(id, request, at)
    }

    /// As [`Ota::create_job`], under whatever id.
    pub(super) fn make_job(
        &self,
        id: &JobId,
        request: &CreateJob,
        at: SystemTime,
    ) -> Result<Job, Error> {
        let merged = match (&request.document_source, &request.job_template_arn) {
            (Some(source), _) => Some(self.with_source(request, source)?),
            (None, Some(arn)) => Some(self.with_template(request, arn)?),
            (None, None) => None,
        };
        let request = merged.as_ref().unwrap_or(request);
        let (document, timeout_minutes) = request.check()?;
        self.check_placeholders(&document, Some(&request.document_parameters))?;
        let config = request.config();
        config.check(seconds(at))?;
        let packages = request.destination_package_versions.clone();
        let packages = packages.unwrap_or_default();
        self.check_packages(&packages)?;
        let tags = tags::read(request.tags.as_deref().unwrap_or_default())?;
        let (start, _) = config.times()?;
        let continuous = request.target_selection.as_deref() == Some(CONTINUOUS);
        let things = self.resolve(&request.targets)?;
        let gathers = things.len() > TOLD_AT_ONCE;
        let paced = continuous || gathers || !config.is_at_once();
        let job = self.change(at, |changes| {
            if changes.job(id)?.is_some() {
                return Err(Error::AlreadyExists {
                    kind: "job",
                    name: id.to_string(),
                    hint: "",
                });
            }
            let mut job = Job {
                id: id.clone(),
                targets: request.targets.clone(),
                document,
                document_source: request.document_source.clone(),
                description: request.description.clone(),
                status: if start.is_some_and(|start| start > changes.now.seconds) {
                    JobStatus::Scheduled
                } else {
                    JobStatus::InProgress
                },
                timeout_minutes,
                created_at: changes.now.seconds,
                last_updated_at: changes.now.seconds,
                completed_at: None,
                reason_code: None,
                comment: None,
                force_canceled: false,
                continuous,
                namespace: request.namespace_id.clone(),
                packages,
                config,
                parameters: request.document_parameters.clone(),
                template: request.job_template_arn.clone(),
                ends: Ends::default(),
                gathers,
                waiting: 0,
                notified: 0,
                recent: Vec::new(),
                open: 0,
                install: None,
            };
            // Before the notifications are written: they carry its document.
            changes.put_job(&job)?;
            changes.put_tags(&Tagged::Job(id.clone()), tags)?;
            if gathers {
                changes.paces(id)?;
            } else if paced {
                changes.wait(&mut job, &things)?;
            } else {
                for thing in &things {
                    changes.queue(&mut job, thing, true)?;
                }
                job.notified = things.len() as u64;
            }
            if things.is_empty() && !continuous {
                job.status = JobStatus::Completed;
                job.completed_at = Some(changes.now.seconds);
            }
            changes.put_job(&job)?;
            Ok(job)
        })?;
        if paced {
            self.look_at_job(id);
        }
        Ok(job)
    }

    /// The things that `targets` mean now.
    pub(super) fn resolve(&self, targets: &[String]) -> Result<BTreeSet<String>, Error> {
        let mut things = BTreeSet::new();
        for target in targets {
            let bad = |why: String| Error::Invalid {
                field: format!("target `{}`", target.escape_debug()),
                why,
            };
            let resource = match target.strip_prefix("arn:") {
                None => target.as_str(),
                Some(arn) => {
                    // aws:iot:REGION:ACCOUNT:RESOURCE; any region is taken for ours.
                    let parts: Vec<&str> = arn.splitn(5, ':').collect();
                    let [_partition, "iot", _region, account, resource] = parts[..] else {
                        return Err(bad("not the ARN of a thing or thing group".into()));
                    };
                    if account != &*self.inner.fleet.realm().account {
                        return Err(bad("it belongs to another account".into()));
                    }
                    resource
                }
            };
            if let Some(group) = resource.strip_prefix("thinggroup/") {
                things.extend(self.members(group)?);
            } else {
                let thing = resource.strip_prefix("thing/").unwrap_or(resource);
                let name: ThingName = thing
                    .parse()
                    .map_err(|error: fleet::NameError| bad(error.to_string()))?;
                self.inner.fleet.thing(&name)?;
                things.insert(name.to_string());
            }
            if things.len() > MAX_THINGS {
                return invalid(
                    "targets",
                    format!("they are more than {MAX_THINGS} things; make several jobs"),
                );
            }
        }
        Ok(things)
    }

    /// The members of a group and of those below it.
    pub(super) fn members(&self, group: &str) -> Result<Vec<String>, Error> {
        let name: GroupName = group
            .parse()
            .map_err(|error: fleet::NameError| Error::Invalid {
                field: "group".into(),
                why: error.to_string(),
            })?;
        let mut members = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page =
                self.inner
                    .fleet
                    .members_below(&name, after.as_deref(), fleet::LIST_LIMIT_ITEMS)?;
            members.extend(page.items.iter().map(ToString::to_string));
            if page.next.is_none() || members.len() > MAX_THINGS {
                return Ok(members);
            }
            after = page.next;
        }
    }
}
