//! Thing groups, below one another, and their members. What is changed by hand here is static; a dynamic group's query
//! says who is in it (`dynamic.rs`).

use crate::Tagged;
use crate::{
    Fleet, FleetError, Group, GroupName, Kind, Page, Target, ThingName,
    dynamic::{require_static, require_swept},
    events::{Change, RegistryEvent, leave_group},
    keys,
    records::Present,
    registry::Transaction,
    things,
    types::check_description,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::SystemTime,
};

/// Most groups one thing may be in (AWS IoT: 10).
pub(crate) const GROUPS_PER_THING_LIMIT_ITEMS: usize = 10;
/// Most groups from a topmost one down to the deepest (AWS IoT: 7).
pub const GROUP_DEPTH_LIMIT_LEVELS: usize = 7;
/// Most groups directly below one (AWS IoT: 100).
const CHILDREN_LIMIT_ITEMS: usize = 100;
/// Most groups below one that one answer goes through.
const BELOW_LIMIT_ITEMS: usize = 10_000;

/// What a group says of itself, or what is to change of that; `None` leaves as it is.
#[derive(Debug, Clone, Default)]
pub struct GroupChange {
    /// What it is for.
    pub description: Option<String>,
    /// Attributes: in place of all that are there, or among them. One without a value is removed.
    pub attributes: Option<BTreeMap<String, String>>,
    /// Whether those that are not named stay.
    pub merge: bool,
}

impl Fleet {
    /// Makes a group, below another one where it has a parent; it stays there for its whole life, so that there are no
    /// circles.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`]; [`FleetError::NotFound`] for the parent; [`FleetError::Invalid`] for an attribute;
    /// [`FleetError::Limit`] for groups too deep or too many below one.
    pub fn create_group(
        &self,
        name: &GroupName,
        parent: Option<&GroupName>,
        change: &GroupChange,
        id: String,
        now: SystemTime,
    ) -> Result<Group, FleetError> {
        check_description("thing group", change.description.as_deref())?;
        let attributes = change.attributes.clone().unwrap_or_default();
        things::check_attributes(&attributes)?;
        self.transact(|t| {
            if t.exists(&keys::group(name))? {
                return Err(FleetError::AlreadyExists {
                    kind: Kind::Group,
                    name: name.to_string(),
                    hint: "",
                });
            }
            require_swept(t, name)?;
            let mut above_of_new = Vec::new();
            if let Some(parent) = parent {
                let above = path_to(t, parent)?;
                if above.len() >= GROUP_DEPTH_LIMIT_LEVELS {
                    return Err(FleetError::Limit {
                        what: "levels of groups".into(),
                        limit: GROUP_DEPTH_LIMIT_LEVELS,
                    });
                }
                let children = keys::children(parent);
                let beside = self
                    .inner
                    .table
                    .scan(&children, None, CHILDREN_LIMIT_ITEMS)?;
                if beside.len() >= CHILDREN_LIMIT_ITEMS {
                    return Err(FleetError::Limit {
                        what: format!("groups directly below {parent}"),
                        limit: CHILDREN_LIMIT_ITEMS,
                    });
                }
                t.put(format!("{children}{name}"), &Present)?;
                above_of_new = above;
            }
            let group = Group {
                name: name.clone(),
                id: id.clone(),
                parent: parent.cloned(),
                description: change.description.clone(),
                attributes: attributes.clone(),
                version: 1,
                created: now,
                query: None,
                building: false,
            };
            t.put(keys::group(name), &group)?;
            above_of_new.reverse();
            t.tell(RegistryEvent::Group(
                Change::Created,
                group.clone(),
                above_of_new,
            ));
            tell_hierarchy(t, true, &group)?;
            Ok(group)
        })
    }

    /// Changes what a group says of itself; returns its new version.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::VersionConflict`], [`FleetError::Invalid`].
    pub fn update_group(
        &self,
        name: &GroupName,
        change: &GroupChange,
        expected_version: Option<u64>,
    ) -> Result<u64, FleetError> {
        check_description("thing group", change.description.as_deref())?;
        self.transact(|t| {
            let mut group: Group = t
                .get(&keys::group(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Group, name))?;
            require_static(&group)?;
            things::expect_version(Kind::Group, name, expected_version, group.version)?;
            if let Some(description) = &change.description {
                group.description = Some(description.clone());
            }
            let given = change.attributes.as_ref();
            things::change_attributes(&mut group.attributes, given, change.merge);
            things::check_attributes(&group.attributes)?;
            group.version += 1;
            t.put(keys::group(name), &group)?;
            let version = group.version;
            let above = self.groups_above(name)?;
            t.tell(RegistryEvent::Group(Change::Updated, group, above));
            Ok(version)
        })
    }

