//! Dynamic groups: a query says who is in them. Their memberships are rows like any other's, so that policies, jobs
//! and lists need no second way; they follow things in the very batch that changes a thing, and only here.

use crate::Tagged;
use crate::{
    Fleet, FleetError, Group, GroupChange, GroupName, Kind, Target, Thing, ThingName,
    events::{Change, RegistryEvent, leave_group},
    keys,
    query::{Query, Subject},
    records::Present,
    registry::{Inner, Transaction},
    things,
    types::check_description,
};
use arc_swap::ArcSwap;
use parking_lot::Mutex;
use std::{
    collections::BTreeSet,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::SystemTime,
};

/// Most dynamic groups (AWS IoT: 100).
pub const DYNAMIC_GROUPS_LIMIT_ITEMS: usize = 100;
/// Things that are looked at in one batch when a query is new.
const BATCH_ITEMS: usize = 100;

/// What the registry keeps of them in memory: few, and asked at every change of a thing.
#[derive(Debug, Default)]
pub(crate) struct DynamicGroups {
    known: ArcSwap<Vec<(GroupName, Query)>>,
    turned: Turned,
}

impl DynamicGroups {
    fn is_one(&self, name: &str) -> bool {
        self.known
            .load()
            .iter()
            .any(|(known, _)| known.as_str() == name)
    }
}

/// Things of which a connection came or went, for groups whose queries ask that.
#[derive(Debug, Default)]
struct Turned {
    /// Whether any does.
    asked: AtomicBool,
    things: Mutex<BTreeSet<ThingName>>,
    /// Wakes the thread that follows; there is none while nobody has asked.
    wake: Mutex<Option<mpsc::Sender<()>>>,
}

impl Fleet {
    /// Makes a group of all things that a query fits, now and from now on. Things that are there already come in
    /// little by little.
    ///
    /// # Errors
    /// [`FleetError::AlreadyExists`]; [`FleetError::Query`]; [`FleetError::Invalid`] for an attribute;
    /// [`FleetError::Limit`] past a hundred.
    pub fn create_dynamic_group(
        &self,
        name: &GroupName,
        query: &str,
        change: &GroupChange,
        id: String,
        now: SystemTime,
    ) -> Result<Group, FleetError> {
        let read = self.read_query(query)?;
        check_description("thing group", change.description.as_deref())?;
        let attributes = change.attributes.clone().unwrap_or_default();
        things::check_attributes(&attributes)?;
        let group = Group {
            name: name.clone(),
            id,
            parent: None,
            description: change.description.clone(),
            attributes,
            version: 1,
            created: now,
            query: Some(read.to_string()),
            building: true,
        };
        self.transact_alone_then(
            |t| {
                if t.exists(&keys::group(name))? {
                    return Err(FleetError::AlreadyExists {
                        kind: Kind::Group,
                        name: name.to_string(),
                        hint: "",
                    });
                }
                require_swept(t, name)?;
                if self.inner.dynamic.known.load().len() >= DYNAMIC_GROUPS_LIMIT_ITEMS {
                    return Err(FleetError::Limit {
                        what: "dynamic groups".into(),
                        limit: DYNAMIC_GROUPS_LIMIT_ITEMS,
                    });
                }
                t.put(keys::group(name), &group)?;
                t.tell(RegistryEvent::Group(
                    Change::Created,
                    group.clone(),
                    Vec::new(),
                ));
                Ok(())
            },
            || self.read_dynamic_groups(),
        )?;
        self.build_in_background();
        Ok(group)
    }

    /// A query of a dynamic group asks for groups that people fill: it would find nobody in one that is dynamic itself.
    fn read_query(&self, text: &str) -> Result<Query, FleetError> {
        let query: Query = text.parse()?;
        match query.names_group(|name| self.is_dynamic_named(name)) {
            None => Ok(query),
            Some(name) => Err(FleetError::Invalid(format!(
                "queryString names thing group {name}, which is dynamic: a dynamic group looks at groups that are not, so write \
                 the query of {name} in its place"
            ))),
        }
    }

