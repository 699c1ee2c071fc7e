//! What principals were seen to do, and whether they were allowed: for simulations of a change and
//! for the least policy.
//!
//! A connection tells of a decision when it makes it anew, and now and then how often it went by it since. What is told
//! is summed up in memory and written down by a thread of its own: what is new every few seconds, how often it was done
//! again every hour, and all of it before it is read. A crash loses what was not written. Of each action of a principal so many different topics are kept; what lies beyond is summed up behind the
//! level that is the name of its thing, so that it still says whose it is, or by the first two levels. What cannot be
//! summed up is counted.

use crate::{Fleet, FleetError, Standing, ThingName};
use ca::CertificateId;
use parking_lot::Mutex;
use policy::Action;
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::Duration,
};
use store::{Expect, Store, StoreError, Stored, Table, Write};

const TABLE: &str = "decisions";
/// How often what was told is written down,
const FLUSH_EVERY: Duration = Duration::from_secs(5);
/// and at which of these times also what is known already and was only done again: most of what devices do is.
const COUNTS_EVERY: u32 = 720;
/// Different decisions that wait in memory; what is told beyond is dropped and counted.
const WAITING_ITEMS: usize = 100_000;
/// Different topics kept of an action of one principal before they are summed up,
const EXACT_ITEMS: usize = 256;
/// and of such sums.
const SUMMED_ITEMS: usize = 64;
/// Bytes of the longest topic kept.
const NAME_MAX_BYTES: usize = 512;
/// Rows written at once.
const BATCH_ITEMS: usize = 500;
/// Rows read at once.
const PAGE_ITEMS: usize = 5_000;

/// Decisions of one kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// How often it was done or tried.
    pub count: u64,
    /// The first time, in seconds since 1970.
    pub first: u64,
    /// The last time, in seconds since 1970.
    pub last: u64,
    /// What was decided, the last time.
    pub allowed: bool,
    /// Whether it was asked over HTTPS at any time, where there is no client id; not known of what a release before this
    /// one has recorded.
    #[serde(default)]
    pub over_https: bool,
}

impl Stored for Tally {}

/// What a principal was seen to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    /// What.
    pub action: Action,
    /// On which topic, with which filter or client id. A topic that ends in `/#` stands for those
    /// below it.
    pub name: String,
    /// How often and when.
    pub tally: Tally,
}

/// All that is known of what a principal was seen to do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// What is kept, by action and name.
    pub seen: Vec<Recorded>,
    /// How often something was done whose topic is not among them, because there were too many.
    pub left_out: u64,
}

