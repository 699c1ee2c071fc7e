//! Job templates: what a job says of itself, under a name.

use std::time::SystemTime;

use serde::{Deserialize, Serialize};
use store::Stored;

use super::create_job::{CreateJob, TimeoutConfig};
use super::job_documents;
use super::jobs::{MAX_DESCRIPTION_CHARS, invalid};
use super::records::key;
use super::tags::{self, Tag, Tagged};
use super::{Ota, seconds};
use crate::job::config::{
    AbortConfig, JobConfig, MaintenanceWindow, PresignedUrlConfig, RetryConfig, RolloutConfig,
    SchedulingConfig,
};
use crate::job::managed;
use crate::{Error, JobId};

/// The body of AWS IoT's CreateJobTemplate.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CreateJobTemplate {
    /// A job that it is made of; what else is said here goes before.
    pub job_arn: Option<String>,
    /// What devices are told: a JSON text.
    pub document: Option<String>,
    /// Where that is instead: `https://s3.amazonaws.com/BUCKET/KEY`, a file of this server.
    pub document_source: Option<String>,
    /// For people.
    pub description: String,
    /// How long devices may fetch files.
    pub presigned_url_config: Option<PresignedUrlConfig>,
    /// How fast it goes out.
    pub job_executions_rollout_config: Option<RolloutConfig>,
    /// When it is given up.
    pub abort_config: Option<AbortConfig>,
    /// How long a device may be at it.
    pub timeout_config: Option<TimeoutConfig>,
    /// What is tried again.
    pub job_executions_retry_config: Option<RetryConfig>,
    /// When things are told.
    pub maintenance_windows: Option<Vec<MaintenanceWindow>>,
    /// What a thing runs that has done it, as ARNs of package versions.
    pub destination_package_versions: Option<Vec<String>>,
    /// What the operator calls it by.
    pub tags: Option<Vec<Tag>>,
}

/// A job template.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JobTemplate {
    /// Its id.
    pub id: JobId,
    /// What devices are told: JSON.
    pub document: String,
    /// Where that was read from when the template was made.
    #[serde(default)]
    pub document_source: Option<String>,
    /// For people.
    pub description: String,
    /// How long a device may be in progress, in minutes.
    pub timeout_minutes: Option<u32>,
    /// What a thing runs that has done one of its jobs, as ARNs of package versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub packages: Vec<String>,
    /// How its jobs go out. Of a schedule it has maintenance windows alone.
    pub config: JobConfig,
    /// When it was made (seconds since 1970).
    pub created_at: u64,
}
impl Stored for JobTemplate {}

impl JobTemplate {
    /// Its maintenance windows.
    #[must_use]
    pub fn maintenance_windows(&self) -> Option<&Vec<MaintenanceWindow>> {
        let scheduling = self.config.scheduling_config.as_ref()?;
        scheduling.maintenance_windows.as_ref()
    }
}

fn missing(id: &JobId) -> Error {
    Error::NotFound {
        kind: "job template",
        name: id.to_string(),
    }
}

