//! A transaction over the registry's one table, until it is committed: what it read, what it writes, what is told of it.

use crate::{
    Binding, FleetError, LIST_LIMIT_ITEMS, ThingName, deeds::Fact, events::RegistryEvent, keys,
    provisioning::Rejection,
};
use ca::{Authority, CertificateId, IssuerNumber};
use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};
use store::{Expect, Stored, Table, Write};

/// A view of the table that remembers what it read and what is to be written.
pub(crate) struct Transaction<'a> {
    table: &'a Table,
    authority: &'a Authority,
    rows: BTreeMap<String, Touched>,
    /// Told once it is durable.
    events: Vec<RegistryEvent>,
    /// What becomes of certificates, for the record.
    facts: Vec<Fact>,
    /// Things that queries are to be held against although nothing of them changes.
    touched: BTreeSet<ThingName>,
    /// What was to be written of rows before an attempt touched them.
    undo: Option<Vec<(String, Option<Write>)>>,
}

#[derive(Default)]
struct Touched {
    read: Option<Expect>,
    /// A put or delete; its expectation is set from `read` at the end.
    write: Option<Write>,
}

impl<'a> Transaction<'a> {
    pub(crate) fn over(table: &'a Table, authority: &'a Authority) -> Self {
        Self {
            table,
            authority,
            rows: BTreeMap::new(),
            events: Vec::new(),
            facts: Vec::new(),
            touched: BTreeSet::new(),
            undo: None,
        }
    }

    /// Reads a row; the commit fails (and is tried again) if it changed meanwhile.
    pub(crate) fn get<T: Stored>(&mut self, key: &str) -> Result<Option<T>, FleetError> {
        let found = self.table.get_as::<T>(key)?;
        let expect = found
            .as_ref()
            .map_or(Expect::Absent, |row| Expect::Revision(row.revision));
        self.expect(key, expect);
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
        self.expect(key, expect);
        Ok(found.is_some())
    }

    /// What was read first has to hold: something may follow from it.
    fn expect(&mut self, key: &str, expect: Expect) {
        let row = self.rows.entry(key.to_owned()).or_default();
        row.read.get_or_insert(expect);
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

    /// Has what becomes of a certificate recorded, if it comes to be.
    pub(crate) fn note(&mut self, fact: impl Into<Option<Fact>>) {
        let fact = fact.into();
        self.events.extend(fact.as_ref().and_then(Fact::event));
        self.facts.extend(fact);
    }

    pub(crate) fn take_events(&mut self) -> Vec<RegistryEvent> {
        std::mem::take(&mut self.events)
    }

    pub(crate) fn take_facts(&mut self) -> Vec<Fact> {
        std::mem::take(&mut self.facts)
    }

    /// The thing that a certificate will be of, or else was of.
    pub(crate) fn thing_of(&self, id: &CertificateId) -> Result<Option<ThingName>, FleetError> {
        let key = keys::bound(id);
        let write = self.rows.get(&key).and_then(|row| row.write.as_ref());
        let put = match write {
            Some(write) => write.value_as::<Binding>()?,
            None => None,
        };
        let binding = match put {
            Some(binding) => Some(binding),
            None => self.table.get_as(&key)?.map(|row| row.value),
        };
        Ok(binding.map(|binding: Binding| binding.thing))
    }

    pub(crate) fn writes_anything(&self) -> bool {
        self.rows.values().any(|row| row.write.is_some())
    }

    /// Tells of a change, if it comes to be.
    pub(crate) fn tell(&mut self, event: RegistryEvent) {
        self.events.push(event);
    }

    pub(crate) fn put<T: Stored>(&mut self, key: String, value: &T) -> Result<(), FleetError> {
        let write = Write::put(key.clone(), value, Expect::Any)?;
        self.write(key, write);
        Ok(())
    }

    pub(crate) fn delete(&mut self, key: String) {
        let write = Write::delete(key.clone(), Expect::Any);
        self.write(key, write);
    }

    fn write(&mut self, key: String, write: Write) {
        let row = self.rows.entry(key).or_default();
        if let Some(undo) = &mut self.undo {
            undo.push((write.key().to_owned(), row.write.take()));
        }
        row.write = Some(write);
    }

    /// Does a part of the transaction that may be refused by itself: nothing of it is written then. What it has read still
    /// has to hold, because the refusal follows from it. Attempts do not nest.
    pub(crate) fn attempt<R>(
        &mut self,
        work: impl FnOnce(&mut Self) -> Result<Result<R, Rejection>, FleetError>,
    ) -> Result<R, Rejection> {
        let (events, facts) = (self.events.len(), self.facts.len());
        self.undo = Some(Vec::new());
        let done = work(self);
        let undo = self.undo.take().unwrap_or_default();
        let refused = match done {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(rejection)) => rejection,
            Err(error) => error.into(),
        };
        for (key, before) in undo.into_iter().rev() {
            self.rows.entry(key).or_default().write = before;
        }
        self.events.truncate(events);
        self.facts.truncate(facts);
        Err(refused)
    }

    /// Whether a row will be there.
    pub(crate) fn will_exist(&mut self, key: &str) -> Result<bool, FleetError> {
        let write = self.rows.get(key).and_then(|row| row.write.as_ref());
        match write {
            Some(write) => Ok(matches!(write, Write::Put { .. })),
            None => self.exists(key),
        }
    }

    pub(crate) fn into_writes(self) -> Vec<Write> {
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
