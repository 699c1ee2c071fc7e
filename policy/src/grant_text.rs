//! Statements written for a document: what an explanation proposes and a default grants.

use std::fmt;

use serde::Serialize;

use crate::action::Action;
use crate::document::Effect;
use crate::shown::misleads;

/// A statement to be written into a document; serialises as one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct GrantText {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) sid: Option<&'static str>,
    pub(crate) effect: Effect,
    pub(crate) action: OneOrMany<Action>,
    pub(crate) resource: OneOrMany<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum OneOrMany<T> {
    One(T),
    Many(Vec<T>),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DocumentText {
    pub(crate) version: &'static str,
    pub(crate) statement: Vec<GrantText>,
}

impl GrantText {
    pub(crate) fn allow(action: Action, resource: String) -> Self {
        Self {
            sid: None,
            effect: Effect::Allow,
            action: OneOrMany::One(action),
            resource: OneOrMany::One(resource),
        }
    }
}

impl fmt::Display for GrantText {
    /// The statement as JSON on one line, with nothing in it that misleads a reader's eye.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write;

        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        for c in json.chars() {
            if misleads(c) {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    write!(f, "\\u{unit:04x}")?;
                }
            } else {
                f.write_char(c)?;
            }
        }
        Ok(())
    }
}