    /// Changes what a dynamic group says of itself, and its query; returns its new version.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::VersionConflict`], [`FleetError::Query`], [`FleetError::Invalid`].
    pub fn update_dynamic_group(
        &self,
        name: &GroupName,
        query: Option<&str>,
        change: &GroupChange,
        expected_version: Option<u64>,
    ) -> Result<u64, FleetError> {
        let query = query.map(|text| self.read_query(text)).transpose()?;
        check_description("thing group", change.description.as_deref())?;
        let version = self.transact_alone_then(
            |t| {
                let mut group = dynamic_group(t, name)?;
                things::expect_version(Kind::Group, name, expected_version, group.version)?;
                if let Some(description) = &change.description {
                    group.description = Some(description.clone());
                }
                let given = change.attributes.as_ref();
                things::change_attributes(&mut group.attributes, given, change.merge);
                things::check_attributes(&group.attributes)?;
                if let Some(query) = &query {
                    group.query = Some(query.to_string());
                    group.building = true;
                }
                group.version += 1;
                t.put(keys::group(name), &group)?;
                let version = group.version;
                t.tell(RegistryEvent::Group(Change::Updated, group, Vec::new()));
                Ok(version)
            },
            || self.read_dynamic_groups(),
        )?;
        if query.is_some() {
            self.build_in_background();
        }
        Ok(version)
    }

    /// Deletes a dynamic group; the things stay, without what its policies said of them.
    ///
    /// # Errors
    /// [`FleetError::NotFound`], [`FleetError::VersionConflict`].
    pub fn delete_dynamic_group(
        &self,
        name: &GroupName,
        expected_version: Option<u64>,
    ) -> Result<(), FleetError> {
        self.transact_alone_then(
            |t| {
                let group = dynamic_group(t, name)?;
                things::expect_version(Kind::Group, name, expected_version, group.version)?;
                self.detach_all(t, &Target::Group(name.clone()))?;
                t.put(keys::swept(name), &Present)?;
                Tagged::Group(name.clone()).forget(t);
                t.delete(keys::group(name));
                t.tell(RegistryEvent::Group(Change::Deleted, group, Vec::new()));
                Ok(())
            },
            || self.read_dynamic_groups(),
        )?;
        self.sweep_members(name)
    }

    /// Takes everybody out of a group that is gone. Nobody may have its name before that is done.
    pub(crate) fn sweep_members(&self, name: &GroupName) -> Result<(), FleetError> {
        loop {
            let page: crate::Page<ThingName> =
                self.page_of_names(&keys::members(name), None, BATCH_ITEMS)?;
            let last = page.next.is_none();
            self.transact(|t| {
                for thing in &page.items {
                    leave_group(t, name, thing)?;
                }
                if last {
                    t.delete(keys::swept(name));
                }
                Ok(())
            })?;
            if last {
                return Ok(());
            }
        }
    }

    /// After a start: what a crash cut short is gone on with.
    pub(crate) fn resume_dynamic_groups(&self) -> Result<(), FleetError> {
        self.read_dynamic_groups()?;
        for name in self.all_names::<GroupName>(keys::SWEPT)? {
            self.sweep_members(&name)?;
        }
        self.forget_connections()?;
        self.build_in_background();
        Ok(())
    }

    /// After a start nobody is connected: groups that ask for it are filled anew.
    fn forget_connections(&self) -> Result<(), FleetError> {
        let known = self.inner.dynamic.known.load_full();
        let asking = known.iter().filter(|(_, query)| query.asks_connectivity());
        for (name, _) in asking {
            self.transact(|t| {
                let mut group = dynamic_group(t, name)?;
                group.building = true;
                t.put(keys::group(name), &group)
            })?;
        }
        Ok(())
    }

