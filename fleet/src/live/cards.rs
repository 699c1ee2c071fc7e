//! The cards that are packed: one read instead of many for a principal that comes up. The rows are the truth. Which pack
//! counts is said by a row, and whoever changes what a card of it was made of marks that in the same batch, so that a
//! crash at any moment leaves no outdated card behind that is not marked. What is marked, and what is in no pack, is
//! read from the rows.
//!
//! Marks carry the generation they were made in. A new pack begins a new generation, before anything of it is read and
//! while no other operation is under way; so it is outdated by the marks of its own generation and of later ones, and
//! the earlier ones go once it counts.

use super::{
    card::{Card, PackedCard},
    touched::Touched,
};
use crate::{FleetError, ThingName, keys, records::Present, registry::Transaction};
use ca::CertificateId;
use parking_lot::{Mutex, RwLock};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::SyncSender,
    },
};
use store::{Expect, Pack, Packs, Store, StoreError, Stored, Table, Write};

/// The kind of packs.
const KIND: &str = "cards";
/// Before so many principals were read from their rows nothing is packed: a small registry never needs it.
const READ_FLOOR_ITEMS: u64 = 4_096;
/// A pack is made anew when one in so many of its cards could not be used.
const STALE_SHARE: u64 = 16;
/// Rows of marks that are read or removed at once.
const MARKS_ITEMS: usize = 1_000;

/// Which pack counts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct CountsRow {
    generation: u64,
    label: String,
    /// The version of its cards.
    version: u16,
}

impl Stored for CountsRow {}

pub(crate) struct Cards {
    pub(super) packs: Packs,
    state: RwLock<State>,
    /// Principals that were read from their rows since a pack was begun.
    read: AtomicU64,
    /// Wakes who packs.
    pub(super) wake: Mutex<Option<SyncSender<()>>>,
    /// Held by who packs.
    packing: Arc<Mutex<()>>,
}

#[derive(Default)]
struct State {
    pack: Option<Arc<Pack>>,
    /// The generation of the pack that counts by its row, also where it is not read.
    counts: Option<u64>,
    /// The generation that changes are marked in; none where no pack counts and none is being made.
    marking: Option<u64>,
    /// What is outdated, by generation, from that of the pack on.
    marks: BTreeMap<u64, Marks>,
    /// The highest generation there was.
    highest: u64,
    /// Up to this generation marks may have been missed: no pack of one is read before the next start.
    spoiled: u64,
}

#[derive(Default)]
struct Marks {
    certificates: HashSet<CertificateId>,
    things: HashSet<ThingName>,
}

impl State {
    fn is_marked(&self, id: &CertificateId, thing: &ThingName) -> bool {
        let mut marks = self.marks.values();
        marks.any(|marks| marks.certificates.contains(id) || marks.things.contains(thing))
    }

    fn marked(&self) -> usize {
        let marks = self.marks.values();
        marks
            .map(|marks| marks.certificates.len() + marks.things.len())
            .sum()
    }

    /// Where none is being made: what is outdated, as of the generation that counts.
    fn fold(&mut self) {
        let all = std::mem::take(&mut self.marks);
        let Some(counts) = self.counts else {
            return;
        };
        let folded = self.marks.entry(counts).or_default();
        for marks in all.into_values() {
            folded.certificates.extend(marks.certificates);
            folded.things.extend(marks.things);
        }
    }

    /// Takes the key of a mark's row; what a pack that counts no more was outdated by is of no interest.
    fn take(&mut self, mark: &str) {
        let Some((generation, of)) = generation_of(mark) else {
            return;
        };
        let Some(marks) = self.marks.get_mut(&generation) else {
            return;
        };
        match of.split_once(':') {
            Some(("cert", id)) => marks.certificates.extend(id.parse::<CertificateId>().ok()),
            Some(("thing", name)) => marks.things.extend(name.parse::<ThingName>().ok()),
            _ => tracing::error!(mark, "a mark of an unknown kind"),
        }
    }
}

/// The generation of a mark, and what it marks.
fn generation_of(mark: &str) -> Option<(u64, &str)> {
    let (generation, of) = mark.strip_prefix(keys::OUTDATED)?.split_once('/')?;
    Some((u64::from_str_radix(generation, 16).ok()?, of))
}

