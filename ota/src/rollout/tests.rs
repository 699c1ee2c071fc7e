mod fleet;
mod naive;
mod rules;
mod runs;
mod times;
mod way_back;

use std::collections::BTreeMap;

use super::*;
use crate::ExecutionStatus;

fn rules(abort: Option<u8>, min: u32) -> Rules {
    Rules {
        abort_failed_percent: abort,
        abort_min: min,
        ..Rules::default()
    }
}

fn rollout_with(count: usize, waves: &[&str], rules: &Rules) -> Rollout {
    let things = (0..count).map(|i| format!("lamp-{i}"));
    let sizes: Vec<WaveSpec> = waves.iter().map(|w| w.parse().unwrap()).collect();
    let plan = |(name, things): (String, Vec<String>)| {
        let plan = WavePlan {
            size: name.parse().unwrap(),
            start_at: None,
            rules: rules.clone(),
        };
        (plan, things)
    };
    let waves = assign(things, &sizes, &BTreeMap::new(), |_| ()).unwrap();
    // As a request has it that speaks of all waves: the first one needs nobody.
    let waves = waves.into_iter().enumerate().map(|(index, wave)| {
        let (mut plan, things) = plan(wave);
        plan.rules.approvers *= u32::from(index > 0);
        (plan, things)
    });
    let spec = RolloutSpec {
        name: "lamp".parse().unwrap(),
        version: "2.0".parse().unwrap(),
        start_at: None,
        rules: rules.clone(),
    };
    let waves = waves.collect();
    Rollout::new("r1".parse().unwrap(), spec, waves, 0).unwrap()
}

fn rollout(count: usize, waves: &[&str], abort: Option<u8>) -> Rollout {
    rollout_with(count, waves, &rules(abort, 1))
}

impl Rollout {
    /// What the planner says that knows how the devices stand, which is what counting them gives.
    fn plan(&self, devices: &Devices, now: u64) -> Result<Plan, Error> {
        let planner = Planner::new(self.clone(), devices.clone());
        let plan = planner.plan(now, usize::MAX)?;
        assert_eq!(plan, self.plan_naively(devices, now)?);
        Ok(plan)
    }

    fn next(&self, devices: &Devices, now: u64) -> Result<Vec<Action>, Error> {
        Ok(self.plan(devices, now)?.actions)
    }

    fn view(&self, devices: &Devices) -> RolloutView {
        Planner::new(self.clone(), devices.clone()).view()
    }
}

impl Part {
    /// Whether it is queued, and may not begin any more.
    fn is_shut(&self, now: u64) -> bool {
        self.status == ExecutionStatus::Queued && self.until.is_some_and(|until| until <= now)
    }
}

/// A planner that is told of each change, and must know at any time what one knows that counts anew.
struct Follower(Planner);

impl Follower {
    fn check(&mut self, rollout: &Rollout, devices: &Devices, now: u64) {
        self.0.follow(without_things(rollout));
        for (thing, device) in devices {
            if self.0.device(thing) != Some(device) {
                self.0.change(thing, |known| *known = device.clone());
            }
        }
        let anew = Planner::new(rollout.clone(), devices.clone());
        assert_eq!(self.0.index, anew.index);
        for (index, wave) in rollout.waves.iter().enumerate() {
            let counts = naive::counts(&wave.things, devices, &wave.rules);
            assert_eq!(self.0.counts(index), counts);
        }
        assert_eq!(self.0.view(), anew.view());
        let plan = self.0.plan(now, usize::MAX).unwrap();
        assert_eq!(plan, rollout.plan_naively(devices, now).unwrap());
        // Told little by little it names the same devices first.
        let some = self.0.plan(now, 2).unwrap();
        let told = |plan: &Plan| -> Vec<Offer> {
            let offers = plan.actions.iter().filter_map(|action| match action {
                Action::Install { offers, .. } => Some(offers.clone()),
                _ => None,
            });
            offers.flatten().collect()
        };
        let (some, all) = (told(&some), told(&plan));
        assert_eq!(some, all[..all.len().min(2)]);
    }
}

fn without_things(rollout: &Rollout) -> Rollout {
    let mut bare = rollout.clone();
    bare.waves.iter_mut().for_each(|wave| wave.things.clear());
    bare
}

