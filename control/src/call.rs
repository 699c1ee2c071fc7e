//! A request after it has been authenticated and authorised: what an operation reads.

use std::collections::HashMap;
use std::fmt::Display;
use std::str::FromStr;
use std::time::SystemTime;

use bytes::Bytes;
use http::{HeaderMap, Uri};
use serde::de::{DeserializeOwned, IgnoredAny};

use crate::api_error::ApiError;
use crate::arn::Arns;
use crate::auth::Caller;
use crate::operation::{Operation, Run};
use crate::page::PageRequest;
use crate::rooms::Rooms;

/// Most query parameters of a request.
const MAX_QUERY_PARAMETERS: usize = 32;

/// One request of one operation.
pub(crate) struct Call {
    pub(crate) operation: &'static Operation,
    pub(crate) caller: Caller,
    pub(crate) path: Vec<(String, String)>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) now: SystemTime,
}

impl Call {
    /// The value of a path parameter.
    pub(crate) fn path<T: FromStr<Err: Display>>(&self, name: &str) -> Result<T, ApiError> {
        let text = find(&self.path, name)
            .ok_or_else(|| ApiError::invalid(format!("{name} is missing from the path")))?;
        read(name, text)
    }

    /// The value of a query parameter, which [`Operation::query`] lists.
    pub(crate) fn query<T: FromStr<Err: Display>>(
        &self,
        name: &str,
    ) -> Result<Option<T>, ApiError> {
        debug_assert!(self.operation.query.contains(&name), "{name}");
        find(&self.query, name)
            .map(|text| read(name, text))
            .transpose()
    }

    /// A query parameter that is `true` or `false`; `false` where it is not there.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.query(name)?.unwrap_or(false))
    }

    /// A header that carries a parameter.
    pub(crate) fn header(&self, name: &str) -> Result<&str, ApiError> {
        let mut values = self.headers.get_all(name).iter();
        match (values.next().map(|value| value.to_str()), values.next()) {
            (Some(Ok(value)), None) => Ok(value),
            _ => Err(ApiError::invalid(format!(
                "header {name} must be there once, in ASCII"
            ))),
        }
    }

    /// The JSON body. A field that is not known is refused, by name.
    pub(crate) fn body<T: DeserializeOwned>(&self) -> Result<T, ApiError> {
        let body: &[u8] = if self.body.is_empty() {
            b"{}"
        } else {
            &self.body
        };
        serde_json::from_slice(body)
            .map_err(|error| ApiError::invalid(format!("the request's body: {error}")))
    }

    /// Which page is asked for, under the names AWS uses here (`maxResults` and `nextToken`, or
    /// `pageSize` and `marker`).
    pub(crate) fn page(&self, scope: &str) -> Result<PageRequest, ApiError> {
        let (size, token) = if self.operation.query.contains(&"marker") {
            ("pageSize", "marker")
        } else {
            ("maxResults", "nextToken")
        };
        PageRequest::read(
            format!("{}/{scope}", self.operation.name),
            find(&self.query, size),
            find(&self.query, token),
        )
    }

    /// ARNs as this request sees them.
    pub(crate) fn arns<'a>(&'a self, rooms: &'a Rooms) -> Arns<'a> {
        Arns {
            region: self.caller.region.as_deref().unwrap_or(&rooms.region),
            account: &rooms.account,
        }
    }

    /// Refuses a body where there must be none, and fields that AWS knows and this operation does
    /// not do.
    pub(crate) fn check_body(&self) -> Result<(), ApiError> {
        let operation = self.operation;
        if self.body.is_empty() || &*self.body == b"{}" {
            return Ok(());
        }
        // What is no object is refused by whoever reads the body.
        let fields: HashMap<String, IgnoredAny> =
            serde_json::from_slice(&self.body).unwrap_or_default();
        if let Some(field) = (operation.undone.iter()).find(|field| fields.contains_key(**field)) {
            return Err(ApiError::unsupported(field));
        }
        match operation.run {
            Run::Plain(_) => Err(ApiError::invalid(format!(
                "{} takes no body",
                operation.name
            ))),
            Run::WithBody(_) | Run::Upload(_) => Ok(()),
        }
    }
}

pub(crate) fn find<'c>(pairs: &'c [(String, String)], name: &str) -> Option<&'c str> {
    pairs
        .iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value.as_str())
}

pub(crate) fn read<T: FromStr<Err: Display>>(name: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error: T::Err| {
        let shown: String = text.chars().take(200).collect();
        ApiError::invalid(format!("{name} \"{shown}\": {error}"))
    })
}

/// Reads the query: each parameter known to the operation, and at most once.
pub(crate) fn read_query(
    operation: &str,
    known: &[&str],
    undone: &[&str],
    uri: &Uri,
) -> Result<Vec<(String, String)>, ApiError> {
    let axum::extract::Query(pairs) =
        axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| ApiError::invalid(error.to_string()))?;
    if pairs.len() > MAX_QUERY_PARAMETERS {
        return Err(ApiError::invalid(format!(
            "there are more than {MAX_QUERY_PARAMETERS} query parameters"
        )));
    }
    for (at, (name, _)) in pairs.iter().enumerate() {
        if undone.contains(&name.as_str()) {
            return Err(ApiError::unsupported(name));
        }
        let shown: String = name.chars().take(80).collect();
        if !known.contains(&name.as_str()) {
            return Err(ApiError::invalid(format!(
                "{operation} has no query parameter \"{shown}\""
            )));
        }
        if pairs.iter().take(at).any(|(before, _)| before == name) {
            return Err(ApiError::invalid(format!(
                "query parameter \"{shown}\" is there twice"
            )));
        }
    }
    Ok(pairs)
}