impl Cards {
    /// Opens the pack that counts, if any does.
    pub(crate) fn open(store: &Store, table: &Table) -> Result<Cards, FleetError> {
        let packs = store.packs(KIND)?;
        let row = table
            .get_as::<CountsRow>(keys::PACKED)?
            .map(|row| row.value);
        let mut state = State::default();
        if let Some(row) = row {
            let opened = match row.version {
                PackedCard::VERSION => packs.open(&row.label),
                // Another release made it.
                _ => Ok(None),
            };
            match opened {
                Ok(Some(pack)) => {
                    state.pack = Some(Arc::new(pack));
                    state.highest = row.generation;
                    state.counts = Some(row.generation);
                    state.marks.insert(row.generation, Marks::default());
                }
                // Nothing is lost but time. It must not come back after changes that nobody has marked.
                unusable => {
                    let error = unusable.err().map(|error| error.to_string());
                    let reason = error
                        .as_deref()
                        .unwrap_or("it is not there, or another release's");
                    tracing::warn!(reason, "the pack of cards is of no use and is made anew");
                    table.batch(&[Write::delete(keys::PACKED, Expect::Any)])?;
                }
            }
        }
        let label = state.pack.as_ref().map(|pack| pack.label());
        packs.keep_only(label)?;
        read_marks(table, &mut state)?;
        state.marking = state.counts;
        // A crash may have cut short many that were made.
        state.fold();
        Ok(Cards {
            packs,
            state: RwLock::new(state),
            read: AtomicU64::new(0),
            wake: Mutex::new(None),
            packing: Arc::default(),
        })
    }

    /// The card of a certificate, if it is packed and nothing of it has changed since.
    pub(super) fn get(&self, id: &CertificateId) -> Option<Card> {
        let pack = Arc::clone(self.state.read().pack.as_ref()?);
        let card = match pack.get_as::<PackedCard>(id.as_bytes()) {
            Ok(card) => card?.into_card(id)?,
            Err(error) => {
                tracing::error!(%error, "a packed card cannot be read: its rows are");
                return None;
            }
        };
        // Looked at last: another pack may count meanwhile, and with it other marks.
        let state = self.state.read();
        let counts = state
            .pack
            .as_ref()
            .is_some_and(|now| Arc::ptr_eq(now, &pack));
        let outdated = state.is_marked(id, card.thing.as_ref()?);
        (counts && !outdated).then_some(card)
    }

    /// Notes that a principal was read from its rows. Where that is often, its like are packed.
    pub(super) fn missed(&self) {
        let read = self.read.fetch_add(1, Ordering::Relaxed) + 1;
        if read < READ_FLOOR_ITEMS || !read.is_multiple_of(READ_FLOOR_ITEMS) {
            return;
        }
        let packed = self
            .state
            .read()
            .pack
            .as_ref()
            .map_or(0, |pack| pack.items());
        if read >= packed / STALE_SHARE {
            self.wake();
        }
    }

    fn wake(&self) {
        if let Some(wake) = &*self.wake.lock() {
            // One that is on its way is enough.
            let _ = wake.try_send(());
        }
    }

    /// Before a commit: marks what it makes outdated, in the same batch.
    pub(crate) fn mark(&self, t: &mut Transaction<'_>) -> Result<(), FleetError> {
        let marks = self.marks_of(|| t.written_keys(), |key| t.is_new(key));
        marks.into_iter().try_for_each(|mark| t.put(mark, &Present))
    }

    /// The marks that a batch must put which writes these rows. Whoever writes it lets no generation begin before it is
    /// durable and applied. `is_new` says which rows come to be by it.
    pub(crate) fn marks_of(
        &self,
        written: impl FnOnce() -> Vec<String>,
        is_new: impl Fn(&str) -> bool,
    ) -> Vec<String> {
        let state = self.state.read();
        let Some(generation) = state.marking else {
            return Vec::new();
        };
        let touched = Touched::of(&written());
        // Later ones outdate a pack of this one too.
        let known = state.marks.range(generation..).map(|(_, marks)| marks);
        // What was not there before is in no pack, and no card of one belongs to it.
        let certificates = touched.certificates.keys().filter(|id| {
            !known.clone().any(|known| known.certificates.contains(id))
                && !is_new(&keys::certificate(id))
        });
        let things = touched.things.keys().filter(|name| {
            !known.clone().any(|known| known.things.contains(*name)) && !is_new(&keys::thing(name))
        });
        let certificates = certificates.map(|id| keys::outdated(generation, "cert", id));
        let things = things.map(|name| keys::outdated(generation, "thing", name));
        certificates.chain(things).collect()
    }

