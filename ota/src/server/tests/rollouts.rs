//! Rollouts on the room as it is, with devices that do what they are told.

mod back;
mod jobs;
mod newer;
mod people;
mod registry;
mod windows;

use super::*;
use crate::rollout::{Command, RolloutView, WaveState};
use crate::{JobId, RolloutId};

struct Yard {
    house: House,
    team: Team,
}

impl Yard {
    /// Lamps that all run 1.0, and a 2.0 that is ready.
    fn new(count: usize) -> Self {
        let house = House::with_lamps(count);
        let team = Team::of(1);
        let now = SystemTime::now();
        house.ota().trust(&team.root(1, 365), now).unwrap();
        for version in ["1.0", "2.0"] {
            house
                .ota()
                .add(&team.package(version, version.as_bytes())[..], now)
                .unwrap();
        }
        let yard = Self { house, team };
        let id = yard.start(&json!({"version": "1.0"}));
        yard.run(&id, |_| true);
        yard.until(&id, RolloutState::Succeeded);
        yard
    }

    /// Makes one more version ready.
    fn add(&self, version: &str) {
        let package = self.team.package(version, version.as_bytes());
        self.house
            .ota()
            .add(&package[..], SystemTime::now())
            .unwrap();
    }

    /// All are brought to this version.
    fn brings(&self, version: &str) -> RolloutId {
        let id = self.start(&json!({"version": version}));
        self.run(&id, |_| true);
        self.until(&id, RolloutState::Succeeded);
        id
    }

    fn start(&self, more: &Value) -> RolloutId {
        self.try_start(more).unwrap()
    }

    fn try_start(&self, more: &Value) -> Result<RolloutId, Error> {
        let request = Self::request(more)?;
        let started = self
            .house
            .ota()
            .start_rollout(&request, "ann", SystemTime::now())?;
        Ok(started.id)
    }

    /// What it would warn of.
    fn warns(&self, more: &Value, at: SystemTime) -> Result<Vec<String>, Error> {
        let request = Self::request(more)?;
        Ok(self.house.ota().forecast_rollout(&request, at)?.warnings)
    }

    fn request(more: &Value) -> Result<StartRollout, Error> {
        let mut body = json!({"name": "lamp", "version": "2.0", "group": "lamps"});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        serde_json::from_value(body).map_err(|error| Error::Invalid {
            field: "body".into(),
            why: error.to_string(),
        })
    }

    fn view(&self, id: &RolloutId) -> RolloutView {
        self.house.ota().rollout(id).unwrap()
    }

    fn until(&self, id: &RolloutId, state: RolloutState) -> RolloutView {
        self.house.eventually(|ota| {
            let view = ota.rollout(id).unwrap();
            (view.state == state).then_some(view)
        })
    }

    /// One device does its next job, if it has one; the job's document.
    fn work(&self, thing: &str, good: bool) -> Option<Value> {
        let started = self.house.accepted(thing, "start-next", &json!({}));
        let execution = started.get("execution")?;
        let job = execution["jobId"].as_str().unwrap();
        let update = if good {
            json!({"status": "SUCCEEDED", "statusDetails": {"step": "confirmed"}})
        } else {
            json!({"status": "FAILED", "statusDetails": {"step": "fell-back", "reason": "the health check exited 1"}})
        };
        self.house
            .accepted(thing, &format!("{job}/update"), &update);
        Some(execution["jobDocument"].clone())
    }

    /// The devices do well what they are told until the rollout stands so.
    fn run_until(&self, id: &RolloutId, state: RolloutState) -> RolloutView {
        self.house.eventually(|ota| {
            for execution in ota.rollout(id).unwrap().executions {
                self.work(&execution.thing, true);
            }
            let view = ota.rollout(id).unwrap();
            (view.state == state).then_some(view)
        })
    }

    /// The devices work as they are told until the rollout rests; how often each was given a document.
    fn run(&self, id: &RolloutId, good: impl Fn(&Value) -> bool) -> Vec<(String, Value)> {
        let mut done = Vec::new();
        let things: Vec<String> = self
            .view(id)
            .executions
            .into_iter()
            .map(|e| e.thing)
            .collect();
        self.house.eventually(|ota| {
            for thing in &things {
                let next = self.house.accepted(thing, "$next/get", &json!({}));
                if let Some(execution) = next.get("execution") {
                    let document = self.work(thing, good(&execution["jobDocument"])).unwrap();
                    done.push((thing.clone(), document));
                }
            }
            ota.rollout(id).unwrap().state.is_final().then_some(())
        });
        done
    }
}

#[test]
fn a_good_version_reaches_all_in_two_waves() {
    let yard = Yard::new(20);
    let id = yard.start(&json!({"waves": ["10%", "100%"], "abortFailed": 20}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 2).then_some(view)
    });
    assert_eq!(
        view.executions
            .iter()
            .filter(|e| e.status == "WAITING")
            .count(),
        18
    );
    let done = yard.run(&id, |_| true);
    assert_eq!(done.len(), 20, "each installs once");
    assert_eq!(
        done[0].1,
        json!({
            "operation": "muster.install-firmware", "name": "lamp", "version": "2.0", "rollout": id.as_str(),
            "manifest": "/firmware/lamp/2.0/manifest.json", "image": "/firmware/lamp/2.0/image"
        })
    );
    let view = yard.view(&id);
    assert_eq!(view.state, RolloutState::Succeeded);
    assert!(
        view.executions
            .iter()
            .all(|e| e.status == "SUCCEEDED" && e.version == Some(version("2.0")))
    );
    let listed = yard.house.ota().rollouts(None, 10).unwrap();
    assert_eq!(listed.len(), 2);
    assert!(
        listed
            .iter()
            .any(|r| r.id == id && r.state == RolloutState::Succeeded && r.group == "lamps")
    );
}

