//! AWS's managed job templates: ListManagedJobTemplates, DescribeManagedJobTemplate.

use http::Method;
use ota::job::managed::{self, ManagedTemplate, Parameter};
use serde::Serialize;

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const LIST: Operation = Operation {
    name: "ListManagedJobTemplates",
    method: Method::GET,
    path: "/managed-job-templates",
    least: Role::Viewer,
    query: &["templateName", "maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(list),
};

pub(super) const DESCRIBE: Operation = Operation {
    name: "DescribeManagedJobTemplate",
    method: Method::GET,
    path: "/managed-job-templates/{templateName}",
    least: Role::Viewer,
    query: &["templateVersion"],
    undone: &[],
    run: Run::Plain(describe),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    template_arn: String,
    template_name: &'static str,
    description: &'static str,
    environments: [&'static str; 1],
    template_version: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    managed_job_templates: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Description {
    #[serde(flatten)]
    summary: Summary,
    document_parameters: Vec<DocumentParameter>,
    document: String,
}

#[derive(Serialize)]
struct DocumentParameter {
    key: &'static str,
    description: &'static str,
    regex: &'static str,
    example: &'static str,
    optional: bool,
}

fn summary(template: &ManagedTemplate, rooms: &Rooms, call: &Call) -> Summary {
    let arns = call.arns(rooms);
    Summary {
        template_arn: arns.managed_job_template(template.name, managed::VERSION),
        template_name: template.name,
        description: template.description,
        environments: managed::ENVIRONMENTS,
        template_version: managed::VERSION,
    }
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: Option<String> = call.query("templateName")?;
    let asked = call.page(name.as_deref().unwrap_or_default())?;
    let after = asked.after.as_deref().unwrap_or_default();
    let named = |one: &&ManagedTemplate| name.as_ref().is_none_or(|name| name == one.name);
    let mut left = managed::ALL
        .iter()
        .filter(named)
        .filter(|one| one.name > after);
    let page: Vec<&ManagedTemplate> = left.by_ref().take(asked.limit).collect();
    let next = page.last().filter(|_| left.next().is_some());
    let next = next.map(|last| last.name.to_owned());
    Answer::json(&Listed {
        managed_job_templates: page.iter().map(|one| summary(one, rooms, call)).collect(),
        next_token: asked.token(next),
    })
}

fn describe(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let name: String = call.path("templateName")?;
    let version: Option<String> = call.query("templateVersion")?;
    let template = managed::template(&name, version.as_deref())?;
    let parameter = |one: &Parameter| DocumentParameter {
        key: one.key,
        description: one.description,
        regex: one.regex,
        example: one.example,
        optional: one.optional,
    };
    Answer::json(&Description {
        summary: summary(template, rooms, call),
        document_parameters: template.parameters.iter().map(parameter).collect(),
        document: template.document(),
    })
}
