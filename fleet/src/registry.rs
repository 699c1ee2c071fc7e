//! The registry itself: one table, optimistic transactions over it, pages of it.

use crate::{
    FleetError, ThingName, authorities,
    decisions::Decisions,
    denials::Denials,
    dynamic::DynamicGroups,
    events::{EventConfigurations, Events, RegistryEvent},
    holders, issued, keys,
    live::{Cards, Live},
    policies::{self, PolicyLimits},
    search::Connections,
    taken,
    violations::Violations,
};
use arc_swap::ArcSwap;
use ca::{Authority, IssuerNumber};
use parking_lot::RwLock;
use policy::Realm;
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
    sync::Arc,
    time::SystemTime,
};
use store::{Expect, Row, Store, StoreError, Stored, Table, Write};

/// Most items in one page of a list (AWS IoT: 250).
pub const LIST_LIMIT_ITEMS: usize = 250;
/// How often an operation is tried again when another changed the same rows meanwhile.
pub(crate) const CONFLICT_RETRIES: usize = 64;
const TABLE: &str = "registry";

/// One page of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// The items, in order of their names.
    pub items: Vec<T>,
    /// Where the next page begins (pass as `after`); `None` on the last page.
    pub next: Option<String>,
}

/// The registry. Clones share it. Operations block until durable: keep them off threads that must not wait.
#[derive(Clone)]
pub struct Fleet {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) table: Table,
    pub(crate) authority: Arc<Authority>,
    pub(crate) realm: Arc<Realm>,
    pub(crate) live: Arc<Live>,
    pub(crate) denials: Denials,
    pub(crate) decisions: Decisions,
    pub(crate) violations: Violations,
    pub(crate) events: Events,
    pub(crate) dynamic: DynamicGroups,
    pub(crate) connections: Connections,
    pub(crate) policy_limits: ArcSwap<PolicyLimits>,
    /// Ordinary operations share it; deletions, which must see that nothing refers to what goes, hold it alone.
    pub(crate) structure: Arc<RwLock<()>>,
}

