//! The way back: in waves of its own, turned round again, and where there is none.

use super::*;

#[test]
fn what_was_stopped_or_is_of_an_earlier_turn_is_withdrawn() {
    let rollout = rollout(1, &["100%"], None);
    let version = "1.0".parse().unwrap();
    let jobs: Vec<JobId> = [rollout.wave_job(0)]
        .into_iter()
        .chain((1..=12).map(|turn| rollout.back_job(turn, &version)))
        .collect::<Result<_, _>>()
        .unwrap();
    let withdrawn = |state, turn: usize, job: usize| {
        is_withdrawn(&rollout.id, state, u32::try_from(turn).unwrap(), &jobs[job])
    };
    for turn in 0..jobs.len() {
        for job in 0..jobs.len() {
            let state = match turn {
                0 => RolloutState::Running,
                _ => RolloutState::RollingBack,
            };
            if turn > 0 || job == 0 {
                assert_eq!(withdrawn(state, turn, job), turn != job, "{turn} {job}");
            }
            assert!(withdrawn(RolloutState::Aborted, turn, job));
        }
    }
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
        let forward = world
            .clone()
            .command(&mut rollout.clone(), Command::Forward);
        assert_eq!(forward.is_ok(), turn == 2, "{turn}");
        let command = if turn == 2 {
            Command::Forward
        } else {
            Command::Rollback
        };
        world.command(&mut rollout, command).unwrap();
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
fn a_rollback_that_is_said_again_moves_nobody_forward() {
    let mut rollout = rollout(3, &["100%"], Some(10));
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |thing| thing != "lamp-1");
    assert_eq!(
        (rollout.undone, rollout.state),
        (1, RolloutState::RolledBack)
    );
    let told = world.told.len();
    world.command(&mut rollout, Command::Rollback).unwrap();
    let planner = Planner::new(rollout.clone(), world.devices.clone());
    let words = planner.nobody_turns().unwrap();
    assert!(words.contains("no device runs the version"), "{words}");
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(
        (world.told.len(), rollout.state),
        (told, RolloutState::RolledBack)
    );
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
fn devices_of_which_no_earlier_version_is_known_are_left_and_the_state_says_so() {
    // Of the first version there is nothing to go back to, for all or for some.
    for (known, state, went) in [
        (0, RolloutState::Aborted, 0),
        (2, RolloutState::RolledBack, 2),
    ] {
        let mut rollout = rollout(4, &["100%"], None);
        let mut world = World::with_old(&rollout);
        for (index, device) in world.devices.values_mut().enumerate() {
            if index >= known {
                device.current = None;
            }
        }
        world.finish_all(&mut rollout, |_| true);
        assert_eq!(rollout.state, RolloutState::Succeeded);
        world.command(&mut rollout, Command::Rollback).unwrap();
        let planner = Planner::new(rollout.clone(), world.devices.clone());
        assert_eq!(planner.dead_end().is_some(), known == 0);
        world.finish_all(&mut rollout, |_| true);
        assert_eq!(rollout.state, state);
        let left = 4 - went;
        let words = format!(
            "{left} of 4 devices did not go back (no earlier version is known to go back to)"
        );
        let reason = rollout.reason.clone().unwrap();
        assert!(reason.contains(&words), "{reason}");
        let view = Planner::new(rollout.clone(), world.devices.clone()).view();
        let back = view.rollback.unwrap();
        assert_eq!((back.total, back.succeeded, back.barred), (4, went, left));
        let stuck = view.executions.iter().filter(|one| {
            one.rollback_reason.as_deref() == Some("no earlier version is known to go back to")
        });
        assert_eq!(stuck.count(), left);
    }
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
fn a_way_back_has_its_waves_though_its_window_is_shut_when_it_is_ordered() {
    let nightly = Rules {
        window: Some("0 2 * * */1h".parse().unwrap()),
        timeout_minutes: 30,
        ..Rules::default()
    };
    let mut rollout = rollout_with(9, &["3", "6", "100%"], &nightly);
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |_| true);
    // Much longer than a device may take lies between the order and the window.
    world.now += 10 * 3600;
    world.told.clear();
    world.command(&mut rollout, Command::Rollback).unwrap();
    world.settle(&mut rollout);
    let states = |rollout: &Rollout| -> Vec<WaveState> {
        rollout.waves.iter().map(|wave| wave.back.state).collect()
    };
    assert_eq!(states(&rollout), [WaveState::Waiting; 3]);
    assert!(world.sleep(&rollout));
    assert_eq!(world.now % 86_400, 2 * 3600);
    world.settle(&mut rollout);
    assert_eq!(world.told.len(), 3, "the first wave alone");
    // Nobody of it is there: the second has its turn when they had their time.
    let opened = world.now;
    assert!(world.sleep(&rollout));
    assert_eq!(world.now, opened + 30 * 60);
    world.settle(&mut rollout);
    assert_eq!(world.told.len(), 6);
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
