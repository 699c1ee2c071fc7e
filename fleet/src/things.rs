//! Things: make, read, list, delete.

use crate::{Fleet, FleetError, Kind, Page, Thing, ThingName, keys, registry::Transaction};
use std::{collections::BTreeMap, time::SystemTime};

/// Most attributes of one thing (AWS IoT, thing without a type: 3; with one: 50. One bound here).
pub(crate) const ATTRIBUTES_LIMIT_ITEMS: usize = 50;
/// Longest attribute name (AWS IoT: 128).
const ATTRIBUTE_NAME_LIMIT_BYTES: usize = 128;
/// Longest attribute value (AWS IoT: 800).
const ATTRIBUTE_VALUE_LIMIT_BYTES: usize = 800;

impl Fleet {
    /// Makes a thing.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`], or [`FleetError::Invalid`] for an attribute that AWS would refuse.
    pub fn create_thing(
        &self,
        name: &ThingName,
        attributes: BTreeMap<String, String>,
        now: SystemTime,
    ) -> Result<Thing, FleetError> {
        check_attributes(&attributes)?;
        self.transact(|t| {
            if t.exists(&keys::thing(name))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Thing,
                    name: name.to_string(),
                    hint: "",
                });
            }
            let thing = Thing {
                name: name.clone(),
                attributes: attributes.clone(),
                type_name: None,
                version: 1,
                created: now,
            };
            t.put(keys::thing(name), &thing)?;
            Ok(thing)
        })
    }

    /// Reads a thing.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn thing(&self, name: &ThingName) -> Result<Thing, FleetError> {
        self.read(&keys::thing(name))?
            .ok_or_else(|| FleetError::not_found(Kind::Thing, name))
    }

    /// Things in order of name, `limit` at most (bounded by [`crate::LIST_LIMIT_ITEMS`]), after the one named `after`.
    ///
    /// # Errors
    /// When the store fails.
    pub fn things(&self, after: Option<&str>, limit: usize) -> Result<Page<Thing>, FleetError> {
        self.page_of_values(keys::THING, after, limit)
    }

    /// Deletes a thing that no certificate belongs to, with its group memberships.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::VersionConflict`], or [`FleetError::DeleteConflict`] while a
    /// certificate is attached (a deleted thing must not leave a live identity behind).
    pub fn delete_thing(
        &self,
        name: &ThingName,
        expected_version: Option<u64>,
    ) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            let thing: Thing = t
                .get(&keys::thing(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Thing, name))?;
            if let Some(expected) = expected_version.filter(|v| *v != thing.version) {
                return Err(FleetError::VersionConflict {
                    kind: Kind::Thing,
                    name: name.to_string(),
                    expected,
                    actual: thing.version,
                });
            }
            if let Some(id) = self.principals(name, None, 1)?.items.first() {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Thing,
                    name: name.to_string(),
                    reason: format!(
                        "certificate {id} is attached; detach it first (DetachThingPrincipal)"
                    ),
                });
            }
            self.remove_thing(t, name)
        })
    }

    /// Removes a thing's row and memberships within a transaction that runs alone.
    pub(crate) fn remove_thing(
        &self,
        t: &mut Transaction<'_>,
        name: &ThingName,
    ) -> Result<(), FleetError> {
        for group in self.all_names::<crate::GroupName>(&keys::groups_of(name))? {
            t.delete(format!("{}{group}", keys::groups_of(name)));
            t.delete(format!("{}{name}", keys::members(&group)));
        }
        t.delete(keys::thing(name));
        t.delete(keys::posture(name));
        Ok(())
    }
}

/// Checks attributes as AWS IoT's model states them.
pub(crate) fn check_attributes(attributes: &BTreeMap<String, String>) -> Result<(), FleetError> {
    if attributes.len() > ATTRIBUTES_LIMIT_ITEMS {
        return Err(FleetError::Limit {
            what: "attributes of a thing".into(),
            limit: ATTRIBUTES_LIMIT_ITEMS,
        });
    }
    for (name, value) in attributes {
        let name_ok = |c: char| c.is_ascii_alphanumeric() || "_.,@/:#-".contains(c);
        if name.is_empty() || name.len() > ATTRIBUTE_NAME_LIMIT_BYTES || !name.chars().all(name_ok)
        {
            return Err(FleetError::Invalid(format!(
                "attribute name {name:?}: 1 to {ATTRIBUTE_NAME_LIMIT_BYTES} of a-z A-Z 0-9 _ . , @ / : # -"
            )));
        }
        let value_ok = |c: char| name_ok(c) || "=[]".contains(c);
        if value.len() > ATTRIBUTE_VALUE_LIMIT_BYTES || !value.chars().all(value_ok) {
            return Err(FleetError::Invalid(format!(
                "value {value:?} of attribute {name}: at most {ATTRIBUTE_VALUE_LIMIT_BYTES} of a-z A-Z 0-9 _ . , @ / : # = [ ] -"
            )));
        }
    }
    Ok(())
}

/// Requires that there is a type of this name.
pub(crate) fn require_type(t: &mut Transaction<'_>, name: &str) -> Result<(), FleetError> {
    if t.exists(&keys::thing_type(name))? {
        Ok(())
    } else {
        Err(FleetError::not_found(Kind::ThingType, name))
    }
}
