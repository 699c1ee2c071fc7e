//! What a device runs is a part of its health that policies ask for (`muster:FirmwareName`,
//! `muster:FirmwareVersion`): the registry is told before the device is answered. What it has to be told
//! stands in the same batch as what it follows from, so that a crash in between is made good.

use std::sync::PoisonError;

use fleet::ThingName;
use serde::{Deserialize, Serialize};
use store::Stored;
use tracing::error;

use super::Ota;
use super::executions::Changes;
use super::pictures::News;
use super::records::{Install, Runs, key};
use super::transaction::Transaction;
use crate::{Error, FirmwareName, FirmwareVersion};

/// Things the registry is told of in one go.
const TELL_AT_ONCE: usize = 500;

/// What the registry has yet to be told of a thing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ToTell {
    pub(super) name: FirmwareName,
    pub(super) version: FirmwareVersion,
}
impl Stored for ToTell {}

/// What the registry was not told yet, and the rows of what it was told.
#[derive(Default)]
pub(super) struct Telling {
    open: Vec<(String, ToTell)>,
    done: Vec<String>,
}

impl Changes<'_> {
    /// A thing runs what `install` brings: for the planner and for the registry.
    pub(super) fn tell_of(
        &mut self,
        thing: &str,
        install: &Install,
        runs: &Runs,
    ) -> Result<(), Error> {
        self.news.push(News::Runs {
            thing: thing.to_owned(),
            name: install.name.clone(),
            version: install.version.clone(),
            by: runs.rollout.clone(),
            owner: runs.clone().owner(),
        });
        let telling = ToTell {
            name: install.name.clone(),
            version: install.version.clone(),
        };
        self.rows.put(key::to_tell(thing), &telling)?;
        self.telling.push((thing.to_owned(), telling));
        Ok(())
    }
}

impl Ota {
    /// Rows of what was told go with the next batch.
    pub(super) fn forget_told(&self, changes: &mut Changes<'_>) {
        let mut telling = self.telling();
        for row in std::mem::take(&mut telling.done) {
            // One that says something newer now stays.
            if !changes.rows.has(&row) {
                changes.rows.delete(row);
            }
        }
    }

    /// Tells the registry; what fails is tried again with the next change.
    pub(super) fn tell_registry(&self, news: Vec<(String, ToTell)>) {
        let mut telling = self.telling();
        telling.open.extend(news);
        while !telling.open.is_empty() {
            let now = telling.open.len().min(TELL_AT_ONCE);
            let some: Vec<(ThingName, (String, String))> = telling
                .open
                .iter()
                .take(now)
                .filter_map(|(thing, runs)| {
                    let runs = (runs.name.to_string(), runs.version.to_string());
                    Some((thing.parse().ok()?, runs))
                })
                .collect();
            if let Err(error) = self.inner.fleet.set_firmware(&some) {
                error!(%error, things = telling.open.len(), "policies do not know yet what devices run");
                return;
            }
            let told: Vec<String> = telling
                .open
                .drain(..now)
                .map(|(thing, _)| key::to_tell(&thing))
                .collect();
            telling.done.extend(told);
        }
    }

    /// What a crash left to tell.
    pub(super) fn finish_telling(&self) -> Result<(), Error> {
        let rows = Transaction::new(&self.inner.table).keys(key::TO_TELL, usize::MAX / 2)?;
        let mut open = Vec::new();
        for row in rows {
            let thing = row.strip_prefix(key::TO_TELL).unwrap_or_default();
            if let Some(telling) = self.inner.table.get_as::<ToTell>(&row)? {
                open.push((thing.to_owned(), telling.value));
            }
        }
        self.tell_registry(open);
        Ok(())
    }

    fn telling(&self) -> std::sync::MutexGuard<'_, Telling> {
        self.inner
            .telling
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