/// The world the planner acts on: devices, the time, and what each device was told and did.
#[derive(Clone, Default, PartialEq, Debug)]
struct World {
    devices: Devices,
    now: u64,
    /// When which device was told, by wave; the way back is none.
    told: Vec<(u64, Option<usize>, String)>,
    /// When which device began.
    began: Vec<(u64, String)>,
    /// How often the rollout was turned round.
    turns: u32,
    /// Versions each device has put on, in order.
    installs: BTreeMap<String, Vec<FirmwareVersion>>,
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
            now: 1_800_000_000,
            ..Self::default()
        }
    }

    /// Queues as the store does it: a try that is there is not made again.
    fn offer(&mut self, wave: Option<usize>, offer: &Offer, to: &FirmwareVersion) {
        let device = self.devices.get_mut(&offer.thing).unwrap();
        let current = device.current.clone();
        let slot = if wave.is_some() {
            &mut device.install
        } else {
            &mut device.rollback
        };
        match slot {
            Some(part) if part.attempt == offer.attempt && part.is_shut(self.now) => {}
            Some(part) if part.attempt < offer.attempt && part.status.is_terminal() => {}
            Some(_) => return,
            None => assert_eq!(offer.attempt, 1),
        }
        *slot = Some(Part {
            status: ExecutionStatus::Queued,
            to: to.clone(),
            before: current,
            offered_at: self.now,
            until: offer.until,
            attempt: offer.attempt,
        });
        self.told.push((self.now, wave, offer.thing.clone()));
    }

    fn act(&mut self, action: &Action) {
        match action {
            Action::Install { wave, offers, .. } => {
                for offer in offers {
                    self.offer(Some(*wave), offer, &"2.0".parse().unwrap());
                }
            }
            Action::RollBack {
                offers, version, ..
            } => {
                for offer in offers {
                    self.offer(None, offer, version);
                }
            }
            Action::Hold { things, .. } => {
                for thing in things {
                    let device = self.devices.get_mut(thing).unwrap();
                    let parts = [&mut device.install, &mut device.rollback];
                    let mut parts = parts.into_iter().flatten();
                    if let Some(part) = parts.find(|part| part.status == ExecutionStatus::Queued) {
                        part.until = Some(HELD);
                    }
                }
            }
            Action::CancelQueued { job, things } => {
                let turn = turn_of(job);
                for thing in things {
                    let device = self.devices.get_mut(thing).unwrap();
                    let part = match turn {
                        0 => &mut device.install,
                        turn if turn == self.turns => &mut device.rollback,
                        turn => {
                            assert_eq!(turn + 1, self.turns);
                            &mut device.earlier
                        }
                    };
                    if let Some(part) = part
                        && part.status == ExecutionStatus::Queued
                    {
                        part.status = ExecutionStatus::Canceled;
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
            let actions = rollout.next(&self.devices, self.now).unwrap();
            if actions.is_empty() {
                return done;
            }
            for action in actions {
                self.act(&action);
                rollout.apply(&action);
                if matches!(action, Action::Abort { .. }) {
                    self.turn(rollout, rollout.undone - 1);
                }
                done.push(action);
            }
        }
        panic!("the planner never comes to rest");
    }

    /// The server reads the parts of the turn that is under way.
    fn turn(&mut self, rollout: &Rollout, before: u32) {
        self.turns = rollout.undone;
        for _ in (before..rollout.undone).filter(|turn| *turn > 0) {
            self.devices.values_mut().for_each(Device::turn);
        }
    }

    fn command(&mut self, rollout: &mut Rollout, command: Command) -> Result<(), Error> {
        let turns = rollout.undone;
        rollout.command(command)?;
        self.turn(rollout, turns);
        Ok(())
    }

    /// Time goes on to when the planner wants to be asked again.
    fn sleep(&mut self, rollout: &Rollout) -> bool {
        let plan = rollout.plan(&self.devices, self.now).unwrap();
        let Some(later) = plan.wake_at.filter(|_| plan.actions.is_empty()) else {
            return false;
        };
        assert!(later > self.now, "it would be asked again at once");
        self.now = later;
        true
    }

    /// The part a device is at, if it may be at any.
    fn at_work(&mut self, thing: &str) -> Option<&mut Part> {
        let now = self.now;
        let device = self.devices.get_mut(thing).unwrap();
        [&mut device.install, &mut device.rollback]
            .into_iter()
            .flatten()
            .find(|part| !part.status.is_terminal() && !part.is_shut(now))
    }

    /// One device moves one step; `good` decides how its work ends.
    fn step(&mut self, thing: &str, good: bool) {
        let now = self.now;
        let Some(part) = self.at_work(thing) else {
            return;
        };
        if part.status == ExecutionStatus::Queued {
            part.status = ExecutionStatus::InProgress;
            self.began.push((now, thing.to_owned()));
            return;
        }
        if good {
            part.status = ExecutionStatus::Succeeded;
            let to = part.to.clone();
            self.devices.get_mut(thing).unwrap().current = Some(to.clone());
            self.installs.entry(thing.to_owned()).or_default().push(to);
        } else {
            part.status = ExecutionStatus::Failed;
        }
    }

    /// Everybody works until nothing moves any more, however long it takes.
    fn finish_all(&mut self, rollout: &mut Rollout, good: impl Fn(&str) -> bool) {
        let things: Vec<String> = self.devices.keys().cloned().collect();
        for _ in 0..10_000 {
            let before = self.clone();
            self.settle(rollout);
            for thing in &things {
                self.step(thing, good(thing));
                self.settle(rollout);
            }
            if *self == before && !self.sleep(rollout) {
                return;
            }
        }
        panic!("it never ends: {rollout:?}");
    }
}

/// The turn that a job of a rollout belongs to; that of an install is none.
fn turn_of(job: &JobId) -> u32 {
    let what = job.as_str().split('-').nth(1).unwrap();
    match what {
        "wave" => 0,
        "back" => 1,
        turn => turn.strip_prefix('b').unwrap().parse().unwrap(),
    }
}

fn names(offers: &[Offer]) -> Vec<String> {
    offers.iter().map(|offer| offer.thing.clone()).collect()
}

fn status(part: &Option<Part>) -> Option<ExecutionStatus> {
    part.as_ref().map(|part| part.status)
}

#[test]
fn a_good_image_reaches_all_in_two_waves() {
    let mut rollout = rollout(20, &["10%", "100%"], Some(20));
    let mut world = World::with_old(&rollout);
    let actions = world.settle(&mut rollout);
    assert!(
        matches!(&actions[..], [Action::Begin, Action::StartWave { wave: 0 }, Action::Install { wave: 0, offers, .. }] if offers.len() == 2)
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
        matches!(back[..], [Action::RollBack { offers, version, .. }] if names(offers) == taken && version.as_str() == "1.0")
    );
    // The one in progress is waited for; it succeeds late and goes back too.
    world.step(&wave[2], true);
    let actions = world.settle(&mut rollout);
    assert!(
        matches!(&actions[..], [Action::RollBack { offers, .. }] if names(offers) == [wave[2].clone()])
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
        status(&world.devices[&wave[4]].install),
        Some(ExecutionStatus::Canceled)
    );
}

#[test]
fn the_abort_rule_at_its_edge() {
    let rule = |abort, min, succeeded, failed| {
        let part = |status| Part {
            status,
            to: "2.0".parse().unwrap(),
            before: None,
            offered_at: 0,
            until: None,
            attempt: 1,
        };
        let good = std::iter::repeat_n(part(ExecutionStatus::Succeeded), succeeded);
        let parts: Vec<Part> = good
            .chain(std::iter::repeat_n(part(ExecutionStatus::Failed), failed))
            .collect();
        let rules = rules(abort, min);
        let counts = Counts::count(200, parts.iter().map(|part| (part, None)), &rules);
        rules.stops(&counts).is_some()
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
    // The one that has it could not go back, and there is no other.
    assert_eq!(rollout.state, RolloutState::Aborted);
    let view = rollout.view(&world.devices);
    let shown = view.executions.iter().find(|e| e.thing == first).unwrap();
    let why = shown.rollback_reason.as_ref().unwrap();
    assert!(why.contains("no earlier version"), "{why}");
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
    world.command(&mut rollout, Command::Rollback).unwrap();
    let end = Action::Finish {
        state: RolloutState::RolledBack,
        why: None,
    };
    assert_eq!(world.settle(&mut rollout).last(), Some(&end));
    assert_eq!(world.told.len(), 1, "nobody is told anything");
}

#[test]
fn commands_are_heard_in_the_states_they_fit() {
    let mut rollout = rollout(4, &["50%", "100%"], None);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    for thing in rollout.waves[0].things.clone() {
        world.step(&thing, true);
    }
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
    world.command(&mut rollout, Command::Rollback).unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    assert!(
        world
            .devices
            .values()
            .all(|d| d.current.as_ref().unwrap().as_str() == "1.0")
    );
    let error = rollout.command(Command::Approve {
        by: "ann".into(),
        wave: None,
    });
    assert!(error.is_err(), "nothing waits for it");
}

#[test]
fn a_rollout_that_was_paused_before_its_time_waits_for_it_when_resumed() {
    let mut rollout = rollout(1, &["100%"], None);
    let mut world = World::with_old(&rollout);
    let start = world.now + 500;
    rollout.spec.start_at = Some(start);
    rollout.command(Command::Pause).unwrap();
    world.now = start + 1;
    assert_eq!(world.settle(&mut rollout), [], "it is paused");
    world.now = start - 1;
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    assert_eq!(
        (rollout.state, world.told.len()),
        (RolloutState::Scheduled, 0)
    );
    world.finish_all(&mut rollout, |_| true);
    assert_eq!((rollout.state, world.now), (RolloutState::Succeeded, start));
}

#[test]
fn a_rollout_waits_for_its_time() {
    let mut rollout = rollout(1, &[], None);
    rollout.spec.start_at = Some(100);
    let plan = rollout.plan(&Devices::new(), 99).unwrap();
    assert_eq!((plan.actions, plan.wake_at), (vec![], Some(100)));
    assert_eq!(rollout.next(&Devices::new(), 100).unwrap(), [Action::Begin]);
}

#[test]
fn numbers_that_mean_nothing_are_refused() {
    let words = |change: &dyn Fn(&mut Rules)| {
        let mut rules = Rules::default();
        change(&mut rules);
        rules.check(0).unwrap_err().to_string()
    };
    assert!(rules(Some(100), 1).check(0).is_ok());
    assert!(words(&|r| r.abort_failed_percent = Some(101)).contains("--abort-failed 101"));
    assert!(words(&|r| r.abort_min = 0).contains("--abort-min 0"));
    assert!(words(&|r| r.timeout_minutes = 10_081).contains("--timeout"));
    assert!(words(&|r| r.rate_per_minute = Some(0)).contains("--rate 0/min"));
    assert!(words(&|r| r.success_percent = Some(0)).contains("--success 0"));
    assert!(words(&|r| r.soak_seconds = MAX_SOAK_SECONDS + 1).contains("--soak"));
    assert!(words(&|r| r.retries = MAX_RETRIES + 1).contains("--retry 11"));
    assert!(words(&|r| r.approvers = MAX_APPROVERS + 1).contains("11 approvers"));
    assert!(words(&|r| r.zone = Some("Mars/Olympus".into())).contains("--zone `Mars/Olympus`"));
    assert!(
        words(&|r| r.window = Some("0 0 31 4 */1h".parse().unwrap())).contains("never comes true")
    );
    let most = Rules {
        timeout_minutes: 10_080,
        soak_seconds: MAX_SOAK_SECONDS,
        retries: MAX_RETRIES,
        approvers: MAX_APPROVERS,
        ..Rules::default()
    };
    assert!(most.check(0).is_ok());
    let id = |length: usize| {
        let spec = rollout(1, &[], None).spec;
        Rollout::new("r".repeat(length).parse().unwrap(), spec, Vec::new(), 0)
    };
    let longest = id(MAX_ROLLOUT_ID_BYTES).unwrap();
    for turn in [1, 2, 999] {
        assert!(longest.back_job(turn, &"1".parse().unwrap()).is_ok());
    }
    assert!(id(MAX_ROLLOUT_ID_BYTES + 1).is_err());
}

#[test]
fn the_view_has_the_names_of_the_contract() {
    let rollout = rollout(1, &[], None);
    let mut value = serde_json::to_value(rollout.view(&Devices::new())).unwrap();
    assert_eq!(value["state"], "scheduled");
    let rules = value["waves"][0].as_object_mut().unwrap().remove("rules");
    let rules = rules.unwrap();
    assert_eq!(
        (&rules["soak_seconds"], &rules["abort_min"]),
        (&0.into(), &1.into())
    );
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
