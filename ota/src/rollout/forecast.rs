//! Who would get it, when, by wave: the planner itself, with devices that take no time and never fail.

use serde::{Deserialize, Serialize};

use super::{Action, Command, Devices, Offer, Part, Planner, Rollout, RolloutState};
use crate::{Error, ExecutionStatus, FirmwareVersion};

/// Rounds of one forecast; what lies beyond has no time.
const ROUNDS: usize = 50_000;

/// What a rollout would do at the earliest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forecast {
    /// Its waves.
    pub waves: Vec<ForecastWave>,
    /// What it would not do though one may think so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A wave that would be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastWave {
    /// Its specification.
    pub name: String,
    /// Devices in it.
    pub total: usize,
    /// Whether people must approve it first.
    pub needs_approval: bool,
    /// When its first device would be told, at the earliest (seconds since 1970).
    pub first_at: Option<u64>,
    /// When its last device would be told, at the earliest (seconds since 1970).
    pub last_at: Option<u64>,
    /// Its devices, in the order they would be told.
    pub things: Vec<ForecastThing>,
}

/// A device that would be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForecastThing {
    /// The thing.
    pub thing: String,
    /// When, at the earliest (seconds since 1970); `None` where that is never, or too far to tell.
    pub at: Option<u64>,
}

impl Rollout {
    /// The earliest moment at which its last wave can begin, by its waves' times and soaks alone, or `now` (seconds
    /// since 1970).
    #[must_use]
    pub fn earliest_last_wave(&self, now: u64) -> u64 {
        let mut at = self.spec.start_at.unwrap_or(now).max(now);
        for wave in self.waves.iter().filter(|wave| !wave.things.is_empty()) {
            at = at.max(wave.start_at.unwrap_or_default());
            at = at.saturating_add(wave.rules.soak_seconds);
        }
        // Nothing waits for the soak of the last one.
        let last = self.waves.iter().rfind(|wave| !wave.things.is_empty());
        at - last.map_or(0, |wave| wave.rules.soak_seconds)
    }

    /// What would happen from `now` on if every device were there, took no time and succeeded, and people
    /// approved at once: nothing comes earlier than this.
    ///
    /// # Errors
    /// As [`Rollout::plan`].
    pub fn forecast(&self, devices: Devices, now: u64) -> Result<Forecast, Error> {
        let mut planner = Planner::new(self.clone(), devices);
        let mut at = now;
        for _ in 0..ROUNDS {
            if planner.rollout().state == RolloutState::WaitingApproval {
                for person in 0..super::MAX_APPROVERS {
                    let by = person.to_string();
                    if planner
                        .command(Command::Approve { by, wave: None })
                        .is_err()
                    {
                        break;
                    }
                }
            }
            let plan = planner.plan(at, usize::MAX)?;
            for action in &plan.actions {
                if let Action::Install { offers, .. } = action {
                    for offer in offers {
                        take(&mut planner, offer, &self.spec.version, at);
                    }
                }
                planner.apply(action);
            }
            if plan.actions.is_empty() {
                match plan.wake_at {
                    Some(later) if later > at => at = later,
                    _ => break,
                }
            }
        }
        let when = |thing: &String| Some(planner.device(thing)?.install.as_ref()?.offered_at);
        let waves = self.waves.iter().map(|wave| {
            let mut things: Vec<ForecastThing> = wave
                .things
                .iter()
                .map(|thing| ForecastThing {
                    thing: thing.clone(),
                    at: when(thing),
                })
                .collect();
            things.sort_by_key(|thing| thing.at.unwrap_or(u64::MAX));
            let told = things.iter().filter_map(|thing| thing.at);
            ForecastWave {
                name: wave.name.clone(),
                total: things.len(),
                needs_approval: wave.rules.approvers > 0,
                first_at: told.clone().min(),
                last_at: told.max(),
                things,
            }
        });
        Ok(Forecast {
            waves: waves.collect(),
            warnings: Vec::new(),
        })
    }
}

fn take(planner: &mut Planner, offer: &Offer, version: &FirmwareVersion, at: u64) {
    planner.change(&offer.thing, |device| {
        device.install = Some(Part {
            status: ExecutionStatus::Succeeded,
            to: version.clone(),
            before: None,
            offered_at: at,
            until: offer.until,
            attempt: offer.attempt,
        });
    });
}