    /// The groups above one, the topmost first.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn groups_above(&self, name: &GroupName) -> Result<Vec<GroupName>, FleetError> {
        let mut above = Vec::new();
        let mut parent = self.group(name)?.parent;
        while let Some(name) = parent {
            parent = self.group(&name)?.parent;
            above.push(name);
        }
        above.reverse();
        Ok(above)
    }

    /// One page of the groups directly below one, in order of name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn groups_directly_below(
        &self,
        name: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<GroupName>, FleetError> {
        self.group(name)?;
        self.page_of_names(&keys::children(name), after, limit)
    }

    /// All groups below one, in order of name.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::Limit`] past [`BELOW_LIMIT_ITEMS`].
    pub fn groups_below(&self, name: &GroupName) -> Result<Vec<GroupName>, FleetError> {
        self.group(name)?;
        let (mut below, mut open) = (Vec::new(), vec![name.clone()]);
        while let Some(group) = open.pop() {
            let children: Vec<GroupName> = self.all_names(&keys::children(&group))?;
            open.extend(children.iter().cloned());
            below.extend(children);
            if below.len() > BELOW_LIMIT_ITEMS {
                return Err(FleetError::Limit {
                    what: format!("groups below {name} in one answer"),
                    limit: BELOW_LIMIT_ITEMS,
                });
            }
        }
        below.sort();
        Ok(below)
    }

    /// Reads a group.
    ///
    /// # Errors
    /// [`FleetError::NotFound`].
    pub fn group(&self, name: &GroupName) -> Result<Group, FleetError> {
        self.read(&keys::group(name))?
            .ok_or_else(|| FleetError::not_found(Kind::Group, name))
    }

    /// Groups whose names begin with `prefix`, in order of name; with `topmost` only those below no other (such a page
    /// may be short and not the last).
    ///
    /// # Errors
    /// When the store fails.
    pub fn groups(
        &self,
        prefix: &str,
        topmost: bool,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Group>, FleetError> {
        let from = after.and_then(|after| after.strip_prefix(prefix));
        let place = format!("{}{prefix}", keys::GROUP);
        let mut page: Page<Group> = self.page_of_values(&place, from, limit)?;
        page.next = page.next.map(|rest| format!("{prefix}{rest}"));
        page.items
            .retain(|group| !topmost || group.parent.is_none());
        Ok(page)
    }

    /// Deletes a group with its memberships; the things stay, and what its policies said of them counts no more, as
    /// with AWS.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::VersionConflict`], or [`FleetError::DeleteConflict`] while groups are
    /// below it.
    pub fn delete_group(
        &self,
        name: &GroupName,
        expected_version: Option<u64>,
    ) -> Result<(), FleetError> {
        let left_over = self.transact_alone(|t| {
            let group: Group = t
                .get(&keys::group(name))?
                .ok_or_else(|| FleetError::not_found(Kind::Group, name))?;
            require_static(&group)?;
            things::expect_version(Kind::Group, name, expected_version, group.version)?;
            let below: Page<GroupName> = self.page_of_names(&keys::children(name), None, 1)?;
            if let Some(child) = below.items.first() {
                return Err(FleetError::DeleteConflict {
                    kind: Kind::Group,
                    name: name.to_string(),
                    reason: format!("group {child} is below it; delete that first"),
                });
            }
            self.detach_all(t, &Target::Group(name.clone()))?;
            // More than one batch holds leave it afterwards, a few at a time.
            let members: Page<ThingName> =
                self.page_of_names(&keys::members(name), None, crate::LIST_LIMIT_ITEMS)?;
            for thing in &members.items {
                leave_group(t, name, thing)?;
            }
            if members.next.is_some() {
                t.put(keys::swept(name), &Present)?;
            }
            tell_hierarchy(t, false, &group)?;
            let above = self.groups_above(name)?;
            t.tell(RegistryEvent::Group(Change::Deleted, group.clone(), above));
            if let Some(parent) = &group.parent {
                t.delete(format!("{}{name}", keys::children(parent)));
            }
            Tagged::Group(name.clone()).forget(t);
            t.delete(keys::group(name));
            Ok(members.next.is_some())
        })?;
        if left_over {
            self.sweep_members(name)?;
        }
        Ok(())
    }

    /// Puts a thing into a group; no change when it is in it already.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for either, [`FleetError::Limit`] past ten groups.
    pub fn add_to_group(&self, group: &GroupName, thing: &ThingName) -> Result<(), FleetError> {
        self.transact(|t| {
            require_static_group(t, group)?;
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let mut groups: BTreeSet<GroupName> =
                self.static_groups_of(thing)?.into_iter().collect();
            if !groups.insert(group.clone()) {
                return Ok(());
            }
            put_memberships(t, thing, &groups)
        })
    }

    /// Puts a thing into groups and takes it out of others, in one step.
    ///
    /// # Errors
    /// [`FleetError::NotFound`] for the thing or a group, [`FleetError::Limit`] past ten groups.
    pub fn change_groups_of(
        &self,
        thing: &ThingName,
        add: &[GroupName],
        remove: &[GroupName],
    ) -> Result<(), FleetError> {
        self.transact(|t| {
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            let mut groups: BTreeSet<GroupName> =
                self.static_groups_of(thing)?.into_iter().collect();
            for group in remove {
                require_static_group(t, group)?;
                groups.remove(group);
                leave_group(t, group, thing)?;
            }
            groups.extend(add.iter().cloned());
            put_memberships(t, thing, &groups)
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
            require_static_group(t, group)?;
            if !t.exists(&keys::thing(thing))? {
                return Err(FleetError::not_found(Kind::Thing, thing));
            }
            leave_group(t, group, thing)
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

    /// One page of the members of a group and of all groups below it; a thing is in one of them at most.
    ///
    /// # Errors
    /// [`FleetError::NotFound`]; [`FleetError::Limit`] as [`Self::groups_below`].
    pub fn members_below(
        &self,
        group: &GroupName,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<ThingName>, FleetError> {
        let mut groups = self.groups_below(group)?;
        groups.push(group.clone());
        groups.sort();
        let (from, mut last) = match after.and_then(|after| after.split_once('/')) {
            Some((group, thing)) => (group.to_owned(), Some(thing.to_owned())),
            None => (String::new(), None),
        };
        let limit = limit.clamp(1, crate::LIST_LIMIT_ITEMS);
        let mut items: Vec<ThingName> = Vec::new();
        let open: Vec<GroupName> = groups
            .into_iter()
            .filter(|g| g.as_str() >= from.as_str())
            .collect();
        for (at, group) in open.iter().enumerate() {
            let start = last.take().filter(|_| group.as_str() == from);
            let start = start.filter(|thing| !thing.is_empty());
            let page: Page<ThingName> =
                self.page_of_names(&keys::members(group), start.as_deref(), limit - items.len())?;
            items.extend(page.items);
            if let Some(thing) = page.next {
                let next = Some(format!("{group}/{thing}"));
                return Ok(Page { items, next });
            }
            if items.len() == limit {
                let next = open.get(at + 1).map(|group| format!("{group}/"));
                return Ok(Page { items, next });
            }
        }
        Ok(Page { items, next: None })
    }

    /// As [`Self::groups_of`], without those whose query put it there.
    pub(crate) fn static_groups_of(&self, thing: &ThingName) -> Result<Vec<GroupName>, FleetError> {
        let mut groups = self.groups_of(thing)?;
        groups.retain(|group| !self.is_dynamic(group));
        Ok(groups)
    }

    /// The groups a thing is in, without those above them.
    ///
    /// # Errors
    /// When the store fails.
    pub fn groups_of(&self, thing: &ThingName) -> Result<Vec<GroupName>, FleetError> {
        self.all_names(&keys::groups_of(thing))
    }
}

fn require_static_group(t: &mut Transaction<'_>, name: &GroupName) -> Result<(), FleetError> {
    let group: Option<Group> = t.get(&keys::group(name))?;
    require_static(&group.ok_or_else(|| FleetError::not_found(Kind::Group, name))?)
}

/// A group and those above it, itself first. Parents never change, so this is no circle.
fn path_to(t: &mut Transaction<'_>, name: &GroupName) -> Result<Vec<GroupName>, FleetError> {
    let mut path = Vec::new();
    let mut next = Some(name.clone());
    while let Some(name) = next {
        let group: Group = t
            .get(&keys::group(&name))?
            .ok_or_else(|| FleetError::not_found(Kind::Group, &name))?;
        require_static(&group)?;
        path.push(name);
        next = group.parent;
    }
    Ok(path)
}

/// Puts a thing into these groups, which are all it will be in: they exist, are few enough, and no two of them are in
/// one hierarchy (as with AWS IoT).
pub(crate) fn put_memberships(
    t: &mut Transaction<'_>,
    thing: &ThingName,
    groups: &BTreeSet<GroupName>,
) -> Result<(), FleetError> {
    if groups.len() > GROUPS_PER_THING_LIMIT_ITEMS {
        return Err(FleetError::Limit {
            what: format!("groups of thing {thing}"),
            limit: GROUPS_PER_THING_LIMIT_ITEMS,
        });
    }
    let mut tops: HashMap<GroupName, &GroupName> = HashMap::new();
    for group in groups {
        let Some(top) = path_to(t, group)?.pop() else {
            continue;
        };
        if let Some(other) = tops.insert(top.clone(), group) {
            return Err(FleetError::Invalid(format!(
                "groups {other} and {group} are in one hierarchy (of {top}), and a thing is in one group of it at most"
            )));
        }
        let member = format!("{}{thing}", keys::members(group));
        if !t.exists(&member)? {
            let event = RegistryEvent::Membership(true, group.clone(), thing.clone(), None);
            t.tell(event);
        }
        t.put(member, &Present)?;
        t.put(format!("{}{group}", keys::groups_of(thing)), &Present)?;
    }
    Ok(())
}

fn tell_hierarchy(t: &mut Transaction<'_>, added: bool, group: &Group) -> Result<(), FleetError> {
    if let Some(parent) = &group.parent
        && let Some(parent) = t.get::<Group>(&keys::group(parent))?
    {
        t.tell(RegistryEvent::Hierarchy(added, parent, group.clone()));
    }
    Ok(())
}
