mod runs;

use std::collections::{BTreeMap, BTreeSet};

use super::*;

fn spec(abort: Option<u8>, min: u32) -> RolloutSpec {
    RolloutSpec {
        name: "lamp".parse().unwrap(),
        version: "2.0".parse().unwrap(),
        abort_failed_percent: abort,
        abort_min: min,
        timeout_minutes: DEFAULT_TIMEOUT_MINUTES,
        start_at: None,
    }
}

fn rollout(count: usize, waves: &[&str], abort: Option<u8>) -> Rollout {
    let things = (0..count).map(|i| format!("lamp-{i}"));
    let waves: Vec<WaveSpec> = waves.iter().map(|w| w.parse().unwrap()).collect();
    Rollout::new(
        "r1".parse().unwrap(),
        spec(abort, 1),
        assign(things, &waves, &BTreeMap::new()).unwrap(),
    )
    .unwrap()
}

/// The world the planner acts on: jobs by id, devices, and how often each device was made to install.
#[derive(Clone, Default)]
struct World {
    devices: Devices,
    jobs: BTreeMap<JobId, BTreeSet<String>>,
}

impl World {
    fn with_old(rollout: &Rollout) -> Self {
        let old: FirmwareVersion = "1.0".parse().unwrap();
        let device = Device {
            current: Some(old),
            ..Device::default()
        };
        let devices = rollout
            .things()
            .map(|thing| (thing.clone(), device.clone()))
            .collect();
        Self {
            devices,
            jobs: BTreeMap::new(),
        }
    }

    /// What the server does, deduplicated by job id and thing as the store does it.
    fn act(&mut self, action: &Action) {
        match action {
            Action::StartWave { job, things, .. } => {
                for thing in things {
                    if self
                        .jobs
                        .entry(job.clone())
                        .or_default()
                        .insert(thing.clone())
                    {
                        let device = self.devices.get_mut(thing).unwrap();
                        assert_eq!(device.install, None, "{thing} is installed twice");
                        device.install = Some(ExecutionStatus::Queued);
                        device.before = device.current.clone();
                    }
                }
            }
            Action::RollBack {
                job,
                things,
                version,
            } => {
                for thing in things {
                    if self
                        .jobs
                        .entry(job.clone())
                        .or_default()
                        .insert(thing.clone())
                    {
                        let device = self.devices.get_mut(thing).unwrap();
                        assert_eq!(device.rollback, None, "{thing} goes back twice");
                        assert_eq!(device.before.as_ref(), Some(version));
                        device.rollback = Some(ExecutionStatus::Queued);
                    }
                }
            }
            Action::CancelQueued { things, .. } => {
                for thing in things {
                    let device = self.devices.get_mut(thing).unwrap();
                    if device.install == Some(ExecutionStatus::Queued) {
                        device.install = Some(ExecutionStatus::Canceled);
                    }
                }
            }
            _ => {}
        }
    }

    /// Does everything there is to do now.
    fn settle(&mut self, rollout: &mut Rollout) -> Vec<Action> {
        let mut done = Vec::new();
        for _ in 0..1000 {
            let actions = rollout.next(&self.devices, 0).unwrap();
            if actions.is_empty() {
                return done;
            }
            for action in actions {
                self.act(&action);
                rollout.apply(&action);
                done.push(action);
            }
        }
        panic!("the planner never comes to rest");
    }

    /// One device moves one step; `good` decides how its work ends.
    fn step(&mut self, thing: &str, good: bool) {
        let new: FirmwareVersion = "2.0".parse().unwrap();
        let device = self.devices.get_mut(thing).unwrap();
        let (slot, target) = if device.install.is_some_and(|s| !s.is_terminal()) {
            (&mut device.install, Some(new))
        } else {
            (&mut device.rollback, device.before.clone())
        };
        match slot {
            Some(status @ ExecutionStatus::Queued) => *status = ExecutionStatus::InProgress,
            Some(status @ ExecutionStatus::InProgress) => {
                *status = if good {
                    ExecutionStatus::Succeeded
                } else {
                    ExecutionStatus::Failed
                };
                if good {
                    device.current = target;
                }
            }
            _ => {}
        }
    }

    fn finish_all(&mut self, rollout: &mut Rollout, good: impl Fn(&str) -> bool) {
        let things: Vec<String> = self.devices.keys().cloned().collect();
        for _ in 0..8 {
            for thing in &things {
                self.step(thing, good(thing));
                self.settle(rollout);
            }
        }
    }
}

