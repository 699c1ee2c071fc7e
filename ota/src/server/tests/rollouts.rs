use super::*;
use crate::RolloutId;
use crate::rollout::{Command, RolloutView, WaveState};

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

    fn start(&self, more: &Value) -> RolloutId {
        self.try_start(more).unwrap()
    }

    fn try_start(&self, more: &Value) -> Result<RolloutId, Error> {
        let mut body = json!({"name": "lamp", "version": "2.0", "group": "lamps"});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        self.house
            .ota()
            .start_rollout(&serde_json::from_value(body).unwrap(), SystemTime::now())
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
fn those_who_took_a_bad_version_go_back_by_a_job_of_its_own() {
    let yard = Yard::new(4);
    let id = yard.start(&json!({"waves": ["100%"], "abortFailed": 50, "abortMin": 4}));
    let bad = "lamp-0";
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 4).then_some(view)
    });
    for execution in &view.executions {
        yard.work(
            &execution.thing,
            !["lamp-0", "lamp-1"].contains(&execution.thing.as_str()),
        );
    }
    yard.until(&id, RolloutState::RollingBack);
    let back = yard.run(&id, |_| true);
    assert_eq!(back.len(), 2);
    for (thing, document) in &back {
        assert!(
            ["lamp-2", "lamp-3"].contains(&thing.as_str()),
            "{thing} fell back by itself"
        );
        assert_eq!(
            (&document["version"], &document["rollback"]),
            (&json!("1.0"), &json!(true))
        );
    }
    let view = yard.until(&id, RolloutState::RolledBack);
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("1.0"))),
        "{view:?}"
    );
    let fell = view.executions.iter().find(|e| e.thing == bad).unwrap();
    assert_eq!((fell.status.as_str(), fell.rollback), ("FAILED", None));
    assert!(
        yard.house
            .ota()
            .may_fetch("lamp-2", &lamp(), &version("1.0"), SystemTime::now())
            .unwrap()
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
        (view.waves[0].state == WaveState::Running).then_some(view)
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
fn pause_resume_abort_and_rollback() {
    let yard = Yard::new(4);
    let now = SystemTime::now();
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 2).then_some(view)
    });
    let ota = yard.house.ota();
    ota.command_rollout(&id, Command::Pause, now).unwrap();
    for execution in view.executions.iter().filter(|e| e.wave == "50%") {
        yard.work(&execution.thing, true);
    }
    yard.house.eventually(|ota| {
        (ota.rollout(&id).unwrap().waves[0].state == WaveState::Done).then_some(())
    });
    assert_eq!(yard.view(&id).waves[1].state, WaveState::Waiting);
    ota.command_rollout(&id, Command::Resume, now).unwrap();
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[1].queued == 2).then_some(()));
    ota.command_rollout(&id, Command::Abort, now).unwrap();
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[1].queued == 0).then_some(()));
    let view = yard.view(&id);
    assert_eq!(view.state, RolloutState::Aborted);
    assert_eq!(
        view.executions
            .iter()
            .filter(|e| e.status == "CANCELED")
            .count(),
        2
    );
    let error = ota
        .command_rollout(&id, Command::Resume, now)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is aborted and cannot be resumed"),
        "{error}"
    );
    ota.command_rollout(&id, Command::Rollback, now).unwrap();
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::RolledBack);
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("1.0")))
    );
    let unknown: RolloutId = "r-none".parse().unwrap();
    assert!(
        ota.command_rollout(&unknown, Command::Pause, now)
            .unwrap_err()
            .to_string()
            .contains("rollout `r-none` does not exist")
    );
}

#[test]
fn a_rollouts_jobs_are_not_cancelled_behind_its_back() {
    let yard = Yard::new(1);
    let id = yard.start(&json!({}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 1).then_some(()));
    let job = format!("{id}-wave-1").parse().unwrap();
    let error = yard
        .house
        .ota()
        .cancel_job(&job, true, None, None, SystemTime::now())
        .unwrap_err()
        .to_string();
    assert!(error.contains("muster rollout abort"), "{error}");
}

#[test]
fn what_cannot_be_started_is_refused_in_words() {
    let yard = Yard::new(2);
    let words = |more: Value| yard.try_start(&more).unwrap_err().to_string();
    assert!(words(json!({"version": "9"})).contains("firmware `lamp 9` does not exist"));
    assert!(words(json!({"group": "nobody"})).contains("nobody"));
    assert!(words(json!({"soak": "1h"})).contains("soak: this release does not support it"));
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
        .start_rollout(&start, later)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("the manifest of lamp 3.0 expired"),
        "{error}"
    );
}

#[test]
fn a_new_thing_of_an_old_name_has_nothing_of_the_old_one() {
    let yard = Yard::new(1);
    let ota = yard.house.ota();
    let may = || {
        ota.may_fetch("lamp-0", &lamp(), &version("1.0"), SystemTime::now())
            .unwrap()
    };
    assert!(may());
    ota.forget_thing("lamp-0", SystemTime::now()).unwrap();
    assert!(!may());
    let id = yard.start(&json!({}));
    assert_eq!(yard.view(&id).executions[0].version, None);
}

#[test]
fn a_thing_that_left_the_registry_does_not_hold_its_wave() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 1).then_some(view)
    });
    let gone: ThingName = view.executions[1].thing.parse().unwrap();
    yard.house.room().fleet.delete_thing(&gone, None).unwrap();
    yard.work(&view.executions[0].thing, true);
    let view = yard.until(&id, RolloutState::Succeeded);
    assert_eq!(view.executions[1].status, "REMOVED");
}