impl Ota {
    /// A job template.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn job_template(&self, id: &JobId) -> Result<JobTemplate, Error> {
        let row = self
            .inner
            .table
            .get_as::<JobTemplate>(&key::job_template(id))?;
        row.map(|row| row.value).ok_or_else(|| missing(id))
    }

    /// Job templates in the order of their ids, at most `limit` after the one named `after`.
    ///
    /// # Errors
    /// Where the store fails.
    pub fn job_templates(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<JobTemplate>, Error> {
        let after = after.map(|after| format!("{}{after}", key::JOB_TEMPLATES));
        let table = &self.inner.table;
        let rows = table.scan_as::<JobTemplate>(key::JOB_TEMPLATES, after.as_deref(), limit)?;
        Ok(rows.into_iter().map(|(_, row)| row.value).collect())
    }

    /// Makes a job template.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field, [`Error::NotFound`] for the job, [`Error::AlreadyExists`].
    pub fn create_job_template(
        &self,
        id: &JobId,
        body: CreateJobTemplate,
        at: SystemTime,
    ) -> Result<(), Error> {
        let length = body.description.chars().count();
        if length == 0 || length > MAX_DESCRIPTION_CHARS {
            return invalid(
                "description",
                format!("a template has one, of at most {MAX_DESCRIPTION_CHARS} characters"),
            );
        }
        let job = match &body.job_arn {
            None => None,
            Some(arn) => Some(self.job(&self.id_of(arn, "job/")?)?),
        };
        if job.as_ref().is_some_and(|job| job.install.is_some()) {
            return invalid("jobArn", "a rollout's job makes no template");
        }
        let timeout = body.timeout_config.as_ref().map(TimeoutConfig::minutes);
        let (document, minutes, usual, packages) = match job {
            Some(job) => {
                let document = Some(job.document);
                (document, job.timeout_minutes, job.config, job.packages)
            }
            None => (None, None, JobConfig::default(), Vec::new()),
        };
        let packages = body.destination_package_versions.unwrap_or(packages);
        self.check_packages(&packages)?;
        let tags = tags::read(body.tags.as_deref().unwrap_or_default())?;
        if body.document.is_some() && body.document_source.is_some() {
            return invalid(
                "documentSource",
                "a template has a document or a documentSource, and not both",
            );
        }
        let source = body.document_source.as_deref();
        let sourced = source
            .map(|source| self.document_from(source))
            .transpose()?;
        let Some(document) = body.document.or(sourced).or(document) else {
            return invalid("document", "a template has one, or a job that has one");
        };
        job_documents::check(&document)?;
        self.check_placeholders(&document, None)?;
        let windows = body.maintenance_windows.or_else(|| {
            let scheduling = usual.scheduling_config;
            scheduling.and_then(|scheduling| scheduling.maintenance_windows)
        });
        let config = JobConfig {
            job_executions_rollout_config: body
                .job_executions_rollout_config
                .or(usual.job_executions_rollout_config),
            abort_config: body.abort_config.or(usual.abort_config),
            job_executions_retry_config: body
                .job_executions_retry_config
                .or(usual.job_executions_retry_config),
            scheduling_config: windows.map(|windows| SchedulingConfig {
                maintenance_windows: Some(windows),
                ..SchedulingConfig::default()
            }),
            presigned_url_config: body.presigned_url_config.or(usual.presigned_url_config),
        };
        config.check(seconds(at))?;
        let template = JobTemplate {
            id: id.clone(),
            document,
            document_source: body.document_source,
            description: body.description,
            timeout_minutes: timeout.transpose()?.flatten().or(minutes),
            packages,
            config,
            created_at: seconds(at),
        };
        self.change(at, |changes| {
            let row = key::job_template(id);
            if changes.rows.get::<JobTemplate>(&row)?.is_some() {
                return Err(Error::AlreadyExists {
                    kind: "job template",
                    name: id.to_string(),
                    hint: "",
                });
            }
            changes.put_tags(&Tagged::JobTemplate(id.clone()), tags)?;
            changes.rows.put(row, &template)
        })
    }

    /// Deletes a job template; jobs that were made of it stay.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn delete_job_template(&self, id: &JobId, at: SystemTime) -> Result<(), Error> {
        self.change(at, |changes| {
            let row = key::job_template(id);
            if changes.rows.get::<JobTemplate>(&row)?.is_none() {
                return Err(missing(id));
            }
            changes.rows.delete(row);
            changes.drop_tags(&Tagged::JobTemplate(id.clone()));
            Ok(())
        })
    }

    /// A request with what its template says where it says nothing itself.
    pub(super) fn with_template(&self, request: &CreateJob, arn: &str) -> Result<CreateJob, Error> {
        if request.document.is_some() {
            return invalid("document", "with jobTemplateArn the template's is taken");
        }
        if let Some(managed) = managed::of_arn(arn)? {
            let mut merged = request.clone();
            merged.document = Some(managed.document());
            merged.document_parameters = managed.fill(&request.document_parameters)?;
            merged
                .description
                .get_or_insert_with(|| managed.description.to_owned());
            return Ok(merged);
        }
        let template = self.job_template(&self.id_of(arn, "jobtemplate/")?)?;
        let config = template.config;
        let mut merged = request.clone();
        merged.document = Some(template.document);
        merged.description.get_or_insert(template.description);
        let packages = &mut merged.destination_package_versions;
        packages.get_or_insert(template.packages);
        merged.job_executions_rollout_config = merged
            .job_executions_rollout_config
            .or(config.job_executions_rollout_config);
        merged.abort_config = merged.abort_config.or(config.abort_config);
        merged.job_executions_retry_config = merged
            .job_executions_retry_config
            .or(config.job_executions_retry_config);
        merged.scheduling_config = merged.scheduling_config.or(config.scheduling_config);
        merged.presigned_url_config = merged.presigned_url_config.or(config.presigned_url_config);
        merged.timeout_config = merged.timeout_config.or_else(|| {
            template.timeout_minutes.map(|minutes| TimeoutConfig {
                in_progress_timeout_in_minutes: Some(minutes.into()),
            })
        });
        Ok(merged)
    }

    /// The id in an ARN of this account; any region is taken for ours.
    fn id_of(&self, arn: &str, kind: &str) -> Result<JobId, Error> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let id = match parts[..] {
            ["arn", _partition, "iot", _region, account, resource]
                if account == &*self.inner.fleet.realm().account =>
            {
                resource.strip_prefix(kind)
            }
            _ => None,
        };
        let Some(id) = id else {
            let kind = kind.trim_end_matches('/');
            let shown: String = arn.chars().take(120).collect();
            return invalid(
                "arn",
                format!(
                    "`{}` is no ARN of a {kind} of this account",
                    shown.escape_debug()
                ),
            );
        };
        id.parse()
    }
}
