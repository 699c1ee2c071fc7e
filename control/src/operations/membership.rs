//! What AddThingToThingGroup and RemoveThingFromThingGroup read.

use fleet::{GroupName, ThingName};
use serde::Deserialize;

use crate::api_error::ApiError;
use crate::arn::Arns;

/// A thing and a group, each by name, by ARN, or by both where they agree.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct Membership {
    thing_group_name: Option<String>,
    thing_group_arn: Option<String>,
    thing_name: Option<String>,
    thing_arn: Option<String>,
    /// What a thing's static groups push out beyond ten. Dynamic ones do not count among the ten here, so that there is
    /// nothing to push out.
    #[serde(default, rename = "overrideDynamicGroups")]
    _override_dynamic_groups: bool,
    /// Ours: whether to refuse what breaks a declared invariant.
    #[serde(default)]
    pub(super) keep_proofs: bool,
}

impl Membership {
    pub(super) fn names(self, arns: Arns<'_>) -> Result<(GroupName, ThingName), ApiError> {
        let group = one(
            "thingGroupName",
            "thinggroup",
            self.thing_group_name,
            self.thing_group_arn.as_deref(),
            arns,
        )?;
        let thing = one(
            "thingName",
            "thing",
            self.thing_name,
            self.thing_arn.as_deref(),
            arns,
        )?;
        let invalid = |error: fleet::NameError| ApiError::invalid(error.to_string());
        Ok((
            group.parse().map_err(invalid)?,
            thing.parse().map_err(invalid)?,
        ))
    }
}

fn one(
    field: &str,
    kind: &str,
    name: Option<String>,
    arn: Option<&str>,
    arns: Arns<'_>,
) -> Result<String, ApiError> {
    let Some(arn) = arn else {
        return name.ok_or_else(|| ApiError::invalid(format!("{field} is missing")));
    };
    let (found, named) = arns.read(arn)?;
    if found != kind {
        return Err(ApiError::invalid(format!(
            "\"{arn}\" names a {found}, not a {kind}"
        )));
    }
    match name {
        Some(name) if name != named => Err(ApiError::invalid(format!(
            "{field} \"{name}\" and the ARN \"{arn}\" name two"
        ))),
        _ => Ok(named.to_owned()),
    }
}