#[test]
fn a_good_image_reaches_all_in_two_waves() {
    let mut rollout = rollout(20, &["10%", "100%"], Some(20));
    let mut world = World::with_old(&rollout);
    let actions = world.settle(&mut rollout);
    assert!(
        matches!(&actions[..], [Action::Begin, Action::StartWave { wave: 0, things, .. }] if things.len() == 2)
    );
    let view = rollout.view(&world.devices);
    assert_eq!(
        (
            view.waves[0].total,
            view.waves[0].queued,
            view.waves[1].queued
        ),
        (2, 2, 0)
    );
    assert_eq!(
        view.executions
            .iter()
            .filter(|e| e.status == "WAITING")
            .count(),
        18
    );
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let view = rollout.view(&world.devices);
    assert!(
        view.waves
            .iter()
            .all(|wave| wave.state == WaveState::Done && wave.succeeded == wave.total)
    );
    assert!(
        view.executions
            .iter()
            .all(|e| e.status == "SUCCEEDED" && e.version.as_ref().unwrap().as_str() == "2.0")
    );
}

#[test]
fn a_bad_image_stops_in_the_first_wave() {
    let mut rollout = rollout(20, &["10%", "100%"], Some(20));
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    world.finish_all(&mut rollout, |_| false);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    let view = rollout.view(&world.devices);
    assert_eq!(view.waves[0].failed, 2);
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
            .all(|e| e.version.as_ref().unwrap().as_str() == "1.0")
    );
    assert!(
        view.reason.unwrap().contains("20% abort"),
        "{:?}",
        rollout.reason
    );
}

#[test]
fn those_who_took_a_bad_image_go_back_and_those_who_fell_back_are_left_alone() {
    let mut rollout = rollout(10, &["50%", "100%"], Some(30));
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    let wave = rollout.waves[0].things.clone();
    // Two succeed, one is at it, one fails: 1 of 3 ≥ 30%; one has not begun.
    for thing in &wave[..2] {
        world.step(thing, true);
        world.step(thing, true);
        world.settle(&mut rollout);
    }
    world.step(&wave[2], true);
    world.step(&wave[3], false);
    world.step(&wave[3], false);
    let actions = world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::RollingBack);
    assert!(
        actions
            .iter()
            .any(|a| matches!(a, Action::CancelQueued { things, .. } if *things == wave[4..]))
    );
    let back: Vec<&Action> = actions
        .iter()
        .filter(|a| matches!(a, Action::RollBack { .. }))
        .collect();
    let mut taken = wave[..2].to_vec();
    taken.sort_by_key(|t| *sha256(t.as_bytes()).as_bytes());
    assert!(
        matches!(back[..], [Action::RollBack { things, version, .. }] if *things == taken && version.as_str() == "1.0")
    );
    // The one in progress is waited for; it succeeds late and goes back too.
    world.step(&wave[2], true);
    let actions = world.settle(&mut rollout);
    assert!(
        matches!(&actions[..], [Action::RollBack { things, .. }] if *things == [wave[2].clone()])
    );
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    assert!(
        world
            .devices
            .values()
            .all(|d| d.current.as_ref().unwrap().as_str() == "1.0")
    );
    assert_eq!(world.devices[&wave[3]].rollback, None);
    assert_eq!(
        world.devices[&wave[4]].install,
        Some(ExecutionStatus::Canceled)
    );
}

#[test]
fn the_abort_rule_at_its_edge() {
    let rule = |abort, min, succeeded, failed| {
        let counts = Counts {
            total: 100,
            succeeded,
            failed,
            ..Counts::default()
        };
        spec(abort, min).abort_rule(&counts).is_some()
    };
    assert!(rule(Some(20), 1, 4, 1), "exactly 20% aborts");
    assert!(!rule(Some(20), 1, 5, 1), "16.7% does not");
    assert!(!rule(Some(20), 3, 0, 2), "too few have finished");
    assert!(rule(Some(20), 3, 0, 3));
    assert!(rule(Some(0), 1, 99, 1), "0 is the first failure");
    assert!(!rule(Some(0), 1, 99, 0), "no failure never aborts");
    assert!(rule(Some(100), 1, 0, 1));
    assert!(!rule(None, 1, 0, 50));
}

#[test]
fn failures_below_the_threshold_do_not_hold_a_wave() {
    let mut rollout = rollout(10, &["50%", "100%"], Some(50));
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    let wave = rollout.waves[0].things.clone();
    for (i, thing) in wave.iter().enumerate() {
        world.step(thing, true);
        world.step(thing, i != 4);
        world.settle(&mut rollout);
    }
    assert_eq!(rollout.waves[0].state, WaveState::Done);
    assert_eq!(rollout.waves[1].state, WaveState::Running);
}

#[test]
fn a_wave_in_which_nobody_succeeded_is_never_followed_even_without_a_rule() {
    let mut rollout = rollout(10, &["20%", "100%"], None);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    world.finish_all(&mut rollout, |_| false);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    assert_eq!(rollout.waves[1].state, WaveState::Waiting);
}

