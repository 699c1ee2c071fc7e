//! What devices have refused that this server does not know: another that passed for it ordered that, and took the report;
//! or the job has been deleted here since.
//! A device says its last refusals with each question for the next job.

use fleet::Excerpt;
use serde::{Deserialize, Serialize};
use store::Stored;
use tracing::warn;

use super::Ota;
use super::executions::Changes;
use super::records::key;
use crate::job::StatusDetails;
use crate::{Error, JobId};

/// The word in a device's `statusDetails`.
const REFUSED_DETAIL: &str = "refused";
/// Most that are kept of one thing, and most that are looked at in one request.
const MAX_REFUSALS: usize = 10;

/// What a device says it has refused.
#[derive(Deserialize)]
struct Said {
    job: JobId,
    execution: u64,
    #[serde(default)]
    reason: String,
}

/// A refusal of a device, of a job that this server does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refusal {
    /// The job.
    pub job: JobId,
    /// Which execution of it.
    pub execution: u64,
    /// In the device's own words.
    pub reason: String,
    /// When this server heard of it (seconds since 1970).
    pub heard_at: u64,
}

/// Of one thing, the newest last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Refusals(Vec<Refusal>);
impl Stored for Refusals {}

impl Changes<'_> {
    /// A device may say what it has refused whenever it asks for a job.
    pub(super) fn said_to_refuse(
        &mut self,
        thing: &str,
        details: Option<&StatusDetails>,
    ) -> Result<(), Error> {
        let said = details.and_then(|details| details.get(REFUSED_DETAIL));
        let said = said.and_then(|said| serde_json::from_str::<Vec<Said>>(said).ok());
        let Some(said) = said else { return Ok(()) };
        let row = key::refused(thing);
        let mut known: Refusals = self.rows.get(&row)?.unwrap_or_default();
        let before = known.0.len();
        let mut more = false;
        // The newest is said first.
        for said in said.into_iter().take(MAX_REFUSALS).rev() {
            let is = |one: &Refusal| one.job == said.job && one.execution == said.execution;
            // What was ordered here has its own report.
            if known.0.iter().any(is) || self.execution(&said.job, thing)?.is_some() {
                continue;
            }
            known.0.push(Refusal {
                job: said.job,
                execution: said.execution,
                reason: said.reason,
                heard_at: self.now.seconds,
            });
            more = true;
        }
        if more {
            if before == 0 {
                let newest = known.0.last().map(|one| one.reason.as_str());
                warn!(
                    thing,
                    reason = ?Excerpt(newest.unwrap_or_default()),
                    "a device has refused a job that this server does not know: it was deleted here, or another server passed for this one (`muster fleet devices`)"
                );
            }
            let over = known.0.len().saturating_sub(MAX_REFUSALS);
            known.0.drain(..over);
            self.rows.put(row, &known)?;
        }
        Ok(())
    }
}

impl Ota {
    /// What a thing has refused of jobs that this server does not know, the newest last.
    pub(super) fn refused(&self, thing: &str) -> Result<Vec<Refusal>, Error> {
        let row = self.inner.table.get_as::<Refusals>(&key::refused(thing))?;
        Ok(row.map(|row| row.value.0).unwrap_or_default())
    }
}
