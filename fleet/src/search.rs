//! Searches over the registry. Nothing is kept for them: a search looks where the query lets it, in order of name, and
//! a page says where the next one goes on.

use crate::{
    Fleet, FleetError, GroupName, LIST_LIMIT_ITEMS, Page, Thing, ThingName, keys,
    query::{Narrow, Query, Subject},
};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeSet, HashMap},
    time::SystemTime,
};
use store::Stored;

/// Most things looked at for one page; past it the page ends early.
const SCAN_LIMIT_ITEMS: usize = 25_000;

/// Most fields that are declared.
const INDEX_FIELDS_LIMIT_ITEMS: usize = 50;
/// Longest name of an attribute among them.
const INDEX_FIELD_MAX_BYTES: usize = 128;

/// A field of things, and what its values are said to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IndexField {
    /// `attributes.NAME`.
    pub name: String,
    /// What its values are.
    pub kind: IndexFieldType,
}

/// AWS's kinds of values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "AWS's words")]
pub enum IndexFieldType {
    Number,
    String,
    Boolean,
}

#[derive(Serialize, Deserialize)]
struct IndexFields(Vec<IndexField>);

impl Stored for IndexFields {}

/// A thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The thing.
    pub thing: Thing,
    /// The groups it is in.
    pub groups: BTreeSet<GroupName>,
    /// Since when a session of its is connected, if one is.
    pub connected_since: Option<SystemTime>,
}

/// One connection, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ConnectionKey {
    /// The session it has.
    pub session: u64,
    /// Which of the session's connections it is.
    pub version: u64,
}

/// Who is connected: memory follows connected devices.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    live: Mutex<Live>,
}

#[derive(Debug, Default)]
struct Live {
    /// Whose a connection was when it began.
    of: HashMap<ConnectionKey, ThingName>,
    /// How many each thing has, and since when it has one.
    things: HashMap<ThingName, (usize, SystemTime)>,
}

impl Fleet {
    /// Hears that a connection of a thing has begun. Does not block.
    pub fn note_connected(&self, key: ConnectionKey, thing: &ThingName, at: SystemTime) {
        {
            let live = &mut *self.inner.connections.live.lock();
            if live.of.insert(key, thing.clone()).is_some() {
                return;
            }
            let connections = &mut live.things.entry(thing.clone()).or_insert((0, at)).0;
            *connections += 1;
            if *connections > 1 {
                return;
            }
        }
        self.connection_turned(thing);
    }

    /// Hears that a connection has ended. Does not block.
    pub fn note_disconnected(&self, key: ConnectionKey) {
        let thing = {
            let live = &mut *self.inner.connections.live.lock();
            let Some(thing) = live.of.remove(&key) else {
                return;
            };
            match live.things.get_mut(&thing) {
                Some((connections, _)) if *connections > 1 => {
                    *connections -= 1;
                    return;
                }
                _ => live.things.remove(&thing),
            };
            thing
        };
        self.connection_turned(&thing);
    }

    pub(crate) fn is_connected(&self, thing: &ThingName) -> bool {
        self.connectivity(thing).is_some()
    }

    /// Since when a session of the thing's is connected, if one is.
    pub fn connected_since(&self, thing: &ThingName) -> Option<SystemTime> {
        self.connectivity(thing)
    }

    /// Fields of things whose kind was declared.
    ///
    /// # Errors
    /// When the store fails.
    pub fn index_fields(&self) -> Result<Vec<IndexField>, FleetError> {
        let row: Option<IndexFields> = self.read(keys::INDEX_FIELDS)?;
        Ok(row.map(|row| row.0).unwrap_or_default())
    }

