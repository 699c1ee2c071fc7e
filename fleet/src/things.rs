//! Things: make, read, list, delete.

use crate::{
    Fleet, FleetError, Kind, Page, Thing, ThingName, ThingTypeName,
    events::{Change, RegistryEvent, leave_group},
    keys,
    records::Present,
    registry::Transaction,
    types::require_type,
};
use std::{collections::BTreeMap, time::SystemTime};

/// Most attributes of one thing (AWS IoT, thing without a type: 3; with one: 50. One bound here).
pub(crate) const ATTRIBUTES_LIMIT_ITEMS: usize = 50;
/// Longest attribute name (AWS IoT: 128).
const ATTRIBUTE_NAME_LIMIT_BYTES: usize = 128;
/// Longest attribute value (AWS IoT: 800).
const ATTRIBUTE_VALUE_LIMIT_BYTES: usize = 800;
/// Most things looked at for one page of a filtered list.
const SCAN_LIMIT_ITEMS: usize = 2_500;

impl Fleet {
    /// Makes a thing.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`], or [`FleetError::Invalid`] for an attribute that AWS would refuse.
    pub fn create_thing(
        &self,
        name: &ThingName,
        attributes: BTreeMap<String, String>,
        type_name: Option<ThingTypeName>,
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
                type_name: type_name.clone(),
                version: 1,
                created: now,
            };
            put_thing(t, None, &thing)?;
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

