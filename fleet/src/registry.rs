//! The registry itself: one table, optimistic transactions over it, pages of it.

pub(crate) use crate::transaction::Transaction;

use crate::{
    FleetError, authorities,
    decisions::Decisions,
    deeds::{Acting, Deed, Keeper},
    denials::Denials,
    dynamic::DynamicGroups,
    events::{EventConfigurations, Events},
    holders, issued, keys,
    live::{Cards, Live},
    policies::{self, PolicyLimits},
    search::Connections,
    taken,
    violations::Violations,
};
use arc_swap::ArcSwap;
use ca::Authority;
use parking_lot::RwLock;
use policy::Realm;
use std::{sync::Arc, time::SystemTime};
use store::{Row, Store, StoreError, Stored, Table};

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
    /// Whose hand this is, for the record.
    pub(crate) acting: Option<Arc<Acting>>,
}

pub(crate) struct Inner {
    pub(crate) table: Table,
    pub(crate) authority: Arc<Authority>,
    pub(crate) realm: Arc<Realm>,
    pub(crate) live: Arc<Live>,
    pub(crate) denials: Denials,
    pub(crate) decisions: Decisions,
    pub(crate) deeds: Keeper,
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
            acting: None,
            inner: Arc::new(Inner {
                events: Events::with(on.unwrap_or_default()),
                deeds: Keeper::open(&table)?,
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
            let mut transaction = Transaction::over(&self.inner.table, &self.inner.authority);
            let result = work(&mut transaction)?;
            self.follow_queries(&mut transaction)?;
            self.inner.live.cards().mark(&mut transaction)?;
            let events = transaction.take_events();
            if !transaction.writes_anything() {
                return Ok(result);
            }
            let deeds = self.deeds_of(&mut transaction)?;
            let mut writes = transaction.into_writes();
            let allotted = self.inner.deeds.allot(deeds.len());
            writes.extend(allotted.writes(&deeds)?);
            match self.inner.table.batch(&writes) {
                Ok(revision) => {
                    self.inner.live.wait_applied(revision);
                    if let Some(acting) = &self.acting {
                        acting.wrote(deeds.len());
                    }
                    deeds.iter().for_each(Deed::log);
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