    /// Declares fields of things, in the place of those that were declared before. Searches take values as numbers where
    /// they are, so that nothing follows from it.
    ///
    /// # Errors
    /// [`FleetError::Invalid`] for a field that things have not, or one that is there twice; [`FleetError::Limit`].
    pub fn set_index_fields(&self, fields: Vec<IndexField>) -> Result<(), FleetError> {
        if fields.len() > INDEX_FIELDS_LIMIT_ITEMS {
            return Err(FleetError::Limit {
                what: "custom fields".to_owned(),
                limit: INDEX_FIELDS_LIMIT_ITEMS,
            });
        }
        let mut seen = BTreeSet::new();
        for IndexField { name, .. } in &fields {
            let attribute = name.strip_prefix("attributes.").unwrap_or_default();
            if attribute.is_empty() || attribute.len() > INDEX_FIELD_MAX_BYTES {
                let shown: String = name.chars().take(80).collect();
                return Err(FleetError::Invalid(format!(
                    "customFields: {shown:?} is nothing that things have here; attributes.NAME is"
                )));
            }
            if !seen.insert(name) {
                return Err(FleetError::Invalid(format!(
                    "customFields: {name:?} is there twice"
                )));
            }
        }
        self.transact(|t| t.put(keys::INDEX_FIELDS.to_owned(), &IndexFields(fields.clone())))
    }

    fn connectivity(&self, thing: &ThingName) -> Option<SystemTime> {
        let live = self.inner.connections.live.lock();
        live.things.get(thing).map(|(_, since)| *since)
    }

    /// One page of the things that a query fits, in order of name. A page may be short, or empty, and not the last.
    ///
    /// # Errors
    /// When the store fails.
    pub fn search(
        &self,
        query: &Query,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Found>, FleetError> {
        let limit = limit.clamp(1, LIST_LIMIT_ITEMS);
        let place = match query.narrow() {
            Narrow::All => Place::Things(String::new()),
            Narrow::One(name) => Place::One(name),
            Narrow::Name(prefix) => Place::Things(prefix),
            Narrow::Group(group) => Place::Names(keys::members(&group)),
            Narrow::Type(type_name) => Place::Names(keys::typed(&type_name)),
        };
        let (mut items, mut after, mut looked_at) = (Vec::new(), after.map(str::to_owned), 0);
        loop {
            let page = self.candidates(&place, after.as_deref())?;
            for thing in page.items {
                looked_at += 1;
                let name = thing.name.to_string();
                items.extend(self.found(query, thing)?);
                if items.len() == limit {
                    // Whether it is the last one, the next page says.
                    return Ok(Page {
                        items,
                        next: Some(name),
                    });
                }
            }
            after = page.next;
            if after.is_none() || looked_at >= SCAN_LIMIT_ITEMS {
                return Ok(Page { items, next: after });
            }
        }
    }

    fn candidates(&self, place: &Place, after: Option<&str>) -> Result<Page<Thing>, FleetError> {
        match place {
            Place::One(name) => Ok(Page {
                items: match after {
                    Some(_) => Vec::new(),
                    None => self
                        .read::<Thing>(&keys::thing(name))?
                        .into_iter()
                        .collect(),
                },
                next: None,
            }),
            Place::Things(prefix) => {
                let from = after.and_then(|after| after.strip_prefix(prefix.as_str()));
                let at = format!("{}{prefix}", keys::THING);
                let mut page: Page<Thing> = self.page_of_values(&at, from, LIST_LIMIT_ITEMS)?;
                page.next = page.next.map(|rest| format!("{prefix}{rest}"));
                Ok(page)
            }
            Place::Names(prefix) => {
                let names: Page<ThingName> = self.page_of_names(prefix, after, LIST_LIMIT_ITEMS)?;
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
        }
    }

    fn found(&self, query: &Query, thing: Thing) -> Result<Option<Found>, FleetError> {
        let since = self.connectivity(&thing.name);
        let fits = |groups: &BTreeSet<GroupName>| {
            query.fits(&Subject {
                thing: &thing,
                groups,
                connected: Some(since.is_some()),
            })
        };
        // Most things do not fit, and most queries can tell without another look at the registry.
        if !query.asks_groups() && !fits(&BTreeSet::new()) {
            return Ok(None);
        }
        let groups: BTreeSet<GroupName> = self.groups_of(&thing.name)?.into_iter().collect();
        Ok(fits(&groups).then_some(Found {
            groups,
            connected_since: since,
            thing,
        }))
    }
}

enum Place {
    /// This one.
    One(ThingName),
    /// Things whose names begin so.
    Things(String),
    /// Names behind this prefix.
    Names(String),
}
