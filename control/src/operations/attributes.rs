//! Attributes as AWS wraps them.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::api_error::ApiError;

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
            Some(payload) if payload.merge => Err(ApiError::unsupported("attributePayload.merge")),
            Some(payload) => Ok(payload.attributes),
        }
    }
}
