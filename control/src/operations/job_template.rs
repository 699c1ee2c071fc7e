//! Job templates: CreateJobTemplate, DescribeJobTemplate, ListJobTemplates, DeleteJobTemplate.

use http::{Method, StatusCode};
use ota::JobId;
use ota::job::config::{JobConfig, MaintenanceWindow};
use ota::server::{CreateJobTemplate, JobTemplate};
use serde::Serialize;

use super::describe_job::TimeoutConfig;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

const ONE: &str = "/job-templates/{jobTemplateId}";

pub(super) const CREATE: Operation = Operation {
    name: "CreateJobTemplate",
    method: Method::PUT,
    path: ONE,
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(create),
};

pub(super) const DESCRIBE: Operation = Operation {
    name: "DescribeJobTemplate",
    method: Method::GET,
    path: ONE,
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(describe),
};

pub(super) const LIST: Operation = Operation {
    name: "ListJobTemplates",
    method: Method::GET,
    path: "/job-templates",
    least: Role::Viewer,
    query: &["maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(list),
};

pub(super) const DELETE: Operation = Operation {
    name: "DeleteJobTemplate",
    method: Method::DELETE,
    path: ONE,
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::Plain(delete),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    job_template_arn: String,
    job_template_id: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    job_template_arn: String,
    job_template_id: String,
    description: String,
    document: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    document_source: Option<String>,
    created_at: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_config: Option<TimeoutConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    maintenance_windows: Option<Vec<MaintenanceWindow>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    destination_package_versions: Vec<String>,
    #[serde(flatten)]
    config: JobConfig,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    job_template_arn: String,
    job_template_id: String,
    description: String,
    created_at: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    job_templates: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn create(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: JobId = call.path("jobTemplateId")?;
    let body: CreateJobTemplate = call.body()?;
    match rooms.ota.create_job_template(&id, body, call.now) {
        Ok(()) => Answer::json(&Created {
            job_template_arn: call.arns(rooms).job_template(&id),
            job_template_id: id.to_string(),
        }),
        // AWS has a word of its own for it here.
        Err(error @ ota::Error::AlreadyExists { .. }) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "ConflictException",
            error.to_string(),
        )),
        Err(error) => Err(error.into()),
    }
}

fn description(template: JobTemplate, arns: Arns<'_>) -> Description {
    let windows = template.maintenance_windows().cloned();
    Description {
        job_template_arn: arns.job_template(&template.id),
        job_template_id: template.id.to_string(),
        description: template.description,
        document: template.document,
        document_source: template.document_source,
        created_at: template.created_at,
        timeout_config: template.timeout_minutes.map(TimeoutConfig::of),
        maintenance_windows: windows,
        destination_package_versions: template.packages,
        config: JobConfig {
            scheduling_config: None,
            ..template.config
        },
    }
}

fn describe(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let template = rooms.ota.job_template(&call.path("jobTemplateId")?)?;
    Answer::json(&description(template, call.arns(rooms)))
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let asked = call.page("")?;
    let mut templates = rooms
        .ota
        .job_templates(asked.after.as_deref(), asked.limit.saturating_add(1))?;
    let more = templates.len() > asked.limit;
    templates.truncate(asked.limit);
    let next = templates
        .last()
        .filter(|_| more)
        .map(|last| last.id.to_string());
    let arns = call.arns(rooms);
    let summary = |template: JobTemplate| Summary {
        job_template_arn: arns.job_template(&template.id),
        job_template_id: template.id.to_string(),
        description: template.description,
        created_at: template.created_at,
    };
    Answer::json(&Listed {
        job_templates: templates.into_iter().map(summary).collect(),
        next_token: asked.token(next),
    })
}

fn delete(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    rooms
        .ota
        .delete_job_template(&call.path("jobTemplateId")?, call.now)?;
    Answer::nothing()
}
