//! Whose maintenance window of a job is open: each thing's by the clock of its own zone, which stands in the attribute
//! `timezone` of the registry as rollouts have it, UTC where there is none.
//!
//! Things that wait are looked through for some whose window is open, which are then told at the job's rate; they are
//! looked through again when those are told, when a window opens, and now and then, as attributes change.

use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::sync::PoisonError;
use std::time::Instant;

use super::Ota;
use super::job_pace::Identity;
use super::records::{Job, JobRef, key};
use super::rollouts::ZONE_ATTRIBUTE;
use crate::rollout::Opening;
use crate::{Error, JobId};

/// Things that are looked through in one go.
const PAGE: usize = 1_000;
/// Things with an open window that are kept at most.
const READY: usize = if cfg!(test) { 50 } else { 10_000 };
/// How often things that wait are looked through at most, in seconds; and after how many times as long as that takes.
const AGAIN_SECONDS: u64 = 60;
const AGAIN_REST: u32 = 20;

/// Things that wait for a job and whose window was open.
pub(super) struct Ready {
    of: Identity,
    /// With their zones, in the order of their names.
    things: VecDeque<(String, Option<String>)>,
    /// How many of them are told now.
    pub(super) told: Cell<usize>,
    /// When to look through all that wait again (seconds since 1970).
    pub(super) again: u64,
}

impl Ready {
    /// The first of them.
    pub(super) fn first(&self, most: usize) -> impl Iterator<Item = &str> {
        self.things.iter().take(most).map(|(thing, _)| &**thing)
    }

    pub(super) fn len(&self) -> usize {
        self.things.len()
    }
}

/// How the windows of a job stand in each zone that was met.
struct Zones<'j> {
    job: &'j Job,
    now: u64,
    met: BTreeMap<Option<String>, Opening>,
}

impl Zones<'_> {
    fn is_open(&mut self, zone: Option<&String>) -> Result<bool, Error> {
        let opening = match self.met.get(&zone.cloned()) {
            Some(known) => *known,
            None => {
                let opening = self
                    .job
                    .config
                    .opening(zone.map(String::as_str), self.now)?;
                self.met.insert(zone.cloned(), opening);
                opening
            }
        };
        Ok(matches!(opening, Opening::Open { .. }))
    }

    /// When the first of those opens that are closed.
    fn opens(&self) -> Option<u64> {
        let opens = |opening: &Opening| match opening {
            Opening::Closed { opens } => *opens,
            Opening::Open { .. } => None,
        };
        self.met.values().filter_map(opens).min()
    }
}

impl Ota {
    /// Whom a job can tell now; `None` where it has no windows. What is not told is to be put back.
    pub(super) fn ready(&self, job: &Job, now: u64) -> Result<Option<Ready>, Error> {
        let kept = self.kept_ready(&job.id);
        if !job.config.has_windows() {
            return Ok(None);
        }
        let mut zones = Zones {
            job,
            now,
            met: BTreeMap::new(),
        };
        if let Some(mut kept) = kept.filter(|kept| kept.of == Identity::of(job)) {
            let mut open = VecDeque::with_capacity(kept.things.len());
            for (thing, zone) in std::mem::take(&mut kept.things) {
                if zones.is_open(zone.as_ref())? {
                    open.push_back((thing, zone));
                }
            }
            kept.things = open;
            if !kept.things.is_empty() || now < kept.again {
                return Ok(Some(kept));
            }
        }
        self.look_through(job, &mut zones).map(Some)
    }

    fn look_through(&self, job: &Job, zones: &mut Zones<'_>) -> Result<Ready, Error> {
        let began = Instant::now();
        let prefix = key::waiting(&job.id);
        let mut things = VecDeque::new();
        let mut after: Option<String> = None;
        'all: loop {
            let table = &self.inner.table;
            let rows = table.scan_as::<JobRef>(&prefix, after.as_deref(), PAGE)?;
            let Some((last, _)) = rows.last() else { break };
            after = Some(last.clone());
            for (row, _) in rows {
                let Some(thing) = row.strip_prefix(&prefix) else {
                    continue;
                };
                let zone = self.attribute_of(thing, ZONE_ATTRIBUTE)?;
                if zones.is_open(zone.as_ref())? {
                    things.push_back((thing.to_owned(), zone));
                    if things.len() >= READY {
                        break 'all;
                    }
                }
            }
        }
        let rest = AGAIN_SECONDS.max((began.elapsed() * AGAIN_REST).as_secs());
        // There may be more where it stopped.
        let rest = if things.len() < READY { rest } else { 0 };
        let again = zones.now.saturating_add(rest);
        Ok(Ready {
            of: Identity::of(job),
            things,
            told: Cell::new(0),
            again: zones.opens().map_or(again, |opens| opens.min(again)),
        })
    }

    /// What was not told is told later.
    pub(super) fn put_back(&self, id: &JobId, mut ready: Ready) {
        ready
            .things
            .drain(..ready.told.take().min(ready.things.len()));
        self.inner
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(id.clone(), ready);
    }

    /// Takes what is kept of a job.
    pub(super) fn kept_ready(&self, id: &JobId) -> Option<Ready> {
        self.inner
            .ready
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(id)
    }
}