    /// One page of the things a filter fits, in order of name. At most [`SCAN_LIMIT_ITEMS`] things are looked at for
    /// it, so a page may be short, or empty, and not the last.
    ///
    /// # Errors
    /// When the store fails.
    pub fn things_where(
        &self,
        filter: &ThingFilter,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Thing>, FleetError> {
        let limit = limit.clamp(1, crate::LIST_LIMIT_ITEMS);
        let (mut items, mut after) = (Vec::new(), after.map(str::to_owned));
        for _ in 0..SCAN_LIMIT_ITEMS / crate::LIST_LIMIT_ITEMS {
            let page = self.things_of(filter.type_name.as_ref(), after.as_deref())?;
            for thing in page.items {
                let name = thing.name.to_string();
                if filter.fits(&thing) {
                    items.push(thing);
                }
                if items.len() == limit {
                    let next = self.things_of(filter.type_name.as_ref(), Some(&name))?;
                    let more = !next.items.is_empty();
                    return Ok(Page {
                        items,
                        next: more.then_some(name),
                    });
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        Ok(Page { items, next: after })
    }

    fn things_of(
        &self,
        type_name: Option<&ThingTypeName>,
        after: Option<&str>,
    ) -> Result<Page<Thing>, FleetError> {
        let Some(type_name) = type_name else {
            return self.things(after, crate::LIST_LIMIT_ITEMS);
        };
        let names: Page<ThingName> =
            self.page_of_names(&keys::typed(type_name), after, crate::LIST_LIMIT_ITEMS)?;
        let mut items = Vec::with_capacity(names.items.len());
        for name in &names.items {
            // One that went meanwhile is not there.
            items.extend(self.read::<Thing>(&keys::thing(name))?);
        }
        Ok(Page {
            items,
            next: names.next,
        })
    }

    /// Changes a thing's attributes and type.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the thing or the type, [`FleetError::VersionConflict`], [`FleetError::Invalid`].
    pub fn update_thing(
        &self,
        name: &ThingName,
        change: &ThingChange,
        expected_version: Option<u64>,
    ) -> Result<Thing, FleetError> {
        self.transact(|t| {
            let known: Thing = t
                .get(&keys::thing(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Thing, name))?;
            expect_version(Kind::Thing, name, expected_version, known.version)?;
            let mut thing = known.clone();
            change_attributes(
                &mut thing.attributes,
                change.attributes.as_ref(),
                change.merge,
            );
            check_attributes(&thing.attributes)?;
            if let Some(type_name) = &change.type_name {
                thing.type_name.clone_from(type_name);
            }
            thing.version += 1;
            put_thing(t, Some(&known), &thing)?;
            Ok(thing)
        })
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
            expect_version(Kind::Thing, name, expected_version, thing.version)?;
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
            leave_group(t, &group, name)?;
        }
        if let Some(thing) = t.get::<Thing>(&keys::thing(name))? {
            if let Some(type_name) = &thing.type_name {
                t.delete(format!("{}{name}", keys::typed(type_name)));
                let lost = RegistryEvent::Association(false, thing.clone(), type_name.clone());
                t.tell(lost);
            }
            t.tell(RegistryEvent::Thing(Change::Deleted, thing));
        }
        t.delete(keys::thing(name));
        t.delete(keys::posture(name));
        t.delete(keys::password(name));
        t.delete(keys::bereft(name));
        t.delete(keys::followed(name));
        Ok(())
    }
}

/// What is to change of a thing; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct ThingChange {
    /// Attributes: in place of all that are there, or among them. One without a value is removed.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Whether those that are not named stay.
    pub merge: bool,
    /// The type; `Some(None)` takes it away.
    pub type_name: Option<Option<ThingTypeName>>,
}

/// Which things are looked for.
#[derive(Debug, Clone, Default)]
pub struct ThingFilter {
    /// Of this type.
    pub type_name: Option<ThingTypeName>,
    /// With this attribute, and this value where there is one.
    pub attribute: Option<(String, Option<String>)>,
    /// Whether the value may go on behind what is given.
    pub value_is_prefix: bool,
}

impl ThingFilter {
    fn fits(&self, thing: &Thing) -> bool {
        let Some((name, wanted)) = &self.attribute else {
            return true;
        };
        match (thing.attributes.get(name), wanted) {
            (Some(value), Some(wanted)) if self.value_is_prefix => value.starts_with(wanted),
            (Some(value), Some(wanted)) => value == wanted,
            (found, None) => found.is_some(),
            (None, _) => false,
        }
    }
}

/// Writes a thing and its place among those of its type; a type it did not have must be one it can get.
pub(crate) fn put_thing(
    t: &mut Transaction<'_>,
    known: Option<&Thing>,
    thing: &Thing,
) -> Result<(), FleetError> {
    let before = known.and_then(|known| known.type_name.as_ref());
    let after = thing.type_name.as_ref();
    if before != after {
        if let Some(before) = before {
            t.delete(format!("{}{}", keys::typed(before), thing.name));
            t.tell(RegistryEvent::Association(
                false,
                thing.clone(),
                before.clone(),
            ));
        }
        if let Some(after) = after {
            require_type(t, after)?;
            t.put(format!("{}{}", keys::typed(after), thing.name), &Present)?;
            t.tell(RegistryEvent::Association(
                true,
                thing.clone(),
                after.clone(),
            ));
        }
    }
    match known {
        None => t.tell(RegistryEvent::Thing(Change::Created, thing.clone())),
        Some(known) if known != thing => {
            t.tell(RegistryEvent::Thing(Change::Updated, thing.clone()));
        }
        Some(_) => {}
    }
    t.put(keys::thing(&thing.name), thing)
}

/// Changes attributes as AWS IoT does: all of them replaced, or merged; a name without a value goes.
pub(crate) fn change_attributes(
    attributes: &mut BTreeMap<String, String>,
    given: Option<&BTreeMap<String, String>>,
    merge: bool,
) {
    let Some(given) = given else { return };
    if !merge {
        attributes.clear();
    }
    for (name, value) in given {
        if value.is_empty() {
            attributes.remove(name);
        } else {
            attributes.insert(name.clone(), value.clone());
        }
    }
}

pub(crate) fn expect_version(
    kind: Kind,
    name: impl std::fmt::Display,
    expected: Option<u64>,
    actual: u64,
) -> Result<(), FleetError> {
    match expected.filter(|expected| *expected != actual) {
        None => Ok(()),
        Some(expected) => Err(FleetError::VersionConflict {
            kind,
            name: name.to_string(),
            expected,
            actual,
        }),
    }
}

fn name_ok(c: char) -> bool {
    c.is_ascii_alphanumeric() || "_.,@/:#-".contains(c)
}

pub(crate) fn check_attribute_name(name: &str) -> Result<(), FleetError> {
    if name.is_empty() || name.len() > ATTRIBUTE_NAME_LIMIT_BYTES || !name.chars().all(name_ok) {
        return Err(FleetError::Invalid(format!(
            "attribute name {name:?}: 1 to {ATTRIBUTE_NAME_LIMIT_BYTES} of a-z A-Z 0-9 _ . , @ / : # -"
        )));
    }
    Ok(())
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
        check_attribute_name(name)?;
        let value_ok = |c: char| name_ok(c) || "=[]".contains(c);
        if value.len() > ATTRIBUTE_VALUE_LIMIT_BYTES || !value.chars().all(value_ok) {
            return Err(FleetError::Invalid(format!(
                "value {value:?} of attribute {name}: at most {ATTRIBUTE_VALUE_LIMIT_BYTES} of a-z A-Z 0-9 _ . , @ / : # = [ ] -"
            )));
        }
    }
    Ok(())
}