    /// Takes the marks among rows that have changed. Before anybody is told of the change.
    pub(super) fn take(&self, changed: &[String]) {
        let mut marks = changed
            .iter()
            .filter(|key| key.starts_with(keys::OUTDATED))
            .peekable();
        if marks.peek().is_none() {
            return;
        }
        let mut state = self.state.write();
        marks.for_each(|mark| state.take(mark));
        let packed = state.pack.as_ref().map_or(0, |pack| pack.items());
        let due = state.marked() as u64 > READ_FLOOR_ITEMS.max(packed / STALE_SHARE * 2);
        drop(state);
        if due {
            self.wake();
        }
    }

    /// Where it is not known what has changed: the marks are read again, and no pack is read before.
    pub(super) fn take_all(&self, table: &Table) {
        let mut state = self.state.write();
        if let Err(error) = read_marks(table, &mut state) {
            tracing::error!(%error, "what packed cards are outdated cannot be read: none is used");
            state.pack = None;
            state.spoiled = state.highest;
        }
    }

    /// Whether a card of the pack that counts is as its rows are.
    pub(super) fn is_good(&self, id: &CertificateId, thing: &ThingName) -> bool {
        let state = self.state.read();
        state.pack.is_some() && !state.is_marked(id, thing)
    }

    pub(super) fn pack(&self) -> Option<Arc<Pack>> {
        self.state.read().pack.clone()
    }

    /// Held by who packs.
    pub(super) fn packing(&self) -> Arc<Mutex<()>> {
        Arc::clone(&self.packing)
    }

    /// Begins a generation. No operation may be under way.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.state.write();
        state.highest += 1;
        let generation = state.highest;
        state.marks.insert(generation, Marks::default());
        state.marking = Some(generation);
        self.read.store(0, Ordering::Relaxed);
        generation
    }

    /// Where nothing came of a generation: what was marked in it outdates the pack that counts, and so do changes from now
    /// on, which are marked once however many packs fail. No operation may be under way.
    pub(super) fn give_up(&self) {
        let mut state = self.state.write();
        state.marking = state.counts;
        state.fold();
    }

    /// From now on this pack counts, as its row says already. No operation may be under way.
    pub(super) fn count(&self, generation: u64, pack: Pack) {
        let mut state = self.state.write();
        state.pack = (generation > state.spoiled).then(|| Arc::new(pack));
        state.counts = Some(generation);
        state.marks = state.marks.split_off(&generation);
    }

    /// Removes files and marks that count no more.
    pub(super) fn tidy(&self, table: &Table) -> Result<(), StoreError> {
        let (label, from) = {
            let state = self.state.read();
            let label = state.pack.as_ref().map(|pack| pack.label().to_owned());
            (label, state.marks.keys().next().copied())
        };
        self.packs.keep_only(label.as_deref())?;
        loop {
            let rows = table.scan(keys::OUTDATED, None, MARKS_ITEMS)?;
            let counts_no_more = |key: &str| {
                let generation = generation_of(key).map(|(generation, _)| generation);
                from.is_none() || generation < from
            };
            // They come in the order of their generations.
            let old: Vec<_> = rows
                .iter()
                .map(|(key, _)| key.as_str())
                .take_while(|key| counts_no_more(key))
                .map(|key| Write::delete(key, Expect::Any))
                .collect();
            if old.is_empty() {
                return Ok(());
            }
            table.batch(&old)?;
        }
    }
}

impl CountsRow {
    pub(super) fn of(generation: u64, pack: &Pack) -> CountsRow {
        CountsRow {
            generation,
            label: pack.label().to_owned(),
            version: PackedCard::VERSION,
        }
    }
}

/// Reads all marks that count.
fn read_marks(table: &Table, state: &mut State) -> Result<(), StoreError> {
    let mut after: Option<String> = None;
    loop {
        let rows = table.scan(keys::OUTDATED, after.as_deref(), MARKS_ITEMS)?;
        for (key, _) in &rows {
            if let Some((generation, _)) = generation_of(key) {
                state.highest = state.highest.max(generation);
                let first = state.marks.keys().next();
                if first.is_some_and(|first| generation >= *first) {
                    state.marks.entry(generation).or_default();
                }
            }
            state.take(key);
        }
        match rows.last() {
            Some((last, _)) if rows.len() == MARKS_ITEMS => after = Some(last.clone()),
            _ => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
