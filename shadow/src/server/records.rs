//! The rows: one for each shadow, also of a deleted one, for its version goes on; and one for each thing with its names.

use serde::{Deserialize, Serialize};
use store::Stored;

use crate::document::Document;
use crate::topic::{Place, ShadowName};

/// Most named shadows of a thing.
pub const NAMED_LIMIT_ITEMS: usize = 100;
/// Most deleted names of a thing whose versions are remembered.
pub(super) const DELETED_LIMIT_ITEMS: usize = 100;

/// A shadow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ShadowRow {
    /// The thing it is of ([`fleet::Thing::id`]): one of the same name later has none of it.
    pub(super) thing: String,
    /// Of the last change.
    pub(super) version: u64,
    /// `None` once it is deleted.
    pub(super) document: Option<Document>,
}

impl Stored for ShadowRow {}

/// The names of a thing's shadows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NamesRow {
    /// As in [`ShadowRow`].
    pub(super) thing: String,
    /// In order.
    pub(super) names: Vec<ShadowNameText>,
    /// Deleted ones, the one that was deleted first first.
    pub(super) deleted: Vec<ShadowNameText>,
}

/// A [`ShadowName`].
pub(super) type ShadowNameText = String;

impl Stored for NamesRow {}

impl NamesRow {
    pub(super) fn new(thing: &str) -> Self {
        Self {
            thing: thing.to_owned(),
            names: Vec::new(),
            deleted: Vec::new(),
        }
    }

    /// Adds a name; whether there is room for it.
    pub(super) fn add(&mut self, name: &ShadowName) -> bool {
        let Err(at) = self.names.binary_search(&name.as_str().to_owned()) else {
            return true;
        };
        if self.names.len() >= NAMED_LIMIT_ITEMS {
            return false;
        }
        self.deleted.retain(|one| one != name.as_str());
        self.names.insert(at, name.as_str().to_owned());
        true
    }

    /// Takes a name out. Of too many deleted ones the first is forgotten, whose name it returns.
    pub(super) fn remove(&mut self, name: &ShadowName) -> Option<String> {
        self.names.retain(|one| one != name.as_str());
        self.deleted.push(name.as_str().to_owned());
        (self.deleted.len() > DELETED_LIMIT_ITEMS).then(|| self.deleted.remove(0))
    }
}

/// The key of a shadow's row. No name of a thing or a shadow has a slash.
pub(super) fn shadow_key(place: &Place) -> String {
    let name = place.name.as_ref().map_or("", ShadowName::as_str);
    key_of(&place.thing, name)
}

pub(super) fn key_of(thing: &str, name: &str) -> String {
    format!("shadow/{thing}/{name}")
}

/// What the keys of a thing's shadows begin with.
pub(super) fn shadows_prefix(thing: &str) -> String {
    key_of(thing, "")
}

pub(super) fn names_key(thing: &str) -> String {
    format!("names/{thing}")
}
