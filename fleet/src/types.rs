//! Thing types: what things of one make have in common.

use crate::Tagged;
use crate::{
    Fleet, FleetError, Kind, Page, ThingTypeName,
    events::{Change, RegistryEvent},
    keys,
    registry::Transaction,
};
use serde::{Deserialize, Serialize};
use std::time::SystemTime;
use store::Stored;

/// Most searchable attributes of one type (AWS IoT: 3).
pub(crate) const SEARCHABLE_LIMIT_ITEMS: usize = 3;
/// Longest description (AWS IoT: 2,028).
pub(crate) const DESCRIPTION_LIMIT_CHARS: usize = 2_028;

/// A thing type.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingType {
    /// Its name.
    pub name: ThingTypeName,
    /// A random id, stable for the life of the type.
    pub id: String,
    /// What it says of itself.
    pub properties: ThingTypeProperties,
    /// When it was deprecated: no thing gets it any more.
    pub deprecated: Option<SystemTime>,
    /// When it was made.
    pub created: SystemTime,
}

/// What a thing type says of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ThingTypeProperties {
    /// What it is for.
    pub description: Option<String>,
    /// Names of attributes by which its things are looked for.
    pub searchable: Vec<String>,
}

impl Stored for ThingType {}

fn check(properties: &ThingTypeProperties) -> Result<(), FleetError> {
    check_description("thing type", properties.description.as_deref())?;
    if properties.searchable.len() > SEARCHABLE_LIMIT_ITEMS {
        return Err(FleetError::Invalid(format!(
            "a thing type has at most {SEARCHABLE_LIMIT_ITEMS} searchable attributes"
        )));
    }
    for name in &properties.searchable {
        crate::things::check_attribute_name(name)?;
    }
    Ok(())
}

/// A description of AWS IoT's kind.
pub(crate) fn check_description(of: &str, text: Option<&str>) -> Result<(), FleetError> {
    let text = text.unwrap_or_default();
    if text.chars().count() > DESCRIPTION_LIMIT_CHARS || text.chars().any(char::is_control) {
        return Err(FleetError::Invalid(format!(
            "the description of a {of} has at most {DESCRIPTION_LIMIT_CHARS} characters and no control character"
        )));
    }
    Ok(())
}

impl Fleet {
    /// Makes a thing type.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`], [`FleetError::Invalid`].
    pub fn create_thing_type(
        &self,
        name: &ThingTypeName,
        properties: ThingTypeProperties,
        id: String,
        now: SystemTime,
    ) -> Result<ThingType, FleetError> {
        check(&properties)?;
        self.transact(|t| {
            if t.exists(&keys::thing_type(name))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::ThingType,
                    name: name.to_string(),
                    hint: "",
                });
            }
            let made = ThingType {
                name: name.clone(),
                id: id.clone(),
                properties: properties.clone(),
                deprecated: None,
                created: now,
            };
            t.put(keys::thing_type(name), &made)?;
            t.tell(RegistryEvent::ThingType(Change::Created, made.clone()));
            Ok(made)
        })
    }

    /// Reads a thing type.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn thing_type(&self, name: &ThingTypeName) -> Result<ThingType, FleetError> {
        self.read(&keys::thing_type(name))?
            .ok_or_else(|| FleetError::not_found(Kind::ThingType, name))
    }

    /// Thing types in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn thing_types(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ThingType>, FleetError> {
        self.page_of_values(keys::THING_TYPE, after, limit)
    }

    /// Replaces what a type says of itself.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::Invalid`].
    pub fn update_thing_type(
        &self,
        name: &ThingTypeName,
        properties: ThingTypeProperties,
    ) -> Result<(), FleetError> {
        check(&properties)?;
        self.change_type(name, |made| made.properties.clone_from(&properties))
    }

    /// Lets no further thing have a type, or lets them again.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn deprecate_thing_type(
        &self,
        name: &ThingTypeName,
        undo: bool,
        now: SystemTime,
    ) -> Result<(), FleetError> {
        self.change_type(name, |made| {
            made.deprecated = match undo {
                true => None,
                false => made.deprecated.or(Some(now)),
            };
        })
    }

    fn change_type(
        &self,
        name: &ThingTypeName,
        mut change: impl FnMut(&mut ThingType),
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            let mut made: ThingType = t
                .get(&keys::thing_type(name))?
                .ok_or_else(|| FleetError::not_found(Kind::ThingType, name))?;
            change(&mut made);
            t.put(keys::thing_type(name), &made)?;
            t.tell(RegistryEvent::ThingType(Change::Updated, made));
            Ok(())
        })
    }

    /// Deletes a deprecated type that no thing has.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::DeleteConflict`].
    pub fn delete_thing_type(&self, name: &ThingTypeName) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            let made: ThingType = t
                .get(&keys::thing_type(name))?
                .ok_or_else(|| FleetError::not_found(Kind::ThingType, name))?;
            let conflict = |reason: String| {
                Err(FleetError::DeleteConflict {
                    kind: Kind::ThingType,
                    name: name.to_string(),
                    reason,
                })
            };
            if made.deprecated.is_none() {
                return conflict("it is not deprecated; do that first (DeprecateThingType)".into());
            }
            let things = self.page_of_names::<String>(&keys::typed(name), None, 1)?;
            if let Some(thing) = things.items.first() {
                return conflict(format!(
                    "thing {thing} has it; give that another one first (UpdateThing)"
                ));
            }
            Tagged::ThingType(name.clone()).forget(t);
            t.delete(keys::thing_type(name));
            t.tell(RegistryEvent::ThingType(Change::Deleted, made));
            Ok(())
        })
    }
}

/// Requires that things may get this type.
pub(crate) fn require_type(
    t: &mut Transaction<'_>,
    name: &ThingTypeName,
) -> Result<(), FleetError> {
    let made: Option<ThingType> = t.get(&keys::thing_type(name))?;
    match made {
        None => Err(FleetError::not_found(Kind::ThingType, name)),
        Some(made) if made.deprecated.is_some() => Err(FleetError::Invalid(format!(
            "thing type {name} is deprecated: no thing gets it any more"
        ))),
        Some(_) => Ok(()),
    }
}
