//! Attributes as AWS wraps them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api_error::ApiError;

/// What a group says of itself.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub(super) struct GroupProperties {
    pub(super) thing_group_description: Option<String>,
    pub(super) attribute_payload: Option<AttributePayload>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AttributePayload {
    #[serde(default)]
    attributes: BTreeMap<String, String>,
    /// Says how an update joins with what is there; for something new it means nothing.
    #[serde(default)]
    merge: bool,
}

impl AttributePayload {
    /// The attributes of something that is being made.
    pub(super) fn of_a_new_one(
        payload: Option<Self>,
    ) -> Result<BTreeMap<String, String>, ApiError> {
        match payload {
            None => Ok(BTreeMap::new()),
            Some(payload) if payload.merge => Err(ApiError::invalid(
                "attributePayload.merge is for what is there already",
            )),
            Some(payload) => Ok(payload.attributes),
        }
    }

    /// The attributes an update brings, and whether those it does not name stay.
    pub(super) fn of_an_update(payload: Option<Self>) -> (Option<BTreeMap<String, String>>, bool) {
        match payload {
            None => (None, false),
            Some(payload) => (Some(payload.attributes), payload.merge),
        }
    }
}