type Waiting = BTreeMap<(CertificateId, &'static str, Box<str>), Told>;

/// What was told of one decision.
struct Told {
    tally: Tally,
    /// The principal's thing.
    thing: Option<ThingName>,
    /// Whether it was decided, or gone by again.
    anew: bool,
}

pub(crate) struct Decisions {
    notes: Arc<Notes>,
    /// Its end ends the thread.
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Decisions {
    /// Returns when what waits is written and the store is let go of.
    fn drop(&mut self) {
        self.end = None;
        if let Some(thread) = self.thread.take() {
            // A panic of its own has been told by then.
            let _ = thread.join();
        }
    }
}

struct Notes {
    table: Table,
    on: AtomicBool,
    /// Decided anew.
    waiting: Mutex<Waiting>,
    /// Gone by again.
    again: Mutex<Waiting>,
    /// One writes at a time.
    writing: Mutex<()>,
    dropped: AtomicU64,
}

impl Decisions {
    pub(crate) fn open(store: &Store) -> Result<Self, FleetError> {
        let notes = Arc::new(Notes {
            table: store.table(TABLE)?,
            on: AtomicBool::new(true),
            waiting: Mutex::default(),
            again: Mutex::default(),
            writing: Mutex::default(),
            dropped: AtomicU64::new(0),
        });
        let (end, ended) = channel();
        let writer = Arc::clone(&notes);
        let thread = std::thread::Builder::new()
            .name("fleet-decisions".into())
            .spawn(move || write(&writer, &ended))
            .map_err(FleetError::Thread)?;
        Ok(Self {
            notes,
            end: Some(end),
            thread: Some(thread),
        })
    }
}

fn write(notes: &Notes, ended: &Receiver<()>) {
    for time in 1_u32.. {
        let ends = ended.recv_timeout(FLUSH_EVERY) != Err(RecvTimeoutError::Timeout);
        let all = ends
            || time.is_multiple_of(COUNTS_EVERY)
            || notes.again.lock().len() > WAITING_ITEMS / 2;
        if let Err(error) = notes.flush(all) {
            tracing::debug!(%error, "decisions are not written down");
        }
        if ends {
            return;
        }
    }
}

impl Notes {
    fn note(&self, id: &CertificateId, action: Action, name: &str, told: Told) {
        if !self.on.load(Ordering::Relaxed) || name.len() > NAME_MAX_BYTES {
            return;
        }
        let of = if told.anew {
            &self.waiting
        } else {
            &self.again
        };
        let mut waiting = of.lock();
        let full = waiting.len() >= WAITING_ITEMS;
        let key = (*id, action.name(), Box::from(name));
        match waiting.get_mut(&key) {
            Some(known) => known.tally.join(&told.tally),
            None if full => {
                self.dropped.fetch_add(1, Ordering::Relaxed);
            }
            None => {
                waiting.insert(key, told);
            }
        }
    }

    /// Writes down what was decided anew, or all.
    fn flush(&self, all: bool) -> Result<(), StoreError> {
        let _one = self.writing.lock();
        let mut waiting = std::mem::take(&mut *self.waiting.lock());
        if all {
            for (key, told) in std::mem::take(&mut *self.again.lock()) {
                match waiting.get_mut(&key) {
                    Some(known) => known.tally.join(&told.tally),
                    None => drop(waiting.insert(key, told)),
                }
            }
        }
        let mut rows: BTreeMap<String, Tally> = BTreeMap::new();
        let mut known: Option<(String, Kept)> = None;
        for ((id, action, name), told) in waiting {
            let prefix = format!("{}{action}/", of_principal(&id));
            if known.as_ref().is_none_or(|(of, _)| *of != prefix) {
                let kept = self.table.scan(&prefix, None, Kept::ITEMS_MAX)?;
                let keys = kept.into_iter().map(|(key, _)| key);
                known = Some((prefix.clone(), Kept(keys.collect())));
            }
            let Some((_, kept)) = &mut known else {
                continue;
            };
            let name = kept.place(&prefix, action, &name, told.thing.as_ref());
            let (key, tally) = (format!("{prefix}{name}"), told.tally);
            match rows.get_mut(&key) {
                Some(known) => known.join(&tally),
                None => {
                    let kept = self.table.get_as::<Tally>(&key)?.map(|row| row.value);
                    let joined = match kept {
                        Some(mut kept) => {
                            kept.join(&tally);
                            kept
                        }
                        None => tally,
                    };
                    rows.insert(key, joined);
                }
            }
        }
        let rows: Vec<(String, Tally)> = rows.into_iter().collect();
        for rows in rows.chunks(BATCH_ITEMS) {
            let puts = rows
                .iter()
                .map(|(key, tally)| Write::put(key.clone(), tally, Expect::Any));
            self.table.batch(&puts.collect::<Result<Vec<_>, _>>()?)?;
        }
        Ok(())
    }
}

/// The keys of what is kept of one action of a principal.
struct Kept(BTreeSet<String>);

/// In the place of a name: all whose topics are not kept. No topic, filter or client id that is recorded is empty.
const LEFT_OUT: &str = "";

impl Kept {
    const ITEMS_MAX: usize = EXACT_ITEMS + SUMMED_ITEMS + 1;

    /// Under which name it is kept.
    fn place<'n>(
        &mut self,
        prefix: &str,
        action: &str,
        name: &'n str,
        thing: Option<&ThingName>,
    ) -> Cow<'n, str> {
        let mut fits = |name: &str, items_max: usize| {
            let key = format!("{prefix}{name}");
            if self.0.contains(&key) {
                return true;
            }
            let fits = self.0.len() < items_max;
            if fits {
                self.0.insert(key);
            }
            fits
        };
        if fits(name, EXACT_ITEMS) {
            return Cow::Borrowed(name);
        }
        match above(action, name, thing.map(ThingName::as_str)) {
            Some(above) if fits(&above, EXACT_ITEMS + SUMMED_ITEMS) => Cow::Owned(above),
            _ => Cow::Borrowed(LEFT_OUT),
        }
    }
}

impl Tally {
    /// Of what was done so many times, the last time at this second.
    fn of(allowed: bool, (count, last): (u64, u64)) -> Self {
        Self {
            count,
            first: last,
            last,
            allowed,
            over_https: false,
        }
    }

    fn again(&mut self, times: u64, now: u64, allowed: bool) {
        self.count = self.count.saturating_add(times);
        self.last = self.last.max(now);
        self.allowed = allowed;
    }

    fn join(&mut self, later: &Self) {
        self.again(later.count, later.last, later.allowed);
        self.over_https |= later.over_https;
        self.first = self.first.min(later.first);
    }
}

fn of_principal(id: &CertificateId) -> String {
    format!("decision/{id}/")
}

/// What a topic or filter is summed up by, if by anything: what is told of all below it must not be said of more than one
/// device that has a part of its own there.
fn above(action: &str, name: &str, thing: Option<&str>) -> Option<String> {
    let levels: Vec<&str> = name.split('/').collect();
    let own = levels.iter().position(|level| Some(*level) == thing);
    let kept = match own {
        Some(own) => own + 1,
        // Of a filter the first levels may be wildcards.
        None if action == Action::Subscribe.name() => return None,
        None => 2,
    };
    let above = levels
        .get(..kept)
        .filter(|above| above.len() < levels.len())?;
    (action != Action::Connect.name()).then(|| format!("{}/#", above.join("/")))
}

