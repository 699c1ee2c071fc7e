//! OTA updates: CreateOTAUpdate, GetOTAUpdate, ListOTAUpdates, DeleteOTAUpdate.

use http::Method;
use ota::server::{OtaUpdate, OtaUpdateBody};
use serde::Serialize;
use serde_json::{Value, json};

use super::create_job::check_targets;
use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

const ONE: &str = "/otaUpdates/{otaUpdateId}";
/// Updates looked at in one go.
const LOOK_AT_ONCE: usize = 250;

pub(super) const CREATE: Operation = Operation {
    name: "CreateOTAUpdate",
    method: Method::POST,
    path: ONE,
    least: Role::ReleaseEngineer,
    query: &[],
    undone: &["tags"],
    run: Run::WithBody(create),
};

pub(super) const GET: Operation = Operation {
    name: "GetOTAUpdate",
    method: Method::GET,
    path: ONE,
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(get),
};

pub(super) const LIST: Operation = Operation {
    name: "ListOTAUpdates",
    method: Method::GET,
    path: "/otaUpdates",
    least: Role::Viewer,
    query: &["otaUpdateStatus", "maxResults", "nextToken"],
    undone: &[],
    run: Run::Plain(list),
};

pub(super) const DELETE: Operation = Operation {
    name: "DeleteOTAUpdate",
    method: Method::DELETE,
    path: ONE,
    least: Role::ReleaseEngineer,
    query: &["deleteStream", "forceDeleteAWSJob"],
    undone: &[],
    run: Run::Plain(delete),
};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Created {
    ota_update_id: String,
    ota_update_arn: String,
    aws_iot_job_id: String,
    aws_iot_job_arn: String,
    ota_update_status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Summary {
    ota_update_id: String,
    ota_update_arn: String,
    creation_date: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Listed {
    ota_updates: Vec<Summary>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

fn create(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("otaUpdateId")?;
    let body: OtaUpdateBody = call.body()?;
    let arns = call.arns(rooms);
    check_targets(arns, &body.targets)?;
    let update = rooms.ota.create_ota_update(&id, &body, call.now)?;
    Answer::json(&Created {
        ota_update_arn: arns.ota_update(&update.id),
        ota_update_id: update.id,
        aws_iot_job_arn: arns.job(&update.job),
        aws_iot_job_id: update.job.to_string(),
        ota_update_status: update.status.as_str(),
    })
}

fn get(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("otaUpdateId")?;
    let update = rooms.ota.ota_update(&id)?;
    Answer::json(&json!({ "otaUpdateInfo": info(update, call.arns(rooms)) }))
}

fn info(update: OtaUpdate, arns: Arns<'_>) -> Value {
    let mut info = update.shown;
    if let Some(info) = info.as_object_mut() {
        for (name, value) in [
            ("otaUpdateArn", json!(arns.ota_update(&update.id))),
            ("otaUpdateId", json!(update.id)),
            ("creationDate", json!(update.created_at)),
            ("lastModifiedDate", json!(update.last_updated_at)),
            ("otaUpdateStatus", json!(update.status.as_str())),
            ("awsIotJobArn", json!(arns.job(&update.job))),
            ("awsIotJobId", json!(update.job)),
        ] {
            info.insert(name.to_owned(), value);
        }
    }
    info
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let status: Option<String> = call.query("otaUpdateStatus")?;
    let asked = call.page("")?;
    let arns = call.arns(rooms);
    let mut after = asked.after.clone();
    let mut found: Vec<Summary> = Vec::new();
    let mut more = false;
    'pages: loop {
        let page = rooms.ota.ota_updates(after.as_deref(), LOOK_AT_ONCE)?;
        let Some(last) = page.last() else { break };
        after = Some(last.id.clone());
        for update in page {
            if status
                .as_deref()
                .is_some_and(|asked| asked != update.status.as_str())
            {
                continue;
            }
            if found.len() >= asked.limit {
                more = true;
                break 'pages;
            }
            found.push(Summary {
                ota_update_arn: arns.ota_update(&update.id),
                ota_update_id: update.id,
                creation_date: update.created_at,
            });
        }
    }
    let next = found
        .last()
        .filter(|_| more)
        .map(|last| last.ota_update_id.clone());
    Answer::json(&Listed {
        ota_updates: found,
        next_token: asked.token(next),
    })
}

fn delete(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let id: String = call.path("otaUpdateId")?;
    let with_stream = call.flag("deleteStream")?;
    let force = call.flag("forceDeleteAWSJob")?;
    match rooms
        .ota
        .delete_ota_update(&id, with_stream, force, call.now)
    {
        Ok(()) => Answer::empty_object(),
        Err(error @ ota::Error::JobState { .. }) => Err(ApiError::invalid(format!(
            "{error}; or say forceDeleteAWSJob"
        ))),
        Err(error) => Err(error.into()),
    }
}
