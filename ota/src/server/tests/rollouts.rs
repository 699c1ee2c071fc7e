mod back;
mod newer;
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
fn pause_resume_abort_and_rollback() {
    let yard = Yard::new(4);
    let now = SystemTime::now();
    let id = yard.start(&json!({"waves": ["50%", "100%"]}));
    let view = yard.house.eventually(|ota| {
        let view = ota.rollout(&id).unwrap();
        (view.waves[0].queued == 2).then_some(view)
    });
    let ota = yard.house.ota();
    let first: Vec<&str> = view
        .executions
        .iter()
        .filter(|e| e.wave == "50%")
        .map(|e| &*e.thing)
        .collect();
    for thing in &first {
        yard.house.accepted(thing, "start-next", &json!({}));
    }
    ota.command_rollout(&id, Command::Pause, "ann", now)
        .unwrap();
    // Those at it go on.
    for thing in &first {
        yard.work(thing, true).unwrap();
    }
    yard.house.eventually(|ota| {
        (ota.rollout(&id).unwrap().waves[0].state == WaveState::Done).then_some(())
    });
    assert_eq!(yard.view(&id).waves[1].state, WaveState::Waiting);
    ota.command_rollout(&id, Command::Resume, "ann", now)
        .unwrap();
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[1].queued == 2).then_some(()));
    ota.command_rollout(&id, Command::Abort, "ann", now)
        .unwrap();
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
        .command_rollout(&id, Command::Resume, "ann", now)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("is aborted and cannot be resumed"),
        "{error}"
    );
    ota.command_rollout(&id, Command::Rollback, "ann", now)
        .unwrap();
    yard.run(&id, |_| true);
    let view = yard.until(&id, RolloutState::RolledBack);
    assert!(
        view.executions
            .iter()
            .all(|e| e.version == Some(version("1.0")))
    );
    let unknown: RolloutId = "r-none".parse().unwrap();
    assert!(
        ota.command_rollout(&unknown, Command::Pause, "ann", now)
            .unwrap_err()
            .to_string()
            .contains("rollout `r-none` does not exist")
    );
}

#[test]
fn those_whom_a_rollout_did_not_wait_for_are_left_alone_where_a_person_says_so() {
    let yard = Yard::new(2);
    let now = SystemTime::now();
    let ota = yard.house.ota();
    let id = yard.start(&json!({"success": 50}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    yard.work("lamp-0", true).unwrap();
    yard.until(&id, RolloutState::Succeeded);
    told(&yard, &id, Command::Abort);
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 0).then_some(()));
    assert_eq!(yard.view(&id).state, RolloutState::Aborted);
    assert_eq!(yard.work("lamp-1", true), None);
    // Where all have it there is nothing to stop.
    let id = yard.start(&json!({"success": 50}));
    yard.house.eventually(|ota| {
        for lamp in ["lamp-0", "lamp-1"] {
            yard.work(lamp, true);
        }
        let view = ota.rollout(&id).unwrap();
        let all = view.waves[0].succeeded == 2 && view.state == RolloutState::Succeeded;
        all.then_some(())
    });
    for (command, verb) in [(Command::Pause, "paused"), (Command::Abort, "aborted")] {
        let error = ota.command_rollout(&id, command, "ann", now);
        let error = error.unwrap_err().to_string();
        let words = format!("is succeeded and cannot be {verb}");
        assert!(error.contains(&words), "{error}");
    }
}