#[test]
fn a_device_that_had_nothing_stays_and_the_report_says_why() {
    let mut rollout = rollout(2, &["100%"], Some(50));
    let mut world = World::with_old(&rollout);
    let first = rollout.waves[0].things[0].clone();
    world.devices.get_mut(&first).unwrap().current = None;
    world.settle(&mut rollout);
    world.step(&first, true);
    world.step(&first, true);
    world.finish_all(&mut rollout, |_| false);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    let view = rollout.view(&world.devices);
    let shown = view.executions.iter().find(|e| e.thing == first).unwrap();
    assert!(
        shown
            .reason
            .as_ref()
            .unwrap()
            .contains("no earlier version")
    );
}

#[test]
fn a_device_that_has_moved_on_since_is_not_taken_back() {
    let mut rollout = rollout(1, &["100%"], None);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    world.finish_all(&mut rollout, |_| true);
    world
        .devices
        .values_mut()
        .for_each(|d| d.current = Some("3.0".parse().unwrap()));
    rollout.command(Command::Rollback).unwrap();
    assert_eq!(
        world.settle(&mut rollout),
        [Action::Finish {
            state: RolloutState::RolledBack
        }]
    );
}

#[test]
fn commands_are_heard_in_the_states_they_fit() {
    let mut rollout = rollout(4, &["50%", "100%"], None);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    rollout.command(Command::Pause).unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.waves[0].state, WaveState::Done);
    assert_eq!(
        rollout.waves[1].state,
        WaveState::Waiting,
        "no wave begins while paused"
    );
    let error = rollout.command(Command::Pause).unwrap_err().to_string();
    assert!(
        error.contains("rollout r1 is paused and cannot be paused"),
        "{error}"
    );
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    assert_eq!(rollout.waves[1].state, WaveState::Running);
    rollout.command(Command::Abort).unwrap();
    let actions = world.settle(&mut rollout);
    assert!(matches!(&actions[..], [Action::CancelQueued { things, .. }] if things.len() == 2));
    assert_eq!(rollout.state, RolloutState::Aborted);
    assert!(rollout.command(Command::Resume).is_err());
    rollout.command(Command::Rollback).unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    assert!(
        world
            .devices
            .values()
            .all(|d| d.current.as_ref().unwrap().as_str() == "1.0")
    );
    assert!(rollout.command(Command::Rollback).is_err());
}

#[test]
fn a_rollout_waits_for_its_time() {
    let mut rollout = rollout(1, &[], None);
    rollout.spec.start_at = Some(100);
    assert_eq!(rollout.next(&Devices::new(), 99).unwrap(), []);
    assert_eq!(rollout.wake_at(), Some(100));
    assert_eq!(rollout.next(&Devices::new(), 100).unwrap(), [Action::Begin]);
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let words = |spec: RolloutSpec| spec.check().unwrap_err().to_string();
    assert!(spec(Some(100), 1).check().is_ok());
    assert!(words(spec(Some(101), 1)).contains("--abort-failed 101"));
    assert!(words(spec(None, 0)).contains("--abort-min 0"));
    let mut long = spec(None, 1);
    long.timeout_minutes = 10_080;
    assert!(long.check().is_ok());
    long.timeout_minutes = 10_081;
    assert!(words(long).contains("--timeout"));
    let id = |length: usize| {
        Rollout::new(
            "r".repeat(length).parse().unwrap(),
            spec(None, 1),
            Vec::new(),
        )
    };
    assert!(
        id(MAX_ROLLOUT_ID_BYTES)
            .unwrap()
            .back_job(&"1".parse().unwrap())
            .is_ok()
    );
    assert!(id(MAX_ROLLOUT_ID_BYTES + 1).is_err());
}

#[test]
fn the_view_has_the_names_of_the_contract() {
    let rollout = rollout(1, &[], None);
    let value = serde_json::to_value(rollout.view(&Devices::new())).unwrap();
    assert_eq!(value["state"], "scheduled");
    assert_eq!(
        value["waves"][0],
        serde_json::json!({"name":"100%","state":"waiting","total":1,"succeeded":0,"failed":0,"in_progress":0,"queued":0})
    );
    assert_eq!(
        value["executions"][0],
        serde_json::json!({"thing":"lamp-0","wave":"100%","status":"WAITING","version":null,"reason":null})
    );
    for (state, name) in [
        (RolloutState::RollingBack, "rolling-back"),
        (RolloutState::RolledBack, "rolled-back"),
    ] {
        assert_eq!(serde_json::to_value(state).unwrap(), name);
        assert_eq!(state.as_str(), name);
    }
}