impl Fleet {
    /// Notes a decision of a principal that was made anew at `now` (seconds since 1970). Does not block for long.
    pub fn note_decision(
        &self,
        standing: &Standing,
        action: Action,
        name: &str,
        allowed: bool,
        now: u64,
    ) {
        self.noted(standing, action, name, Tally::of(allowed, (1, now)), true);
    }

    /// Notes the same of a request over HTTPS.
    pub fn note_request(
        &self,
        standing: &Standing,
        action: Action,
        name: &str,
        allowed: bool,
        now: u64,
    ) {
        let tally = Tally {
            over_https: true,
            ..Tally::of(allowed, (1, now))
        };
        self.noted(standing, action, name, tally, true);
    }

    /// Notes that a principal has gone by a decision `times` times more, the last time at `last` (seconds since 1970).
    pub fn note_uses(
        &self,
        standing: &Standing,
        action: Action,
        name: &str,
        allowed: bool,
        uses: (u64, u64),
    ) {
        self.noted(standing, action, name, Tally::of(allowed, uses), false);
    }

    fn noted(&self, standing: &Standing, action: Action, name: &str, tally: Tally, anew: bool) {
        let thing = standing.now().thing.clone();
        if anew
            && !tally.allowed
            && let Some(sink) = self.inner.events.denied.get()
            && let Some(thing) = &thing
        {
            sink(thing);
        }
        let told = Told { tally, thing, anew };
        let notes = &self.inner.decisions.notes;
        notes.note(standing.id(), action, name, told);
    }

    /// Whether decisions are noted from now on.
    pub fn record_decisions(&self, on: bool) {
        self.inner.decisions.notes.on.store(on, Ordering::Relaxed);
    }

    /// Whether decisions are noted.
    #[must_use]
    pub fn records_decisions(&self) -> bool {
        self.inner.decisions.notes.on.load(Ordering::Relaxed)
    }

    /// Goes through what a principal was seen to do.
    ///
    /// # Errors
    /// When the store fails.
    pub fn decisions(&self, id: &CertificateId) -> Result<Record, FleetError> {
        self.inner.decisions.notes.flush(true)?;
        let prefix = of_principal(id);
        let (mut all, mut after) = (Record::default(), None);
        loop {
            let table = &self.inner.decisions.notes.table;
            let rows = table.scan_as::<Tally>(&prefix, after.as_deref(), PAGE_ITEMS)?;
            let whole = rows.len() == PAGE_ITEMS;
            after = rows.last().map(|(key, _)| key.clone());
            for (key, row) in rows {
                let rest = key
                    .strip_prefix(&prefix)
                    .and_then(|rest| rest.split_once('/'));
                if let Some((action, name)) = rest
                    && let Ok(action) = action.parse()
                {
                    if name == LEFT_OUT {
                        all.left_out = all.left_out.saturating_add(row.value.count);
                        continue;
                    }
                    all.seen.push(Recorded {
                        action,
                        name: name.to_owned(),
                        tally: row.value,
                    });
                }
            }
            if !whole {
                return Ok(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_summed_up_still_says_whose_it_is() {
        let above = |action: Action, name| above(action.name(), name, Some("lamp"));
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(
            above(Action::Publish, "v1/devices/lamp/m/7"),
            some("v1/devices/lamp/#")
        );
        assert_eq!(above(Action::Publish, "y/7/lamp/up"), some("y/7/lamp/#"));
        assert_eq!(above(Action::Subscribe, "in/lamp/7"), some("in/lamp/#"));
        assert_eq!(above(Action::Receive, "news/world/7"), some("news/world/#"));
        // Nothing lies below, or what does is nobody's in particular.
        assert_eq!(above(Action::Publish, "y/7/lamp"), None);
        assert_eq!(above(Action::Receive, "news/7"), None);
        assert_eq!(above(Action::Subscribe, "+/7/x"), None);
        assert_eq!(above(Action::Connect, "lamp/1"), None);
    }

    #[test]
    fn of_each_action_so_many_are_kept_and_the_rest_is_summed_up_or_counted() {
        let (mut kept, thing) = (Kept(BTreeSet::new()), "lamp".parse().unwrap());
        let mut place = |name: &str| {
            let name = kept.place("p/Publish/", "Publish", name, Some(&thing));
            name.into_owned()
        };
        for n in 0..EXACT_ITEMS {
            let name = format!("dt/lamp/{n}");
            assert_eq!(place(&name), name);
        }
        assert_eq!(place("dt/lamp/0"), "dt/lamp/0");
        for n in 0..1000 {
            assert_eq!(place(&format!("dt/lamp/x/{n}")), "dt/lamp/#");
        }
        for n in 1..SUMMED_ITEMS {
            assert_eq!(place(&format!("a{n}/b/c")), format!("a{n}/b/#"));
        }
        assert_eq!(place("one/more/x"), LEFT_OUT);
        assert_eq!(kept.0.len() + 1, Kept::ITEMS_MAX);
    }
}
