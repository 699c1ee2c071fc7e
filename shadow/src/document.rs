//! A shadow's document: two trees, each with when every value in it was set, and what one has that the other has not.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::request::{Change, Update};

/// Longest state: `desired` and `reported` as JSON, in bytes. When values were set does not count.
pub const STATE_MAX_BYTES: usize = 8 * 1024;

/// `desired` or `reported`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Section {
    /// The values.
    pub state: Map<String, Value>,
    /// The same tree with `{"timestamp": SECONDS}` in the place of each value; of an array, one for each element.
    pub metadata: Map<String, Value>,
}

/// Both.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Document {
    /// What it is to be.
    pub desired: Section,
    /// What it said it is.
    pub reported: Section,
}

impl Section {
    /// Merges a tree into it, at a time in seconds since 1970: objects member by member, everything else whole; null
    /// takes away.
    fn merge(&mut self, patch: &Map<String, Value>, at: u64) {
        merge(&mut self.state, &mut self.metadata, patch, at);
    }

    fn change(&mut self, change: &Change, at: u64) {
        match change {
            Change::None => {}
            Change::Clear => *self = Self::default(),
            Change::Merge(patch) => self.merge(patch, at),
        }
    }

    fn bytes(&self) -> usize {
        // A tree of values always serialises.
        serde_json::to_vec(&self.state).map_or(usize::MAX, |text| text.len())
    }
}

impl Document {
    /// The document after a change.
    #[must_use]
    pub fn after(&self, update: &Update, at: u64) -> Self {
        let mut after = if update.clear {
            Self::default()
        } else {
            self.clone()
        };
        after.desired.change(&update.desired, at);
        after.reported.change(&update.reported, at);
        after
    }

    /// Whether its state is no longer than it may be.
    #[must_use]
    pub fn fits(&self) -> bool {
        self.desired.bytes().saturating_add(self.reported.bytes()) <= STATE_MAX_BYTES
    }

    /// What is desired and not reported so, each value with its way from the root and when it was desired. Empty where
    /// there is no difference.
    #[must_use]
    pub fn delta(&self) -> Section {
        let mut delta = Section::default();
        difference(&self.desired, &self.reported.state, &mut delta);
        delta
    }
}

/// The metadata of a value that is set now.
fn stamp(value: &Value, at: u64) -> Value {
    match value {
        Value::Object(object) => {
            let members = object.iter();
            let stamped = members.map(|(name, value)| (name.clone(), stamp(value, at)));
            Value::Object(stamped.collect())
        }
        Value::Array(array) => array.iter().map(|value| stamp(value, at)).collect(),
        _ => json!({ "timestamp": at }),
    }
}

/// A value without the members that are null. In arrays there are none.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(k, v)| (k.clone(), without_nulls(v))).collect())
        }
        Value::Array(array) => array.iter().map(without_nulls).collect(),
        other => other.clone(),
    }
}

/// The metadata of what a change says, as it is answered.
#[must_use]
pub fn metadata_of(change: &Map<String, Value>, at: u64) -> Map<String, Value> {
    match stamp(&without_nulls(&Value::Object(change.clone())), at) {
        Value::Object(metadata) => metadata,
        _ => Map::new(),
    }
}

fn merge(
    state: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
    patch: &Map<String, Value>,
    at: u64,
) {
    for (name, value) in patch {
        if value.is_null() {
            state.remove(name);
            metadata.remove(name);
            continue;
        }
        if let Value::Object(patch) = value
            && let Some(Value::Object(state)) = state.get_mut(name)
        {
            let held = metadata.entry(name.clone());
            // The trees have the same shape, so it is one.
            if let Value::Object(metadata) = held.or_insert_with(|| Value::Object(Map::new())) {
                merge(state, metadata, patch, at);
            }
            continue;
        }
        let value = without_nulls(value);
        metadata.insert(name.clone(), stamp(&value, at));
        state.insert(name.clone(), value);
    }
}

fn difference(desired: &Section, reported: &Map<String, Value>, delta: &mut Section) {
    for (name, value) in &desired.state {
        let stamp = desired.metadata.get(name).cloned().unwrap_or_default();
        match (value, reported.get(name)) {
            (value, Some(reported)) if value == reported => {}
            (Value::Object(state), Some(Value::Object(reported))) => {
                let within = Section {
                    state: state.clone(),
                    metadata: match stamp {
                        Value::Object(metadata) => metadata,
                        _ => Map::new(),
                    },
                };
                let mut found = Section::default();
                difference(&within, reported, &mut found);
                if !found.state.is_empty() {
                    delta.state.insert(name.clone(), found.state.into());
                    delta.metadata.insert(name.clone(), found.metadata.into());
                }
            }
            _ => {
                delta.state.insert(name.clone(), value.clone());
                delta.metadata.insert(name.clone(), stamp);
            }
        }
    }
}

#[cfg(test)]
mod tests;