impl Fleet {
    /// Opens the registry, making `device-default` where it is not.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub fn open(
        store: &Store,
        authority: Arc<Authority>,
        realm: Realm,
        now: SystemTime,
    ) -> Result<Self, FleetError> {
        let table = store.table(TABLE)?;
        let cards = Cards::open(store, &table)?;
        let live = Live::start(store, &table, cards, &realm.account)?;
        let on: Option<EventConfigurations> = table.get_as(keys::EVENTS)?.map(|row| row.value);
        let structure = Arc::default();
        let fleet = Fleet {
            inner: Arc::new(Inner {
                events: Events::with(on.unwrap_or_default()),
                violations: Violations::open(&table, &live, &structure)?,
                table,
                authority,
                realm: Arc::new(realm),
                live,
                denials: Denials::open(store, now)?,
                decisions: Decisions::open(store)?,
                dynamic: DynamicGroups::default(),
                connections: Connections::default(),
                policy_limits: ArcSwap::default(),
                structure,
            }),
        };
        policies::seed(&fleet, now)?;
        issued::index(&fleet)?;
        issued::index_held(&fleet, now)?;
        holders::index(&fleet)?;
        taken::index(&fleet)?;
        authorities::index(&fleet)?;
        fleet.resume_dynamic_groups()?;
        fleet.tidy_cards()?;
        fleet.pack_when_due()?;
        Ok(fleet)
    }

    /// The authority that mints certificates here.
    pub fn authority(&self) -> &Arc<Authority> {
        &self.inner.authority
    }

    /// Whether the registry can still be changed.
    ///
    /// # Errors
    /// [`FleetError::Store`] with what failed; only a restart on a mended disk ends it.
    pub fn writable(&self) -> Result<(), FleetError> {
        Ok(self.inner.table.writable()?)
    }

    /// The account (and region, `None` for any) that ARNs in policies must carry.
    pub fn realm(&self) -> &Arc<Realm> {
        &self.inner.realm
    }

    /// Runs `work` over a view that remembers what it read, then commits what it wrote if none of that changed;
    /// tries again otherwise. Returns once durable and felt by every live standing it touches.
    pub(crate) fn transact<R>(
        &self,
        work: impl FnMut(&mut Transaction<'_>) -> Result<R, FleetError>,
    ) -> Result<R, FleetError> {
        let _shared = self.inner.structure.read();
        self.commit(work)
    }

    /// As [`Self::transact`], with no other operation under way: for deletions that first look for what refers to
    /// the row.
    pub(crate) fn transact_alone<R>(
        &self,
        work: impl FnMut(&mut Transaction<'_>) -> Result<R, FleetError>,
    ) -> Result<R, FleetError> {
        let _alone = self.inner.structure.write();
        self.commit(work)
    }

    /// As [`Self::transact_alone`], with something else to be done before another operation begins.
    pub(crate) fn transact_alone_then<R>(
        &self,
        work: impl FnMut(&mut Transaction<'_>) -> Result<R, FleetError>,
        then: impl FnOnce() -> Result<(), FleetError>,
    ) -> Result<R, FleetError> {
        let _alone = self.inner.structure.write();
        let done = self.commit(work)?;
        then()?;
        Ok(done)
    }

    fn commit<R>(
        &self,
        mut work: impl FnMut(&mut Transaction<'_>) -> Result<R, FleetError>,
    ) -> Result<R, FleetError> {
        let mut tries = 0;
        loop {
            let mut transaction = Transaction {
                table: &self.inner.table,
                authority: &self.inner.authority,
                rows: BTreeMap::new(),
                events: Vec::new(),
                touched: BTreeSet::new(),
            };
            let result = work(&mut transaction)?;
            self.follow_queries(&mut transaction)?;
            self.inner.live.cards().mark(&mut transaction)?;
            let events = std::mem::take(&mut transaction.events);
            let writes = transaction.into_writes();
            if !writes.iter().any(|w| !matches!(w, Write::Check { .. })) {
                return Ok(result);
            }
            match self.inner.table.batch(&writes) {
                Ok(revision) => {
                    self.inner.live.wait_applied(revision);
                    self.send(events);
                    return Ok(result);
                }
                Err(StoreError::Conflict { .. }) if tries < CONFLICT_RETRIES => tries += 1,
                Err(other) => return Err(other.into()),
            }
        }
    }

    /// Reads one row outside a transaction.
    pub(crate) fn read<T: Stored>(&self, key: &str) -> Result<Option<T>, FleetError> {
        Ok(self.inner.table.get_as::<T>(key)?.map(|row| row.value))
    }

    /// One page of the values under a prefix; `after` is the last part of the previous page's last key.
    pub(crate) fn page_of_values<T: Stored>(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<T>, FleetError> {
        let limit = limit.clamp(1, LIST_LIMIT_ITEMS);
        let start = after.map(|last| format!("{prefix}{last}"));
        let rows = self
            .inner
            .table
            .scan_as::<T>(prefix, start.as_deref(), limit + 1)?;
        let (rows, next) = cut(prefix, rows, limit);
        Ok(Page {
            items: rows.into_iter().map(|(_, row)| row.value).collect(),
            next,
        })
    }

    /// One page of the last parts of the keys under a prefix, with their values.
    pub(crate) fn page_of_rows<T: Stored>(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Page<(String, T)>, FleetError> {
        let start = after.map(|last| format!("{prefix}{last}"));
        let rows = self
            .inner
            .table
            .scan_as::<T>(prefix, start.as_deref(), LIST_LIMIT_ITEMS + 1)?;
        let (rows, next) = cut(prefix, rows, LIST_LIMIT_ITEMS);
        let named = |(key, row): (String, Row<T>)| {
            let name = key.strip_prefix(prefix).unwrap_or(&key).to_owned();
            (name, row.value)
        };
        Ok(Page {
            items: rows.into_iter().map(named).collect(),
            next,
        })
    }

    /// One page of the last parts of the keys under a prefix.
    pub(crate) fn page_of_names<T: std::str::FromStr>(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<T>, FleetError> {
        let limit = limit.clamp(1, LIST_LIMIT_ITEMS);
        let start = after.map(|last| format!("{prefix}{last}"));
        let rows = self.inner.table.scan(prefix, start.as_deref(), limit + 1)?;
        let (rows, next) = cut(prefix, rows, limit);
        let items = rows
            .iter()
            .map(|(key, _)| {
                key.strip_prefix(prefix)
                    .and_then(|rest| rest.parse().ok())
                    .ok_or_else(|| {
                        FleetError::Invalid(format!(
                            "registry row {key:?} has a name no release wrote"
                        ))
                    })
            })
            .collect::<Result<_, _>>()?;
        Ok(Page { items, next })
    }

    /// All names under a prefix, read page by page.
    pub(crate) fn all_names<T: std::str::FromStr>(
        &self,
        prefix: &str,
    ) -> Result<Vec<T>, FleetError> {
        let mut all = Vec::new();
        let mut after = None;
        loop {
            let page = self.page_of_names(prefix, after.as_deref(), LIST_LIMIT_ITEMS)?;
            all.extend(page.items);
            after = page.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }
}

/// Takes one row more than the page holds, and says where the next page begins.
fn cut<T>(
    prefix: &str,
    mut rows: Vec<(String, Row<T>)>,
    limit: usize,
) -> (Vec<(String, Row<T>)>, Option<String>) {
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows
        .last()
        .filter(|_| more)
        .and_then(|(key, _)| key.strip_prefix(prefix));
    let next = last.map(str::to_owned);
    (rows, next)
}

/// A view of the table that remembers what it read and what is to be written.
pub(crate) struct Transaction<'a> {
    table: &'a Table,
    authority: &'a Authority,
    rows: BTreeMap<String, Touched>,
    /// Told once it is durable.
    events: Vec<RegistryEvent>,
    /// Things that queries are to be held against although nothing of them changes.
    touched: BTreeSet<ThingName>,
}

#[derive(Default)]
struct Touched {
    read: Option<Expect>,
    /// A put or delete; its expectation is set from `read` at the end.
    write: Option<Write>,
}

impl Transaction<'_> {
    /// Reads a row; the commit fails (and is tried again) if it changed meanwhile.
    pub(crate) fn get<T: Stored>(&mut self, key: &str) -> Result<Option<T>, FleetError> {
        let found = self.table.get_as::<T>(key)?;
        let expect = found
            .as_ref()
            .map_or(Expect::Absent, |row| Expect::Revision(row.revision));
        self.rows.entry(key.to_owned()).or_default().read = Some(expect);
        Ok(found.map(|row| row.value))
    }

    /// The last parts of the keys under a prefix, as they are or will be. What others put there meanwhile is not noticed: a
    /// row that each of them writes settles that.
    pub(crate) fn names<T: FromStr + Ord>(&self, prefix: &str) -> Result<BTreeSet<T>, FleetError> {
        let (mut names, mut after) = (BTreeSet::new(), None::<String>);
        loop {
            let rows = self
                .table
                .scan(prefix, after.as_deref(), LIST_LIMIT_ITEMS)?;
            let read = |(key, _): &(String, _)| key.strip_prefix(prefix)?.parse().ok();
            names.extend(rows.iter().filter_map(read));
            match rows.last() {
                Some((last, _)) if rows.len() == LIST_LIMIT_ITEMS => after = Some(last.clone()),
                _ => break,
            }
        }
        self.overlay(prefix, &mut names);
        Ok(names)
    }

    /// Whether a row exists; as [`Self::get`].
    pub(crate) fn exists(&mut self, key: &str) -> Result<bool, FleetError> {
        let found = self.table.get(key)?;
        let expect = found
            .as_ref()
            .map_or(Expect::Absent, |row| Expect::Revision(row.revision));
        self.rows.entry(key.to_owned()).or_default().read = Some(expect);
        Ok(found.is_some())
    }

    /// Which of our issuing certificates a certificate of ours names.
    pub(crate) fn issuer_of(&self, pem: &str) -> Result<IssuerNumber, FleetError> {
        self.authority.issuer_named_by_pem(pem).ok_or_else(|| {
            FleetError::Invalid("the certificate is not of this authority".to_owned())
        })
    }

    /// A row as it is or will be; as [`Self::get`] where nothing is to be written.
    pub(crate) fn current<T: Stored>(&mut self, key: &str) -> Result<Option<T>, FleetError> {
        let write = self
            .rows
            .get(key)
            .and_then(|touched| touched.write.as_ref());
        match write {
            Some(write) => Ok(write.value_as()?),
            None => self.get(key),
        }
    }

    /// Adds to names under a prefix those that will be there, and takes away those that will not.
    pub(crate) fn overlay<T: FromStr + Ord>(&self, prefix: &str, names: &mut BTreeSet<T>) {
        let from = self.rows.range(prefix.to_owned()..);
        for (key, touched) in from.take_while(|(key, _)| key.starts_with(prefix)) {
            let name = key.strip_prefix(prefix).and_then(|name| name.parse().ok());
            match (name, &touched.write) {
                (Some(name), Some(Write::Put { .. })) => drop(names.insert(name)),
                (Some(name), Some(Write::Delete { .. })) => drop(names.remove(&name)),
                _ => {}
            }
        }
    }

    /// As [`Self::put`], of a row that cannot be there yet: the commit fails if it is.
    pub(crate) fn put_new<T: Stored>(&mut self, key: String, value: &T) -> Result<(), FleetError> {
        self.rows.entry(key.clone()).or_default().read = Some(Expect::Absent);
        self.put(key, value)
    }

    /// Whether a row comes to be, and is known not to be there before.
    pub(crate) fn is_new(&self, key: &str) -> bool {
        self.rows.get(key).is_some_and(|row| {
            row.read == Some(Expect::Absent) && matches!(row.write, Some(Write::Put { .. }))
        })
    }

    /// The keys of the rows that are to be written.
    pub(crate) fn written_keys(&self) -> Vec<String> {
        let written = self.rows.iter().filter(|(_, row)| row.write.is_some());
        written.map(|(key, _)| key.clone()).collect()
    }

    /// Has queries held against a thing.
    pub(crate) fn touch(&mut self, thing: &ThingName) {
        self.touched.insert(thing.clone());
    }

    /// Things whose rows or memberships are to be written.
    pub(crate) fn touched_things(&self) -> BTreeSet<ThingName> {
        let mut things = self.touched.clone();
        let written = self.rows.iter().filter(|(_, row)| row.write.is_some());
        for (key, _) in written {
            let name = key.strip_prefix(keys::THING).or_else(|| {
                let (thing, _) = key.strip_prefix(keys::MEMBER_OF)?.split_once('/')?;
                Some(thing)
            });
            things.extend(name.and_then(|name| name.parse().ok()));
        }
        things
    }

    /// Tells of a change, if it comes to be.
    pub(crate) fn tell(&mut self, event: RegistryEvent) {
        self.events.push(event);
    }

    pub(crate) fn put<T: Stored>(&mut self, key: String, value: &T) -> Result<(), FleetError> {
        let write = Write::put(key.clone(), value, Expect::Any)?;
        self.rows.entry(key).or_default().write = Some(write);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: String) {
        let write = Write::delete(key.clone(), Expect::Any);
        self.rows.entry(key).or_default().write = Some(write);
    }

    fn into_writes(self) -> Vec<Write> {
        self.rows
            .into_iter()
            .filter_map(|(key, touched)| match (touched.write, touched.read) {
                (Some(Write::Put { key, value, .. }), Some(expect)) => {
                    Some(Write::Put { key, value, expect })
                }
                (Some(Write::Delete { key, .. }), Some(expect)) => {
                    Some(Write::Delete { key, expect })
                }
                (Some(unconditional), _) => Some(unconditional),
                (None, Some(expect)) => Some(Write::Check { key, expect }),
                (None, None) => None,
            })
            .collect()
    }
}
