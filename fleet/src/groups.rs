//! Static thing groups and their members.

use crate::{
    Fleet, FleetError, Group, GroupName, Kind, Page, Target, ThingName, keys, records::Present,
    things,
};
use std::{collections::BTreeMap, time::SystemTime};

/// Most groups one thing may be in (AWS IoT: 10).
pub(crate) const GROUPS_PER_THING_LIMIT_ITEMS: usize = 10;

impl Fleet {
    /// Makes a group.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`], [`FleetError::Invalid`] for an attribute.
    pub fn create_group(
        &self,
        name: &GroupName,
        description: Option<String>,
        attributes: BTreeMap<String, String>,
        id: String,
        now: SystemTime,
    ) -> Result<Group, FleetError> {
        things::check_attributes(&attributes)?;
        self.transact(|t| {
            if t.exists(&keys::group(name))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Group,
                    name: name.to_string(),
                    hint: "",
                });
            }
            let group = Group {
                name: name.clone(),
                id: id.clone(),
                description: description.clone(),
                attributes: attributes.clone(),
                version: 1,
                created: now,
            };
            t.put(keys::group(name), &group)?;
            Ok(group)
        })
    }

    /// Reads a group.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn group(&self, name: &GroupName) -> Result<Group, FleetError> {
        self.read(&keys::group(name))?
            .ok_or_else(|| FleetError::not_found(Kind::Group, name))
    }

    /// Groups in order of name.
    ///
    /// # Errors
    /// When the store fails.
    pub fn groups(&self, after: Option<&str>, limit: usize) -> Result<Page<Group>, FleetError> {
        self.page_of_values(keys::GROUP, after, limit)
    }

    /// Deletes a group with its memberships; the things stay.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], or [`FleetError::DeleteConflict`] while a policy is attached to it.
    pub fn delete_group(&self, name: &GroupName) -> Result<(), FleetError> {
        self.transact_alone(|t| {
            if !t.exists(&keys::group(name))? {
                return Err(FleetError::not_found(Kind::Group, name));
            }
            if let Some(policy) = self
                .attached_policies(&Target::Group(name.clone()))?
                .first()
            {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Group,
                    name: name.to_string(),
                    reason: format!(
                        "policy {policy} is attached to it; detach it first (DetachPolicy)"
                    ),
                });
            }
            for thing in self.all_names::<ThingName>(&keys::members(name))? {
                t.delete(format!("{}{thing}", keys::members(name)));
                t.delete(format!("{}{name}", keys::groups_of(&thing)));
            }
            t.delete(keys::group(name));
            Ok(())
        })
    }

    /// Puts a thing into a group; no change when it is in it already.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either, [`FleetError::Limit`] past ten groups.
    pub fn add_to_group(&self, group: &GroupName, thing: &ThingName) -> Result<(), FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::group(group))? {
                return Err(FleetError::not_found(Kind::Group, group));
            }
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let groups = self.groups_of(thing)?;
            if groups.contains(group) {
                return Ok(());
            }
            if groups.len() >= GROUPS_PER_THING_LIMIT_ITEMS {
                return Err(FleetError::Limit {
                    what: format!("groups of thing {thing}"),
                    limit: GROUPS_PER_THING_LIMIT_ITEMS,
                });
            }
            t.put(format!("{}{thing}", keys::members(group)), &Present)?;
            t.put(format!("{}{group}", keys::groups_of(thing)), &Present)
        })
    }

    /// Takes a thing out of a group; no change when it is not in it.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either.
    pub fn remove_from_group(
        &self,
        group: &GroupName,
        thing: &ThingName,
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::group(group))? {
                return Err(FleetError::not_found(Kind::Group, group));
            }
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            t.delete(format!("{}{thing}", keys::members(group)));
            t.delete(format!("{}{group}", keys::groups_of(thing)));
            Ok(())
        })
    }

    /// One page of a group's members, in order of name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn members(
        &self,
        group: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ThingName>, FleetError> {
        self.group(group)?;
        self.page_of_names(&keys::members(group), after, limit)
    }

    /// The groups a thing is in.
    ///
    /// # Errors
    /// When the store fails.
    pub fn groups_of(&self, thing: &ThingName) -> Result<Vec<GroupName>, FleetError> {
        self.all_names(&keys::groups_of(thing))
    }
}
