//! What makes a wave good, stops it, or has it wait for people.

use super::*;

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
    // Without a share everybody has been waited for, and nobody is left to tell.
    let mut rollout = rollout_with(1, &["100%"], &Rules::default());
    let mut world = World::with_old(&rollout);
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    let planner = Planner::new(rollout.clone(), world.devices.clone());
    assert!(!planner.still_tells());
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
        rollout
            .command(Command::Approve {
                by: by.into(),
                wave: None,
            })
            .unwrap();
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
    let approve = |rollout: &mut Rollout, by: &str| {
        rollout.command(Command::Approve {
            by: by.into(),
            wave: None,
        })
    };
    approve(&mut rollout, "ann").unwrap();
    let error = approve(&mut rollout, "ann").unwrap_err().to_string();
    assert!(error.contains("2 different people"), "{error}");
    rollout.command(Command::Pause).unwrap();
    rollout.command(Command::Resume).unwrap();
    world.settle(&mut rollout);
    assert_eq!(rollout.state, RolloutState::WaitingApproval);
    // A second saying of it, once that wave is done, is not taken for the next one.
    let other = Command::Approve {
        by: "bob".into(),
        wave: Some("no such".into()),
    };
    let error = rollout.command(other).unwrap_err().to_string();
    assert!(
        error.contains("`no such` is not the wave that waits"),
        "{error}"
    );
    approve(&mut rollout, "bob").unwrap();
    world.finish_all(&mut rollout, |_| true);
    assert_eq!(rollout.state, RolloutState::Succeeded);
    assert_eq!(
        rollout.view(&world.devices).waves[1].approved_by,
        ["ann", "bob"]
    );
}
