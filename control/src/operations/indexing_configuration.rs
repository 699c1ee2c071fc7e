//! GetIndexingConfiguration and UpdateIndexingConfiguration: what can be searched. That is the registry itself and who is
//! connected, always; so nothing is switched on or off, and what there is not is refused rather than taken and forgotten.

use fleet::{IndexField, IndexFieldType};
use http::Method;
use serde::{Deserialize, Serialize};

use crate::answer::Answer;
use crate::api_error::ApiError;
use crate::call::Call;
use crate::operation::{Operation, Run};
use crate::operators::Role;
use crate::rooms::Rooms;

pub(super) const GET: Operation = Operation {
    name: "GetIndexingConfiguration",
    method: Method::GET,
    path: "/indexing/config",
    least: Role::Viewer,
    query: &[],
    undone: &[],
    run: Run::Plain(get),
};

pub(super) const UPDATE: Operation = Operation {
    name: "UpdateIndexingConfiguration",
    method: Method::POST,
    path: "/indexing/config",
    least: Role::Operator,
    query: &[],
    undone: &[],
    run: Run::WithBody(update),
};

/// Fields that are searched whatever is configured.
const MANAGED: [(&str, IndexFieldType); 7] = [
    ("thingId", IndexFieldType::String),
    ("thingName", IndexFieldType::String),
    ("registry.version", IndexFieldType::Number),
    ("registry.thingTypeName", IndexFieldType::String),
    ("registry.thingGroupNames", IndexFieldType::String),
    ("connectivity.connected", IndexFieldType::Boolean),
    ("connectivity.timestamp", IndexFieldType::Number),
];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    thing_indexing_configuration: Things,
    thing_group_indexing_configuration: Groups,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Things {
    thing_indexing_mode: &'static str,
    thing_connectivity_indexing_mode: &'static str,
    device_defender_indexing_mode: &'static str,
    named_shadow_indexing_mode: &'static str,
    managed_fields: Vec<FieldOut>,
    custom_fields: Vec<FieldOut>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Groups {
    thing_group_indexing_mode: &'static str,
}

#[derive(Serialize)]
struct FieldOut {
    name: String,
    r#type: IndexFieldType,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Body {
    thing_indexing_configuration: Option<ThingsIn>,
    thing_group_indexing_configuration: Option<GroupsIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ThingsIn {
    thing_indexing_mode: String,
    thing_connectivity_indexing_mode: Option<String>,
    device_defender_indexing_mode: Option<String>,
    named_shadow_indexing_mode: Option<String>,
    /// What it says of these changes nothing, as on AWS.
    #[serde(default, rename = "managedFields")]
    _managed_fields: Vec<FieldIn>,
    #[serde(default)]
    custom_fields: Vec<FieldIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct GroupsIn {
    thing_group_indexing_mode: String,
    #[serde(default)]
    custom_fields: Vec<FieldIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FieldIn {
    name: String,
    r#type: IndexFieldType,
}

fn get(rooms: &Rooms, _: &Call) -> Result<Answer, ApiError> {
    let managed = MANAGED.map(|(name, r#type)| FieldOut {
        name: name.to_owned(),
        r#type,
    });
    let custom = rooms.fleet.index_fields()?.into_iter();
    let custom = custom.map(|field| FieldOut {
        name: field.name,
        r#type: field.kind,
    });
    Answer::json(&Output {
        thing_indexing_configuration: Things {
            thing_indexing_mode: "REGISTRY",
            thing_connectivity_indexing_mode: "STATUS",
            device_defender_indexing_mode: "OFF",
            named_shadow_indexing_mode: "OFF",
            managed_fields: managed.into(),
            custom_fields: custom.collect(),
        },
        thing_group_indexing_configuration: Groups {
            thing_group_indexing_mode: "OFF",
        },
    })
}

/// Refuses a mode that is another than the one there is.
fn only(field: &str, given: Option<&str>, there_is: &str, why: &str) -> Result<(), ApiError> {
    match given {
        None => Ok(()),
        Some(given) if given == there_is => Ok(()),
        Some(given) => {
            let shown: String = given.chars().take(40).collect();
            Err(ApiError::invalid(format!(
                "{field} is {there_is} here, not {shown:?}: {why}"
            )))
        }
    }
}

fn update(rooms: &Rooms, call: &Call) -> Result<Answer, ApiError> {
    let body: Body = call.body()?;
    if let Some(groups) = body.thing_group_indexing_configuration {
        only(
            "thingGroupIndexingMode",
            Some(&groups.thing_group_indexing_mode),
            "OFF",
            "groups are listed, and not searched",
        )?;
        if !groups.custom_fields.is_empty() {
            return Err(ApiError::invalid(
                "thingGroupIndexingConfiguration.customFields: groups are listed, and not searched",
            ));
        }
    }
    let Some(things) = body.thing_indexing_configuration else {
        return Answer::empty_object();
    };
    let registry = "the registry itself is searched, always; shadows are not";
    only(
        "thingIndexingMode",
        Some(&things.thing_indexing_mode),
        "REGISTRY",
        registry,
    )?;
    only(
        "thingConnectivityIndexingMode",
        things.thing_connectivity_indexing_mode.as_deref(),
        "STATUS",
        "who is connected is searched, always",
    )?;
    only(
        "deviceDefenderIndexingMode",
        things.device_defender_indexing_mode.as_deref(),
        "OFF",
        "violations are not searched",
    )?;
    only(
        "namedShadowIndexingMode",
        things.named_shadow_indexing_mode.as_deref(),
        "OFF",
        "shadows are not searched",
    )?;
    let fields = things.custom_fields.into_iter().map(|field| IndexField {
        name: field.name,
        kind: field.r#type,
    });
    rooms.fleet.set_index_fields(fields.collect())?;
    Answer::empty_object()
}
