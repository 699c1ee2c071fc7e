//! Tags: TagResource, UntagResource, ListTagsForResource, of jobs and job templates.

use http::Method;
use ota::server::{Tag, Tagged};
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const TAG: Operation = Operation {
    name: "TagResource",
    method: Method::POST,
    path: "/tags",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(tag),
};

pub(super) const UNTAG: Operation = Operation {
    name: "UntagResource",
    method: Method::POST,
    path: "/untag",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(untag),
};

pub(super) const LIST: Operation = Operation {
    name: "ListTagsForResource",
    method: Method::GET,
    path: "/tags",
    least: Role::Viewer,
    query: &["resourceArn"],
    undone: &["nextToken"],
    run: Run::Plain(list),
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ToTag {
    resource_arn: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ToUntag {
    resource_arn: String,
    tag_keys: Vec<String>,
}

#[derive(Serialize)]
struct Listed {
    tags: Vec<Tag>,
}

/// What an ARN names, if it can have tags.
fn read(rooms: &Rooms, call: &Call, arn: &str) -> Result<Tagged, ApiError> {
    match call.arns(rooms).read(arn)? {
        ("job", id) => Ok(Tagged::Job(id.parse()?)),
        ("jobtemplate", id) => Ok(Tagged::JobTemplate(id.parse()?)),
        (kind, _) => Err(ApiError::invalid(format!(
            "resourceArn: jobs and job templates have tags, {kind} has none"
        ))),
    }
}

fn tag(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: ToTag = call.body()?;
    let of = read(rooms, call, &body.resource_arn)?;
    rooms.ota.tag(&of, &body.tags, call.now)?;
    Answer::empty_object()
}

fn untag(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: ToUntag = call.body()?;
    let of = read(rooms, call, &body.resource_arn)?;
    rooms.ota.untag(&of, &body.tag_keys, call.now)?;
    Answer::empty_object()
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let arn: Option<String> = call.query("resourceArn")?;
    let arn = arn.ok_or_else(|| ApiError::invalid("resourceArn is missing"))?;
    let tags = rooms.ota.tags(&read(rooms, call, &arn)?)?;
    Answer::json(&Listed { tags })
}
