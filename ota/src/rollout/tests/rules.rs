//! Each rule of a wave by itself.

use super::*;

fn seconds(text: &str) -> u64 {
    let time: jiff::Timestamp = text.parse().unwrap();
    u64::try_from(time.as_second()).unwrap()
}

#[test]
fn no_more_than_the_rate_are_told_in_any_minute() {
    let limits = Rules {
        rate_per_minute: Some(3),
        ..Rules::default()
    };
    let mut rollout = rollout_with(10, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    let start = world.now;
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let when: Vec<u64> = world.told.iter().map(|(at, ..)| at - start).collect();
    assert_eq!(when, [0, 0, 0, 60, 60, 60, 120, 120, 120, 180]);
}

#[test]
fn nobody_begins_outside_the_window_and_those_who_missed_it_get_the_next() {
    let limits = Rules {
        window: Some("0 2 * * */1h".parse().unwrap()),
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.now = seconds("2026-07-01T01:00:00Z");
    world.devices.get_mut("lamp-1").unwrap().zone = Some("Europe/Berlin".into());
    world.settle(&mut rollout);
    assert_eq!(world.told, [], "in Berlin it is 03:00, in UTC 01:00");
    assert!(world.sleep(&rollout));
    assert_eq!(world.now, seconds("2026-07-01T02:00:00Z"));
    world.settle(&mut rollout);
    assert_eq!(world.told.len(), 1);
    // It sleeps through its window: from then on it is not told, until the next one.
    assert!(world.sleep(&rollout));
    assert_eq!(world.now, seconds("2026-07-01T03:00:00Z"));
    world.step("lamp-0", true);
    assert_eq!(world.began, []);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let began: BTreeMap<String, u64> = world.began.iter().map(|(at, t)| (t.clone(), *at)).collect();
    assert_eq!(began["lamp-0"], seconds("2026-07-02T02:00:00Z"));
    assert_eq!(began["lamp-1"], seconds("2026-07-02T00:00:00Z"));
}

#[test]
fn a_device_whose_zone_is_none_waits_and_the_report_says_why() {
    let limits = Rules {
        window: Some("* * * * */1h".parse().unwrap()),
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.devices.get_mut("lamp-1").unwrap().zone = Some("Mars/Olympus".into());
    world.settle(&mut rollout);
    assert_eq!(world.told.len(), 1);
    let view = rollout.view(&world.devices);
    let lost = view
        .executions
        .iter()
        .find(|e| e.thing == "lamp-1")
        .unwrap();
    assert!(lost.reason.as_ref().unwrap().contains("Mars/Olympus"));
}

#[test]
fn a_wave_soaks_before_the_next() {
    let limits = Rules {
        soak_seconds: 600,
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["50%", "100%"], &limits);
    let mut world = World::with_old(&rollout);
    let start = world.now;
    world.finish_all(&mut rollout, |_| true);
    let when: Vec<u64> = world.told.iter().map(|(at, ..)| at - start).collect();
    assert_eq!(when, [0, 600]);
    assert_eq!(
        world.now,
        start + 600,
        "the last wave has nothing to wait for"
    );
}

#[test]
fn a_wave_has_a_time_of_its_own() {
    let mut rollout = rollout(2, &["50%", "100%"], None);
    let mut world = World::with_old(&rollout);
    let later = world.now + 5000;
    rollout.waves[1].start_at = Some(later);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(world.told[1].0, later);
}

#[test]
fn enough_successes_make_a_wave_good_and_the_rest_still_get_it() {
    let limits = Rules {
        success_percent: Some(50),
        ..Rules::default()
    };
    let mut rollout = rollout_with(4, &["50%", "100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    let (first, asleep) = (
        rollout.waves[0].things[0].clone(),
        rollout.waves[0].things[1].clone(),
    );
    world.step(&first, true);
    world.step(&first, true);
    world.settle(&mut rollout);
    assert_eq!(rollout.waves[0].state, WaveState::Done);
    assert_eq!(rollout.waves[1].state, WaveState::Running);
    for thing in rollout.waves[1].things.clone() {
        world.step(&thing, true);
        world.step(&thing, true);
    }
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    assert_eq!(
        status(&world.devices[&asleep].install),
        Some(ExecutionStatus::Queued)
    );
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(
        status(&world.devices[&asleep].install),
        Some(ExecutionStatus::Succeeded)
    );
}

#[test]
fn a_rollout_that_has_succeeded_is_paused_and_stopped_as_long_as_it_may_tell_devices() {
    let limits = Rules {
        success_percent: Some(50),
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    let (first, asleep) = (
        rollout.waves[0].things[0].clone(),
        rollout.waves[0].things[1].clone(),
    );
    world.step(&first, true);
    world.step(&first, true);
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    rollout.command(Command::Pause).unwrap();
    let actions = world.settle(&mut rollout);
    assert!(
        matches!(&actions[..], [Action::Hold { things, .. }] if *things == [asleep.clone()]),
        "{actions:?}"
    );
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let stands = |world: &World| status(&world.devices[&asleep].install);
    assert_eq!(stands(&world), Some(ExecutionStatus::Queued));
    rollout.command(Command::Abort).unwrap();
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::Aborted);
    assert_eq!(stands(&world), Some(ExecutionStatus::Canceled));
    // Without a share everybody has been waited for.
    let mut rollout = rollout_with(1, &["100%"], &Rules::default());
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    for command in [Command::Pause, Command::Abort] {
        let error = rollout.command(command).unwrap_err().to_string();
        assert!(error.contains("is succeeded and cannot be"), "{error}");
    }
}

#[test]
fn those_who_were_not_waited_for_stop_a_rollout_that_has_succeeded() {
    let by = |more: Rules| {
        let limits = Rules {
            success_percent: Some(13),
            rate_per_minute: Some(2),
            ..more
        };
        let mut rollout = rollout_with(30, &["100%"], &limits);
        let mut world = World::with_old(&rollout);
        let good: Vec<String> = rollout.waves[0].things[..5].to_vec();
        world.finish_all(&mut rollout, |thing| good.iter().any(|good| good == thing));
        (rollout, world)
    };
    let over = |rollout: &Rollout, world: &World, most: usize| {
        assert_eq!(rollout.state, RolloutState::RolledBack, "{rollout:?}");
        let installs = world
            .devices
            .values()
            .filter_map(|device| device.install.as_ref());
        let failed = installs.filter(|part| part.status == ExecutionStatus::Failed);
        assert!(failed.count() <= most, "{world:?}");
        assert!(
            world
                .devices
                .values()
                .all(|device| device.current == Some("1.0".parse().unwrap()))
        );
    };
    let (rollout, world) = by(Rules {
        abort_failed_percent: Some(20),
        ..Rules::default()
    });
    over(&rollout, &world, 3);
    assert!(
        rollout
            .reason
            .as_ref()
            .unwrap()
            .contains("20% abort the rollout")
    );
    assert!(rollout.waves[0].done_at.is_some(), "it had been good");
    let (rollout, world) = by(Rules {
        alarm_percent: Some(5),
        ..Rules::default()
    });
    over(&rollout, &world, 10);
    assert!(
        rollout
            .reason
            .as_ref()
            .unwrap()
            .contains("5% would be usual")
    );
}

#[test]
fn a_pause_takes_back_what_has_not_begun_and_resume_tells_it_again() {
    let limits = Rules {
        retries: 1,
        ..Rules::default()
    };
    let mut rollout = rollout_with(3, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    world.step("lamp-0", true);
    for _ in 0..2 {
        world.step("lamp-1", false);
    }
    // Another try of lamp-1 is queued, lamp-2 has not begun.
    world.settle(&mut rollout);
    rollout.command(Command::Pause).unwrap();
    let done = world.settle(&mut rollout);
    let Action::Hold { things, .. } = &done[0] else {
        panic!("{done:?}")
    };
    let mut held = things.clone();
    held.sort();
    assert_eq!(
        (done.len(), held),
        (1, vec!["lamp-1".to_owned(), "lamp-2".to_owned()])
    );
    let began = world.began.clone();
    for thing in ["lamp-0", "lamp-1", "lamp-2"] {
        world.step(thing, true);
    }
    assert_eq!(world.began, began, "nobody begins");
    assert_eq!(
        status(&world.devices["lamp-0"].install),
        Some(ExecutionStatus::Succeeded)
    );
    assert_eq!(world.settle(&mut rollout), []);
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    let tries =
        ["lamp-1", "lamp-2"].map(|thing| world.devices[thing].install.as_ref().unwrap().attempt);
    assert_eq!(tries, [2, 1], "the same tries as before");
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
}

#[test]
fn a_wave_that_cannot_succeed_any_more_is_stopped_at_once() {
    let limits = Rules {
        success_percent: Some(80),
        ..Rules::default()
    };
    let mut rollout = rollout_with(10, &["50%", "100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    let things = rollout.waves[0].things.clone();
    for thing in &things[..2] {
        assert_eq!(rollout.state, RolloutState::Running);
        world.step(thing, false);
        world.step(thing, false);
        world.settle(&mut rollout);
    }
    assert_eq!(
        rollout.state,
        RolloutState::RolledBack,
        "nobody had taken it"
    );
    assert!(
        rollout
            .reason
            .as_ref()
            .unwrap()
            .contains("80% cannot succeed")
    );
}

#[test]
fn more_failures_than_usual_over_all_waves_stop_the_rollout() {
    let limits = Rules {
        alarm_percent: Some(5),
        ..Rules::default()
    };
    let mut rollout = rollout_with(200, &["10%", "100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    // Two of the first twenty, then one of ten: no wave alone shows it.
    let mut finished = 0;
    for thing in rollout
        .waves
        .iter()
        .flat_map(|wave| wave.things.clone())
        .collect::<Vec<_>>()
    {
        world.step(&thing, true);
        world.step(&thing, finished % 5 != 0);
        world.settle(&mut rollout);
        finished += 1;
        if rollout.state != RolloutState::Running {
            break;
        }
    }
    assert_eq!(rollout.waves[0].state, WaveState::Done);
    assert_eq!(rollout.waves[1].state, WaveState::Aborted);
    assert!(finished < 100, "{finished}");
    assert!(
        rollout
            .reason
            .as_ref()
            .unwrap()
            .contains("5% would be usual")
    );
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::RolledBack);
}

#[test]
fn a_device_that_failed_is_tried_again_so_often_and_not_more() {
    let limits = Rules {
        retries: 2,
        abort_failed_percent: Some(1),
        ..Rules::default()
    };
    let mut rollout = rollout_with(1, &["100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    for attempt in 1..=3 {
        let part = world.devices["lamp-0"].install.clone().unwrap();
        assert_eq!(
            (part.attempt, part.status),
            (attempt, ExecutionStatus::Queued)
        );
        assert_eq!(rollout.state, RolloutState::Running);
        world.step("lamp-0", false);
        world.step("lamp-0", false);
        world.settle(&mut rollout);
    }
    assert_eq!(rollout.state, RolloutState::RolledBack);
    assert_eq!(world.told.len(), 3);
}

#[test]
fn a_first_wave_that_asks_for_people_itself_waits_for_them() {
    let mut rollout = rollout_with(2, &["50%", "100%"], &Rules::default());
    rollout.waves[0].rules.approvers = 2;
    let mut world = World::with_old(&rollout);
    let forecast = rollout.forecast(world.devices.clone(), world.now).unwrap();
    let asked: Vec<bool> = forecast
        .waves
        .iter()
        .map(|wave| wave.needs_approval)
        .collect();
    assert_eq!(asked, [true, false]);
    for by in ["ann", "bob"] {
        world.finish_all(&mut rollout, |_| true);
        assert_eq!(
            (rollout.state, &*world.told),
            (RolloutState::WaitingApproval, &[][..])
        );
        rollout.command(Command::Approve { by: by.into() }).unwrap();
    }
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
}

#[test]
fn a_wave_waits_for_as_many_people_as_it_needs() {
    let limits = Rules {
        approvers: 2,
        ..Rules::default()
    };
    let mut rollout = rollout_with(2, &["50%", "100%"], &limits);
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::WaitingApproval);
    assert_eq!(world.told.len(), 1, "the first wave needs nobody");
    let approve =
        |rollout: &mut Rollout, by: &str| rollout.command(Command::Approve { by: by.into() });
    approve(&mut rollout, "ann").unwrap();
    let error = approve(&mut rollout, "ann").unwrap_err().to_string();
    assert!(error.contains("2 different people"), "{error}");
    rollout.command(Command::Pause).unwrap();
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::WaitingApproval);
    approve(&mut rollout, "bob").unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    assert_eq!(
        rollout.view(&world.devices).waves[1].approved_by,
        ["ann", "bob"]
    );
}

#[test]
fn a_rollback_can_be_rolled_back_and_that_too() {
    let mut rollout = rollout(3, &["100%"], None);
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |_| true);
    for (turn, state, version) in [
        (1, RolloutState::RolledBack, "1.0"),
        (2, RolloutState::Succeeded, "2.0"),
        (3, RolloutState::RolledBack, "1.0"),
    ] {
        world.command(&mut rollout, Command::Rollback).unwrap();
        world.finish_all(&mut rollout, |_| true);
        assert_eq!((rollout.undone, rollout.state), (turn, state));
        let versions: Vec<&str> = world
            .devices
            .values()
            .map(|d| d.current.as_ref().unwrap().as_str())
            .collect();
        assert_eq!(versions, [version; 3]);
        let report = rollout.view(&world.devices).rollback.unwrap();
        assert_eq!((report.turn, report.total, report.succeeded), (turn, 3, 3));
    }
}

#[test]
fn a_way_back_that_the_manifests_do_not_allow_is_told_to_nobody_and_the_state_is_true() {
    let mut rollout = rollout(4, &["100%"], Some(25));
    let mut world = World::with_old(&rollout);
    let why = "the security counter of lamp 1.0 is 0, lower than the 1 of 2.0";
    rollout.barred = [("1.0".parse().unwrap(), why.to_owned())].into();
    world.settle(&mut rollout);
    for thing in ["lamp-0", "lamp-1", "lamp-2", "lamp-3"] {
        world.step(thing, true);
        world.step(thing, thing != "lamp-2");
    }
    let told = world.told.len();
    let done = world.settle(&mut rollout);
    let tells = |action: &Action| {
        matches!(
            action,
            Action::RollBack { .. } | Action::CancelQueued { .. }
        )
    };
    assert!(!done.iter().any(tells), "{done:?}");
    assert_eq!(
        (rollout.state, world.told.len()),
        (RolloutState::Aborted, told)
    );
    let reason = rollout.reason.clone().unwrap();
    assert!(
        reason.ends_with(&format!("; 3 of 3 devices did not go back ({why})")),
        "{reason}"
    );
    let view = rollout.view(&world.devices);
    let said = view
        .executions
        .iter()
        .filter_map(|e| e.rollback_reason.as_deref());
    assert_eq!(said.collect::<Vec<_>>(), [why; 3]);
    let back = view.rollback.unwrap();
    assert_eq!((back.total, back.succeeded, back.failed), (3, 0, 0));
    // Signed anew it can be tried once more.
    rollout.barred.clear();
    world.command(&mut rollout, Command::Rollback).unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(
        (rollout.state, rollout.undone),
        (RolloutState::RolledBack, 3)
    );
    assert!(
        world
            .devices
            .values()
            .all(|device| device.current == Some("1.0".parse().unwrap()))
    );
}

#[test]
fn a_way_back_that_every_device_refuses_is_no_way_back_and_one_that_some_refuse_says_so() {
    for (good, state, words) in [
        (
            0,
            RolloutState::Aborted,
            "none of the 3 devices that finished succeeded",
        ),
        (
            1,
            RolloutState::RolledBack,
            "2 of 3 devices did not go back",
        ),
        (3, RolloutState::RolledBack, "rolled back by an operator"),
    ] {
        let mut rollout = rollout(3, &["100%"], None);
        let mut world = World::with_old(&rollout);
        world.finish_all(&mut rollout, |_| true);
        world.command(&mut rollout, Command::Rollback).unwrap();
        world.finish_all(&mut rollout, |thing| thing < &*format!("lamp-{good}"));
        assert_eq!(rollout.state, state);
        let reason = rollout.reason.as_ref().unwrap();
        assert!(reason.ends_with(words), "{reason}");
        // Once more: those that are left go back too.
        if good == 0 {
            world.command(&mut rollout, Command::Rollback).unwrap();
            world.finish_all(&mut rollout, |_| true);
            assert_eq!(rollout.state, RolloutState::RolledBack);
            assert_eq!(
                rollout.reason.as_deref(),
                Some("rolled back by an operator")
            );
        }
    }
}

/// All have the new version, and are told to go back.
fn on_the_way_back(count: usize, waves: &[&str], limits: &Rules) -> (Rollout, World) {
    let mut rollout = rollout_with(count, waves, limits);
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |_| true);
    world.told.clear();
    world.command(&mut rollout, Command::Rollback).unwrap();
    world.settle(&mut rollout);
    (rollout, world)
}

#[test]
fn the_way_back_goes_wave_by_wave_and_half_of_one_lets_the_next_follow() {
    use WaveState::{Done, Running, Waiting};
    let (mut rollout, mut world) = on_the_way_back(10, &["20%", "50%", "100%"], &Rules::default());
    let things: Vec<Vec<String>> = rollout
        .waves
        .iter()
        .map(|wave| wave.things.clone())
        .collect();
    assert_eq!(world.told.len(), 2);
    let states = |rollout: &Rollout| -> Vec<WaveState> {
        rollout.waves.iter().map(|wave| wave.back.state).collect()
    };
    let view = rollout.view(&world.devices).rollback.unwrap();
    let waves: Vec<_> = view
        .waves
        .iter()
        .map(|wave| (wave.state, wave.total, wave.queued))
        .collect();
    assert_eq!(waves, [(Running, 2, 2), (Waiting, 3, 0), (Waiting, 5, 0)]);
    assert_eq!((view.total, view.waiting), (10, 8));
    for _ in 0..2 {
        world.step(&things[0][0], true);
    }
    world.settle(&mut rollout);
    assert_eq!(
        (states(&rollout), world.told.len()),
        (vec![Done, Running, Waiting], 5)
    );
    // Nobody of the second wave is there: the third does not wait for longer than a device may take.
    let start = world.now;
    assert!(world.sleep(&rollout));
    assert_eq!(world.now, start + u64::from(DEFAULT_TIMEOUT_MINUTES) * 60);
    world.settle(&mut rollout);
    assert_eq!(
        (states(&rollout), world.told.len()),
        (vec![Done, Done, Running], 10)
    );
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::RolledBack);
}

#[test]
fn a_way_back_that_fails_stops_in_its_first_wave() {
    let bad = Rules {
        abort_failed_percent: Some(30),
        abort_min: 3,
        ..Rules::default()
    };
    for (limits, words) in [
        (
            Rules::default(),
            "the way back was stopped: none of the 4 devices",
        ),
        (
            bad,
            "the way back was stopped: 3 of 3 finished devices failed",
        ),
    ] {
        let (mut rollout, mut world) = on_the_way_back(20, &["20%", "100%"], &limits);
        world.finish_all(&mut rollout, |_| false);
        assert_eq!(
            (rollout.state, world.told.len()),
            (RolloutState::Aborted, 4)
        );
        let reason = rollout.reason.as_ref().unwrap();
        assert!(
            reason.starts_with("rolled back by an operator; ") && reason.contains(words),
            "{reason}"
        );
        let open = world
            .devices
            .values()
            .flat_map(Device::parts)
            .filter(|part| !part.status.is_terminal());
        assert_eq!(open.count(), 0);
        // Mended, it goes on for all, those that failed too.
        world.command(&mut rollout, Command::Rollback).unwrap();
        world.finish_all(&mut rollout, |_| true);
        assert_eq!(rollout.state, RolloutState::RolledBack);
        assert!(
            world
                .devices
                .values()
                .all(|device| device.current == Some("1.0".parse().unwrap()))
        );
    }
}

#[test]
fn a_way_back_is_paused_resumed_and_stopped() {
    use ExecutionStatus::{Canceled, Succeeded};
    let (mut rollout, mut world) = on_the_way_back(4, &["100%"], &Rules::default());
    world.step("lamp-0", true);
    rollout.command(Command::Pause).unwrap();
    world.settle(&mut rollout);
    let began = world.began.len();
    for thing in ["lamp-0", "lamp-1", "lamp-2", "lamp-3"] {
        world.step(thing, true);
    }
    world.settle(&mut rollout);
    assert_eq!(
        (world.began.len(), rollout.state),
        (began, RolloutState::Paused)
    );
    assert_eq!(
        status(&world.devices["lamp-0"].rollback),
        Some(ExecutionStatus::Succeeded)
    );
    assert!(rollout.command(Command::Rollback).is_err());
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::RollingBack);
    world.step("lamp-1", true);
    world.command(&mut rollout, Command::Abort).unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Aborted);
    let ended = ["lamp-0", "lamp-1", "lamp-2", "lamp-3"]
        .map(|thing| status(&world.devices[thing].rollback).unwrap());
    assert_eq!(ended, [Succeeded, Succeeded, Canceled, Canceled]);
    world.command(&mut rollout, Command::Rollback).unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    assert!(
        world
            .devices
            .values()
            .all(|device| device.current == Some("1.0".parse().unwrap()))
    );
    assert!(
        world.installs.values().all(|versions| versions.len() == 2),
        "nobody twice"
    );
}

#[test]
fn a_device_that_reports_late_is_sent_back_even_when_all_was_over() {
    let mut rollout = rollout(2, &["100%"], Some(1));
    let mut world = World::with_old(&rollout);
    world.settle(&mut rollout);
    world.step("lamp-0", true);
    world.step("lamp-1", true);
    for device in world.devices.values_mut() {
        device.install.as_mut().unwrap().status = ExecutionStatus::TimedOut;
    }
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::RolledBack);
    world.devices.get_mut("lamp-1").unwrap().current = Some("2.0".parse().unwrap());
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(
        world.devices["lamp-1"].current.as_ref().unwrap().as_str(),
        "1.0"
    );
    assert_eq!(
        world.devices["lamp-0"].rollback, None,
        "it fell back by itself"
    );
}

#[test]
fn the_forecast_says_who_when_and_by_wave() {
    let limits = Rules {
        rate_per_minute: Some(2),
        soak_seconds: 600,
        window: Some("0 2 * * */1h".parse().unwrap()),
        approvers: 2,
        ..Rules::default()
    };
    let rollout = rollout_with(6, &["50%", "100%"], &limits);
    let start = seconds("2026-07-01T01:00:00Z");
    let forecast = rollout.forecast(Devices::new(), start).unwrap();
    let times = |wave: usize| -> Vec<u64> {
        let things = &forecast.waves[wave].things;
        things.iter().map(|t| t.at.unwrap() - start).collect()
    };
    assert_eq!(times(0), [3600, 3600, 3660]);
    assert_eq!(times(1), [4260, 4260, 4320]);
    assert_eq!(forecast.waves[0].first_at, Some(start + 3600));
    assert_eq!(forecast.waves[1].last_at, Some(start + 4320));
    assert!(!forecast.waves[0].needs_approval && forecast.waves[1].needs_approval);
    assert_eq!(rollout.state, RolloutState::Scheduled, "nothing happened");
}
