//! Tags: TagResource, UntagResource, ListTagsForResource, of jobs, job templates, policies, thing groups, thing types,
//! registered authorities and provisioning templates.

use std::collections::BTreeMap;

use http::Method;
use ota::server::{MAX_TAGS, Tag, Tagged, read_tags};
use policy::PolicyName;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::arn::certificate_id;
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

/// What can have tags.
enum Of {
    Work(Tagged),
    Policy(PolicyName),
    Registry(fleet::Tagged),
}

/// What an ARN names, if it can have tags.
fn read(rooms: &Rooms, call: &Call, arn: &str) -> Result<Of, ApiError> {
    match call.arns(rooms).read(arn)? {
        ("job", id) => Ok(Of::Work(Tagged::Job(id.parse()?))),
        ("jobtemplate", id) => Ok(Of::Work(Tagged::JobTemplate(id.parse()?))),
        ("policy", name) => {
            Ok(Of::Policy(name.parse::<PolicyName>().map_err(|error| {
                ApiError::invalid(format!("resourceArn: {error}"))
            })?))
        }
        ("thinggroup", name) => Ok(Of::Registry(fleet::Tagged::Group(named(name)?))),
        ("thingtype", name) => Ok(Of::Registry(fleet::Tagged::ThingType(named(name)?))),
        ("provisioningtemplate", name) => Ok(Of::Registry(fleet::Tagged::Template(named(name)?))),
        ("cacert", id) => Ok(Of::Registry(fleet::Tagged::Authority(certificate_id(id)?))),
        (kind, _) => Err(ApiError::invalid(format!(
            "resourceArn: jobs, job templates, policies, thing groups, thing types, authorities and provisioning templates have tags, {kind} has none"
        ))),
    }
}

fn named<T: std::str::FromStr<Err: std::fmt::Display>>(name: &str) -> Result<T, ApiError> {
    name.parse()
        .map_err(|error| ApiError::invalid(format!("resourceArn: {error}")))
}

/// Adds to what is there.
fn add(
    tags: &mut BTreeMap<String, String>,
    fresh: &BTreeMap<String, String>,
) -> Result<(), ApiError> {
    tags.extend(fresh.clone());
    match tags.len() {
        0..=MAX_TAGS => Ok(()),
        _ => Err(ApiError::invalid(format!(
            "tags: at most {MAX_TAGS} are possible"
        ))),
    }
}

fn tag(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: ToTag = call.body()?;
    let of = read(rooms, call, &body.resource_arn)?;
    match of {
        Of::Work(of) => rooms.ota.tag(&of, &body.tags, call.now)?,
        Of::Policy(name) => {
            let fresh = read_tags(&body.tags)?;
            rooms
                .fleet
                .change_policy_tags(&name, |tags| add(tags, &fresh))?;
        }
        Of::Registry(of) => {
            let fresh = read_tags(&body.tags)?;
            rooms.fleet.change_tags(&of, |tags| add(tags, &fresh))?;
        }
    }
    Answer::empty_object()
}

fn untag(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: ToUntag = call.body()?;
    let of = read(rooms, call, &body.resource_arn)?;
    match of {
        Of::Work(of) => rooms.ota.untag(&of, &body.tag_keys, call.now)?,
        Of::Policy(name) => rooms.fleet.change_policy_tags(&name, |tags| {
            tags.retain(|key, _| !body.tag_keys.contains(key));
            Ok::<(), ApiError>(())
        })?,
        Of::Registry(of) => rooms.fleet.change_tags(&of, |tags| {
            tags.retain(|key, _| !body.tag_keys.contains(key));
            Ok::<(), ApiError>(())
        })?,
    }
    Answer::empty_object()
}

fn list(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let arn: Option<String> = call.query("resourceArn")?;
    let arn = arn.ok_or_else(|| ApiError::invalid("resourceArn is missing"))?;
    let tags = match read(rooms, call, &arn)? {
        Of::Work(of) => rooms.ota.tags(&of)?,
        Of::Policy(name) => {
            let tags = rooms.fleet.policy(&name)?.tags.into_iter();
            tags.map(|(key, value)| Tag { key, value }).collect()
        }
        Of::Registry(of) => {
            let tags = rooms.fleet.tags(&of)?.into_iter();
            tags.map(|(key, value)| Tag { key, value }).collect()
        }
    };
    Answer::json(&Listed { tags })
}