    fn read_dynamic_groups(&self) -> Result<(), FleetError> {
        let (mut known, mut after) = (Vec::new(), None);
        loop {
            let page = self.page_of_values::<Group>(
                keys::GROUP,
                after.as_deref(),
                crate::LIST_LIMIT_ITEMS,
            )?;
            for group in page.items {
                if let Some(query) = &group.query {
                    known.push((group.name.clone(), query.parse()?));
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        self.inner.dynamic.known.store(Arc::new(known));
        self.follow_connections();
        Ok(())
    }

    /// Whether a query says who is in this group.
    pub(crate) fn is_dynamic(&self, name: &GroupName) -> bool {
        self.inner.dynamic.is_one(name.as_str())
    }

    /// As [`Self::is_dynamic`], of a name as it stands in a row.
    pub(crate) fn is_dynamic_named(&self, name: &str) -> bool {
        self.inner.dynamic.is_one(name)
    }

    /// The dynamic groups' names.
    pub(crate) fn dynamic_names(&self) -> Vec<String> {
        let known = self.inner.dynamic.known.load();
        known.iter().map(|(name, _)| name.to_string()).collect()
    }

    /// Hears that a thing's first connection has come, or its last has gone. Does not block: the groups that ask for it
    /// follow, on a thread of their own and many things in one batch; of a thing that turns to and fro they see the last.
    pub(crate) fn connection_turned(&self, thing: &ThingName) {
        let turned = &self.inner.dynamic.turned;
        if !turned.asked.load(Ordering::Acquire) {
            return;
        }
        let first = {
            let mut things = turned.things.lock();
            let first = things.is_empty();
            things.insert(thing.clone());
            first
        };
        if first && let Some(wake) = &*turned.wake.lock() {
            // A thread that has ended, with the registry, follows nobody any more.
            let _ = wake.send(());
        }
    }

    /// Has connections followed, where a query asks for them.
    fn follow_connections(&self) {
        let turned = &self.inner.dynamic.turned;
        let known = self.inner.dynamic.known.load();
        let asked = known.iter().any(|(_, query)| query.asks_connectivity());
        turned.asked.store(asked, Ordering::Release);
        let mut wake = turned.wake.lock();
        if !asked || wake.is_some() {
            return;
        }
        let (send, woken) = mpsc::channel();
        let weak = Arc::downgrade(&self.inner);
        let spawned = std::thread::Builder::new()
            .name("connected-groups".into())
            .spawn(move || {
                while let (Ok(()), Some(inner)) = (woken.recv(), weak.upgrade()) {
                    Fleet {
                        inner,
                        acting: None,
                    }
                    .follow_turned();
                }
            });
        match spawned {
            Ok(_) => *wake = Some(send),
            Err(error) => {
                tracing::error!(%error, "groups do not follow connections before the next start");
            }
        }
    }

    fn follow_turned(&self) {
        loop {
            let some: Vec<ThingName> = {
                let mut things = self.inner.dynamic.turned.things.lock();
                let some: Vec<_> = things.iter().take(BATCH_ITEMS).cloned().collect();
                some.iter().for_each(|thing| {
                    things.remove(thing);
                });
                some
            };
            if some.is_empty() {
                return;
            }
            let followed = self.transact(|t| {
                some.iter().for_each(|thing| t.touch(thing));
                Ok(())
            });
            if let Err(error) = followed {
                tracing::error!(%error, "groups did not follow connections of some things until their next");
            }
        }
    }

    /// Before a commit: whoever it touches comes into the dynamic groups and leaves them in the same batch.
    pub(crate) fn follow_queries(&self, t: &mut Transaction<'_>) -> Result<(), FleetError> {
        let groups = self.inner.dynamic.known.load_full();
        if groups.is_empty() {
            return Ok(());
        }
        for name in t.touched_things() {
            self.follow(t, &name, &groups)?;
        }
        Ok(())
    }

    fn follow(
        &self,
        t: &mut Transaction<'_>,
        name: &ThingName,
        dynamic: &[(GroupName, Query)],
    ) -> Result<(), FleetError> {
        // Of two that change one thing at once, in its own row and in a membership, one is tried again.
        let turn = keys::followed(name);
        t.exists(&turn)?;
        let Some(thing) = t.current::<Thing>(&keys::thing(name))? else {
            // Its memberships go with it.
            t.delete(turn);
            return Ok(());
        };
        t.put(turn, &Present)?;
        let before: BTreeSet<GroupName> = self
            .all_names(&keys::groups_of(name))?
            .into_iter()
            .collect();
        let mut groups = before.clone();
        t.overlay(&keys::groups_of(name), &mut groups);
        let is_dynamic = |group: &GroupName| dynamic.iter().any(|(known, _)| known == group);
        let (were, fixed): (BTreeSet<_>, BTreeSet<_>) = groups.into_iter().partition(is_dynamic);
        let subject = Subject {
            thing: &thing,
            groups: &fixed,
            connected: Some(self.is_connected(name)),
        };
        for (group, query) in dynamic {
            match (were.contains(group), query.fits(&subject)) {
                (false, true) => {
                    t.put(format!("{}{name}", keys::members(group)), &Present)?;
                    t.put(format!("{}{group}", keys::groups_of(name)), &Present)?;
                    t.tell(RegistryEvent::Membership(
                        true,
                        group.clone(),
                        name.clone(),
                        None,
                    ));
                }
                (true, false) => leave_group(t, group, name)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Looks at every thing there is, for groups whose query is new.
    fn build_in_background(&self) {
        let weak = Arc::downgrade(&self.inner);
        let spawned = std::thread::Builder::new()
            .name("dynamic-groups".into())
            .spawn(move || build(&weak));
        if let Err(error) = spawned {
            tracing::error!(%error, "a dynamic group is not filled before the next start");
        }
    }
}

/// Ends when there is nothing to build, or the registry goes.
fn build(weak: &Weak<Inner>) {
    let fleet = || {
        let inner = weak.upgrade()?;
        Some(Fleet {
            inner,
            acting: None,
        })
    };
    let mut after: Option<String> = None;
    let Some(building) = fleet().map(|fleet| fleet.building()) else {
        return;
    };
    let building = match building {
        Ok(building) if building.is_empty() => return,
        Ok(building) => building,
        Err(error) => return tracing::error!(%error, "dynamic groups cannot be read"),
    };
    loop {
        let Some(fleet) = fleet() else { return };
        match fleet.look_at(after.as_deref()) {
            Ok(None) => break,
            Ok(next) => after = next,
            Err(error) => {
                return tracing::error!(%error, "dynamic groups are not filled before the next start");
            }
        }
    }
    if let Some(fleet) = fleet()
        && let Err(error) = fleet.built(&building)
    {
        tracing::error!(%error, "dynamic groups are filled, and cannot be said to be");
    }
}

impl Fleet {
    fn building(&self) -> Result<Vec<(GroupName, u64)>, FleetError> {
        let known = self.inner.dynamic.known.load_full();
        let mut building = Vec::new();
        for (name, _) in known.iter() {
            if let Some(group) = self.read::<Group>(&keys::group(name))?
                && group.building
            {
                building.push((name.clone(), group.version));
            }
        }
        Ok(building)
    }

    /// One batch of things; where the next begins.
    fn look_at(&self, after: Option<&str>) -> Result<Option<String>, FleetError> {
        let page: crate::Page<ThingName> = self.page_of_names(keys::THING, after, BATCH_ITEMS)?;
        self.transact(|t| {
            for name in &page.items {
                t.touch(name);
            }
            Ok(())
        })?;
        Ok(page.next)
    }

    /// Said of those only whose query is still the one that was looked for.
    fn built(&self, building: &[(GroupName, u64)]) -> Result<(), FleetError> {
        self.transact(|t| {
            for (name, version) in building {
                let group: Option<Group> = t.get(&keys::group(name))?;
                if let Some(mut group) = group.filter(|group| group.version == *version) {
                    group.building = false;
                    t.put(keys::group(name), &group)?;
                }
            }
            Ok(())
        })
    }
}

fn dynamic_group(t: &mut Transaction<'_>, name: &GroupName) -> Result<Group, FleetError> {
    let group: Group = t
        .get(&keys::group(name))?
        .ok_or_else(|| FleetError::not_found(Kind::Group, name))?;
    match group.query {
        Some(_) => Ok(group),
        None => Err(FleetError::Invalid(format!(
            "group {name} is static: UpdateThingGroup and DeleteThingGroup are for it"
        ))),
    }
}

/// What is done to static groups is not done to this one.
pub(crate) fn require_static(group: &Group) -> Result<(), FleetError> {
    match group.query {
        None => Ok(()),
        Some(_) => Err(FleetError::Invalid(format!(
            "group {} is dynamic: its query says who is in it (UpdateDynamicThingGroup, DeleteDynamicThingGroup)",
            group.name
        ))),
    }
}

/// A group of this name may still have members of the one before.
pub(crate) fn require_swept(t: &mut Transaction<'_>, name: &GroupName) -> Result<(), FleetError> {
    match t.exists(&keys::swept(name))? {
        false => Ok(()),
        true => Err(FleetError::Invalid(format!(
            "a group {name} is being deleted: try again"
        ))),
    }
}