#[test]
fn a_bad_version_stops_in_its_first_wave_and_the_report_has_the_devices_words() {
    let yard = Yard::new(20);
    let id = yard.start(&json!({"waves": ["10%", "100%"], "abortFailed": 20}));
    let done = yard.run(&id, |_| false);
    assert!(done.len() <= 2, "the other eighteen never saw it");
    let view = yard.until(&id, RolloutState::RolledBack);
    assert_eq!(view.waves[0].state, WaveState::Aborted);
    assert_eq!(view.waves[1].state, WaveState::Waiting);
    assert_eq!(
        view.executions
            .iter()
            .filter(|e| e.status == "WAITING")
            .count(),
        18
    );
    assert!(
        view.executions
            .iter()
            .any(|e| e.reason.as_deref() == Some("the health check exited 1"))
    );
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("1.0")))
    );
}

#[test]
fn a_rollout_goes_on_after_a_crash_at_any_point_and_nobody_installs_twice() {
    let mut yard = Yard::new(6);
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let mut installs = 0;
    let mut round = 0;
    while !yard.view(&id).state.is_final() {
        yard.house.restart();
        // One device moves between two crashes; which one rotates.
        let thing = format!("lamp-{}", round % 6);
        installs += usize::from(yard.work(&thing, true).is_some());
        round += 1;
        assert!(
            round < 60,
            "the rollout does not come to its end: {:?}",
            yard.view(&id)
        );
    }
    assert_eq!(installs, 6);
    assert_eq!(yard.view(&id).state, RolloutState::Succeeded);
}

#[test]
fn what_the_planner_does_twice_is_there_once() {
    let yard = Yard::new(4);
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 2).then_some(view)
    });
    // A crash after the executions were made and before the wave was recorded as begun.
    let now = SystemTime::now();
    let key = records::key::rollout(&id);
    yard.house
        .ota()
        .change(now, |changes| {
            let mut row: records::RolloutRow = changes.rows.get(&key)?.unwrap();
            row.waves[0].state = WaveState::Waiting;
            changes.rows.put(key.clone(), &row)
        })
        .unwrap();
    yard.house.ota().advance(&id, now).unwrap();
    assert_eq!(yard.view(&id).waves, view.waves);
    let job = yard
        .house
        .ota()
        .job(&format!("{id}-wave-1").parse().unwrap())
        .unwrap();
    assert_eq!(job.open, 2);
    let first = &view.executions[0].thing;
    assert_eq!(
        yard.house.accepted(first, "get", &json!({}))["queuedJobs"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
}

#[test]
fn what_cannot_be_started_is_refused_in_words() {
    let yard = Yard::new(2);
    let words = |more: Value| yard.try_start(&more).unwrap_err().to_string();
    assert!(words(json!({"version": "9"})).contains("firmware `lamp 9` does not exist"));
    assert!(words(json!({"group": "nobody"})).contains("nobody"));
    assert!(words(json!({"soak": "1h"})).contains("unknown field `soak`"));
    assert!(words(json!({"window": "0 0 30 2 */1h"})).contains("never comes true"));
    assert!(words(json!({"waves": [{"size": "100%", "rate": 0}]})).contains("--rate 0/min"));
    assert!(
        words(json!({"waves": [{"size": "100%", "speed": 1}]})).contains("unknown field `speed`")
    );
    assert!(words(json!({"waves": [5]})).contains("a wave: its size as text"));
    assert!(words(json!({"zone": "Mars/Olympus"})).contains("Mars/Olympus"));
    assert!(words(json!({"abortFailed": 101})).contains("--abort-failed 101"));
    assert!(words(json!({"waves": ["50%", "10%"]})).contains("cumulative"));
    assert!(words(json!({"waves": ["group:nobody"]})).contains("nobody"));
    let now = SystemTime::now();
    let mut old = Team::manifest("3.0", b"3");
    old.expires = now + Duration::from_secs(60);
    let package = packed(&old.sign(&yard.team.keys).unwrap(), b"3");
    yard.house.ota().add(&package[..], now).unwrap();
    let start = serde_json::from_value(json!({"name": "lamp", "version": "3.0", "group": "lamps"}))
        .unwrap();
    let later = now + Duration::from_secs(61);
    let error = yard
        .house
        .ota()
        .start_rollout(&start, "ann", later)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the manifest of lamp 3.0 expired"),
        "{error}"
    );
}

/// Gives a command, which is taken.
fn told(yard: &Yard, id: &RolloutId, command: Command) {
    yard.house
        .ota()
        .command_rollout(id, command, "ann", SystemTime::now())
        .unwrap();
}

#[test]
fn a_dry_run_tells_nobody() {
    let yard = Yard::new(4);
    let request = serde_json::from_value(json!({
        "name": "lamp", "version": "2.0", "group": "lamps", "waves": ["50%", "100%"], "rate": 1, "dryRun": true
    }))
    .unwrap();
    let now = SystemTime::now();
    let forecast = yard.house.ota().forecast_rollout(&request, now).unwrap();
    let start = super::seconds(now);
    let times: Vec<u64> = forecast
        .waves
        .iter()
        .flat_map(|wave| &wave.things)
        .map(|thing| thing.at.unwrap() - start)
        .collect();
    assert_eq!(times, [0, 60, 120, 180]);
    assert_eq!(yard.house.ota().rollouts(None, 10).unwrap().len(), 1);
}
