//! The one index there is: of things, as the registry has them.

use fleet::query::{QUERY_VERSION, Query};

use crate::api_error::ApiError;

/// AWS's name of it.
pub(super) const THINGS: &str = "AWS_Things";

/// Refuses another index, and another version of the language.
pub(super) fn check(index: Option<&str>, version: Option<&str>) -> Result<(), ApiError> {
    match index {
        None | Some(THINGS) => {}
        Some(other) => {
            let shown: String = other.chars().take(80).collect();
            return Err(ApiError::not_found(format!(
                "there is no index {shown:?}; there is {THINGS}"
            )));
        }
    }
    match version {
        None | Some(QUERY_VERSION) => Ok(()),
        Some(_) => Err(ApiError::invalid(format!(
            "queryVersion is {QUERY_VERSION}"
        ))),
    }
}

/// Reads a query.
pub(super) fn query(text: &str) -> Result<Query, ApiError> {
    text.parse()
        .map_err(|error: fleet::query::QueryError| fleet::FleetError::from(error).into())
}
