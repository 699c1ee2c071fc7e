//! What a newer rollout has taken over from an older one before it was begun, and may give back: until that is known the
//! older one waits.

use std::collections::BTreeMap;

use super::Ota;
use super::records::{Execution, Newest, RolloutRow, key};
use crate::rollout::Planner;
use crate::{Error, JobId, RolloutId};

/// After so many seconds it is looked at anew whether there is any such device.
pub(super) const LENT_SECONDS: u64 = 5;

impl Ota {
    /// One of the devices of a wave that were all taken over by newer rollouts, which has not begun with that or is at it: it
    /// may be given back.
    pub(super) fn lent(&self, planner: &Planner) -> Result<Option<String>, Error> {
        let rollout = planner.rollout();
        let wave = planner
            .taken_over()
            .and_then(|wave| rollout.waves.get(wave));
        let Some(wave) = wave else {
            return Ok(None);
        };
        let (table, name) = (&self.inner.table, &rollout.spec.name);
        let mut jobs: BTreeMap<RolloutId, Vec<JobId>> = BTreeMap::new();
        // The one that was found last may be it still.
        for thing in rollout.lent.iter().chain(&wave.things) {
            let newest = table.get_as::<Newest>(&key::newest(thing, name))?;
            let newer = newest.map(|newest| newest.value.rollout);
            let Some(newer) = newer.filter(|newer| *newer > rollout.id) else {
                continue;
            };
            if !jobs.contains_key(&newer) {
                let row = table.get_as::<RolloutRow>(&key::rollout(&newer))?;
                let row = row.map(|row| row.value.into_bare());
                let of_waves = row.iter().flat_map(|row| {
                    let waves = 0..row.waves.len();
                    waves.map(move |wave| row.wave_job(wave))
                });
                jobs.insert(newer.clone(), of_waves.collect::<Result<_, _>>()?);
            }
            for job in jobs.get(&newer).into_iter().flatten() {
                let execution = table.get_as::<Execution>(&key::execution(job, thing))?;
                if execution.is_some_and(|execution| !execution.value.status.is_terminal()) {
                    return Ok(Some(thing.clone()));
                }
            }
        }
        Ok(None)
    }
}