#[test]
fn a_paused_rollout_gives_nothing_out_and_what_was_queued_comes_again_with_resume() {
    let mut yard = Yard::new(2);
    let id = yard.start(&json!({}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    let job: JobId = format!("{id}-wave-1").parse().unwrap();
    told(&yard, &id, Command::Pause);
    // At once, whether the rollout has come to it or not, and after a restart.
    for _ in 0..2 {
        for thing in ["lamp-0", "lamp-1"] {
            for rest in ["start-next", "$next/get"] {
                let nothing = yard.house.accepted(thing, rest, &json!({}));
                assert_eq!(nothing.get("execution"), None, "{thing} {rest}");
            }
            let list = yard.house.accepted(thing, "get", &json!({}));
            assert_eq!(list["queuedJobs"], json!([]));
            for rest in [format!("{job}/get"), format!("{job}/update")] {
                let refused = yard
                    .house
                    .rejected(thing, &rest, &json!({"status": "IN_PROGRESS"}));
                assert_eq!(refused["code"], "ResourceNotFound", "{refused}");
                let words = refused["message"].as_str().unwrap();
                assert!(words.contains("its rollout is paused"), "{words}");
            }
        }
        yard.house.restart();
    }
    assert_eq!(yard.view(&id).state, RolloutState::Paused);
    told(&yard, &id, Command::Resume);
    for thing in ["lamp-0", "lamp-1"] {
        let again = yard.house.eventually(|_| {
            let next = yard.house.accepted(thing, "$next/get", &json!({}));
            next.get("execution").cloned()
        });
        assert_eq!(again["executionNumber"], 1, "the same try");
    }
    assert_eq!(yard.house.ota().job(&job).unwrap().open, 2);
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
}

#[test]
fn a_first_wave_waits_for_the_people_it_asks_for_itself() {
    let yard = Yard::new(2);
    // What is said of all waves leaves the first one out.
    let waves = json!([{"size": "50%", "approvers": 1}, {"size": "100%", "approvers": 0}]);
    let id = yard.start(&json!({"waves": waves}));
    let view = yard.until(&id, RolloutState::WaitingApproval);
    assert!(view.executions.iter().all(|e| e.status == "WAITING"));
    told(&yard, &id, Command::Approve { by: "ann".into() });
    yard.run(&id, |_| true);
    yard.until(&id, RolloutState::Succeeded);
    let all = yard.start(&json!({"version": "1.0", "waves": ["50%", "100%"], "approvers": 1}));
    yard.house
        .eventually(|ota| (ota.rollout(&all).unwrap().waves[0].queued == 1).then_some(()));
}

#[test]
fn the_ids_of_a_rollouts_jobs_are_nobody_elses_and_no_other_job_is_taken_for_one() {
    let yard = Yard::new(2);
    let id = yard.start(&json!({"waves": ["50%", "100%"], "approvers": 1}));
    yard.run_until(&id, RolloutState::WaitingApproval);
    let rollout = yard.house.ota().load(&id).unwrap();
    let request: create_job::CreateJob = serde_json::from_value(
        json!({"targets": ["thinggroup/lamps"], "document": "{\"operation\":\"reboot\"}"}),
    )
    .unwrap();
    let now = SystemTime::now();
    let ota = yard.house.ota();
    let wave = rollout.wave_job(1).unwrap();
    let others = [
        wave.clone(),
        rollout.back_job(1, &version("1.0")).unwrap(),
        rollout.back_job(2, &version("1.0")).unwrap(),
        "AFR_OTA-spring".parse().unwrap(),
    ];
    for job in &others {
        let error = ota.create_job(job, &request, now).unwrap_err().to_string();
        assert!(error.contains("is kept for the jobs of"), "{error}");
        assert!(ota.job(job).is_err());
    }
    for free in [
        "r-1",
        "r-0000000000000-00000000-wave-1",
        "r-000000000000-0000000-x",
        "AFR_OT",
    ] {
        let free: JobId = free.parse().unwrap();
        assert!(ota.create_job(&free, &request, now).is_ok(), "{free}");
    }
    // One that an earlier release let through: it is nobody's way, and nothing is told by it.
    ota.make_job(&wave, &request, now).unwrap();
    let view = yard.view(&id);
    assert_eq!(
        view.waves[1].queued, 0,
        "its executions are none of the rollout's"
    );
    told(&yard, &id, Command::Approve { by: "ann".into() });
    assert!(matches!(ota.advance(&id, now), Err(Error::Foreign { .. })));
    ota.delete_job(&wave, true, now).unwrap();
    yard.house.eventually(|ota| {
        let _ = ota.advance(&id, SystemTime::now());
        (ota.rollout(&id).unwrap().waves[1].queued == 1).then_some(())
    });
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

/// Gives a command, which is taken.
fn told(yard: &Yard, id: &RolloutId, command: Command) {
    yard.house
        .ota()
        .command_rollout(id, command, "ann", SystemTime::now())
        .unwrap();
}

#[test]
fn a_device_that_failed_gets_the_same_job_under_a_new_number() {
    let yard = Yard::new(1);
    let id = yard.start(&json!({"retry": 1}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 1).then_some(()));
    yard.work("lamp-0", false);
    let again = yard.house.eventually(|_| {
        let next = yard.house.accepted("lamp-0", "$next/get", &json!({}));
        next.get("execution").cloned()
    });
    assert_eq!(
        (&again["executionNumber"], &again["versionNumber"]),
        (&json!(2), &json!(1))
    );
    let job = again["jobId"].as_str().unwrap();
    let old = yard.house.rejected(
        "lamp-0",
        &format!("{job}/update"),
        &json!({"status": "SUCCEEDED", "executionNumber": 1}),
    );
    assert_eq!(
        old["code"], "ResourceNotFound",
        "what the first try says counts no more"
    );
    yard.work("lamp-0", true);
    let view = yard.until(&id, RolloutState::Succeeded);
    assert_eq!(view.executions[0].attempt, Some(2));
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

#[test]
fn policies_know_what_a_device_runs_before_it_is_answered() {
    let mut yard = Yard::new(2);
    let firmware = |yard: &Yard, thing: &str| {
        let health = yard.house.room().fleet.health(&thing.parse().unwrap());
        health.unwrap().firmware
    };
    let lamp = |version: &str| Some(("lamp".to_owned(), version.to_owned()));
    assert_eq!(firmware(&yard, "lamp-0"), lamp("1.0"));
    let id = yard.start(&json!({}));
    yard.house
        .eventually(|ota| (ota.rollout(&id).unwrap().waves[0].queued == 2).then_some(()));
    yard.work("lamp-0", true).unwrap();
    assert_eq!(firmware(&yard, "lamp-0"), lamp("2.0"));
    assert_eq!(firmware(&yard, "lamp-1"), lamp("1.0"));
    // A crash came between the report and the registry.
    let told = super::health::ToTell {
        name: "lamp".parse().unwrap(),
        version: version("2.0"),
    };
    let write = |changes: &mut executions::Changes<'_>| {
        changes.rows.put(records::key::to_tell("lamp-1"), &told)
    };
    yard.house.ota().change(SystemTime::now(), write).unwrap();
    yard.house.restart();
    assert_eq!(firmware(&yard, "lamp-1"), lamp("2.0"));
    // What was told is forgotten with the next change; nothing piles up.
    yard.work("lamp-1", true).unwrap();
    yard.house.accepted("lamp-1", "start-next", &json!({}));
    let nothing = |_: &mut executions::Changes<'_>| Ok(());
    yard.house.ota().change(SystemTime::now(), nothing).unwrap();
    let table = yard.house.room().store.table("ota").unwrap();
    assert!(
        table
            .scan(records::key::TO_TELL, None, 9)
            .unwrap()
            .is_empty()
    );
}

#[test]
fn what_runs_where_is_known_now_and_then_and_drift_is_shown() {
    let yard = Yard::new(3);
    let ota = yard.house.ota();
    let id = yard.start(&json!({"waves": ["1", "100%"]}));
    yard.run(&id, |_| true);
    let says = json!({"statusDetails": {"firmwareName": "lamp", "firmwareVersion": "0.9"}});
    yard.house.accepted("lamp-1", "start-next", &says);
    let all = RunningFilter::default();
    let of = |filter: &RunningFilter| -> Vec<String> {
        let (found, next) = ota.running(filter, None, 10).unwrap();
        assert_eq!(next, None);
        found.into_iter().map(|one| one.thing).collect()
    };
    assert_eq!(of(&all), ["lamp-0", "lamp-1", "lamp-2"]);
    let drifted = RunningFilter {
        drift: true,
        ..all.clone()
    };
    assert_eq!(of(&drifted), ["lamp-1"]);
    let new = RunningFilter {
        version: Some(version("2.0")),
        group: Some("lamps".into()),
        ..all.clone()
    };
    assert_eq!(of(&new), ["lamp-0", "lamp-2"]);
    let (page, next) = ota.running(&all, None, 2).unwrap();
    assert_eq!(page.len(), 2);
    let (rest, end) = ota.running(&all, next.as_deref(), 2).unwrap();
    assert_eq!(
        (rest[0].thing.as_str(), rest.len(), end),
        ("lamp-2", 1, None)
    );
    let lamp = page[1].clone();
    assert_eq!(
        (lamp.version, lamp.reported, lamp.rollout),
        (Some(version("2.0")), Some(version("0.9")), Some(id.clone()))
    );
    let ran: Vec<&str> = lamp
        .history
        .iter()
        .map(|ran| ran.version.as_str())
        .collect();
    assert_eq!(ran, ["1.0", "2.0", "0.9"]);
    let census = ota.census(&all, &[0, u64::MAX]).unwrap();
    assert_eq!(census[0].versions, []);
    let counts: Vec<(&str, u64, u64)> = census[1]
        .versions
        .iter()
        .map(|share| (share.version.as_str(), share.count, share.drifted))
        .collect();
    assert_eq!(counts, [("0.9", 1, 1), ("2.0", 2, 0)]);
    let view = yard.view(&id);
    let shown = view
        .executions
        .iter()
        .find(|e| e.thing == "lamp-1")
        .unwrap();
    assert_eq!(
        (&shown.version, &shown.reported),
        (&Some(version("2.0")), &Some(version("0.9")))
    );
    // A device does not fill the disk with firmwares that it makes up.
    for number in 0..40 {
        let says = json!({"statusDetails": {"firmwareName": format!("f-{number}"), "firmwareVersion": "1"}});
        yard.house.accepted("lamp-2", "start-next", &says);
    }
    let one = RunningFilter {
        thing: Some("lamp-2".into()),
        ..all
    };
    assert_eq!(ota.running(&one, None, 100).unwrap().0.len(), 16);
    let strange = json!({"statusDetails": {"firmwareName": "../x", "firmwareVersion": "a/b"}});
    yard.house.accepted("lamp-0", "start-next", &strange);
}
